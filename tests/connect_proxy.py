"""A real HTTP proxy that takes CONNECT and nothing else, in a thread of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Self


class ConnectProxy:
    """Leads ``host:port`` of ``ways`` to a port of this machine; other hosts get 502.

    ``status``: what every CONNECT is answered with instead. ``wanted``: "user:password", else 407.
    """

    def __init__(
        self,
        ways: Mapping[str, int] | None = None,
        *,
        status: int = 0,
        wanted: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._ways = dict(ways or {})
        self._status = status
        self._wanted = wanted
        self._tls = tls
        self.asked: list[str] = []
        """Of each CONNECT its target."""
        self.heads: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls))
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
                await self._tunnel(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        self.asked.append(target)
        self.heads.append(head)
        status = self._answer(method, target, head)
        challenge = 'Proxy-Authenticate: Basic realm="way out"\r\n' if status == 407 else ""
        length = "" if status == 200 else "Content-Length: 0\r\n"
        writer.write(f"HTTP/1.1 {status} Said\r\n{challenge}{length}\r\n".encode())
        await writer.drain()
        if status != 200:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._ways[target])
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            far_writer.transport.abort()

    def _answer(self, method: str, target: str, head: str) -> int:
        if method != "CONNECT":
            return 405
        if self._status:
            return self._status
        if self._wanted:
            expected = f"proxy-authorization: basic {base64.b64encode(self._wanted.encode()).decode()}"
            if expected.lower() not in head.lower():
                return 407
        return 200 if target in self._ways else 502


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, NotImplementedError):
        writer.write_eof()
