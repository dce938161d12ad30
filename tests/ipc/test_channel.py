"""The channel: whole messages over a stream socket, EOF is death."""

from __future__ import annotations

import asyncio
import socket

import pytest

from collector.core.messages import BlockDone, Claims, FromDecoder, Keep, Ready, ToDecoder
from collector.errors import ProtocolError
from collector.ipc.channel import MAX_MESSAGE_BYTES, Channel, CoordinatorChannel

DONE = BlockDone(1, 2, 3, 4, 0, 0, (5,), 6)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def child(sock: socket.socket) -> Channel[ToDecoder]:
    return Channel(sock, ToDecoder)


def test_messages_arrive_whole_however_the_bytes_are_split(pair):
    """A message sent byte by byte is the same message."""
    ours, theirs = pair
    source, sink = socket.socketpair()
    with source, sink:
        child(source).send(Keep(7, b"\x01\x02"))
        wire = sink.recv(1000)
    channel = child(theirs)
    received = []
    for byte in wire * 2:
        ours.send(bytes([byte]))
        received += channel.receive_ready()
    assert received == [Keep(7, b"\x01\x02")] * 2


def test_the_coordinators_death_is_none_for_receive_and_eof_for_receive_ready(pair):
    """A child is told that its parent is gone, not left waiting."""
    ours, theirs = pair
    ours.close()
    channel = child(theirs)
    assert channel.receive() is None
    with pytest.raises(EOFError):
        list(channel.receive_ready())


def test_a_child_that_waits_is_woken_now_and_then(pair):
    """So that it can say that it lives; half a message is no message, and none is lost over it."""
    ours, theirs = pair
    source, sink = socket.socketpair()
    with source, sink:
        child(source).send(Keep(7, b"\x01\x02"))
        wire = sink.recv(1000)
    pieces = [wire[:3], b"", wire[3:]]

    def idle() -> None:
        ours.send(pieces.pop(0))

    assert child(theirs).receive(idle, idle_s=0.01) == Keep(7, b"\x01\x02")
    assert pieces == []
    ours.close()
    assert child(theirs).receive(idle, idle_s=60) is None


def test_an_announced_length_beyond_reason_is_refused(pair):
    """Foreign bytes on the channel end it instead of filling the memory."""
    ours, theirs = pair
    ours.send((MAX_MESSAGE_BYTES + 1).to_bytes(4, "little"))
    with pytest.raises(ProtocolError, match="announced"):
        child(theirs).receive()


def test_both_ends_talk_and_a_dead_child_is_none(pair):
    """Order is kept both ways; after the child's end closes, the coordinator receives ``None``."""
    ours, theirs = pair
    ours.setblocking(False)

    async def talk() -> list[object]:
        coordinator: CoordinatorChannel[FromDecoder] = await CoordinatorChannel.over(ours, FromDecoder)
        channel = child(theirs)
        coordinator.send(Keep(1, b""))
        received: list[object] = [await asyncio.to_thread(channel.receive)]
        for message in (Ready(1), DONE):
            await asyncio.to_thread(channel.send, message)
        sending = asyncio.create_task(asyncio.to_thread(channel.send, Claims(1, b"x" * 3_000_000, b"", b"")))
        received += [await coordinator.receive() for _ in range(3)]
        await sending
        channel.close()
        received.append(await coordinator.receive())
        await coordinator.close()
        return received

    keep, ready, done, claims, end = asyncio.run(talk())
    assert (keep, ready, done, end) == (Keep(1, b""), Ready(1), DONE, None)
    assert isinstance(claims, Claims)
    assert len(claims.high) == 3_000_000
