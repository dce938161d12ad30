"""Servers that stop, flood or trickle at any stage of an answer: bounded, in time, with the right outcome."""

from __future__ import annotations

import datetime as dt
import email.utils
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
)
from session_rig import descriptors, sessions

from collector.core.messages import Outcome
from collector.core.reconnect_table import LONGEST_RETRY_AFTER_S, Row, wait_for
from collector.reader.attempt import Attempt

STREAM = STREAM_HEAD + chunked(gzipped(3)) + LAST_CHUNK


def repeating(begin: bytes, again: bytes) -> Callable[[Peer], None]:
    """Send one thing, then another as fast as it is taken."""

    def script(peer: Peer) -> None:
        peer.send(begin)
        while not peer.stopping.is_set():
            peer.send(again)

    return script


# ---------------------------------------------------------------- floods


@pytest.mark.parametrize(
    ("begin", "again", "outcome"),
    [
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", Outcome.NO_STATUS),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", Outcome.NO_STATUS),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536, Outcome.LOST),
        (b"HTTP/1.1 200 ", b"y" * 65536, Outcome.NO_STATUS),
        (b"HTTP/1.1 409 Conflict\r\nX: ", b"y" * 65536, Outcome.STATUS),
        (b"", b"y" * 65536, Outcome.NO_STATUS),
        (b"", b"\r\n" * 30000, Outcome.NO_STATUS),
        (STREAM_HEAD + chunked(gzipped(3)) + b"0\r\n", b"X: y\r\n" * 10000, Outcome.LOST),
        (STREAM_HEAD + chunked(gzipped(3)) + b"0\r\n", b"y" * 65536, Outcome.LOST),
        (STREAM_HEAD, b"0" * 65536, Outcome.LOST),
    ],
    ids=[
        "103s",
        "100s",
        "a header line without end",
        "a status line without end",
        "a header line of a refusal without end",
        "no line end at all",
        "empty lines",
        "trailers",
        "a trailer without end",
        "a chunk size without end",
    ],
)
def test_a_flood_instead_of_an_answer_is_bounded(begin: bytes, again: bytes, outcome: Outcome) -> None:
    """It ends by its size, long before the time for the answer is over."""
    with HostileServer(repeating(begin, again)) as server:
        result = run_attempt(order_for(server.url()), options(header_timeout_s=15.0))
    assert result.verdict.outcome is outcome, result.verdict
    assert result.elapsed_s < 10
    assert len(result.raw) <= len(gzipped(3))


def test_a_chunk_extension_without_end_is_a_stall() -> None:
    """It brings no byte of the stream, so the idle time goes on."""
    with HostileServer(repeating(STREAM_HEAD + b"5;", b"x" * 100)) as server:
        result = run_attempt(order_for(server.url(), idle_timeout_s=0.3))
    assert result.verdict.outcome is Outcome.STALLED


def test_another_protocol_is_no_answer() -> None:
    """A 101 that nobody asked for: whatever follows is not taken for a stream."""
    with HostileServer(answering(head("101 Switching Protocols", "Upgrade: x"), STREAM)) as server:
        result = run_attempt(order_for(server.url()))
    assert (result.verdict.outcome, result.raw) == (Outcome.NO_STATUS, b"")


# ---------------------------------------------------------------- silence at any stage


@contextmanager
def unread() -> Iterator[str]:
    """A port that the kernel accepts connections for, and nobody else ever does."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_reads_the_request() -> None:
    """It was sent, and no status came: a stream may be held."""
    with unread() as where:
        result = run_attempt(order_for(f"http://{where}/"), options(header_timeout_s=0.3))
    assert result.verdict.outcome is Outcome.NO_STATUS
    assert 0.3 <= result.elapsed_s < 5


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 2"])
def test_a_server_that_reads_and_never_answers(answer: bytes) -> None:
    """Interim answers and half a status line are no answer either."""

    def script(peer: Peer) -> None:
        peer.send(answer)
        peer.until_closed()

    with HostileServer(script) as server:
        result = run_attempt(order_for(server.url()), options(header_timeout_s=0.3))
        server.wait_until_idle()
    assert result.verdict.outcome is Outcome.NO_STATUS
    assert 0.3 <= result.elapsed_s < 5
    assert server.requests[0].startswith(b"GET ")


def test_half_a_tls_handshake() -> None:
    """The server's first flight stops in its middle: no request was sent, so nothing was reached."""
    server_hello = bytes.fromhex("16030300ff020000fb0303") + bytes(40)

    def script(peer: Peer) -> None:
        peer.send(server_hello)
        peer.until_closed()

    with HostileServer(script, read_request=False) as server:
        order = order_for(server.url().replace("http:", "https:"))
        result = run_attempt(order, options(connect_timeout_s=0.3))
    assert result.verdict.outcome is Outcome.UNREACHED
    assert 0.3 <= result.elapsed_s < 5


def test_a_pause_does_not_lengthen_the_time_for_an_answer() -> None:
    """Only a stream has the idle time, which may be an hour; an answer has a time of its own."""
    asked = os.eventfd(0, os.EFD_NONBLOCK)

    def script(peer: Peer) -> None:
        os.eventfd_write(asked, 1)
        peer.until_closed()

    with HostileServer(script) as server, selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ, lambda _events: os.eventfd_read(asked))
        order = order_for(server.url(), idle_timeout_s=3600)
        attempt = Attempt(order, options(header_timeout_s=1.0), selector)
        drive(attempt, selector, lambda: bool(server.requests))
        attempt.pause()
        attempt.resume()
        drive(attempt, selector, lambda: attempt.verdict is not None, guard_s=15)
    os.close(asked)
    assert attempt.verdict is not None
    assert attempt.verdict.outcome is Outcome.NO_STATUS


# ---------------------------------------------------------------- again and again


def test_200_then_close_a_thousand_times(tmp_path: Path) -> None:
    """Each is one loss of its own, and nothing piles up: no descriptor, no thread, no watched socket."""
    with HostileServer(answering(STREAM_HEAD)) as server, sessions(tmp_path) as rig:
        open_after_one = threads_after_one = 0
        for _ in range(1000):
            rig.connect(server.url())
            closed = rig.to_the_end()
            assert (closed.outcome, closed.status, closed.records) == (Outcome.LOST, 200, 0)
            open_after_one = open_after_one or descriptors()
            threads_after_one = threads_after_one or threading.active_count()
        server.wait_until_idle()
        assert descriptors() <= open_after_one
        assert threading.active_count() <= threads_after_one
        assert rig.watched() == 0


# ---------------------------------------------------------------- Retry-After


def _in(seconds: float) -> str:
    return email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", ["429 Slow", "503 Busy", "409 Conflict", "500 Broken", "401 No"])
def test_every_form_of_retry_after(status: str) -> None:
    """Seconds and dates count up to an hour; past, negative and unreadable ones leave the table's wait."""
    cases: list[tuple[str, float, float]] = [
        ("7", 7, 7),
        (_in(90), 80, 90),
        ("-5", 0, 0),
        (_in(-3600), 0, 0),
        ("9" * 400, LONGEST_RETRY_AFTER_S, 1e9),
        (_in(86400 * 365), LONGEST_RETRY_AFTER_S, 1e9),
        ("soon", 0, 0),
        ("12; DROP", 0, 0),
        ("\x1b[31m", 0, 0),
        ("", 0, 0),
    ]
    scripts = [answering(head(status, f"Retry-After: {value}", "Content-Length: 0")) for value, *_ in cases]
    with HostileServer(answering_in_turn(*scripts)) as server:
        for value, least_s, most_s in cases:
            verdict = run_attempt(order_for(server.url())).verdict
            assert verdict.outcome is Outcome.STATUS
            assert least_s <= (verdict.retry_after_s or 0) <= most_s, value
            wait_s = wait_for(Row.BUSY, 0, 60.0, 0.5, verdict.retry_after_s)
            assert 60.0 <= wait_s <= LONGEST_RETRY_AFTER_S, value
