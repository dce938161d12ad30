"""The reader process and the journal it writes: credit for segments, accepted blocks, its death.

Runs in the coordinator. Invariant: blocks are passed on in order and once, whether the reader
reported them or they were found in the journal after it died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from collector.coordinator.clock import now_us
from collector.coordinator.committer import StorageThread
from collector.coordinator.supervisor import Child, delay_of_successor_s
from collector.core.messages import (
    Accepted,
    Block,
    Closed,
    Connect,
    Disconnect,
    Failed,
    FromReader,
    Opened,
    Outcome,
    Progress,
    ReadFile,
    Ready,
    SegmentFailed,
    SegmentGranted,
    SegmentWanted,
)
from collector.core.segments import FREE_SEGMENTS_KEPT, Segments
from collector.core.supervision import RestartIntensity
from collector.errors import ChildReportedError
from collector.storage.forgetting import forget_copies
from collector.storage.fs import Disk
from collector.storage.journal import Recovered, delete_free, free_name, free_segment, recover
from collector.telemetry import log

CREDIT_RETRY_S: Final = 1.0
"""How often a segment that could not be granted is thought over again."""

StartReader = Callable[[int], Awaitable[Child[FromReader]]]
"""Given the seq of its first block."""


class Transport(Protocol):
    """What reads through the reader: the live stream, or saved files. Calls come in order."""

    def reader_ready(self) -> None:
        """It waits for orders, and whether it is ``starved`` is known."""

    def reader_gone(self) -> None: ...
    def opened(self, message: Opened) -> None: ...
    def progressed(self, message: Progress) -> None: ...
    def closed(self, message: Closed) -> None: ...


class Intake:
    """Keeps one reader alive; ``run`` goes on until it is cancelled or ``stop`` was called."""

    def __init__(
        self,
        *,
        disk: Disk,
        journal: Path,
        quarantine: Path,
        watched: tuple[Path, ...],
        segments: Segments,
        reserve_bytes: int,
        next_seq: int,
        held_us: int,
        accepted_total: int,
        start_reader: StartReader,
        accepted: Callable[[tuple[Block, ...]], None],
        journal_full: Callable[[int], None],
    ) -> None:
        self._disk = disk
        self._journal = journal
        self._quarantine = quarantine
        self._watched = watched
        self._reserve_bytes = reserve_bytes
        self._last_seq = next_seq - 1
        self._start_reader = start_reader
        self._accepted = accepted
        self._journal_full = journal_full
        self._thread = StorageThread("journal")
        self._committed = 0
        self._room_changed = asyncio.Event()
        self._child: Child[FromReader] | None = None
        self._stopping = False
        self.ready = asyncio.Event()
        """A reader waits for orders."""
        self.held_us = held_us
        """Of held connection, as far as it is known."""
        self.accepted_total = accepted_total
        """Records, for life."""
        self.accepted_us = 0
        """When the newest of this run were; 0: none were."""
        self.segments = segments
        self.transport: Transport
        self.connection = 0
        """The one that is requested or open; 0: none."""
        self.paused = False
        """The transfer waits for room in the journal."""
        self._not_granted = False
        """The reader asked for a segment that could not be granted yet."""
        self._refused = False
        """The disk had no room for what the reader wrote last."""
        self._private = False

    @property
    def starved(self) -> bool:
        """The reader wants room in the journal that there is not."""
        return self._not_granted or self._refused

    # ------------------------------------------------------------ orders

    def connect(self, order: Connect | ReadFile) -> None:
        """``closed`` of the transport follows, whatever becomes of the reader."""
        if self._child is None:
            self.transport.closed(_died(order.connection, "before it got the request", []))
            return
        self.connection = order.connection
        self._send(order)

    def disconnect(self) -> None:
        self._send(Disconnect())

    def keep_raw(self, *, keep: bool) -> None:
        """Whether raw records may lie about once they are committed: they may not where privacy is on."""
        self._private = not keep
        self.segments.free_kept = FREE_SEGMENTS_KEPT if keep else 0
        self._room_changed.set()

    def bound(self, *, max_bytes: int | None, reserve_bytes: int) -> None:
        """Other limits from now on, ``None``: the same; what is over them stays."""
        self.segments.max_bytes = self.segments.max_bytes if max_bytes is None else max_bytes
        self._reserve_bytes = reserve_bytes
        self._room_changed.set()

    def stop(self) -> None:
        """The reader's end is meant from now on."""
        self._stopping = True

    def close(self) -> None:
        """*Blocks* until the disk call in hand is done."""
        self._thread.close()

    def _send(self, message: Connect | ReadFile | Disconnect | SegmentGranted) -> None:
        if self._child is not None:
            self._child.send(message)

    # ------------------------------------------------------------ the process

    async def run(self) -> None:
        """*Raises* what ends the collector: a reader that keeps dying, storage, damage."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_credit())
            await self._keep_reader()

    async def _keep_reader(self) -> None:
        intensity = RestartIntensity()
        while True:
            child = await self._start_reader(self._last_seq + 1)
            try:
                await self._listen(child)
            finally:
                intensity.was_ready |= self._child is not None
                self._child = None
                self.ready.clear()
                self.transport.reader_gone()
                death = await child.reap(grace_s=2.0 if self._stopping else 0.0)
            if self._stopping:
                await asyncio.Event().wait()  # until cancelled
            delay_s = delay_of_successor_s("the reader", death, intensity)
            log("child.died", name="reader", how=death.how, blocks_again=0, delay_s=delay_s)
            await self._take_over(death.how)
            await asyncio.sleep(delay_s)

    async def _listen(self, child: Child[FromReader]) -> None:
        while (message := await child.receive()) is not None:
            match message:
                case Ready():
                    log("child.started", name="reader", pid=child.pid)
                    self._child = child
                    self._refused = False
                    self.ready.set()
                case Accepted():
                    self._take(message.blocks)
                case SegmentWanted():
                    self.segments.wanted = True
                    self._room_changed.set()
                case SegmentFailed():
                    self._full(message)
                case Opened():
                    self.transport.opened(message)
                case Progress():
                    self._progressed(message)
                case Closed():
                    self.connection = 0
                    self._hold(message.held_us)
                    self.transport.closed(message)
                case Failed():
                    raise ChildReportedError("reader", message.message, message.exit_code)

    def _full(self, message: SegmentFailed) -> None:
        log("storage.full", what="the journal", reason=message.reason, retry_s=CREDIT_RETRY_S)
        self._refused = True
        if message.segment:
            self.segments.refused(message.segment)

    def _take(self, blocks: tuple[Block, ...]) -> None:
        for block in blocks:
            self.segments.accepted(block)
            self.accepted_total += block.records
        self.accepted_us = blocks[-1].collected_at_us
        self._hold(blocks[-1].held_us)
        self._last_seq = blocks[-1].seq
        self._accepted(blocks)

    def _hold(self, held_us: int) -> None:
        self.held_us = max(self.held_us, held_us)

    def _progressed(self, message: Progress) -> None:
        self._hold(message.held_us)
        self._refused &= message.paused
        waits_for_room = message.paused and self.starved  # until the disk has caught up is no news
        if waits_for_room != self.paused:
            self.paused = waits_for_room
            event = "connection.paused" if waits_for_room else "connection.resumed"
            log(event, connection=message.connection)
        self.transport.progressed(message)

    async def _take_over(self, how: str) -> None:
        """What the dead reader had made durable is accepted, told or not; the torn rest is cut."""

        def recovery() -> Recovered:
            found = recover(self._disk, self._journal, self._quarantine, after_seq=self._last_seq)
            if self._private:
                forget_copies(self._disk, self._quarantine)
            return found

        recovered = await self._thread.run(recovery)
        if recovered.cut is not None:
            log("journal.cut", reason=str(recovered.cut))
        if recovered.blocks:
            self._take(tuple(recovered.blocks))
        self.segments.reader_died(recovered.next_segment)
        if (connection := self.connection) != 0:
            self.connection = 0
            self.transport.closed(_died(connection, how, recovered.blocks))

    # ------------------------------------------------------------ credit

    def committed(self, last: int) -> None:
        """Every block up to ``last`` is in committed parts: its segments are free."""
        self._committed = last
        self._room_changed.set()

    async def _keep_credit(self) -> None:
        """One thing after the other, so that no segment is granted before it is free on the disk."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CREDIT_RETRY_S):
                    await self._room_changed.wait()
            self._room_changed.clear()
            await self._free_segments()
            await self._give_credit()

    async def _free_segments(self) -> None:
        freed = self.segments.committed(self._committed)

        def free() -> None:
            for segment in (*freed.keep, *freed.delete):
                free_segment(self._disk, self._journal, segment)
            for segment in (*freed.delete, *freed.surplus):
                delete_free(self._disk, self._journal, segment)

        if any((freed.keep, freed.delete, freed.surplus)):
            await self._thread.run(free)

    async def _give_credit(self) -> None:
        """Grants the segment that was asked for; when that can't be, room is made by committing."""
        if self._child is None or not self.segments.wanted:
            return
        free_bytes = await self._thread.run(lambda: min(map(self._disk.free_bytes, self._watched)))
        if self._child is None or not self.segments.wanted:  # it died meanwhile
            return
        grant = self.segments.grant(free_bytes, self._reserve_bytes)
        if (
            grant is None
            and not self._not_granted
            and free_bytes - self.segments.segment_bytes < self._reserve_bytes
        ):
            reason = f"{free_bytes:,} bytes are free, journal.reserve_bytes is {self._reserve_bytes:,}"
            log("storage.full", what="the journal", reason=reason, retry_s=CREDIT_RETRY_S)
        self._not_granted = grant is None
        self._journal_full(self.segments.max_bytes if grant is None else 0)
        if grant is not None:
            recycled = "" if grant.recycled is None else free_name(grant.recycled)
            self._send(SegmentGranted(grant.segment, recycled))
        if not self.connection:
            self.transport.reader_ready()  # only now, so that no request is sent for what has no room


def _died(connection: int, how: str, found: list[Block]) -> Closed:
    return Closed(
        connection=connection,
        outcome=Outcome.READER_DIED,
        detail=f"the reader process ended: {how}",
        closed_at_us=now_us(),
        held_us=max((block.held_us for block in found), default=0),
    )
