"""Redirects and certificates, over real sockets."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from attempt_rig import options, order_for, run_attempt
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

from collector.core.messages import Outcome
from collector.reader.redirect import MAX_HOPS
from collector.reader.transport import Options

STREAM = STREAM_HEAD + chunked(gzipped(3)) + LAST_CHUNK


def redirecting(location: str, status: int = 302) -> Callable[[Peer], None]:
    headers = [f"Location: {location}"] if location else []
    return answering(head(f"{status} Moved", *headers, "Content-Length: 5"), b"moved")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_with_all_headers(status: int) -> None:
    """The next endpoint gets the credentials again, within the same attempt."""
    with (
        HostileServer(answering(STREAM)) as second,
        HostileServer(redirecting(second.url(), status)) as first,
    ):
        result = run_attempt(order_for(first.url()))
    assert (result.verdict.outcome, result.lines()) == (Outcome.ENDED, records(3))
    assert result.attempt.stream is not None
    assert result.attempt.stream.hops == 1
    for header in (b"x-api-key: the-key", b"Authorization: Bearer the-token", b"Accept-Encoding: gzip"):
        assert header in first.requests[0]
        assert header in second.requests[0]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "without Location"),
        ("http://evil.example/", "lesser scheme"),
        ("https://evil.example/", "not allowed"),
        ("file:///etc/passwd", "scheme file"),
        ("https://u:p@127.0.0.1/", "user information"),
        ("?maxConnections=1", "loops"),
    ],
)
def test_a_forbidden_redirect_is_not_followed(location: str, words: str) -> None:
    """It ends the attempt, with the reason and the status."""
    with HostileServer(redirecting(location)) as server:
        verdict = run_attempt(order_for(server.url())).verdict
    assert (verdict.outcome, verdict.status) == (Outcome.REDIRECT, 302)
    assert words in verdict.detail
    assert len(server.requests) == 1


def test_a_chain_of_redirects_ends() -> None:
    """Five hops and no more, however far the chain goes."""

    def script(peer: Peer) -> None:
        redirecting(f"/hop{len(server.requests)}")(peer)

    with HostileServer(script) as server:
        verdict = run_attempt(order_for(server.url())).verdict
    assert verdict.outcome is Outcome.REDIRECT
    assert len(server.requests) == MAX_HOPS + 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", head("302 Found", "Location: /x")[:-3]])
def test_a_hop_that_fails_is_the_redirects_fault(answer: bytes) -> None:
    """No status at a later hop, or a redirect that is cut, is not a failure of the original URL."""
    with HostileServer(answering_in_turn(redirecting("/second"), answering(answer))) as server:
        verdict = run_attempt(order_for(server.url())).verdict
    assert verdict.outcome is Outcome.REDIRECT
    assert "after a redirect" in verdict.detail


def test_a_hop_that_is_not_reached() -> None:
    """Nothing listens at the redirect's target."""
    with HostileServer(answering()) as gone:
        url = gone.url()
    with HostileServer(redirecting(url)) as server:
        assert run_attempt(order_for(server.url())).verdict.outcome is Outcome.REDIRECT


def test_a_hop_that_refuses_is_a_status() -> None:
    """The service has answered, whichever endpoint it was."""
    refusal = answering(head("409 Conflict", "Content-Length: 15"), b'{"message":"x"}')
    with HostileServer(answering_in_turn(redirecting("/second"), refusal)) as server:
        verdict = run_attempt(order_for(server.url())).verdict
    assert (verdict.outcome, verdict.status, verdict.error_description) == (Outcome.STATUS, 409, "x")


def test_a_redirect_with_an_endless_body_is_followed_at_its_head() -> None:
    """Nothing of a redirect's body is waited for."""

    def script(peer: Peer) -> None:
        peer.send(head("302 Found", "Location: /second", "Connection: close"))

    with HostileServer(answering_in_turn(script, answering(STREAM))) as server:
        assert run_attempt(order_for(server.url())).lines() == records(3)


# ---------------------------------------------------------------- certificates


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path) -> Options:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    return options(ca_file=str(bundle))


def tls(issuer: trustme.CA, host: str = "127.0.0.1", not_after: dt.datetime | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    not_before = not_after - dt.timedelta(days=2) if not_after else None
    issuer.issue_cert(host, not_after=not_after, not_before=not_before).configure_cert(context)
    return context


def test_a_trusted_certificate(authority: trustme.CA, trusting: Options) -> None:
    """The stream comes over TLS."""
    with HostileServer(answering(STREAM), tls=tls(authority)) as server:
        assert run_attempt(order_for(server.url()), trusting).lines() == records(3)


@pytest.mark.parametrize("case", ["wrong host", "unknown authority", "expired", "empty bundle"])
def test_a_certificate_that_is_not_trusted(
    authority: trustme.CA, trusting: Options, tmp_path: Path, case: str
) -> None:
    """It is never got around, and no byte of the request is sent."""
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    contexts = {
        "wrong host": tls(authority, "other.example"),
        "unknown authority": tls(trustme.CA()),
        "expired": tls(authority, not_after=yesterday),
        "empty bundle": tls(authority),
    }
    with_options = trusting
    if case == "empty bundle":
        (tmp_path / "empty.pem").write_text("")
        with_options = options(ca_file=str(tmp_path / "empty.pem"))
    with HostileServer(answering(STREAM), tls=contexts[case]) as server:
        verdict = run_attempt(order_for(server.url()), with_options).verdict
    assert verdict.outcome is Outcome.UNTRUSTED
    assert b"".join(server.requests) == b""


def test_an_untrusted_hop(authority: trustme.CA, trusting: Options) -> None:
    """A certificate that is not trusted is said as such wherever it turns up."""
    with (
        HostileServer(answering(STREAM), tls=tls(trustme.CA())) as second,
        HostileServer(redirecting(second.url()), tls=tls(authority)) as first,
    ):
        verdict = run_attempt(order_for(first.url()), trusting).verdict
    assert verdict.outcome is Outcome.UNTRUSTED
    assert str(second.port) in verdict.detail


@pytest.mark.parametrize("cut", [0, 40, -20])
def test_a_cut_over_tls_is_a_loss(authority: trustme.CA, trusting: Options, cut: int) -> None:
    """An end without the last chunk is a loss over TLS as well."""
    answer = STREAM[: len(STREAM_HEAD) + cut] if cut >= 0 else STREAM[:cut]
    with HostileServer(answering(answer), tls=tls(authority)) as server:
        assert run_attempt(order_for(server.url()), trusting).verdict.outcome is Outcome.LOST
