"""A plain client of the simulated service: it reads what is there and judges nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from collector.simulator.hits import index_of

GOOD = {
    "Host": "localhost",
    "Accept-Encoding": "gzip",
    "x-api-key": "simulator-key",
    "Authorization": "Bearer simulator-token",
}
PATIENCE_S = 10.0


@dataclass
class Client:
    """One connection and what has come through it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    head: bytes = b""
    body: bytes = b""
    """De-chunked."""
    text: bytes = b""
    """Inflated."""
    chunk_sizes: list[int] = field(default_factory=list)
    members: int = 0
    ended: str = ""
    """clean, fin or rst"""
    _raw: bytes = b""
    _inflate: Any = None

    async def get(
        self,
        url: str,
        *,
        method: str = "GET",
        version: str = "HTTP/1.1",
        body: str = "",
        **headers: str | None,
    ) -> Client:
        given = GOOD | {name.replace("_", "-"): value for name, value in headers.items()}
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} {version}", *(f"{k}: {v}" for k, v in given.items() if v is not None)]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body.encode())
        await self.writer.drain()
        return self

    async def answer(self) -> Client:
        """Read the status line and the headers."""
        self.head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        first, *lines = self.head.decode().strip().split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        return self

    async def json(self) -> Any:
        return json.loads(await asyncio.wait_for(self.reader.read(), PATIENCE_S))

    async def until(self, enough: Callable[[Client], bool]) -> Client:
        """Read the stream until there is enough of it, or it ended."""
        async with asyncio.timeout(PATIENCE_S):
            while not enough(self) and not self.ended:
                await self._read_some()
        return self

    async def hits(self, count: int) -> Client:
        return await self.until(lambda it: len(it.records) >= count)

    async def to_end(self) -> Client:
        return await self.until(lambda it: False)

    @property
    def lines(self) -> list[bytes]:
        """Whole lines without line end, the empty ones too."""
        return [line.removesuffix(b"\r") for line in self.text.split(b"\n")[:-1]]

    @property
    def records(self) -> list[bytes]:
        return [line for line in self.lines if line]

    def indices(self, seed: int = 0) -> list[int | None]:
        found = (json.loads(record) for record in self.records)
        return [index_of(seed, hit["hitIdHigh"], hit["hitIdLow"]) for hit in found]

    async def reset(self) -> None:
        """Leave abruptly, as a killed process with unread data does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    async def _read_some(self) -> None:
        try:
            data = await self.reader.read(65536)
        except (ConnectionResetError, ssl.SSLError):
            self.ended = "rst"
            return
        if not data:
            self.ended = "fin"
            return
        self._raw += data
        self._take_chunks()

    def _take_chunks(self) -> None:
        while b"\r\n" in self._raw:
            size_text, _, rest = self._raw.partition(b"\r\n")
            size = int(size_text, 16)
            if len(rest) < size + 2:
                return
            assert rest[size : size + 2] == b"\r\n"
            self._raw = rest[size + 2 :]
            if size == 0:
                self.ended = "clean"
                return
            self.chunk_sizes.append(size)
            self.body += rest[:size]
            self._take_gzip(rest[:size])

    def _take_gzip(self, data: bytes) -> None:
        while data:
            if self._inflate is None:
                self._inflate = zlib.decompressobj(31)
                self.members += 1
            self.text += self._inflate.decompress(data)
            data = self._inflate.unused_data
            if self._inflate.eof:
                self._inflate = None

    @property
    def inside_member(self) -> bool:
        return self._inflate is not None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only the service's own state tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


async def connect(url: str, context: ssl.SSLContext | None = None) -> Client:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=2**20)
    return Client(reader, writer)


async def ask(url: str, **options: Any) -> Client:
    """A request and its status."""
    client = await connect(url, options.pop("context", None))
    return await (await client.get(url, **options)).answer()


async def refused(url: str, **options: Any) -> tuple[int, str]:
    """A request that opens no stream: status and ``error_description``."""
    client = await ask(url, **options)
    body = await client.json()
    await client.close()
    return client.status, body.get("error_description", "")
