"""Tokens of OAuth Server-to-Server, got from the token endpoint.

Runs in the coordinator, beside everything else on its loop. The invariants: a token is renewed ahead of
its expiry for the *next* request and never touches the connection that is open; no secret is in any
message, log line or representation.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from collector.coordinator.clock import boottime_s, now_us
from collector.coordinator.given_token import GivenToken
from collector.coordinator.token_source import LOOK_S, TokenError, TokenNetworkError, TokenSource
from collector.core.proxy import Proxy
from collector.core.reconnect_table import Row, wait_for
from collector.core.remedies import TokenFailure, for_proxy
from collector.core.retry_after import retry_after_s
from collector.credentials import Credentials, Secret
from collector.errors import RefusedError
from collector.late import import_late
from collector.proxy import proxy_for, proxy_headers
from collector.settings import Settings
from collector.telemetry import log

TIMEOUT_S: Final = 30.0
"""For a whole exchange with the token endpoint."""

MAX_ANSWER_BYTES: Final = 64 * 1024
"""A token is 1 to 2 KB; whatever is longer is no answer."""

RENEW_AT: Final = 0.8
"""The part of its life after which a token is renewed."""

RENEW_JITTER: Final = 0.1
"""At most this part of its life earlier, so that many collectors do not renew together."""

LONGEST_LIFE_S: Final = 86_400.0
"""Longer lives are not believed: Adobe says about 24 h, and some answers count milliseconds."""

_REFUSALS: Final = frozenset({400, 401, 403})
_PASSING: Final = frozenset({"server_error", "temporarily_unavailable", "slow_down"})
"""OAuth error codes that a later try may cure."""


class TokenUntrustedError(TokenError):
    """Raised when the token endpoint's certificate is not trusted."""

    failure = TokenFailure.UNTRUSTED


class InvalidClientError(TokenError, RefusedError):
    """Raised when the token endpoint knows us and says no."""

    failure = TokenFailure.INVALID_CLIENT


@dataclass(frozen=True, slots=True)
class _Lease:
    token: Secret
    renew_s: float
    expires_s: float
    expires_us: int


class _Answer(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0


class _Refusal(msgspec.Struct):
    error: str
    error_description: str = ""


@dataclass(slots=True)
class OAuthToken:
    """Tokens from the endpoint, by client id and client secret (grant type ``client_credentials``).

    *Source*: developer.adobe.com, guides/authentication/ServerToServerAuthentication.
    """

    url: str
    client_id: Secret
    client_secret: Secret
    scope: str
    ca_file: str
    wait_s: float
    """``reconnect.wait_s``, of which the waits of ``keep_fresh`` are multiples."""
    proxy: Proxy | None = field(default=None, repr=False)
    now: Callable[[], float] = boottime_s
    random: Callable[[], float] = random.random
    timeout_s: float = TIMEOUT_S
    _lease: _Lease | None = field(default=None, init=False, repr=False)
    _tls: ssl.SSLContext | None = field(default=None, init=False, repr=False)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    @property
    def expires_us(self) -> int | None:
        """When the token in hand ends, by the wall clock; it is renewed long before."""
        return None if self._lease is None else self._lease.expires_us

    @property
    def kind(self) -> Literal["oauth"]:
        return "oauth"

    @property
    def renews(self) -> bool:
        return True

    async def get(self, *, renew: bool) -> str:
        """A token for the next request. ``renew``: the last one was refused, so only a new one will do.

        *Blocks* for at most ``timeout_s`` when one must be had from the endpoint.
        *Raises* ``TokenError``.
        """
        async with self._one_at_a_time:
            if renew:
                self._lease = None
            lease = self._lease
            if lease is not None and self.now() < lease.renew_s:
                return lease.token.reveal()
            try:
                return (await self._renewed()).token.reveal()
            except TokenError:
                if lease is None or self.now() >= lease.expires_s:
                    raise
                return lease.token.reveal()

    def take(self, credentials: Credentials) -> None:
        """The token in hand stays: the next one is asked for with these."""
        if credentials.client_secret is not None:
            self.client_secret = credentials.client_secret

    async def keep_fresh(self) -> None:
        """Renew each token when it is due, until cancelled, so that no reconnect waits for it.

        A failure is logged and tried again after the waits of the reconnect table; it ends nothing, as the
        connection that is open does not need the token any more.
        """
        failures = 0
        while True:
            lease = self._lease
            if lease is None or self.now() < lease.renew_s:
                await asyncio.sleep(LOOK_S if lease is None else min(lease.renew_s - self.now(), LOOK_S))
                continue
            try:
                async with self._one_at_a_time:
                    if self._lease is lease:
                        await self._renewed()
                failures = 0
            except TokenError as error:
                wait_s = self._wait_s(error, failures)
                failures += 1
                log("token.failed", reason=str(error), status=error.status, retry_s=wait_s)
                await asyncio.sleep(wait_s)

    def _wait_s(self, error: TokenError, failures: int) -> float:
        row = Row.TOKEN_UNREACHED if error.failure is TokenFailure.NETWORK else Row.UNTRUSTED
        return wait_for(row, failures, self.wait_s, self.random(), error.retry_after_s)

    async def _renewed(self) -> _Lease:
        answer = await self._ask()
        life_s = min(max(answer.expires_in, 0.0), LONGEST_LIFE_S)
        now = self.now()
        renew_s = now + life_s * (RENEW_AT - RENEW_JITTER * self.random())
        ends_us = now_us() + round(life_s * 1e6)
        self._lease = _Lease(Secret(answer.access_token, passing=True), renew_s, now + life_s, ends_us)
        log("token.renewed", expires_in_s=answer.expires_in)
        return self._lease

    async def _ask(self) -> _Answer:
        await asyncio.to_thread(import_late, "aiohttp")  # 0.2 s: a start with a static token shall not pay it
        import aiohttp  # noqa: PLC0415 - as above

        try:
            status, retry_after, body = await self._exchange()
        except aiohttp.ClientConnectorCertificateError as error:
            raise TokenUntrustedError(str(error)) from error
        except TimeoutError as error:
            raise TokenNetworkError(f"no answer within {self.timeout_s:g} s") from error
        except aiohttp.ClientHttpProxyError as error:
            remedy = for_proxy(error.status)
            raise TokenNetworkError(f"{remedy.means}. {remedy.do}", status=error.status) from error
        except aiohttp.ClientConnectorError as error:
            whom = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
            reached = f"cannot connect to {whom}{error.host}:{error.port}"
            raise TokenNetworkError(f"{reached}: {error.os_error.strerror or error.os_error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TokenNetworkError(str(error) or type(error).__name__) from error
        if status != 200:
            raise _failure(status, retry_after, body)
        return _token_in(body)

    async def _exchange(self) -> tuple[int, str, bytes]:
        """Status, ``Retry-After`` and body. Redirects are not followed: the form holds the secret."""
        import aiohttp  # noqa: PLC0415 - as above

        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self.ca_file)
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id.reveal(),
            "client_secret": self.client_secret.reveal(),
            "scope": self.scope,
        }
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        proxy = proxy_for(self.url, self.proxy)
        through: dict[str, Any] = {}
        if proxy is not None:
            through = {"proxy": proxy.url, "proxy_headers": proxy_headers(proxy)}
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(self.url, data=form, ssl=self._tls, allow_redirects=False, **through) as response,
        ):
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise TokenNetworkError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            return response.status, response.headers.get("Retry-After", ""), body


def token_source(
    settings: Settings, credentials: Credentials, *, ca_file: str, proxy: Proxy | None = None
) -> TokenSource:
    """What the credentials allow: a static token, or tokens that are renewed."""
    if credentials.token is not None:
        return GivenToken(credentials.token, file=credentials.token_file)
    assert credentials.client_secret is not None  # noqa: S101 - credentials have the one or the other
    return OAuthToken(
        url=settings.auth.token_url,
        client_id=credentials.api_key,
        client_secret=credentials.client_secret,
        scope=settings.auth.scope,
        ca_file=ca_file,
        wait_s=settings.reconnect.wait_s,
        proxy=proxy,
    )


def _token_in(body: bytes) -> _Answer:
    try:
        answer = msgspec.json.decode(body, type=_Answer, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Not "from" it: what the error quotes may be a part of a token.
        raise TokenNetworkError(f"the answer is no token ({type(error).__name__})") from None
    if not answer.access_token or not all("!" <= char <= "~" for char in answer.access_token):
        raise TokenNetworkError("the answer's access_token is empty or holds characters no token has")
    return answer


def _failure(status: int, retry_after: str, body: bytes) -> TokenError:
    """An answer other than 200. Only an OAuth refusal in so many words counts as one."""
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        refusal = _Refusal("")
    said = ": ".join(filter(None, (f"status {status}", refusal.error, refusal.error_description)))
    refused = status == 401 or (status in _REFUSALS and refusal.error and refusal.error not in _PASSING)
    kind = InvalidClientError if refused else TokenNetworkError
    asked_s = retry_after_s(retry_after, dt.datetime.now(dt.UTC))
    return kind(said, status=status, retry_after_s=asked_s)
