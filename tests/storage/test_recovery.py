from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from faulty_disk import BROKEN, Crashed, FaultyDisk

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    Entry,
    Intent,
    Made,
    ShareStaged,
)
from collector.core.ledger import LogState
from collector.core.messages import FileKind, StagedFile, Totals
from collector.errors import StorageError
from collector.storage.commitlog import CommitLog
from collector.storage.fs import DISK, Disk
from collector.storage.journal import JournalWriter
from collector.storage.layout import StateFolder
from collector.storage.recovery import RecoveredState, recover_state
from collector.storage.segments import SEGMENT_HEADER_BYTES, segment_name, space_of

HOUR = "date=2026-03-01/hour=05"
BLOCKS = 7


class Root:
    """An output folder whose collector died in the middle of a commit."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.state = StateFolder(output / ".state" / "shop")

    def die(self) -> None:
        self.state.make(DISK)
        self._journal()
        part = self._staged("one", FileKind.HITS, f"hits/v=1/stream=shop/{HOUR}/part-one.parquet")
        ids = self._staged("ids", FileKind.IDS, "ids/000000000001-000000000004-1.run")
        rows = self._staged("rows", FileKind.CONNECTIONS, "connections/v=1/stream=shop/part-rows.parquet")
        self._staged("undecided", FileKind.HITS, "hits/never.parquet")
        entries: list[Entry] = [
            Made("0" * 16, "shop", "shop", 1),
            ConnectionOpened(1, 1, 0, {}, 0),
            _intent((part, ids)),
            ConnectionsIntent(1, 2, (rows,), ((1, 0),), ()),
        ]
        log = CommitLog.open(DISK, self.state.commit_log)
        for entry in entries:
            log.append(entry)
        log.close()

    def _journal(self) -> None:
        size = SEGMENT_HEADER_BYTES + 2 * space_of(8)
        writer = JournalWriter(DISK, self.state.journal, next_seq=1, segment_bytes=size)
        for n in range(1, BLOCKS + 1):
            if n % 2:
                writer.add_segment(n // 2 + 1)
            writer.append(b"12345678", records=1, connection=1, flags=0, collected_at_us=n, held_us=n)
        writer.close()
        path = self.state.journal / segment_name(4)
        os.truncate(path, SEGMENT_HEADER_BYTES + space_of(8) - 3)

    def _staged(self, name: str, kind: FileKind, final: str) -> StagedFile:
        (self.state.staging / name).write_bytes(name.encode())
        return StagedFile(kind, name, final, len(name), hashlib.sha256(name.encode()).digest(), 1)

    def recover(self, disk: Disk = DISK) -> tuple[RecoveredState, LogState]:
        with contextlib.closing(CommitLog.open(disk, self.state.commit_log)) as log:
            ledger = LogState()
            for number, entry in log.entries():
                ledger.fold(number, entry)
            found = recover_state(
                disk, self.state, self.output, journal=self.state.journal, commit_log=log, ledger=ledger
            )
            return found, ledger

    def entries(self) -> list[str]:
        with contextlib.closing(CommitLog.open(DISK, self.state.commit_log)) as log:
            return [type(entry).__name__ for _, entry in log.entries()]

    def files(self) -> list[str]:
        found = (path for path in self.output.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.output)) for path in found)


def _intent(files: tuple[StagedFile, ...]) -> Intent:
    blocks = tuple(BlockCount(seq, 1, 1, 1, 0, 0, seq) for seq in range(1, 5))
    return Intent(1, 4, (ShareStaged(1, 4, 0, 0, files),), blocks, Totals(), (1, 4))


@pytest.fixture
def dead(tmp_path: Path) -> Root:
    root = Root(tmp_path / "out")
    root.die()
    return root


def test_what_was_decided_is_finished(dead: Root) -> None:
    """The pending batch and the pending connections become visible and are confirmed in the log."""
    found, ledger = dead.recover()
    assert found.redone_batch == 1
    assert (dead.output / "hits/v=1/stream=shop" / HOUR / "part-one.parquet").read_bytes() == b"one"
    assert (dead.output / "connections/v=1/stream=shop/part-rows.parquet").exists()
    assert (dead.state.ids / "000000000001-000000000004-1.run").exists()
    assert dead.entries()[-2:] == [Committed.__name__, ConnectionsCommitted.__name__]
    assert (ledger.pending, ledger.pending_connections) == (None, None)
    assert ledger.connections[1].written == {0}


def test_what_was_not_decided_is_forgotten(dead: Root) -> None:
    """Its blocks are in the journal and run again."""
    found, _ = dead.recover()
    assert found.staged_removed == 1
    assert os.listdir(dead.state.staging) == []
    assert not (dead.output / "hits/never.parquet").exists()


def test_uncommitted_blocks_are_given_and_committed_segments_freed(dead: Root) -> None:
    """Blocks 1 to 4 are committed, 5 and 6 whole, 7 is torn."""
    found, _ = dead.recover()
    journal = found.journal
    assert [block.seq for block in journal.blocks] == [5, 6]
    assert (journal.next_seq, journal.last_block, journal.free) == (7, {3: 6}, (1, 2))
    assert journal.cut is not None
    assert sorted(os.listdir(dead.state.journal)) == [
        segment_name(3),
        f"free-{segment_name(1)}",
        f"free-{segment_name(2)}",
    ]


def test_no_more_free_segments_are_kept_than_are_recycled_soon(dead: Root) -> None:
    """The others give their room back."""
    for number in (90, 91, 92):
        (dead.state.journal / f"free-{segment_name(number)}").touch()
    found, _ = dead.recover()
    assert len(found.journal.free) == 2
    assert len(os.listdir(dead.state.journal)) == 3


def test_recovering_twice_is_recovering_once(dead: Root) -> None:
    """A crash loop neither loses nor doubles anything."""
    first, _ = dead.recover()
    before = (dead.entries(), dead.files())
    second, _ = dead.recover()
    assert (dead.entries(), dead.files()) == before
    assert second.journal.blocks == first.journal.blocks
    assert (second.redone_batch, second.staged_removed, second.journal.cut) == (None, 0, None)


@pytest.mark.parametrize("error", [None, BROKEN])
def test_a_recovery_cut_short_anywhere_is_done_again(tmp_path: Path, error: int | None) -> None:
    """Every disk call of it fails, or the process dies there; the next start ends the same way."""
    dead = Root(tmp_path / "dead")
    dead.die()
    expected = None
    for call in range(500):
        root = Root(tmp_path / str(call))
        shutil.copytree(dead.output, root.output)
        disk = FaultyDisk(call, error)
        fds = set(os.listdir("/proc/self/fd"))
        with contextlib.suppress(Crashed, StorageError):
            root.recover(disk)
        assert len(os.listdir("/proc/self/fd")) <= len(fds)
        found, ledger = root.recover(FaultyDisk())
        outcome = (root.entries(), root.files(), found.journal.blocks, ledger.totals, found.journal.next_seq)
        expected = expected or outcome
        assert outcome == expected
        shutil.rmtree(root.output)
        if call and not disk.fired:
            break
    assert not disk.fired


@pytest.mark.parametrize("spoil", ["gone", "other"])
def test_a_batch_that_cannot_be_finished_names_the_way_on(dead: Root, spoil: str) -> None:
    """Nothing else is touched: the operator decides."""
    if spoil == "gone":
        (dead.state.staging / "one").unlink()
    else:
        (dead.state.staging / "one").write_bytes(b"two")
    with pytest.raises(StorageError, match=r"batch 1 was decided but cannot be finished: .*one.*; "):
        dead.recover()
    assert dead.entries()[-1] == ConnectionsIntent.__name__
    assert (dead.state.staging / "undecided").exists()


def test_connections_that_cannot_be_finished_are_told(dead: Root) -> None:
    """By the log entries that name them."""
    (dead.state.staging / "rows").unlink()
    with pytest.raises(StorageError, match="connections of log entries 1 to 2"):
        dead.recover()


def test_a_fresh_state_folder_has_nothing_to_recover(tmp_path: Path) -> None:
    """The first start takes the same way."""
    root = Root(tmp_path / "out")
    root.state.make(DISK)
    found, _ = root.recover()
    assert (found.journal.blocks, found.journal.next_seq, found.journal.next_segment) == ([], 1, 1)
