"""Whole sessions in one process: real sockets in, a real journal out."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from attempt_rig import options, order_for

from collector.core.framing import Framer
from collector.core.messages import Accepted, Block, Closed, SegmentGranted, SegmentWanted
from collector.reader.attempt import Attempt
from collector.reader.blocks import BlockWriter, DiskThread
from collector.reader.inflate import Inflater
from collector.reader.session import Cutting, Session
from collector.reader.transport import Options
from collector.storage.fs import DISK
from collector.storage.journal import JournalReader, JournalWriter

M = TypeVar("M", bound=msgspec.Struct)

SEGMENT_BYTES: Final = 8 << 20


class SessionRig:
    """What the reader process is made of, one session after the other, turned by the test."""

    def __init__(self, journal: Path) -> None:
        self.messages: list[Any] = []
        self.session: Session | None = None
        self._connection = 0
        self._segment = 0
        self._folder = journal
        self._disk = DiskThread()
        self._journal = JournalWriter(DISK, journal, next_seq=1, segment_bytes=SEGMENT_BYTES)
        self._writer = BlockWriter(self._journal, self._disk, self._send)
        self.selector = selectors.DefaultSelector()
        self.selector.register(
            self._disk.wake_fd, selectors.EVENT_READ, lambda _events: self._disk.run_done()
        )

    def close(self) -> None:
        self._disk.close()
        self._journal.close()
        self.selector.close()

    def connect(
        self,
        url: str,
        *,
        idle_timeout_s: float = 20.0,
        max_record_bytes: int = 1 << 20,
        with_options: Options | None = None,
    ) -> Session:
        self._connection += 1
        order = msgspec.structs.replace(
            order_for(url, idle_timeout_s=idle_timeout_s), connection=self._connection
        )
        self.session = Session(
            order,
            Attempt(order, with_options or options(), self.selector),
            text=Inflater(),
            cutting=Cutting(Framer(max_record_bytes), seal_interval_s=0.02),
            writer=self._writer,
            send=self._send,
        )
        return self.session

    def to_the_end(self, guard_s: float = 20.0) -> Closed:
        """Turn until the session has reported its ``Closed``, and give it."""
        self.until(lambda: self.session is None, guard_s)
        closed = self.all(Closed)[-1]
        assert closed.connection == self._connection
        return closed

    def until(self, done: Callable[[], bool], guard_s: float = 20.0) -> None:
        guard = time.monotonic() + guard_s
        while not done():
            now = time.monotonic()
            assert now < guard, f"the session did not get there in time: {self.messages[-5:]}"
            self._turn(now)
            if done():
                return
            for key, events in self.selector.select(self._wait_s(guard)):
                key.data(events)

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    def blocks(self) -> list[Block]:
        """Accepted for the newest connection."""
        blocks = [block for accepted in self.all(Accepted) for block in accepted.blocks]
        return [block for block in blocks if block.connection == self._connection]

    def lines(self) -> list[bytes]:
        """The records accepted for the newest connection, as they are in the journal."""
        reader = JournalReader(self._folder)
        payloads = []
        for block in self.blocks():
            payloads.append(bytes(reader.payload(block)))
            reader.release(block.segment)
        return b"".join(payloads).split(b"\n")[:-1]

    def watched(self) -> int:
        """Sockets of the connection that the loop still watches."""
        return len(self.selector.get_map()) - 1

    def _turn(self, now: float) -> None:
        if self.session is not None and self.session.turn(now):
            self.session = None
        self._writer.flush(now)

    def _wait_s(self, guard: float) -> float:
        deadlines = (guard, self._writer.deadline, self.session.deadline if self.session else None)
        return max(0.0, min(at for at in deadlines if at is not None) - time.monotonic())

    def _send(self, message: msgspec.Struct) -> None:
        self.messages.append(message)
        if isinstance(message, SegmentWanted):
            self._segment += 1
            self._writer.grant(SegmentGranted(self._segment))


@contextlib.contextmanager
def sessions(journal: Path) -> Iterator[SessionRig]:
    rig = SessionRig(journal)
    try:
        yield rig
    finally:
        rig.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
