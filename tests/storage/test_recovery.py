from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_disk import BROKEN, Crashed, FaultyDisk

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    ConnectionsVoid,
    Entry,
    GapSeen,
    Intent,
    Lost,
    Made,
    ShareStaged,
    Void,
)
from collector.core.ledger import HOUR_US, LogState
from collector.core.messages import FileKind, StagedFile, Totals
from collector.errors import ConfigurationError, DamagedError, StorageError
from collector.storage.archive import all_entries
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.fs import DISK, Disk
from collector.storage.journal import JournalWriter
from collector.storage.layout import StateFolder
from collector.storage.recovery import RECOVER_ONLY, RecoveredState, WaysOn, recover_state
from collector.storage.segments import BLOCK_HEADER_BYTES, SEGMENT_HEADER_BYTES, segment_name, space_of

HOUR = "date=2026-03-01/hour=05"
PART = f"hits/v=1/stream=shop/{HOUR}/part-one.parquet"
IDS = "ids/000000000001-000000000004-1.run"
ROWS = "connections/v=1/stream=shop/part-rows.parquet"
DAY = "connections/v=1/stream=shop/date=2026-03-01/part-day.parquet"
BLOCKS = 7
REDO = WaysOn(redo_batch=1)
ACCEPT = WaysOn(accept_journal_loss=True)


class Root:
    """An output folder whose collector died in the middle of a commit."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.state = StateFolder(output / ".state" / "shop")

    def die(self) -> None:
        self.state.make(DISK)
        self._journal()
        part = self._staged("one", FileKind.HITS, PART)
        ids = self._staged("ids", FileKind.IDS, IDS)
        day = self._staged("day", FileKind.CONNECTIONS, DAY)
        rows = self._staged("rows", FileKind.CONNECTIONS, ROWS)
        self._staged("undecided", FileKind.HITS, "hits/never.parquet")
        self.append(
            Made("0" * 16, "shop", "shop", 1),
            ConnectionOpened(1, 1, 0, {}, 0),
            _intent((part, ids)),
            ConnectionsIntent(1, 2, (day, rows), ((1, 0),), ()),
        )

    def append(self, *entries: Entry) -> None:
        with contextlib.closing(CommitLog.open(DISK, self.state.commit_log)) as log:
            for entry in entries:
                log.append(entry)

    def _journal(self) -> None:
        """Segments of two blocks; the last is torn. Each was synced before the next was sealed."""
        size = SEGMENT_HEADER_BYTES + 2 * space_of(8)
        writer = JournalWriter(DISK, self.state.journal, next_seq=1, segment_bytes=size)
        for n in range(1, BLOCKS + 1):
            if n % 2:
                writer.add_segment(n // 2 + 1)
            writer.append(b"12345678", records=1, connection=1, flags=0, collected_at_us=n, held_us=n)
            writer.sync()
        writer.close()
        os.truncate(self.segment(4), SEGMENT_HEADER_BYTES + space_of(8) - 3)

    def segment(self, number: int) -> Path:
        return self.state.journal / segment_name(number)

    def _staged(self, name: str, kind: FileKind, final: str) -> StagedFile:
        (self.state.staging / name).write_bytes(name.encode())
        return StagedFile(kind, name, final, len(name), hashlib.sha256(name.encode()).digest(), 1)

    def recover(
        self, disk: Disk = DISK, ways_on: WaysOn = RECOVER_ONLY, *, read_again: bool = False
    ) -> tuple[RecoveredState, LogState]:
        with contextlib.closing(CommitLog.open(disk, self.state.commit_log)) as log:
            ledger = LogState()
            for number, entry in log.entries():
                ledger.fold(number, entry)
            found = recover_state(
                disk,
                self.state,
                self.output,
                journal=self.state.journal,
                commit_log=log,
                ledger=ledger,
                ways_on=ways_on,
                read_again=read_again,
            )
            return found, ledger

    def entries(self) -> list[str]:
        return [type(entry).__name__ for _, entry in all_entries(DISK, self.state)]

    def files(self) -> list[str]:
        found = (path for path in self.output.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.output)) for path in found)

    def outcome(self, ways_on: WaysOn) -> object:
        """Everything that a recovery is to end in, but for the times it writes down."""
        found, ledger = self.recover(FaultyDisk(), ways_on)
        journal = found.journal
        return (
            self.entries(),
            self.files(),
            (journal.blocks, journal.next_seq, journal.last_block),
            (ledger.totals, ledger.last_block, ledger.lost, ledger.lost_blocks, ledger.lost_records),
            (ledger.voided, ledger.pending, ledger.connections_until, ledger.durable_block),
        )


def _intent(files: tuple[StagedFile, ...]) -> Intent:
    blocks = tuple(BlockCount(seq, 1, 1, 1, 0, 0, seq) for seq in range(1, 5))
    return Intent(1, 4, (ShareStaged(1, 4, 0, 0, files),), blocks, Totals(), (1, 4))


@pytest.fixture
def dead(tmp_path: Path) -> Root:
    root = Root(tmp_path / "out")
    root.die()
    return root


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# ---------------------------------------------------------------- what can have happened


def published_half(root: Root) -> None:
    target = root.output / PART
    target.parent.mkdir(parents=True)
    (root.state.staging / "one").rename(target)


def published(root: Root) -> None:
    published_half(root)
    (root.state.staging / "ids").rename(root.state.root / IDS)
    (root.output / ROWS).parent.mkdir(parents=True)
    (root.state.staging / "rows").rename(root.output / ROWS)


def rotated(root: Root) -> None:
    """And the rotation before it was cut short: the archive has a copy of what is in the log still."""
    with contextlib.closing(CommitLog.open(DISK, root.state.commit_log)) as log:
        ledger = LogState()
        for number, entry in log.entries():
            ledger.fold(number, entry)
        assert log.rotate(4, packed_checkpoint(4, ledger.checkpoint()))
        stale = root.state.archive / "000000000005-000000000005.log"
        stale.write_bytes(root.state.commit_log.read_bytes())


def rows_gone(root: Root) -> None:
    (root.state.staging / "rows").unlink()


def part_gone(root: Root) -> None:
    """Published and then deleted by somebody, who left something else in another's place."""
    published_half(root)
    (root.output / PART).unlink()
    (root.state.root / IDS).write_bytes(b"something else")


def block_damaged(root: Root) -> None:
    """Block 5, which block 6 proves durable."""
    flip(root.segment(3), SEGMENT_HEADER_BYTES + BLOCK_HEADER_BYTES)


def block_behind_damaged(root: Root) -> None:
    """Block 6, with block 5 whole before it: what is written off is not next in turn."""
    flip(root.segment(3), SEGMENT_HEADER_BYTES + space_of(8) + BLOCK_HEADER_BYTES)


def segment_missing(root: Root) -> None:
    """Blocks 5 and 6, which block 7 proves durable: the header of it is whole."""
    root.segment(3).unlink()


def lost_before(root: Root) -> None:
    """Blocks 5 and 6 were written off by a start that died behind that; their segment is as it was."""
    block_damaged(root)
    root.append(Committed(1, 4, 5), Lost(5, 5, 1))


def as_it_is(root: Root) -> None:
    """Everything staged, a leftover of a batch that was not decided, a torn tail."""


SCENES: list[tuple[Callable[[Root], None], WaysOn]] = [
    (as_it_is, RECOVER_ONLY),
    (published_half, RECOVER_ONLY),
    (published, RECOVER_ONLY),
    (rotated, RECOVER_ONLY),
    (rows_gone, RECOVER_ONLY),
    (published_half, REDO),
    (published, REDO),
    (part_gone, REDO),
    (block_damaged, ACCEPT),
    (block_behind_damaged, ACCEPT),
    (segment_missing, ACCEPT),
    (lost_before, RECOVER_ONLY),
]


@pytest.mark.parametrize(("scene", "ways_on"), SCENES)
@pytest.mark.parametrize(
    ("error", "step"),
    [
        (None, 13),
        pytest.param(None, 1, marks=pytest.mark.matrix),
        pytest.param(BROKEN, 1, marks=pytest.mark.matrix),
    ],
    ids=["some", "dies", "fails"],
)
def test_a_recovery_cut_short_anywhere_is_done_again(
    tmp_path: Path, scene: Callable[[Root], None], ways_on: WaysOn, error: int | None, step: int
) -> None:
    """Every disk call of it fails, or the process dies there; the next start ends the same way."""
    dead = Root(tmp_path / "dead")
    dead.die()
    scene(dead)
    expected = None
    for call in (0, *range(1 + SCENES.index((scene, ways_on)) % step, 500, step)):
        root = Root(tmp_path / str(call))
        shutil.copytree(dead.output, root.output)
        disk = FaultyDisk(call, error)
        fds = set(os.listdir("/proc/self/fd"))
        with contextlib.suppress(Crashed, StorageError):
            root.recover(disk, ways_on)
        assert len(os.listdir("/proc/self/fd")) <= len(fds)
        outcome = root.outcome(ways_on)
        expected = expected or outcome
        assert outcome == expected
        assert call or root.outcome(RECOVER_ONLY) == expected
        shutil.rmtree(root.output)
        if call and not disk.fired:
            break
    assert not disk.fired


# ---------------------------------------------------------------- what was decided


def test_what_was_decided_is_finished(dead: Root) -> None:
    """The pending batch and the pending connections become visible and are confirmed in the log."""
    found, ledger = dead.recover()
    assert found.redone_batch == 1
    assert (dead.output / PART).read_bytes() == b"one"
    assert (dead.output / ROWS).exists()
    assert (dead.state.root / IDS).exists()
    assert dead.entries()[-2:] == [Committed.__name__, ConnectionsCommitted.__name__]
    assert (ledger.pending, ledger.pending_connections) == (None, None)
    assert ledger.connections[1].written_before == HOUR_US


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


def test_no_segment_is_freed_before_its_blocks_are_committed(dead: Root) -> None:
    """The confirmation is durable first: a batch that would have to run again still could."""

    class Watching(FaultyDisk):
        def rename(self, source: object, target: object) -> None:
            if "free-" in str(target):
                assert Committed.__name__ in dead.entries()
                renamed.append(str(target))
            super().rename(source, target)

    renamed: list[str] = []
    dead.recover(Watching())
    assert len(renamed) == 2


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


def test_a_fresh_state_folder_has_nothing_to_recover(tmp_path: Path) -> None:
    """The first start takes the same way."""
    root = Root(tmp_path / "out")
    root.state.make(DISK)
    found, _ = root.recover()
    assert (found.journal.blocks, found.journal.next_seq, found.journal.next_segment) == ([], 1, 1)


# ---------------------------------------------------------------- a batch that cannot be finished


@pytest.mark.parametrize("spoil", ["gone", "other"])
def test_a_batch_that_cannot_be_finished_names_the_way_on(dead: Root, spoil: str) -> None:
    """Nothing else is touched: the operator decides."""
    if spoil == "gone":
        (dead.state.staging / "one").unlink()
    else:
        (dead.state.staging / "one").write_bytes(b"two")
    with pytest.raises(
        StorageError, match=r"batch 1 was .* cannot be finished: .*one.*; .*run --redo-batch 1"
    ):
        dead.recover()
    assert dead.entries()[-1] == ConnectionsIntent.__name__
    assert (dead.state.staging / "undecided").exists()


@pytest.mark.parametrize("scene", [as_it_is, published_half, published])
def test_a_batch_that_is_redone_leaves_no_file_and_gives_its_blocks_back(
    dead: Root, scene: Callable[[Root], None]
) -> None:
    """Staged or visible: all of it goes, then the log says so, and the blocks come from the journal."""
    scene(dead)
    found, ledger = dead.recover(ways_on=REDO)
    assert Void.__name__ in dead.entries()
    assert not (dead.output / PART).exists()
    assert not (dead.state.root / IDS).exists()
    assert [block.seq for block in found.journal.blocks] == [1, 2, 3, 4, 5, 6]
    assert (ledger.totals, ledger.last_block, ledger.pending) == (Totals(), 0, None)
    assert found.voided_batch is not None


def test_a_file_that_is_not_ours_is_never_deleted(dead: Root) -> None:
    """Under a name of the batch, with other content: it goes to quarantine, twice if need be."""
    part_gone(dead)
    (dead.state.quarantine / f"{Path(IDS).name}.1").write_bytes(b"an older one")
    dead.recover(ways_on=REDO)
    assert not (dead.state.root / IDS).exists()
    assert (dead.state.quarantine / f"{Path(IDS).name}.1").read_bytes() == b"an older one"
    assert (dead.state.quarantine / f"{Path(IDS).name}.2").read_bytes() == b"something else"


def test_only_the_pending_batch_can_be_redone(dead: Root) -> None:
    """Another one is a mistake that names it; nothing is changed."""
    before = dead.files()
    with pytest.raises(ConfigurationError, match="--redo-batch 2: the pending batch is 1"):
        dead.recover(ways_on=WaysOn(redo_batch=2))
    assert dead.files() == before
    dead.recover()
    with pytest.raises(ConfigurationError, match="--redo-batch 1: no batch is pending"):
        dead.recover(ways_on=REDO)


def test_a_batch_redone_is_not_redone_again_by_the_same_flag(dead: Root) -> None:
    """A service manager starts with the same arguments, until the batch is committed."""
    dead.recover(ways_on=REDO)
    before = dead.entries()
    found, _ = dead.recover(ways_on=REDO)
    assert dead.entries() == before
    assert [block.seq for block in found.journal.blocks] == [1, 2, 3, 4, 5, 6]


def test_blocks_of_a_voided_batch_are_missed_when_they_are_gone(dead: Root) -> None:
    """The log knows that they were durable, whatever the journal says of itself."""
    for number in (1, 2, 3, 4):
        dead.segment(number).unlink()
    with pytest.raises(DamagedError, match="blocks 1 to 4, which were durable, are damaged or missing"):
        dead.recover(ways_on=REDO)
    with pytest.raises(DamagedError, match="blocks 1 to 4"):
        dead.recover()
    found, ledger = dead.recover(ways_on=ACCEPT)
    assert (found.journal.next_seq, ledger.last_block, ledger.lost_blocks) == (5, 4, 4)


def test_rows_that_cannot_be_finished_are_made_again(dead: Root) -> None:
    """They come from the log alone, so nobody has to decide; they are named anew."""
    rows_gone(dead)
    found, ledger = dead.recover()
    assert dead.entries()[-1] == ConnectionsVoid.__name__
    assert "neither" in found.voided_rows
    assert not (dead.output / DAY).exists()
    assert [hour for _, hour in ledger.unwritten_rows(5)] == [0]
    assert ledger.connections_until == 2


def test_another_file_under_the_name_of_rows_goes_to_quarantine(dead: Root) -> None:
    """It is not what was decided on."""
    (dead.output / ROWS).parent.mkdir(parents=True)
    (dead.output / ROWS).write_bytes(b"else")
    dead.recover()
    assert not (dead.output / ROWS).exists()
    assert (dead.state.quarantine / f"{Path(ROWS).name}.1").read_bytes() == b"else"


# ---------------------------------------------------------------- blocks that are damaged


@pytest.mark.parametrize(("scene", "lost"), [(block_damaged, [5]), (segment_missing, [5, 6])])
def test_damage_stops_the_start_and_names_the_way_on(
    dead: Root, scene: Callable[[Root], None], lost: list[int]
) -> None:
    """File, bytes and blocks; what was decided is finished all the same, the journal is not touched."""
    scene(dead)
    before = {path.name: path.read_bytes() for path in dead.state.journal.iterdir()}
    with pytest.raises(DamagedError, match=rf"segment: blocks? {lost[0]}.*run --accept-journal-loss"):
        dead.recover()
    assert {path.name: path.read_bytes() for path in dead.state.journal.iterdir()} == before
    assert Lost.__name__ not in dead.entries()


def test_what_checks_out_is_kept_and_what_does_not_is_written_off(dead: Root) -> None:
    """Blocks after the damage too; a gap row says when, the numbers are not used again."""
    block_damaged(dead)
    found, ledger = dead.recover(ways_on=ACCEPT)
    (loss,) = found.losses
    assert (loss.first, loss.last, loss.records) == (5, 5, 1)
    assert [block.seq for block in found.journal.blocks] == [6]
    assert (ledger.last_block, ledger.lost_blocks, ledger.lost_records) == (5, 1, 1)
    (gap,) = ledger.gaps.values()
    assert (gap.connection, gap.began_us, gap.ended_us, gap.lost) == (1, 4, 6, True)
    assert "block 5" in gap.detail
    assert dead.entries()[-2:] == [Lost.__name__, GapSeen.__name__]
    assert [path.name for path in dead.state.quarantine.glob("*.damaged")] == [
        "0000000000000003-4096.damaged"
    ]
    assert dead.recover()[0].journal.next_seq == 7


def test_what_is_written_off_behind_others_stays_written_off(dead: Root) -> None:
    """The next start, without the flag, finds nothing wrong; the batch of the blocks before it ends there."""
    block_behind_damaged(dead)
    found, ledger = dead.recover(ways_on=ACCEPT)
    assert (ledger.last_block, ledger.lost) == (4, (Lost(6, 6, 1),))
    again, _ = dead.recover()
    for journal in (found.journal, again.journal):
        assert ([block.seq for block in journal.blocks], journal.next_seq) == ([5], 7)


def test_files_are_read_again_from_the_first_block_that_is_lost(dead: Root) -> None:
    """Nothing behind it is kept, so that the reader finds its place; nothing is lost, so there is no gap."""
    block_damaged(dead)
    found, ledger = dead.recover(ways_on=ACCEPT, read_again=True)
    assert found.journal.blocks == []
    assert (found.journal.next_seq, ledger.last_block, ledger.lost_records, ledger.gaps) == (7, 6, 0, {})


def test_without_damage_the_flag_does_nothing(dead: Root) -> None:
    """It can stay in a service file."""
    found, ledger = dead.recover(ways_on=ACCEPT)
    assert (found.losses, found.faults, ledger.lost_blocks) == ((), (), 0)
    assert [block.seq for block in found.journal.blocks] == [5, 6]
