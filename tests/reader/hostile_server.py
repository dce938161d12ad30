"""A server that answers with exactly the bytes, pauses and endings a test asks for."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any, Self

Script = Callable[["Peer"], None]


class Peer:
    """One accepted connection, after its request was read."""

    def __init__(self, connection: socket.socket, request: bytes, stopping: threading.Event) -> None:
        self._connection = connection
        self.request = request
        self.stopping = stopping

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def until_closed(self) -> None:
        """Keep the connection open until the client has gone, or the server stops."""
        self._connection.settimeout(0.05)
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                if not self._connection.recv(4096):
                    return

    def shut_down(self) -> None:
        """Send FIN and keep the other direction open."""
        self._connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End with RST instead of FIN."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class HostileServer:
    """Runs ``script`` for each connection, one at a time. Use as a context manager."""

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, read_request: bool = True
    ) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self._tls = tls
        self._read_request = read_request
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def url(self, path: str = "/api/1/stream/shop?maxConnections=1") -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    def wait_until_idle(self) -> None:
        """The connection accepted last is closed at this end too."""
        assert self._idle.wait(20)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._idle.clear()
            with contextlib.suppress(OSError), contextlib.closing(connection):
                self._serve(connection)
            self._idle.set()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            connection = plain
            if self._tls:
                connection = stack.enter_context(self._tls.wrap_socket(plain, server_side=True))
            request = self._request(connection) if self._read_request else b""
            self.requests.append(request)
            self.script(Peer(connection, request, self._stopping))

    def _request(self, connection: socket.socket) -> bytes:
        request = b""
        while not request.endswith(b"\r\n\r\n") and (data := connection.recv(65536)):
            request += data
        return request


def head(status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


STREAM_HEAD = head("200 OK", "Transfer-Encoding: chunked", "Content-Encoding: gzip")
LAST_CHUNK = b"0\r\n\r\n"


def chunked(data: bytes, size: int = 0) -> bytes:
    """Without the last chunk."""
    step = size or max(len(data), 1)
    pieces = (data[begin : begin + step] for begin in range(0, len(data), step))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def records(count: int) -> list[bytes]:
    return [b'{"n":%d,"name":"\xc3\xa9t\xc3\xa9"}' % n for n in range(count)]


def gzipped(count: int) -> bytes:
    return gzip.compress(b"".join(record + b"\r\n" for record in records(count)), mtime=0)


def answering(*parts: bytes, rst: bool = False) -> Script:
    """Send these bytes, then end."""

    def script(peer: Peer) -> None:
        for part in parts:
            peer.send(part)
        if rst:
            peer.reset()

    return script


def answering_in_turn(*scripts: Script) -> Script:
    """The first connection gets the first script, and so on; the last one all others."""
    left: list[Any] = list(scripts)

    def script(peer: Peer) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(peer)

    return script
