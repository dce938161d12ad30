"""Tokens from a real endpoint on a real socket: had, kept, renewed, refused; and never a secret shown."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import io
import socket
import ssl
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme
from aiohttp import web

from collector.coordinator.given_token import GivenToken
from collector.coordinator.token import (
    LONGEST_LIFE_S,
    MAX_ANSWER_BYTES,
    InvalidClientError,
    OAuthToken,
    TokenUntrustedError,
    token_source,
)
from collector.coordinator.token_source import TokenError, TokenNetworkError
from collector.core.reconnect_events import TokenFailed
from collector.core.remedies import TokenFailure
from collector.credentials import Credentials, Secret
from collector.errors import ExitCode, RefusedError
from collector.settings import Purpose, load_settings
from collector.telemetry import configure

CLIENT_ID = "client-canary-0001"
CLIENT_SECRET = "secret-canary-0002"


@dataclass
class Endpoint:
    """Answers with the next of ``answers`` (the last one again and again), by default a numbered token."""

    answers: list[web.Response | Callable[[], Awaitable[web.Response]]] = field(default_factory=list)
    life_s: object = 1000
    forms: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert request.content_type == "application/x-www-form-urlencoded"
        self.forms.append({name: str(value) for name, value in form.items()})
        if not self.answers:
            body = {"access_token": f"token-{len(self.forms)}", "expires_in": self.life_s}
            return web.json_response({"token_type": "bearer"} | body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        return await answer()


@asynccontextmanager
async def serving(endpoint: Endpoint, tls: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    app = web.Application()
    app.router.add_post("/ims/token/v3", endpoint.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    endpoint.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/ims/token/v3"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


class Clock:
    """CLOCK_BOOTTIME in the test's hands."""

    def __init__(self) -> None:
        self.now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


def client(url: str, clock: Clock | None = None, **more: Any) -> OAuthToken:
    options: dict[str, Any] = {"now": clock or Clock(), "random": lambda: 0.0, "ca_file": certifi.where()}
    return OAuthToken(
        url=url,
        client_id=Secret(CLIENT_ID),
        client_secret=Secret(CLIENT_SECRET),
        scope="openid,AdobeID",
        **{"wait_s": 0.1, **options, **more},
    )


def refusal(status: int, error: str, description: str = "", **headers: str) -> web.Response:
    body = {"error": error, "error_description": description}
    return web.json_response(
        body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def failure_of(endpoint: Endpoint, **more: Any) -> TokenError:
    async def ask() -> TokenError:
        async with serving(endpoint):
            with pytest.raises(TokenError) as caught:
                await client(endpoint.url, **more).get(renew=False)
            return caught.value

    return asyncio.run(ask())


# ---------------------------------------------------------------- had and kept


def test_request_is_as_documented() -> None:
    """A form with the client's id, its secret, the grant type and the scope."""

    async def ask() -> None:
        async with serving(Endpoint()) as endpoint:
            assert await client(endpoint.url).get(renew=False) == "token-1"
            assert endpoint.forms == [
                {
                    "grant_type": "client_credentials",
                    "client_id": CLIENT_ID,
                    "client_secret": CLIENT_SECRET,
                    "scope": "openid,AdobeID",
                }
            ]

    asyncio.run(ask())


def test_token_is_kept_until_it_is_due() -> None:
    """The endpoint is asked once for a life, and again from 80 % of it on."""

    async def ask() -> None:
        clock = Clock()
        async with serving(Endpoint()) as endpoint:
            tokens = client(endpoint.url, clock)
            for _ in range(3):
                assert await tokens.get(renew=False) == "token-1"
            clock.now_s += 799
            assert await tokens.get(renew=False) == "token-1"
            clock.now_s += 1
            assert await tokens.get(renew=False) == "token-2"

    asyncio.run(ask())


def test_jitter_renews_earlier_never_later() -> None:
    """Up to a tenth of the life earlier."""

    async def ask() -> None:
        clock = Clock()
        async with serving(Endpoint()) as endpoint:
            tokens = client(endpoint.url, clock, random=lambda: 0.999)
            await tokens.get(renew=False)
            clock.now_s += 699
            assert await tokens.get(renew=False) == "token-1"
            clock.now_s += 2
            assert await tokens.get(renew=False) == "token-2"

    asyncio.run(ask())


def test_refused_token_is_not_used_again() -> None:
    """After a 401 only a new one will do, even if that one cannot be had."""

    async def ask() -> None:
        async with serving(Endpoint()) as endpoint:
            tokens = client(endpoint.url)
            await tokens.get(renew=False)
            assert await tokens.get(renew=True) == "token-2"
            endpoint.answers = [web.Response(status=500)]
            for renew in (True, False):
                with pytest.raises(TokenNetworkError):
                    await tokens.get(renew=renew)

    asyncio.run(ask())


def test_token_serves_until_its_end_when_the_endpoint_fails() -> None:
    """Due for renewal but not expired: it is used; expired: the failure counts."""

    async def ask() -> None:
        clock = Clock()
        async with serving(Endpoint()) as endpoint:
            tokens = client(endpoint.url, clock)
            await tokens.get(renew=False)
            endpoint.answers = [web.Response(status=503)]
            clock.now_s += 999
            assert await tokens.get(renew=False) == "token-1"
            clock.now_s += 1
            with pytest.raises(TokenNetworkError):
                await tokens.get(renew=False)

    asyncio.run(ask())


def test_asking_at_once_asks_once() -> None:
    """Two who want a token at the same time share one exchange."""

    async def ask() -> None:
        async with serving(Endpoint()) as endpoint:
            tokens = client(endpoint.url)
            first, second = await asyncio.gather(tokens.get(renew=False), tokens.get(renew=False))
            assert first == second == "token-1"

    asyncio.run(ask())


@pytest.mark.parametrize(("life_s", "believed_s"), [(86_399_000, LONGEST_LIFE_S), ("500", 500), (None, 3600)])
def test_odd_lives(life_s: object, believed_s: float) -> None:
    """Milliseconds, digits in a string, nothing at all: a life of a day at most is believed."""

    async def ask() -> None:
        clock = Clock()
        body = {"access_token": "odd"} | ({} if life_s is None else {"expires_in": life_s})
        async with serving(Endpoint([web.json_response(body)])) as endpoint:
            tokens = client(endpoint.url, clock)
            await tokens.get(renew=False)
            clock.now_s += believed_s * 0.8 - 1
            await tokens.get(renew=False)
            assert len(endpoint.forms) == 1
            clock.now_s += 2
            await tokens.get(renew=False)
            assert len(endpoint.forms) == 2

    asyncio.run(ask())


def test_renewed_ahead_of_expiry_in_the_background() -> None:
    """``keep_fresh`` renews without being asked, rides out failures, and the next request has its token."""

    async def ask() -> None:
        renewed = asyncio.Event()

        async def second() -> web.Response:
            renewed.set()
            return web.json_response({"access_token": "second", "expires_in": 1000})

        first = web.json_response({"access_token": "first", "expires_in": 0.05})
        failed = web.Response(status=502)
        async with serving(Endpoint([first, failed, refusal(401, "invalid_client"), second])) as endpoint:
            loop = asyncio.get_running_loop()
            tokens = client(endpoint.url, now=loop.time, wait_s=0.001)
            assert await tokens.get(renew=False) == "first"
            keeper = asyncio.create_task(tokens.keep_fresh())
            async with asyncio.timeout(20):
                await renewed.wait()
                assert await tokens.get(renew=False) == "second"
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            assert len(endpoint.forms) == 4

    asyncio.run(ask())


def test_static_token_is_the_token() -> None:
    """A static token is given as it is, and shown to nobody."""
    tokens = GivenToken(Secret("static-canary-0003"))
    assert asyncio.run(tokens.get(renew=False)) == "static-canary-0003"
    assert "canary" not in repr(tokens)


def test_source_follows_the_credentials(tmp_path: Path) -> None:
    """A token given is static; a client secret given renews."""
    url = "https://livestream.adobe.net/api/1/stream/name"
    settings = load_settings(Purpose.RUN, options={"stream.url": url, "output.folder": str(tmp_path)})
    key, secret = Secret(CLIENT_ID), Secret(CLIENT_SECRET)
    ca_file = certifi.where()
    assert isinstance(token_source(settings, Credentials(key, token=secret), ca_file=ca_file), GivenToken)
    oauth = token_source(settings, Credentials(key, client_secret=secret), ca_file=ca_file)
    assert isinstance(oauth, OAuthToken)
    assert oauth.url == "https://ims-na1.adobelogin.com/ims/token/v3"


# ---------------------------------------------------------------- refused and failed


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "invalid_client", "invalid client_id parameter"),
        refusal(401, "invalid_client", "invalid client_secret parameter"),
        refusal(400, "invalid_scope"),
        refusal(403, "access_denied"),
        web.Response(status=401),
    ],
)
def test_refusal_is_permanent(answer: web.Response) -> None:
    """The endpoint knows us and says no: exit 3 with what it said."""
    error = failure_of(Endpoint([answer]))
    assert isinstance(error, InvalidClientError)
    assert isinstance(error, RefusedError)
    assert error.exit_code == ExitCode.REFUSED
    assert error.event() == TokenFailed(TokenFailure.INVALID_CLIENT, error.detail, None)
    assert f"status {answer.status}" in error.detail
    assert "LIVESTREAM_CLIENT_SECRET" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=500),
        web.Response(status=503, text="<html>busy</html>"),
        web.Response(status=404),
        web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}),
        refusal(400, "temporarily_unavailable"),
        web.Response(status=403, text="<html>a firewall</html>"),
        web.Response(status=200, text="no JSON"),
        web.json_response({"token": "x"}),
        web.json_response({"access_token": ""}),
        web.json_response({"access_token": "two\r\nX-Injected: lines"}),
        web.json_response({"access_token": 5}),
        web.Response(status=200, body=b"[" * 60_000),
        web.Response(status=200, body=b'{"access_token": "\xff\xfe"}'),
        web.Response(status=200, body=b"x" * (MAX_ANSWER_BYTES + 1)),
    ],
)
def test_no_usable_answer_is_tried_again(answer: web.Response) -> None:
    """5xx, and whatever is neither a token nor a refusal in so many words."""
    error = failure_of(Endpoint([answer]))
    assert type(error) is TokenNetworkError
    assert error.event().failure is TokenFailure.NETWORK
    assert len(error.detail) <= 300


@pytest.mark.parametrize(("value", "expected"), [("17", 17.0), ("soon", None), ("-4", 0.0), ("²", None)])
def test_retry_after_is_passed_on(value: str, expected: float | None) -> None:
    """What the endpoint asks for reaches the policy."""
    answer = web.Response(status=429, headers={"Retry-After": value})
    assert failure_of(Endpoint([answer])).event().retry_after_s == expected


def test_retry_after_may_be_a_date() -> None:
    """As from the service itself: counted from now, by the wall clock that the date is of."""
    date = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=600), usegmt=True)
    answer = web.Response(status=503, headers={"Retry-After": date})
    asked_s = failure_of(Endpoint([answer])).event().retry_after_s
    assert asked_s is not None
    assert 500 < asked_s <= 600


def test_silence_ends() -> None:
    """An endpoint that never answers is given up."""

    async def never() -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    error = failure_of(Endpoint([never]), timeout_s=0.2)
    assert type(error) is TokenNetworkError
    assert "0.2 s" in error.detail


def test_nobody_there() -> None:
    """A closed port is the network's fault."""

    async def ask() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/ims/token/v3"
            with pytest.raises(TokenNetworkError, match="cannot connect to 127"):
                await client(url).get(renew=False)

    asyncio.run(ask())


# ---------------------------------------------------------------- trust and secrets


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    return tls


def test_tls_with_the_named_authority(authority: trustme.CA, tmp_path: Path) -> None:
    """The bundle given is the one that is trusted."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))

    async def ask() -> None:
        async with serving(Endpoint(), tls_of(authority, "127.0.0.1")) as endpoint:
            assert await client(endpoint.url, ca_file=str(bundle)).get(renew=False) == "token-1"

    asyncio.run(ask())


@pytest.mark.parametrize(("trusted", "name"), [(False, "127.0.0.1"), (True, "other.example")])
def test_untrusted_certificate_gets_no_secret(
    authority: trustme.CA, tmp_path: Path, trusted: bool, name: str
) -> None:
    """Unknown authority or another host's certificate: nothing is sent, and it is told apart."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))

    async def ask() -> None:
        ca_file = str(bundle) if trusted else certifi.where()
        async with serving(Endpoint(), tls_of(authority, name)) as endpoint:
            with pytest.raises(TokenUntrustedError) as caught:
                await client(endpoint.url, ca_file=ca_file).get(renew=False)
            assert caught.value.event().failure is TokenFailure.UNTRUSTED
            assert not endpoint.forms

    asyncio.run(ask())


def test_no_secret_is_shown() -> None:
    """Not in a representation, a message, a traceback or a log line, even if the endpoint echoes it."""

    async def ask() -> str:
        shown = io.StringIO()
        configure(form="json", write=shown.write)
        echo = refusal(400, "invalid_client", f"bad\n\x1b[2J {CLIENT_ID} {CLIENT_SECRET}")
        token = web.json_response({"access_token": "token-canary-0004", "expires_in": 1000})
        broken = web.json_response({"access_token": "token-canary-0005", "expires_in": "token-canary-0006"})
        async with serving(Endpoint([token, echo, broken])) as endpoint:
            tokens = client(endpoint.url)
            await tokens.get(renew=False)
            shown.write(repr(tokens))
            for _ in range(2):
                try:
                    await tokens.get(renew=True)
                except TokenError as error:
                    shown.write("".join(traceback.format_exception(error)))
                    shown.write(repr(error.event()))
        return shown.getvalue()

    try:
        text = asyncio.run(ask())
    finally:
        configure()
    assert "invalid_client" in text
    assert "token.renewed" in text
    assert "canary" not in text
    assert "\x1b" not in text


def test_a_start_with_a_static_token_imports_no_http_client():
    """It takes 0.2 s, which only those pay who ask the token endpoint."""
    program = "import sys, collector.commands.run; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
