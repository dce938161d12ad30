"""One HTTP request over curl. The only module that knows pycurl.

Runs in the reader's loop, on its selector; nothing here blocks. The invariant: the request is exactly
what is documented, TLS is always verified, the body comes as raw as it was sent, and nothing is read
from the socket while the request is paused.
"""

from __future__ import annotations

import dataclasses
import functools
import selectors
import socket
import threading
import time
from typing import Final, Protocol

import pycurl

from collector import __version__
from collector.core.proxy import Proxy
from collector.core.remedies import for_proxy
from collector.reader.response import escaped

USER_AGENT: Final = f"livestream-collector/{__version__}"
CURL: Final = pycurl.version
"""Versions of libcurl and what it stands on, its TLS included."""

_RECEIVE_BYTES: Final = 128 * 1024
"""Read from the socket at once. *Source*: CURLOPT_BUFFERSIZE."""

_KEEPALIVE: Final = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)

_UNTRUSTED: Final = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CRL_BADFILE,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_SUPPRESS_CONNECT_HEADERS: Final = 265
"""A proxy's own headers are none of the service's. *Source*: curl.h; pycurl has no name for it."""

_EVENTS_OF: Final = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What all requests of a reader share."""

    ca_file: str
    connect_timeout_s: float = 30.0
    """From the start to the end of the TLS handshake."""
    header_timeout_s: float = 60.0
    """From sending the request to the end of its headers, or of a body that is no stream."""
    keepalive: tuple[int, int, int] = (30, 10, 3)
    """A dead peer is found within a minute; a quiet one stays. Seconds to the first probe, between
    probes; probes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How curl says a request ended."""

    clean: bool
    untrusted: bool
    words: str


class Taker(Protocol):
    """Who takes what a request brings. Called from inside curl: must not raise, nor touch the request."""

    def on_sending(self) -> None:
        """From now on the request may reach the server."""

    def on_line(self, line: bytes) -> bool:
        """One line of a response's head or trailers; false gives the request up."""

    def on_body(self, data: bytes) -> bool:
        """A chunk of body; false gives the request up."""


class Request:
    """A GET in flight from its making to ``close``. ``ended`` says when and how it is over."""

    def __init__(
        self,
        url: str,
        credentials: tuple[str, str],
        options: Options,
        selector: selectors.BaseSelector,
        taker: Taker,
        *,
        proxy: Proxy | None = None,
    ) -> None:
        self.ended: Ended | None = None
        self._taker = taker
        self._proxy = proxy
        self._selector = selector
        self._wanted: dict[int, int] = {}
        self._paused = False
        self._connected = False
        self._timer_at: float | None = None
        self._curl = pycurl.Curl()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._set_protocol(url, credentials)
        self._set_trust(options)
        self._set_proxy(options)
        self._curl.setopt(pycurl.SOCKOPTFUNCTION, functools.partial(_keep_alive, options.keepalive))
        self._multi.add_handle(self._curl)

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called at the latest, by the monotonic clock."""
        return None if self._paused else self._timer_at

    def tick(self, now: float) -> None:
        """Let curl act on its timers."""
        if self._timer_at is not None and self._timer_at <= now and not self._paused:
            self._timer_at = None
            self._act(pycurl.SOCKET_TIMEOUT, 0)

    def pause(self) -> None:
        """Read no more; the peer feels it once the socket's buffers are full.

        Not asking curl is enough, and safer than its own pause, which leaves the socket readable.
        """
        self._paused = True
        for fd in self._wanted:
            self._selector.unregister(fd)

    def resume(self) -> None:
        self._paused = False
        for fd, events in self._wanted.items():
            self._register(fd, events)

    def close(self) -> None:
        """Close the connection at once.

        Before there is one, curl may be waiting for a resolver that nothing can interrupt (10 s and
        more when no name server answers), so that wait is left to a thread of its own.
        """
        if not self._paused:
            self.pause()
        self._wanted.clear()
        self._multi.remove_handle(self._curl)
        self._curl.close()
        if self._connected:
            self._multi.close()
        else:
            threading.Thread(target=self._multi.close, name="curl-close", daemon=True).start()

    def _set_protocol(self, url: str, credentials: tuple[str, str]) -> None:
        token, api_key = credentials
        curl = self._curl
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        # The documented headers, Host and User-Agent; the last one takes curl's own away.
        curl.setopt(
            pycurl.HTTPHEADER,
            [f"x-api-key: {api_key}", f"Authorization: Bearer {token}", "Accept-Encoding: gzip", "Accept:"],
        )
        curl.setopt(pycurl.USERAGENT, USER_AGENT)
        curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.FRESH_CONNECT, 1)
        curl.setopt(pycurl.FORBID_REUSE, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.BUFFERSIZE, _RECEIVE_BYTES)
        curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        curl.setopt(pycurl.PREREQFUNCTION, self._on_sending)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_line)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)

    def _set_trust(self, options: Options) -> None:
        curl = self._curl
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.CAINFO, options.ca_file)
        curl.unsetopt(pycurl.CAPATH)  # else the folder curl was built with is trusted as well
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, round(options.connect_timeout_s * 1000))

    def _set_proxy(self, options: Options) -> None:
        """The one we are told of or none: what the environment says was decided before."""
        curl, proxy = self._curl, self._proxy
        curl.setopt(pycurl.PROXY, "" if proxy is None else proxy.url)
        curl.setopt(pycurl.NOPROXY, "")
        if proxy is None:
            return
        curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
        curl.setopt(pycurl.PROXY_CAINFO, options.ca_file)
        curl.unsetopt(pycurl.PROXY_CAPATH)
        if proxy.user:
            curl.setopt(pycurl.PROXYUSERNAME, proxy.user.encode())
            curl.setopt(pycurl.PROXYPASSWORD, proxy.password.encode())

    def _on_sending(self, *_addresses: object) -> int:
        self._connected = True
        self._taker.on_sending()
        return int(pycurl.PREREQFUNC_OK)

    def _on_line(self, line: bytes) -> int | None:
        return None if self._taker.on_line(line) else -1

    def _on_body(self, data: bytes) -> int | None:
        return None if self._taker.on_body(data) else -1

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        before = self._wanted.pop(fd, None)
        events = _EVENTS_OF.get(what)
        if events is not None:
            self._wanted[fd] = events
        if self._paused or events == before:
            return
        if before is not None:
            self._selector.unregister(fd)
        if events is not None:
            self._register(fd, events)

    def _on_timer(self, timeout_ms: int) -> None:
        self._timer_at = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _register(self, fd: int, events: int) -> None:
        self._selector.register(fd, events, functools.partial(self._on_ready, fd))

    def _on_ready(self, fd: int, events: int) -> None:
        if fd not in self._wanted or self._paused:
            return
        readable = pycurl.CSELECT_IN * bool(events & selectors.EVENT_READ)
        writable = pycurl.CSELECT_OUT * bool(events & selectors.EVENT_WRITE)
        self._act(fd, readable | writable)

    def _act(self, fd: int, events: int) -> None:
        self._multi.socket_action(fd, events)
        _, clean, failed = self._multi.info_read()
        if clean:
            self.ended = Ended(clean=True, untrusted=False, words="")
        for _, code, words in failed:
            said = escaped(self._in_words(f"{words} (curl {code})"))
            self.ended = Ended(clean=False, untrusted=code in _UNTRUSTED, words=said)

    def _in_words(self, said: str) -> str:
        """Whose fault it is, where a proxy stands in between."""
        if self._proxy is None or self._connected:
            return said
        status = self._curl.getinfo(pycurl.HTTP_CONNECTCODE)
        if status >= 300:
            remedy = for_proxy(status)
            return f"{remedy.means}, {self._proxy.url}. {remedy.do}"
        return f"through the proxy {self._proxy.url}: {said}"


def _keep_alive(keepalive: tuple[int, int, int], fd: int, _purpose: int) -> int:
    connection = socket.socket(fileno=fd)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in zip(_KEEPALIVE, keepalive, strict=True):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    finally:
        connection.detach()
    return int(pycurl.SOCKOPT_OK)
