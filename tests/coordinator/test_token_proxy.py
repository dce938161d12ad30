"""Tokens through a real proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from connect_proxy import ConnectProxy

from collector.coordinator.token import OAuthToken, TokenUntrustedError
from collector.coordinator.token_source import TokenError, TokenNetworkError
from collector.core.proxy import Proxy
from collector.core.remedies import TokenFailure
from collector.credentials import Secret

HOST = "ims.test"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def client(proxy: Proxy, ca_file: str) -> OAuthToken:
    return OAuthToken(
        url=f"https://{HOST}/ims/token/v3",
        client_id=Secret("canary-id"),
        client_secret=Secret("canary-secret"),
        scope="openid",
        ca_file=ca_file,
        wait_s=60.0,
        proxy=proxy,
        timeout_s=20.0,
    )


async def asked(issuer: trustme.CA, ca_file: str, *, password: str) -> tuple[str, ConnectProxy, int]:
    """The token, the proxy, and how many requests reached the endpoint."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(HOST).configure_cert(tls)
    requests = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        return web.json_response({"access_token": "canary-token", "expires_in": 1000})

    app = web.Application()
    app.router.add_post("/ims/token/v3", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        with ConnectProxy({f"{HOST}:443": runner.addresses[0][1]}, wanted="me:right") as proxy:
            token = await client(Proxy(proxy.url, "me", password), ca_file).get(renew=False)
            return token, proxy, len(requests)
    finally:
        await runner.cleanup()


def test_a_token_comes_through_the_tunnel(authority: trustme.CA, bundle: str) -> None:
    """The form is the endpoint's alone; the proxy is shown user and password."""
    token, proxy, requests = asyncio.run(asked(authority, bundle, password="right"))
    assert (token, proxy.asked, requests) == ("canary-token", [f"{HOST}:443"], 1)
    assert "canary" not in proxy.heads[0]


def test_a_proxy_that_opens_tls_is_not_trusted(bundle: str) -> None:
    """Unless ``tls.ca_file`` says so: no secret is sent."""
    with pytest.raises(TokenUntrustedError):
        asyncio.run(asked(trustme.CA(), bundle, password="right"))


def failure(proxy: Proxy, ca_file: str) -> TokenError:
    with pytest.raises(TokenNetworkError) as caught:
        asyncio.run(client(proxy, ca_file).get(renew=False))
    assert caught.value.event().failure is TokenFailure.NETWORK
    return caught.value


@pytest.mark.parametrize(("status", "said"), [(407, "LIVESTREAM_PROXY_PASSWORD"), (403, "allow the host")])
def test_a_proxy_that_refuses(bundle: str, status: int, said: str) -> None:
    """The words are about the proxy, not about the endpoint; it is tried again."""
    with ConnectProxy(status=status) as proxy:
        error = failure(Proxy(proxy.url, "me", "canary-wrong"), bundle)
    assert said in str(error)
    assert "canary" not in str(error)


def test_a_proxy_that_is_down(bundle: str) -> None:
    """As an endpoint that is not reached."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert f"the proxy 127.0.0.1:{port}" in str(failure(Proxy(f"http://127.0.0.1:{port}"), bundle))
