"""Messages between processes: any bytes in the socket are messages, the end, or a ``ProtocolError``."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import msgspec
from fuzzing import Target, bent
from hypothesis import strategies as st

from collector.core import messages as m
from collector.errors import ProtocolError
from collector.ipc.channel import Channel, CoordinatorChannel

BLOCK = m.Block(1, 1, 4160, 100, 2, 1, 0, 1_795_000_000_000_000, 5)
FILE = m.StagedFile(m.FileKind.HITS, "1-1-1.parquet", "hits/v=1/p.parquet", 9, bytes(32), 2)
ROW = m.ConnectionRow(kind="connection", connection=1, began_us=1, ended_us=2, attempts={"lost": 1})
MESSAGES: list[msgspec.Struct] = [
    m.Connect(1, "http://127.0.0.1/web", "token", "key", ("127.0.0.1",), 300.0, 0),
    m.ReadFile(1, "/tmp/x.jsonl", 0, 0),
    m.Disconnect(),
    m.SegmentGranted(2, "free-x"),
    m.Ready(1),
    m.SegmentWanted(),
    m.SegmentFailed(2, "full"),
    m.Opened(1, 5, "host", 1),
    m.Accepted((BLOCK, BLOCK)),
    m.Progress(1, 5, 2, paused=False, last_byte_us=5, held_us=5),
    m.Closed(1, m.Outcome.LOST, "cut", 5),
    m.Failed(4, "disk"),
    m.Decode(BLOCK, 1, 1, 1),
    m.Keep(1, b"\0\0\0\0"),
    m.Stage(1, 2, 1, 1, 1, m.Totals(), (0, 0), (0, 5)),
    m.StageConnections(1, 2, (ROW,), m.Totals()),
    m.Claims(1, bytes(8), bytes(8), bytes(4)),
    m.BlockDone(1, 2, 0, 0, 0, 0, (498_611,), 5),
    m.Staged(1, 1, 1, (FILE,), 2, 0, 0),
    m.NoSpace(1, 1, 1, "full"),
]
UNIONS = (m.ToReader, m.FromReader, m.ToDecoder, m.FromDecoder)


def framed(body: bytes, length: int | None = None) -> bytes:
    return (len(body) if length is None else length).to_bytes(4, "little") + body


FRAMES = [framed(msgspec.msgpack.encode(message)) for message in MESSAGES]
SEEDS = {"all": b"".join(FRAMES)} | {
    type(message).__name__: frame for message, frame in zip(MESSAGES, FRAMES, strict=True)
}


@st.composite
def crafted(draw: st.DrawFn) -> bytes:
    """Right lengths around bent messages."""
    bodies = [frame[4:] for frame in FRAMES]
    parts = draw(st.lists(bent(bodies, 3), min_size=1, max_size=3))
    return b"".join(framed(part) for part in parts)


def judge(data: bytes) -> None:
    for union in UNIONS:
        assert _child(data, union) == _coordinator(data, union), "both ends read the same"


def _sent(data: bytes) -> tuple[socket.socket, threading.Thread]:
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs, contextlib.suppress(BrokenPipeError):
            theirs.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    return ours, thread


def _child(data: bytes, union) -> list[object]:
    ours, thread = _sent(data)
    channel = Channel(ours, union)
    found: list[object] = []
    try:
        while (message := channel.receive()) is not None:
            found.append(message)
    except ProtocolError:
        found.append("refused")
    finally:
        channel.close()
        thread.join()
    return found


def _coordinator(data: bytes, union) -> list[object]:
    async def receive() -> list[object]:
        ours, thread = _sent(data)
        ours.setblocking(False)
        channel = await CoordinatorChannel.over(ours, union)
        found: list[object] = []
        try:
            while (message := await channel.receive()) is not None:
                found.append(message)
        except ProtocolError:
            found.append("refused")
        finally:
            await channel.close()
            thread.join()
        return found

    return asyncio.run(receive())


TARGETS = [Target("messages", judge, SEEDS, bent(list(SEEDS.values()), 3) | crafted(), everyday=200)]
