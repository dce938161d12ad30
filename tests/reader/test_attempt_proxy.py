"""Attempts through a real proxy: the tunnel, its refusals, and whom they are blamed on."""

from __future__ import annotations

import dataclasses
import socket
import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from attempt_rig import Result, options, order_for, run_attempt
from connect_proxy import ConnectProxy
from hostile_server import LAST_CHUNK, STREAM_HEAD, HostileServer, answering, chunked, gzipped, head, records

from collector.core.messages import Closed, Outcome
from collector.core.proxy import Proxy
from collector.core.reconnect_table import Row, row_of
from collector.reader.transport import Options

HOST = "livestream.test"
URL = f"https://{HOST}/api/1/stream/shop?maxConnections=1"
STREAM = STREAM_HEAD + chunked(gzipped(3)) + LAST_CHUNK


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path) -> Options:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return dataclasses.replace(options(), ca_file=str(tmp_path / "ca.pem"))


def tls(issuer: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*names).configure_cert(context)
    return context


def through(proxy: Proxy, with_options: Options, url: str = URL) -> Result:
    order = msgspec.structs.replace(order_for(url, allowed_hosts=("test",)), proxy=proxy)
    return run_attempt(order, with_options)


def row(result: Result) -> Row:
    verdict = result.verdict
    return row_of(Closed(1, verdict.outcome, verdict.detail, 0, verdict.status))


def test_the_stream_comes_through_the_tunnel(authority: trustme.CA, trusting: Options) -> None:
    """The proxy sees host and port, its own user and password, and nothing that is the service's."""
    with (
        HostileServer(answering(STREAM), tls=tls(authority, HOST)) as server,
        ConnectProxy({f"{HOST}:443": server.port}, wanted="me:p:ss wörd") as proxy,
    ):
        result = through(Proxy(proxy.url, "me", "p:ss wörd"), trusting)
        assert result.verdict.outcome is Outcome.ENDED
        assert result.lines() == records(3)
        assert proxy.asked == [f"{HOST}:443"]
        assert "the-token" not in proxy.heads[0]
    request = server.requests[0].decode()
    assert request.startswith("GET /api/1/stream/shop?maxConnections=1 HTTP/1.1\r\n")
    assert "proxy" not in request.lower()


def test_each_hop_finds_its_own_way(authority: trustme.CA, trusting: Options) -> None:
    """A redirect to an exempt host is followed directly, as the environment asks for."""
    to = head("302 Found", "Location: https://direct.test/s/x", "Content-Length: 0")
    with (
        HostileServer(answering(to), tls=tls(authority, HOST)) as server,
        ConnectProxy({f"{HOST}:443": server.port}) as proxy,
    ):
        result = through(Proxy(proxy.url, exempt=("direct.test",)), trusting)
        assert proxy.asked == [f"{HOST}:443"]
    assert result.verdict.outcome is Outcome.REDIRECT
    assert "resolve host: direct.test" in result.verdict.detail


@pytest.mark.parametrize(
    ("status", "said"), [(407, "LIVESTREAM_PROXY_PASSWORD"), (403, "allow the host"), (502, "proxy.url")]
)
def test_a_proxy_that_refuses(trusting: Options, status: int, said: str) -> None:
    """Nothing was reached, no status of the service came, and the words are about the proxy."""
    with ConnectProxy(status=status) as proxy:
        result = through(Proxy(proxy.url, "me", "wrong"), trusting)
        assert proxy.url in result.verdict.detail
    assert (result.verdict.outcome, result.verdict.status) == (Outcome.UNREACHED, 0)
    assert row(result) is Row.UNREACHED
    assert f"({status})" in result.verdict.detail
    assert said in result.verdict.detail


def test_a_proxy_that_is_down(trusting: Options) -> None:
    """Nothing was reached either, and whose fault it is is said."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = through(Proxy(url), trusting)
    assert result.verdict.outcome is Outcome.UNREACHED
    assert f"through the proxy {url}" in result.verdict.detail


@pytest.mark.parametrize("trusted", [True, False])
def test_a_proxy_that_opens_tls(authority: trustme.CA, trusting: Options, trusted: bool) -> None:
    """It shows a certificate of its own for the host: trusted by ``tls.ca_file`` alone."""
    issuer = authority if trusted else trustme.CA()
    with (
        HostileServer(answering(STREAM), tls=tls(issuer, HOST)) as server,
        ConnectProxy({f"{HOST}:443": server.port}) as proxy,
    ):
        result = through(Proxy(proxy.url), trusting)
    assert result.verdict.outcome is (Outcome.ENDED if trusted else Outcome.UNTRUSTED)
    assert any(server.requests) is trusted


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_up_to_the_proxy(authority: trustme.CA, trusting: Options, trusted: bool) -> None:
    """Its certificate is checked as the service's is."""
    issuer = authority if trusted else trustme.CA()
    with (
        HostileServer(answering(STREAM), tls=tls(authority, HOST)) as server,
        ConnectProxy({f"{HOST}:443": server.port}, tls=tls(issuer, "127.0.0.1")) as proxy,
    ):
        result = through(Proxy(proxy.url, "me", "pass"), trusting)
        assert len(proxy.asked) == trusted
    assert result.verdict.outcome is (Outcome.ENDED if trusted else Outcome.UNTRUSTED)


def test_this_machine_is_reached_directly(trusting: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says: curl does not look there."""
    with ConnectProxy(status=403) as proxy, HostileServer(answering(STREAM)) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        result = through(Proxy(proxy.url), trusting, server.url())
        assert not proxy.asked
    assert result.verdict.outcome is Outcome.ENDED
