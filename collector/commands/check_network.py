"""What ``check`` tries of the network: names, the way, certificates, the token.

The invariant: nothing is sent to the stream's host but a TLS handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from collector.commands.checklist import Found, Step, cross, crossed, note, ok
from collector.commands.checkup import Checkup
from collector.core.messages import Outcome
from collector.core.proxy import Proxy
from collector.core.remedies import OUTCOMES, TOKENS, TokenFailure, for_proxy
from collector.core.token_life import DAY_US, expires_us
from collector.errors import ExitCode
from collector.proxy import proxy_for, proxy_headers
from collector.settings_values import is_address
from collector.telemetry import configure

TIMEOUT_S: Final = 15.0
_LEAST_DAYS: Final = 14

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Refused(Exception):  # noqa: N818 - an answer
    """The proxy said no with this status."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(str(status))


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _way(checkup: Checkup) -> Proxy | None:
    return proxy_for(checkup.settings.stream.url, checkup.proxy)


async def _dns(checkup: Checkup) -> Found:
    """Of the stream's host, or of the proxy, which looks up the rest itself."""
    proxy = _way(checkup)
    host, port = _place(checkup.settings.stream.url if proxy is None else proxy.url)
    if is_address(host):
        return ok(f"{host} needs no look-up")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        said = getattr(error, "strerror", None) or f"no answer within {TIMEOUT_S:g} s"
        return crossed(OUTCOMES[Outcome.UNREACHED], f"{host}: {said}")
    addresses = sorted({str(address[4][0]) for address in found})
    return ok(f"{host} is {', '.join(addresses[:4])}" + (", ..." if len(addresses) > 4 else ""))


async def _tcp(checkup: Checkup) -> Found:
    host, port = _place(checkup.settings.stream.url)
    proxy = _way(checkup)
    by = "" if proxy is None else f" through {proxy.url}"
    began_s = time.monotonic()
    try:
        async with _connected(checkup):
            return ok(f"{host}:{port}{by} in {(time.monotonic() - began_s) * 1000:.0f} ms")
    except _Refused as refusal:
        return crossed(for_proxy(refusal.status), by.strip())
    except ssl.SSLCertVerificationError as error:
        return crossed(OUTCOMES[Outcome.UNTRUSTED], f"the proxy's: {error.verify_message}")
    except (OSError, EOFError, TimeoutError) as error:
        return crossed(OUTCOMES[Outcome.UNREACHED], f"{host}:{port}{by}: {_words(error)}")


async def _tls(checkup: Checkup) -> Found:
    url = checkup.settings.stream.url
    if urlsplit(url).scheme == "http":
        return ok("none: http:// on this machine")
    host, _ = _place(url)
    try:
        async with _connected(checkup) as (_, writer):
            await writer.start_tls(_context(checkup), server_hostname=host)
            ends_s = ssl.cert_time_to_seconds(writer.get_extra_info("peercert")["notAfter"])
            version = writer.get_extra_info("ssl_object").version()
    except ssl.SSLCertVerificationError as error:
        return crossed(OUTCOMES[Outcome.UNTRUSTED], f"{host}: {error.verify_message}")
    except (OSError, EOFError, TimeoutError) as error:
        return crossed(OUTCOMES[Outcome.UNREACHED], f"{host}: the TLS handshake: {_words(error)}")
    days = int((ends_s - time.time()) / 86_400)
    said = f"{version}, certificate of {host} trusted, {days} days left"
    return note(said, "Whoever runs that host has to renew it.") if days < _LEAST_DAYS else ok(said)


async def _token(checkup: Checkup) -> Found:
    """OAuth: one is got. Given ones: whether they say that they have ended."""
    credentials = checkup.credentials
    assert credentials is not None  # noqa: S101 - the step needs them
    if credentials.token is not None:
        return _life(expires_us(credentials.token.reveal()))
    from collector.coordinator.token import token_source  # noqa: PLC0415 - aiohttp takes 0.2 s
    from collector.coordinator.token_source import TokenError  # noqa: PLC0415

    configure(write=lambda _: None)  # what there is to say is in the step's line
    tokens = token_source(checkup.settings, credentials, ca_file=checkup.ca_file, proxy=checkup.proxy)
    try:
        await tokens.get(renew=False)
    except TokenError as error:
        code = ExitCode.REFUSED if error.failure is TokenFailure.INVALID_CLIENT else ExitCode.CONFIGURATION
        return crossed(TOKENS[error.failure], error.detail, code)
    ends_us = tokens.expires_us or 0
    return ok(f"got one for {max(0.0, ends_us / 1e6 - time.time()) / 3600:.1f} h; it is renewed in time")


def _life(ends_us: int | None) -> Found:
    if ends_us is None:
        return ok("it does not say when it ends")
    left_us = ends_us - time.time_ns() // 1000
    ends = f"{dt.datetime.fromtimestamp(ends_us / 1e6, dt.UTC):%Y-%m-%d %H:%M UTC}"
    if left_us <= 0:
        return cross(f"it ended on {ends}", TOKENS[TokenFailure.UNCHANGED].do, ExitCode.REFUSED)
    if left_us < 7 * DAY_US:
        do = "Have it renewed: a token file is read again; with LIVESTREAM_CLIENT_SECRET it is done here."
        return note(f"it ends on {ends}", do)
    return ok(f"it ends on {ends}")


@contextlib.asynccontextmanager
async def _connected(checkup: Checkup) -> AsyncIterator[Streams]:
    """A connection to the stream's host, through the proxy if there is one."""
    proxy = _way(checkup)
    async with asyncio.timeout(TIMEOUT_S):
        host, port = _place(checkup.settings.stream.url if proxy is None else proxy.url)
        tls = _context(checkup) if proxy is not None and proxy.url.startswith("https") else None
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        try:
            if proxy is not None:
                await _tunnel(reader, writer, proxy, *_place(checkup.settings.stream.url))
            yield reader, writer
        finally:
            writer.transport.abort()


async def _tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proxy: Proxy, host: str, port: int
) -> None:
    """CONNECT. *Raises* ``_Refused``, or ``OSError`` for an answer that is none."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = {"Host": target, **proxy_headers(proxy)}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
        raise OSError("the proxy's answer is no HTTP") from error
    if status // 100 != 2:
        raise _Refused(status)


def _context(checkup: Checkup) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=checkup.ca_file)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return f"nothing within {TIMEOUT_S:g} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


NETWORK_STEPS: Final[Sequence[Step[Checkup]]] = (
    Step("dns", ("trust", "proxy"), _dns),
    Step("tcp", ("dns",), _tcp),
    Step("tls", ("tcp",), _tls),
    Step("token", ("credentials", "trust", "proxy"), _token),
)
