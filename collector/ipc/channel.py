"""One stream socket per child: a 4-byte length, then a tagged msgpack message. EOF is death.

The child's end can be waited on with ``fileno``; the coordinator's end is asyncio. No lock, queue
or event is shared, so a killed process can hold nothing that another waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

import msgspec

from collector.core.messages import UNREADABLE
from collector.errors import ProtocolError

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Far above any honest message: the largest, ``Claims``, holds 20 bytes per line of one block."""

_LENGTH_BYTES: Final = 4
_RECEIVE_BYTES: Final = 256 * 1024
_encoder = msgspec.msgpack.Encoder()

T = TypeVar("T")


def _frame(message: msgspec.Struct) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


def _body_length(prefix: bytes | bytearray) -> int:
    length = int.from_bytes(prefix[:_LENGTH_BYTES], "little")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"a message of {length} bytes was announced; at most {MAX_MESSAGE_BYTES} are allowed"
        )
    return length


def _decoded(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise ProtocolError(f"a message of {len(body)} bytes is none that is known here: {error}") from error


class Channel(Generic[T]):
    """The child's end: ``incoming`` is the union of messages this child understands."""

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(incoming)
        self._buffer = bytearray()

    @classmethod
    def from_fd(cls, fd: int, incoming: Any) -> Channel[T]:
        return cls(socket.socket(fileno=fd), incoming)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Blocks while the parent does not read. *Raises* ``BrokenPipeError`` once it is gone."""
        self._sock.sendall(_frame(message))

    def receive(self, idle: Callable[[], object] | None = None, idle_s: float = 1.0) -> T | None:
        """The next message; ``None`` once the parent is gone. *Blocks* until either is known.

        ``idle`` is called whenever nothing has come for ``idle_s``.
        """
        while (message := self._pop()) is None:
            while idle is not None and not self._poll.poll(idle_s * 1000):
                idle()
            if not self._fill():
                return None
        return message

    def receive_ready(self) -> Iterator[T]:
        """Call when ``fileno`` is readable: the messages one read completes; never blocks.

        *Raises* ``EOFError`` once the parent is gone.
        """
        if not self._fill():
            raise EOFError
        while (message := self._pop()) is not None:
            yield message

    def close(self) -> None:
        self._sock.close()

    def _fill(self) -> bool:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def _pop(self) -> T | None:
        if len(self._buffer) < _LENGTH_BYTES:
            return None
        end = _LENGTH_BYTES + _body_length(self._buffer)
        if len(self._buffer) < end:
            return None
        message = _decoded(self._decoder, memoryview(self._buffer)[_LENGTH_BYTES:end].tobytes())
        del self._buffer[:end]
        return message


class CoordinatorChannel(Generic[T]):
    """The coordinator's end. ``send`` never waits: a child reads its orders or is replaced."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, incoming: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(incoming)

    @classmethod
    async def over(cls, sock: socket.socket, incoming: Any) -> CoordinatorChannel[T]:
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, incoming)

    def send(self, message: msgspec.Struct) -> None:
        if not self._writer.is_closing():
            self._writer.write(_frame(message))

    async def receive(self) -> T | None:
        """The next message; ``None`` once the child is gone."""
        try:
            prefix = await self._reader.readexactly(_LENGTH_BYTES)
            body = await self._reader.readexactly(_body_length(prefix))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return _decoded(self._decoder, body)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
