"""How an attempt ends, for every way a server can end it."""

from __future__ import annotations

import gzip
import selectors
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attempt_rig import drive, options, order_for, run_attempt
from hostile_server import (
    LAST_CHUNK,
    STREAM_HEAD,
    HostileServer,
    Peer,
    answering,
    answering_in_turn,
    chunked,
    gzipped,
    head,
    records,
)

from collector import __version__
from collector.core.messages import Connect, Outcome
from collector.errors import ConfigurationError
from collector.reader.attempt import Attempt
from collector.reader.session import DRAINED


def test_a_stream_comes_raw_and_whole() -> None:
    """The body is what was sent, still gzip, whatever its chunks; a clean end is an end."""
    body = gzipped(100)
    with HostileServer(answering(STREAM_HEAD, chunked(body, 7), LAST_CHUNK)) as server:
        result = run_attempt(order_for(server.url()))
    assert (result.verdict.outcome, result.verdict.status) == (Outcome.ENDED, 200)
    assert result.raw == body
    assert result.attempt.bytes_received == len(body)
    assert result.attempt.stream is not None
    assert (result.attempt.stream.host, result.attempt.stream.hops) == ("127.0.0.1", 0)


def test_the_request_is_exactly_the_documented_one() -> None:
    """GET over HTTP/1.1 with the three documented headers, Host and User-Agent, and nothing else."""
    with HostileServer(answering(head("503 Busy", "Content-Length: 0"))) as server:
        run_attempt(order_for(server.url()))
    line, *headers = server.requests[0].decode().rstrip("\r\n").split("\r\n")
    assert line == "GET /api/1/stream/shop?maxConnections=1 HTTP/1.1"
    assert sorted(headers) == sorted(
        [
            f"Host: 127.0.0.1:{server.port}",
            "x-api-key: the-key",
            "Authorization: Bearer the-token",
            "Accept-Encoding: gzip",
            f"User-Agent: livestream-collector/{__version__}",
        ]
    )


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "tökèn", "a\0"])
def test_credentials_that_no_header_can_carry(token: str) -> None:
    """Nothing is sent with a token that would break out of its header; the error does not show it."""
    with selectors.DefaultSelector() as selector, pytest.raises(ConfigurationError) as raised:
        Attempt(Connect(1, "http://127.0.0.1:9/", token, "key", (), 1.0, 0), options(), selector)
    assert not token or token not in str(raised.value)


STREAM = STREAM_HEAD + chunked(gzipped(3), 40) + LAST_CHUNK


STATUSES = (201, 204, 304, 400, 401, 403, 404, 405, 406, 409, 418, 424, 429, 500, 502, 503, 505, 599)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_with_and_without_a_body(status: int) -> None:
    """Every status is reported with the words of its JSON body, where there are some."""
    body = b'{"error_description":"because \xc3\xa9"}'
    scripts = [
        answering(head(f"{status} Text", f"Content-Length: {len(body)}"), body),
        answering(head(f"{status} Text", "Transfer-Encoding: chunked"), chunked(body, 5), LAST_CHUNK),
        answering(head(f"{status} Text", "Connection: close"), body),
        answering(head(f"{status} Text", f"Content-Length: {len(body) + 9}"), body),
        answering(head(f"{status} Text", "Connection: close"), b"<html>no</html>"),
        answering(head(f"{status} Text", "Content-Length: 0")),
    ]
    has_body = status not in {204, 304}
    with HostileServer(answering_in_turn(*scripts)) as server:
        verdicts = [run_attempt(order_for(server.url())).verdict for _ in scripts]
    assert {(v.outcome, v.status, v.retry_after_s) for v in verdicts} == {(Outcome.STATUS, status, None)}
    words = ["because é" if has_body else ""] * 4 + ["", ""]
    assert [v.error_description for v in verdicts] == words


def test_retry_after_is_read() -> None:
    """The header comes through; its forms are tested where it is parsed."""
    with HostileServer(answering(head("429 Slow", "Retry-After: 17", "Content-Length: 0"))) as server:
        assert run_attempt(order_for(server.url())).verdict.retry_after_s == 17


def test_an_endless_error_body_is_bounded() -> None:
    """No more than the limit of a body that is no stream is read."""

    def script(peer: Peer) -> None:
        peer.send(head("500 Error", "Connection: close"))
        while not peer.stopping.is_set():
            peer.send(b" " * 65536)

    with HostileServer(script) as server:
        verdict = run_attempt(order_for(server.url())).verdict
    assert (verdict.outcome, verdict.status) == (Outcome.STATUS, 500)


def test_a_slow_error_body_is_not_waited_for() -> None:
    """The status counts once the time for the answer is over, though its body never ends."""

    def script(peer: Peer) -> None:
        peer.send(head("409 Conflict", "Content-Length: 100") + b'{"message"')
        peer.until_closed()

    with HostileServer(script) as server:
        verdict = run_attempt(order_for(server.url()), options(header_timeout_s=0.2)).verdict
    assert (verdict.outcome, verdict.status) == (Outcome.STATUS, 409)


def test_an_interim_response_is_no_answer() -> None:
    """A 103 before the 200 changes nothing."""
    early = head("103 Early Hints", "Location: http://elsewhere/")
    with HostileServer(answering(early, STREAM)) as server:
        result = run_attempt(order_for(server.url()))
    assert (result.verdict.outcome, result.lines()) == (Outcome.ENDED, records(3))


# ---------------------------------------------------------------- nothing, slow, endless


def test_nothing_listens() -> None:
    """Refused: nothing was reached."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    verdict = run_attempt(order_for(f"http://127.0.0.1:{port}/")).verdict
    assert (verdict.outcome, verdict.status) == (Outcome.UNREACHED, 0)
    assert "127.0.0.1" in verdict.detail


def test_no_such_host() -> None:
    """A name that does not resolve: nothing was reached."""
    assert run_attempt(order_for("https://stream.invalid/")).verdict.outcome is Outcome.UNREACHED


def test_a_connection_that_is_never_accepted() -> None:
    """The connect timeout covers the TLS handshake: nothing was reached."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        order = order_for(f"https://127.0.0.1:{silent.getsockname()[1]}/")
        result = run_attempt(order, options(connect_timeout_s=0.2))
    assert result.verdict.outcome is Outcome.UNREACHED
    assert result.elapsed_s < 2


@pytest.mark.parametrize("rst", [False, True], ids=["FIN", "RST"])
def test_a_tls_handshake_cut_short(rst: bool) -> None:
    """No byte of the request was sent: nothing was reached."""
    with HostileServer(answering(rst=rst), read_request=False) as server:
        assert (
            run_attempt(order_for(server.url().replace("http:", "https:"))).verdict.outcome
            is Outcome.UNREACHED
        )


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.", b"SSH-2.0-OpenSSH\r\n", b"HTTP/0.9 x\r\n\r\n", b"\0" * 50]
)
def test_no_status_line(answer: bytes) -> None:
    """The request was sent and what came back is no status: a stream may be held."""
    with HostileServer(answering(answer)) as server:
        assert run_attempt(order_for(server.url())).verdict.outcome is Outcome.NO_STATUS


@pytest.mark.parametrize(
    ("begin", "outcome"), [(b"HTTP/1.1 200 ", Outcome.NO_STATUS), (b"HTTP/1.1 200 OK\r\nX: ", Outcome.LOST)]
)
def test_slow_headers(begin: bytes, outcome: Outcome) -> None:
    """Bytes that trickle in do not extend the time for the answer."""

    def script(peer: Peer) -> None:
        peer.send(begin)
        while not peer.stopping.wait(0.02):
            peer.send(b"x")

    with HostileServer(script) as server:
        result = run_attempt(order_for(server.url()), options(header_timeout_s=0.3))
    assert result.verdict.outcome is outcome
    assert "0.3 s" in result.verdict.detail
    assert 0.3 <= result.elapsed_s < 2


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("200 OK", Outcome.LOST), ("409 Conflict", Outcome.STATUS), ("302 Found", Outcome.REDIRECT)],
)
def test_endless_headers(status: str, outcome: Outcome) -> None:
    """Headers are taken to their limit, no further."""

    def script(peer: Peer) -> None:
        peer.send(f"HTTP/1.1 {status}\r\n".encode())
        while not peer.stopping.is_set():
            peer.send(b"X-Filler: " + b"y" * 1000 + b"\r\n")

    with HostileServer(script) as server:
        verdict = run_attempt(order_for(server.url())).verdict
    assert verdict.outcome is outcome
    assert outcome is Outcome.STATUS or "65536 bytes of headers" in verdict.detail


def test_silence_is_a_stall_after_the_idle_time() -> None:
    """Counted from the last byte; before the 200 it is not the idle time that counts."""

    def script(peer: Peer) -> None:
        peer.send(STREAM_HEAD)
        for _ in range(5):
            peer.stopping.wait(0.1)
            peer.send(chunked(b"\n"))
        peer.until_closed()

    with HostileServer(script) as server:
        result = run_attempt(order_for(server.url(), idle_timeout_s=0.3))
    assert (result.verdict.outcome, result.verdict.status) == (Outcome.STALLED, 200)
    assert result.raw == b"\n" * 5
    assert result.elapsed_s >= 0.8


SILENT_NAME_SERVER = """
import fcntl, selectors, socket, struct, sys, time
sys.path[:0] = sys.argv[1:]
from attempt_rig import drive, options, order_for
from collector.reader.attempt import Attempt
from collector.reader.session import DRAINED

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(server, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
server.bind(("127.0.0.53", 53))
order, began = order_for("https://stream.example/"), time.monotonic()
with selectors.DefaultSelector() as selector:
    first = Attempt(order, options(connect_timeout_s=0.3), selector)
    drive(first, selector, lambda: first.verdict is not None)
    second = Attempt(order, options(), selector)
    drive(second, selector, lambda: bool(server.recv(512)))
    second.close(DRAINED)
print(first.verdict.outcome, second.verdict.outcome, time.monotonic() - began < 3)
"""


def test_a_name_server_that_does_not_answer_holds_nothing_up(tmp_path: Path) -> None:
    """Neither the timeout nor a close waits for the resolver, nor does the end of the process."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    bind = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf"
    isolated = ["unshare", "-rmn", "sh", "-c"]
    can = shutil.which("unshare") and subprocess.run([*isolated, bind], check=False, capture_output=True)
    if not can or can.returncode:
        pytest.skip("needs a network and mount namespace of its own")
    tests = Path(__file__).parent
    script = [sys.executable, "-c", SILENT_NAME_SERVER, str(tests), str(tests.parents[1])]
    began = time.monotonic()
    command = [*isolated, f'{bind} && exec "$@"', "sh", *script]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.stdout.split() == ["unreached", "drained", "True"], ran.stderr
    assert time.monotonic() - began < 6


# ---------------------------------------------------------------- pause, close


def test_a_paused_stream_is_not_read_and_not_stalled() -> None:
    """While paused nothing is taken and no idle time runs; afterwards everything comes."""
    body = gzip.compress(bytes(range(256)) * 40_000, 0)
    with (
        HostileServer(answering(STREAM_HEAD, chunked(body, 65536), LAST_CHUNK)) as server,
        selectors.DefaultSelector() as selector,
    ):
        attempt = Attempt(order_for(server.url(), idle_timeout_s=0.2), options(), selector)
        raw = drive(attempt, selector, lambda: attempt.bytes_received > 0)
        attempt.pause()
        attempt.pause()
        taken = attempt.bytes_received
        assert attempt.deadline is None
        until = time.monotonic() + 0.4
        while (left := until - time.monotonic()) > 0:
            assert selector.select(left) == []
            attempt.tick(time.monotonic())
        assert (attempt.verdict, attempt.bytes_received) == (None, taken)
        attempt.resume()
        raw += drive(attempt, selector, lambda: attempt.verdict is not None)
    assert attempt.verdict is not None
    assert attempt.verdict.outcome is Outcome.ENDED
    assert raw == body
    assert taken < len(body)


@pytest.mark.parametrize("paused", [False, True])
def test_closing_closes_the_socket_at_once(paused: bool) -> None:
    """The service sees the end of the connection, and the verdict is the one given."""
    seen: list[float] = []

    def script(peer: Peer) -> None:
        peer.send(STREAM_HEAD)
        peer.until_closed()
        seen.append(time.monotonic())

    with HostileServer(script) as server, selectors.DefaultSelector() as selector:
        attempt = Attempt(order_for(server.url()), options(), selector)
        drive(attempt, selector, lambda: attempt.stream is not None)
        if paused:
            attempt.pause()
        attempt.close(DRAINED)
        closed = time.monotonic()
        attempt.close(DRAINED)
        attempt.resume()
        while not seen:
            assert time.monotonic() < closed + 5
            time.sleep(0.005)
    assert attempt.verdict is DRAINED
    assert seen[0] - closed < 1


def test_a_silent_stream_costs_nothing() -> None:
    """An open, silent connection wakes the loop for its own deadline only, also by host name."""

    def script(peer: Peer) -> None:
        peer.send(STREAM_HEAD)
        peer.until_closed()

    with HostileServer(script) as server, selectors.DefaultSelector() as selector:
        url = server.url().replace("127.0.0.1", "localhost")
        attempt = Attempt(order_for(url, idle_timeout_s=60), options(), selector)
        drive(attempt, selector, lambda: attempt.stream is not None)
        until, wakes = time.monotonic() + 0.5, 0
        while (now := time.monotonic()) < until:
            deadline = until if attempt.deadline is None else min(until, attempt.deadline)
            for key, events in selector.select(max(0.0, deadline - now)):
                key.data(events)
            attempt.tick(time.monotonic())
            wakes += 1
        attempt.close(DRAINED)
    assert wakes < 20
