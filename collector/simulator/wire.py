"""One accepted socket: bytes in, bytes out, and every way to end it.

The simulator's process runs it, on the event loop. Invariant: ``sent_bytes`` never exceeds what the
kernel was given, so what is unacknowledged at the end is known. No transport buffers in between.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

MAX_HEAD_BYTES = 65_536
_RECEIVE_BYTES = 65_536
_RECORD_BYTES = 16_384
"""One TLS record's worth, so that a partly sent write is known to a record."""

_LINGER_S = 1.0
_DRAIN_S = 5.0
_POLL_S = 0.005


class LimitReached(Exception):  # noqa: N818 - a planned event, not an error
    """Raised when the byte at which the response is to be cut was sent."""


class ClientGone(Exception):  # noqa: N818 - the peer's doing, not an error
    """Raised when the client closed or reset the connection."""


class Wire:
    """A socket with or without TLS."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = None if context is None else context.wrap_bio(self._in, self._out, server_side=True)
        self._sending = asyncio.Lock()
        self._closed = False
        self.sent_bytes = 0
        """Of the plain text, handed to the kernel."""
        self.limit_bytes: int | None = None
        self.bytes_per_second: float | None = None
        self.slow_until_s = float("inf")

    async def handshake(self) -> None:
        """Finish the TLS handshake. *Raises* ``ClientGone``."""
        if self._tls:
            await self._drive(self._tls.do_handshake)

    async def receive(self) -> bytes:
        """Some bytes; ``b""`` when the client ended. *Raises* ``ClientGone`` on a reset."""
        tls = self._tls
        if tls is None:
            return await self._receive_raw()
        try:
            return await self._drive(lambda: tls.read(_RECEIVE_BYTES))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def head(self) -> tuple[bytes, bytes]:
        """A request's head and what came behind it. *Raises* ``ClientGone``, ``ValueError`` if too long."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.receive()
            if not more:
                raise ClientGone("closed before a whole request")
            data += more
            if len(data) > MAX_HEAD_BYTES:
                raise ValueError("request head too long")
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    async def until_gone(self) -> str:
        """*Blocks* until the client ends; in words, how."""
        try:
            while await self.receive():
                pass
        except ClientGone:
            return "client reset"
        return "client closed"

    async def send(self, data: bytes) -> None:
        """All of ``data``. *Raises* ``LimitReached``, ``ClientGone``. *Blocks* while the client is slow."""
        cut = self.limit_bytes is not None and self.sent_bytes + len(data) > self.limit_bytes
        if self.limit_bytes is not None:
            data = data[: max(self.limit_bytes - self.sent_bytes, 0)]
        while data and self.bytes_per_second is not None and self._loop.time() < self.slow_until_s:
            await self._send_plain(data[:1])
            data = data[1:]
            await asyncio.sleep(1 / self.bytes_per_second)
        await self._send_plain(data)
        if cut:
            raise LimitReached

    def unacknowledged(self) -> int:
        """Bytes in the kernel that the client's kernel has not acknowledged; with TLS, of cipher text.

        *Source* tcp(7), SIOCOUTQ.
        """
        if self._closed:
            return 0
        count = array.array("i", [0])
        try:
            fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, count)
        except OSError:
            return 0
        return count[0]

    async def drain(self) -> None:
        """Wait until the client's kernel has everything, for a few seconds at most."""
        deadline_s = self._loop.time() + _DRAIN_S
        while self.unacknowledged() and self._loop.time() < deadline_s:  # noqa: ASYNC110 - the kernel has no event
            await asyncio.sleep(_POLL_S)

    async def close_clean(self) -> None:
        """End as HTTP and TLS want it, and give the client a moment to do the same."""
        if self._tls:
            with contextlib.suppress(ssl.SSLError):  # the client's own close_notify is not waited for
                self._tls.unwrap()
            await self._flush()
        await self.close_fin()

    async def close_fin(self) -> None:
        """Shut the sending side without another byte, then close."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(self._until_end(), _LINGER_S)
        except (OSError, ClientGone, TimeoutError):
            pass  # the client is gone or in no hurry
        finally:
            self.close()

    def close_rst(self) -> None:
        """Throw away what was not sent and reset the connection."""
        if not self._closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the socket; may be called again."""
        self._closed = True
        self._socket.close()

    async def _until_end(self) -> None:
        while await self._receive_raw():
            pass

    async def _receive_raw(self) -> bytes:
        try:
            return await self._loop.sock_recv(self._socket, _RECEIVE_BYTES)
        except OSError as error:
            raise ClientGone(str(error)) from error

    async def _drive(self, step: Callable[[], _T]) -> _T:
        """Feed TLS until ``step`` gets through."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await self._flush()
                self._feed(await self._receive_raw())
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                raise
            except ssl.SSLError as error:
                await self._flush()
                raise ClientGone(str(error)) from error
            await self._flush()
            return done

    def _feed(self, data: bytes) -> None:
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        async with self._sending:  # the reading side may have an answer of TLS's own to send
            await self._send_raw(self._out.read())

    async def _send_plain(self, data: bytes) -> None:
        if not self._tls:
            await self._send_raw(data, count=True)
            return
        view = memoryview(data)
        for start in range(0, len(view), _RECORD_BYTES):
            piece = view[start : start + _RECORD_BYTES]
            self._tls.write(piece)
            await self._flush()
            self.sent_bytes += len(piece)

    async def _send_raw(self, data: bytes, *, count: bool = False) -> None:
        view = memoryview(data)
        while view:
            try:
                sent = self._socket.send(view)
            except (BlockingIOError, InterruptedError):
                await self._writable()
                continue
            except OSError as error:
                raise ClientGone(str(error)) from error
            view = view[sent:]
            self.sent_bytes += sent if count else 0

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        descriptor = self._socket.fileno()
        self._loop.add_writer(descriptor, _settle, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
