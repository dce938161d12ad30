"""Frames become durable blocks: room in the journal, appends, syncs in a second thread, reports.

Runs in the reader. The invariant: a block is reported exactly once, in order, and only after a sync
that began when it was written; a frame that finds no room waits and is never dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

import msgspec

from collector.core.messages import Accepted, Block, SegmentFailed, SegmentGranted, SegmentWanted
from collector.errors import NoSpaceError, StorageError
from collector.storage.journal import JournalWriter

MAX_UNSYNCED_BYTES: Final = 64 * 1024 * 1024
"""Written but not durable: above it the transfer pauses until the disk has caught up."""

_NO_SPACE_RETRY_S: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Sealed:
    """A block before it has a place."""

    payload: bytes
    records: int
    connection: int
    flags: int
    collected_at_us: int
    held_us: int


class DiskThread:
    """Runs jobs that wait for the disk, one at a time, and wakes the loop when one is done."""

    def __init__(self) -> None:
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Callable[[Any], None], Any, Exception | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], on_done: Callable[[Any], None]) -> None:
        """Run ``job`` in the thread; ``run_done`` passes its result to ``on_done`` in the caller's."""
        self._jobs.put((job, on_done))

    def run_done(self) -> None:
        """Call when ``wake_fd`` is readable. *Raises* what a job raised."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)
        while not self._done.empty():
            on_done, result, error = self._done.get()
            if error is not None:
                raise error
            on_done(result)

    def close(self) -> None:
        """*Blocks* until the job in hand is done."""
        self._jobs.put(None)
        self._thread.join()
        os.close(self.wake_fd)

    def _run(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, on_done = task
            try:
                self._done.put((on_done, job(), None))
            except Exception as error:  # noqa: BLE001 - raised again in the loop's thread
                self._done.put((on_done, None, error))
            os.eventfd_write(self.wake_fd, 1)


class BlockWriter:
    """Takes sealed blocks in order; ``settled`` once all are durable and reported."""

    def __init__(
        self, journal: JournalWriter, disk: DiskThread, send: Callable[[msgspec.Struct], None]
    ) -> None:
        self._journal = journal
        self._disk = disk
        self._send = send
        self._waiting: deque[Sealed] = deque()
        self._written: deque[Block] = deque()
        self._unsynced_bytes = 0
        self._syncing = False
        self._asked = False
        self._retry_at: float | None = None
        self.short_of_room = False
        """The disk had none at the last try."""

    @property
    def has_room(self) -> bool:
        """Whether more may be taken. Without room the transfer pauses."""
        return not self._waiting and self._unsynced_bytes < MAX_UNSYNCED_BYTES

    @property
    def settled(self) -> bool:
        return not self._waiting and not self._written

    @property
    def all_durable(self) -> bool:
        """Everything that found room is durable and reported."""
        return not self._written

    @property
    def deadline(self) -> float | None:
        """When ``flush`` should be tried again."""
        return self._retry_at

    def put(self, block: Sealed) -> None:
        """Write it, or keep it until there is room. *Blocks* and *raises* as ``flush`` does."""
        self._waiting.append(block)
        if len(self._waiting) == 1:
            self._write()

    def flush(self, now: float) -> None:
        """Write what there is room for, ask for room, start a sync. Call it in every turn.

        *Blocks* for writes into the page cache. *Raises* ``StorageError``.
        """
        if self._retry_at is None or self._retry_at <= now:
            self._retry_at = None
            self._write()
        self.ask_for_segment()
        if self._written and not self._syncing:
            self._syncing = True
            self._disk.submit(self._journal.sync, self._on_synced)

    def ask_for_segment(self) -> None:
        """Once per spare segment; the answer may take as long as it takes."""
        if self._journal.wants_segment and not self._asked:
            self._asked = True
            self._send(SegmentWanted())

    def grant(self, granted: SegmentGranted) -> None:
        """Make the segment, in the disk's thread: until it is there, ``append`` finds no room."""

        def make() -> str:
            try:
                self._journal.add_segment(granted.segment, granted.recycled)
            except NoSpaceError as error:
                return str(error)
            except FileNotFoundError as error:
                raise StorageError(f"segment {granted.segment} cannot be made: {error}") from error
            return ""

        def on_made(reason: str) -> None:
            self.short_of_room = bool(reason)
            if reason:
                self._send(SegmentFailed(granted.segment, reason))
            else:
                self._asked = False

        self._asked = True
        self._disk.submit(make, on_made)

    def _write(self) -> None:
        while self._waiting:
            sealed = self._waiting[0]
            try:
                block = self._journal.append(
                    sealed.payload,
                    records=sealed.records,
                    connection=sealed.connection,
                    flags=sealed.flags,
                    collected_at_us=sealed.collected_at_us,
                    held_us=sealed.held_us,
                )
            except NoSpaceError as error:
                self._retry_at = time.monotonic() + _NO_SPACE_RETRY_S
                self.short_of_room = True
                self._send(SegmentFailed(0, str(error)))
                return
            if block is None:
                return
            self.short_of_room = False
            self._waiting.popleft()
            self._written.append(block)
            self._unsynced_bytes += block.length
            self.ask_for_segment()

    def _on_synced(self, durable_seq: int) -> None:
        self._syncing = False
        durable: list[Block] = []
        while self._written and self._written[0].seq <= durable_seq:
            durable.append(self._written.popleft())
        self._unsynced_bytes -= sum(block.length for block in durable)
        if durable:
            self._send(Accepted(tuple(durable)))
