"""Blocks on their way to the disk, in one process, with disks that fail."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.core.messages import Accepted, SegmentFailed, SegmentGranted, SegmentWanted
from collector.errors import NoSpaceError, StorageError
from collector.reader import blocks
from collector.reader.blocks import BlockWriter, DiskThread, Sealed
from collector.storage.fs import Disk
from collector.storage.journal import JournalWriter

SEGMENT_BYTES = 1 << 16


class FailingDisk(Disk):
    """Fails or waits where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: dict[str, Exception] = {}
        self.go_on = threading.Event()
        self.go_on.set()
        self.syncing = threading.Event()

    def allocate(self, *args: Any) -> Any:
        self._meet("allocate")
        return super().allocate(*args)

    def pwritev_all(self, *args: Any) -> Any:
        self._meet("write")
        return super().pwritev_all(*args)

    def fdatasync(self, *args: Any) -> Any:
        self.syncing.set()
        self.go_on.wait(10)
        self._meet("sync")
        return super().fdatasync(*args)

    def _meet(self, what: str) -> None:
        if what in self.fail:
            raise self.fail[what]


class Rig:
    """A writer and its loop."""

    def __init__(self, folder: Path) -> None:
        self.disk = FailingDisk()
        self.thread = DiskThread()
        self.sent: list[msgspec.Struct] = []
        self.journal = JournalWriter(self.disk, folder, next_seq=1, segment_bytes=SEGMENT_BYTES)
        self.writer = BlockWriter(self.journal, self.thread, self.sent.append)
        self.writer.flush(0.0)

    def put(self, payload: bytes) -> None:
        self.writer.put(Sealed(payload, 1, 1, 0, 0, 0))
        self.writer.flush(time.monotonic())

    def until(self, done: Callable[[], bool]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.thread.wake_fd, selectors.EVENT_READ)
            guard = time.monotonic() + 10
            while not done():
                assert time.monotonic() < guard
                selector.select(0.05)
                self.thread.run_done()
                self.writer.flush(time.monotonic())

    def grant(self, segment: int) -> None:
        self.writer.grant(SegmentGranted(segment))
        self.until(lambda: not self.journal.wants_segment)

    def all(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    def accepted(self) -> list[list[int]]:
        return [[block.seq for block in message.blocks] for message in self.all(Accepted)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.disk.go_on.set()
    rig.thread.close()
    rig.journal.close()


def test_blocks_written_during_a_sync_share_the_next_one(rig: Rig) -> None:
    """Nothing waits for a sync but its report, and one report may cover many blocks."""
    rig.grant(1)
    rig.disk.go_on.clear()
    rig.disk.syncing.clear()
    rig.put(b"0\n")
    assert rig.disk.syncing.wait(10)
    for number in range(1, 5):
        rig.put(b"%d\n" % number)
    assert rig.writer.has_room
    assert rig.accepted() == []
    rig.disk.go_on.set()
    rig.until(lambda: rig.writer.settled)
    assert rig.accepted() == [[1], [2, 3, 4, 5]]


def test_too_much_that_is_not_durable_leaves_no_room(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not keep up holds the transfer back."""
    monkeypatch.setattr(blocks, "MAX_UNSYNCED_BYTES", 3000)
    rig.grant(1)
    rig.disk.go_on.clear()
    for _ in range(3):
        assert rig.writer.has_room
        rig.put(b"x" * 999 + b"\n")
    assert not rig.writer.has_room
    rig.disk.go_on.set()
    rig.until(lambda: rig.writer.has_room)


def test_a_spare_is_asked_for_once(rig: Rig) -> None:
    """As soon as there is none, and again only after the last one was made."""
    assert rig.all(SegmentWanted) == [SegmentWanted()]
    rig.grant(1)
    rig.put(b"a\n")
    rig.put(b"b\n")
    rig.until(lambda: rig.writer.settled)
    assert len(rig.all(SegmentWanted)) == 2


def test_blocks_without_a_segment_wait_in_order(rig: Rig) -> None:
    """They are written as soon as there is one, none is lost."""
    for number in range(3):
        rig.put(b"%d\n" % number)
    assert not rig.writer.has_room
    assert not rig.writer.settled
    rig.writer.grant(SegmentGranted(1))
    rig.until(lambda: rig.writer.settled)
    assert [seq for seqs in rig.accepted() for seq in seqs] == [1, 2, 3]


def test_no_room_for_a_segment_is_said_and_waited_out(rig: Rig) -> None:
    """The next grant is the answer; it is not asked for again meanwhile."""
    rig.put(b"a\n")
    rig.disk.fail["allocate"] = NoSpaceError("disk full")
    rig.writer.grant(SegmentGranted(1))
    rig.until(lambda: bool(rig.all(SegmentFailed)))
    assert rig.all(SegmentFailed) == [SegmentFailed(1, "disk full")]
    assert len(rig.all(SegmentWanted)) == 1
    rig.disk.fail.clear()
    rig.writer.grant(SegmentGranted(2))
    rig.until(lambda: rig.writer.settled)
    assert rig.accepted() == [[1]]


def test_no_room_for_a_block_is_said_and_waited_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is kept and written later; the writer says when to try."""
    monkeypatch.setattr(blocks, "_NO_SPACE_RETRY_S", 0.05)
    rig.grant(1)
    rig.disk.fail["write"] = NoSpaceError("disk full")
    rig.put(b"a\n")
    assert not rig.writer.has_room
    assert rig.writer.deadline is not None
    assert rig.all(SegmentFailed) == [SegmentFailed(0, "disk full")]
    assert rig.writer.short_of_room
    rig.disk.fail.clear()
    rig.until(lambda: rig.writer.settled)
    assert rig.accepted() == [[1]]
    assert not rig.writer.short_of_room


@pytest.mark.parametrize("what", ["allocate", "sync", "write"])
def test_other_storage_errors_reach_the_loop(rig: Rig, what: str) -> None:
    """They are raised in the loop's thread, wherever they happened, and nothing is reported."""

    def work() -> None:
        rig.grant(1)
        rig.disk.fail[what] = StorageError("broken")
        rig.put(b"a\n")
        rig.writer.grant(SegmentGranted(2))
        rig.until(lambda: rig.writer.settled and not rig.journal.wants_segment)

    with pytest.raises(StorageError, match="broken"):
        work()
    assert (rig.accepted() == []) is (what != "allocate")
