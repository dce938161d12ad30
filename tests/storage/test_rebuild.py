"""``verify --rebuild``: whatever happened to the log, the parts tell what it said."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import msgspec
import pytest

from collector.core.entries import Committed, Entry, Intent, Note
from collector.core.ledger import LogState
from collector.core.messages import FileKind
from collector.errors import ConfigurationError, InUseError
from collector.storage.commitlog import CommitLog, acknowledged_path, packed_checkpoint
from collector.storage.fs import DISK, Disk
from collector.storage.journal import JournalWriter
from collector.storage.lock import StateLock
from collector.storage.rebuild.rebuild import Rebuilt, rebuild
from collector.storage.recovery import recover_state
from tests.storage.collected_rig import STREAM, Collected, hit, make_collected
from tests.storage.faulty_disk import Crashed, FaultyDisk

HEADER_BYTES = 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Collected:
    return make_collected(tmp_path_factory.mktemp("whole") / "c")


@pytest.fixture
def collected(whole, tmp_path) -> Collected:
    return whole.copy_to(tmp_path / "c")


def rebuilt(collected: Collected, disk: Disk = DISK) -> Rebuilt:
    return rebuild(disk, collected.state, collected.output, stream=STREAM, url_segment=STREAM)


def assert_same(collected: Collected, whole: Collected) -> None:
    """All adds up, to the same; and a collector goes on where it was."""
    report = collected.verify()
    assert [str(finding) for finding in report.findings] == []
    started(collected)
    assert collected.found() == []
    now, before = collected.ledger(), whole.ledger()
    for name in ("instance", "stream", "totals", "last_batch", "last_block", "last_connection"):
        assert getattr(now, name) == getattr(before, name), name
    assert now.next_held_us >= before.last_batch[1] * 1000
    assert now.last_entry >= before.last_entry
    named = [file.final for kind in FileKind for file in collected.files(kind)]
    assert len(named) == len(set(named)), "a file is committed twice"


def frames(path: Path) -> list[tuple[int, int]]:
    """Where each frame of a log begins and ends."""
    data, found, at = path.read_bytes(), [], HEADER_BYTES
    while at < len(data):
        end = at + 8 + struct.unpack_from("<I", data, at)[0]
        found.append((at, end))
        at = end
    return found


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


sweep = pytest.mark.parametrize(
    "step", [pytest.param(5, id="some"), pytest.param(1, id="all", marks=pytest.mark.matrix)]
)
"""Every one of them, or of each few one."""


def test_a_log_that_is_whole_is_left_alone(collected):
    """Not a byte of it changes."""
    before = collected.state.commit_log.read_bytes()
    assert "nothing was changed" in rebuilt(collected).said[0]
    assert collected.state.commit_log.read_bytes() == before
    assert list(collected.state.quarantine.iterdir()) == []


@sweep
def test_each_entry_of_the_log_can_be_damaged(whole, tmp_path, step):
    """One after the other: whatever it said is found in the parts, or made up for."""
    for nth, (begin, end) in enumerate(frames(whole.state.commit_log)[::step]):
        collected = whole.copy_to(tmp_path / str(nth))
        flip(collected.state.commit_log, (begin + end) // 2)
        assert collected.found() == ["log"]
        rebuilt(collected)
        assert_same(collected, whole)


@sweep
def test_everything_from_any_entry_on_can_be_lost(whole, tmp_path, step):
    """Cut there; what was acknowledged is known to be missing."""
    for nth, (begin, _) in enumerate(frames(whole.state.commit_log)[::step]):
        collected = whole.copy_to(tmp_path / str(nth))
        os.truncate(collected.state.commit_log, begin)
        rebuilt(collected)
        assert_same(collected, whole)


@sweep
def test_everything_up_to_any_entry_can_be_lost(whole, tmp_path, step):
    """Zeroed up to there, header and all."""
    for nth, (_, end) in enumerate(frames(whole.state.commit_log)[::step]):
        collected = whole.copy_to(tmp_path / str(nth))
        data = collected.state.commit_log.read_bytes()
        collected.state.commit_log.write_bytes(bytes(end) + data[end:])
        rebuilt(collected)
        assert_same(collected, whole)


def test_a_log_that_is_gone_is_made_again(collected, whole):
    """From the parts alone; what it was is said in a note."""
    collected.state.commit_log.unlink()
    acknowledged_path(collected.state.commit_log).unlink()
    done = rebuilt(collected)
    assert_same(collected, whole)
    assert "6 batches were made again from their parts" in done.said
    notes = [entry.text for _, entry in collected.entries() if isinstance(entry, Note)]
    assert set(done.said) <= set(notes)


def test_what_cannot_be_known_is_said(collected):
    """Which saved files were read stands in the log alone."""
    collected.state.commit_log.unlink()
    said = rebuild(DISK, collected.state, collected.output, stream=STREAM, url_segment="").said
    assert any("names of 3 saved files that were read are not known" in line for line in said)
    assert collected.found() == []


def test_numbers_of_entries_are_not_used_again(collected):
    """Rows of connections are named by them: of a log that is shorter now, the next rows have other names."""
    collected.append(*[Note("any", "thing")] * 100)
    collected.connect(4)
    before = collected.ledger().last_entry
    collected.state.commit_log.unlink()
    acknowledged_path(collected.state.commit_log).unlink()
    rebuilt(collected)
    assert collected.ledger().last_entry >= before - 2, (
        "those of the rows' own decision come after their name"
    )
    collected.connect(5)
    assert collected.found() == []


def test_the_damaged_log_is_kept(collected):
    """With what belongs to it, in quarantine."""
    flip(collected.state.commit_log, 300)
    damaged = collected.state.commit_log.read_bytes()
    rebuilt(collected)
    (folder,) = collected.state.quarantine.iterdir()
    assert (folder / "commit.log").read_bytes() == damaged


def test_counts_of_blocks_and_connections_are_found_again(collected, whole):
    """To the block: its records, what became of them, whose it was."""
    collected.state.commit_log.unlink()
    rebuilt(collected)
    old = [entry for _, entry in whole.entries() if isinstance(entry, Intent)]
    new = [entry for _, entry in collected.entries() if isinstance(entry, Intent)]
    for before, after in zip(old, new, strict=True):
        assert (after.batch, after.last, after.before, after.held_us) == (
            before.batch, before.last, before.before, before.held_us,
        )  # fmt: skip
        for block, was in zip(after.blocks, before.blocks, strict=True):
            times = (block.collected_at_us, was.collected_at_us)
            assert times[0] == times[1] or (block.rows + block.rejects == 0 and times[1] - times[0] < 10**7)
            assert msgspec.structs.replace(block, collected_at_us=times[1]) == was
        for share, other in zip(after.shares, before.shares, strict=True):
            nameless = [msgspec.structs.replace(file, staged="") for file in other.files]
            assert sorted(share.files, key=lambda file: file.final) == sorted(
                nameless, key=lambda file: file.final
            )


def test_it_needs_the_state_folder_for_itself(collected):
    """Not beside a running collector."""
    flip(collected.state.commit_log, 300)
    with StateLock.take(DISK, collected.state), pytest.raises(InUseError):
        rebuilt(collected)


def test_nobody_guesses_whose_folder_it_is(collected):
    """Parts of two instances and nothing else to go by."""
    shutil.rmtree(collected.state.root)
    collected.state.make(DISK)
    path = next((collected.output / "hits").rglob("*.parquet"))
    shutil.copy(path, path.with_name(path.name.replace("00112233445566ff", "ab" * 8)))
    with pytest.raises(ConfigurationError, match="2 instances"):
        rebuilt(collected)


# ---------------------------------------------------------------- contradictions under valid checksums


@pytest.mark.parametrize("kind", [Intent, Committed])
@pytest.mark.parametrize("nth", range(6))
def test_an_entry_that_was_dropped_is_put_back(collected, whole, kind, nth):
    """The numbers behind it have moved up; the parts know better."""

    def drop(entries: list[Entry]) -> None:
        del entries[[i for i, entry in enumerate(entries) if isinstance(entry, kind)][nth]]

    collected.rewrite_log(drop)
    if kind is Committed and nth == 5:
        return  # that is a log whose last batch is still in flight
    assert collected.found()
    rebuilt(collected)
    report = collected.verify()
    assert report.findings == []
    assert report.totals == whole.ledger().totals


def test_a_count_that_was_changed_is_put_right(collected, whole):
    """An intent that does not add up is not believed."""

    def change(entries: list[Entry]) -> None:
        at = next(i for i, entry in enumerate(entries) if isinstance(entry, Intent))
        first, *rest = entries[at].blocks
        first = msgspec.structs.replace(first, rows=first.rows + 1)
        entries[at] = msgspec.structs.replace(entries[at], blocks=(first, *rest))

    collected.rewrite_log(change)
    assert collected.found()
    rebuilt(collected)
    assert_same(collected, whole)


# ---------------------------------------------------------------- archives


@pytest.fixture
def rotated(collected) -> Collected:
    """Two archives, a checkpoint, and a batch behind it."""
    for number in (9_100, 9_200):
        seal(collected)
        collected.commit([hit(number), b"odd"], connection=4)
    return collected


def seal(collected: Collected) -> None:
    log = CommitLog.open(DISK, collected.state.commit_log)
    ledger = LogState()
    for number, entry in log.entries():
        ledger.fold(number, entry)
    assert log.rotate(ledger.last_entry, packed_checkpoint(ledger.last_entry, ledger.checkpoint()))
    log.close()


def resumed(collected: Collected) -> LogState:
    """What a collector starts from: the log alone, its checkpoint first."""
    log = CommitLog.open(DISK, collected.state.commit_log)
    ledger = LogState()
    for number, entry in log.entries():
        ledger.fold(number, entry)
    log.close()
    return ledger


@pytest.mark.parametrize(
    "damage", ["first gone", "second gone", "both gone", "first flipped", "second flipped"]
)
def test_archives_are_made_again_and_the_collector_goes_on_from_its_checkpoint(rotated, damage):
    """What is sealed serves the proof; what the collector knows stays as it is."""
    before, totals = resumed(rotated), rotated.verify().totals
    first, second = sorted(rotated.state.archive.iterdir())
    for path in {"first": [first], "second": [second], "both": [first, second]}[damage.split()[0]]:
        path.unlink() if damage.endswith("gone") else flip(path, path.stat().st_size // 2)
    assert rotated.found() == ["log"]
    rebuilt(rotated)
    report = rotated.verify()
    assert report.findings == []
    assert report.totals == totals
    after = resumed(rotated)
    for name in ("totals", "last_batch", "connections", "last_connection", "files", "next_held_us"):
        assert getattr(after, name) == getattr(before, name), name


@pytest.mark.parametrize("damage", ["gone", "checkpoint", "tail"])
def test_a_log_with_archives_is_made_again(rotated, damage):
    """From the archives, and from the parts for what is behind them."""
    totals, path = rotated.verify().totals, rotated.state.commit_log
    if damage == "gone":
        path.unlink()
    else:
        begin, _ = frames(path)[0 if damage == "checkpoint" else 1]
        flip(path, begin + 20)
    assert rotated.found() == ["log"]
    rebuilt(rotated)
    report = rotated.verify()
    assert report.findings == []
    assert report.totals == totals
    assert resumed(rotated).totals == totals


# ---------------------------------------------------------------- parts that are not there


def test_a_batch_whose_parts_are_all_gone_is_known_by_the_totals(collected, whole):
    """The footers of the next batch say how much it was."""
    for kind in (FileKind.HITS, FileKind.REJECTS):
        for file in whole.files(kind):
            if "000000000009-000000000009-" in file.final:
                collected.path(file).unlink()
    collected.state.commit_log.unlink()
    done = rebuilt(collected)
    assert_same(collected, whole)
    assert any("blocks 9 to 9: 50 of its records are in no file" in line for line in done.said)


def test_rows_of_a_part_that_is_gone_are_known_by_its_share(collected, whole):
    """One hour of a share was retired: its other files say what the share counted."""
    collected.paths(FileKind.HITS)[0].unlink()
    collected.state.commit_log.unlink()
    done = rebuilt(collected)
    assert_same(collected, whole)
    assert any("20 of its records are in no file" in line for line in done.said)


def test_a_share_whose_parts_are_gone_is_known_by_the_totals(collected, whole):
    """Of two shares the second brought 40 rows to the first batch."""
    for file in whole.files(FileKind.HITS):
        if file.final.endswith("000000000001-000000000003-2.parquet"):
            collected.path(file).unlink()
    collected.state.commit_log.unlink()
    done = rebuilt(collected)
    assert_same(collected, whole)
    assert any("40 of its records are in no file" in line for line in done.said)


def test_what_is_missing_at_the_end_is_a_fault(collected, whole):
    """No later batch says how much it was, and the journal does not have it."""
    for path in collected.paths(FileKind.REJECTS)[-1:]:
        path.unlink()
    collected.commit([hit(9_300)], [hit(9_301)])
    collected.paths(FileKind.HITS)[-1].unlink()
    collected.state.commit_log.unlink()
    done = rebuilt(collected)
    assert len(done.faults) == 1
    assert "1 of 2 shares" in done.faults[0]


def test_a_part_that_does_not_open_stays_a_finding(collected):
    """It is not taken for retired: it is there, and it is broken."""
    path = collected.paths(FileKind.HITS)[0]
    os.truncate(path, 100)
    collected.state.commit_log.unlink()
    done = rebuilt(collected)
    assert any(str(path) in line for line in done.said)
    assert collected.found() == ["unknown-file"]


# ---------------------------------------------------------------- a crash in the middle of a commit


def journalled(collected: Collected, first: int, blocks: list[list[bytes]]) -> None:
    writer = JournalWriter(DISK, collected.state.journal, next_seq=first, segment_bytes=1 << 16)
    writer.add_segment(1)
    for lines in blocks:
        writer.append(
            b"".join(line + b"\n" for line in lines),
            records=len(lines), connection=3, flags=0, collected_at_us=1_795_000_060_123_456, held_us=1,
        )  # fmt: skip
    writer.sync()
    writer.close()


@pytest.mark.parametrize("published", [0, 1, 2, 3])
def test_a_batch_that_was_half_published_runs_again(collected, whole, published):
    """Its files go to quarantine, its ids too: else its hits would be taken for resends of nothing."""
    last = collected.ledger().last_block
    blocks = [[hit(9_400), b"odd"], [hit(9_401)]]
    intent = collected.decide(*blocks)
    journalled(collected, last + 1, blocks)
    collected.publish(intent, slice(published))
    collected.state.commit_log.unlink()
    done = rebuilt(collected)
    assert_same(collected, whole)
    assert done.faults == []
    assert not [name for name in os.listdir(collected.state.ids) if name.startswith(f"{last + 1:012d}")]
    recovered = started(collected)
    assert [block.seq for block in recovered.journal.blocks] == [last + 1, last + 2]


def started(collected: Collected):
    """As a start recovers."""
    log = CommitLog.open(DISK, collected.state.commit_log)
    ledger = LogState()
    for number, entry in log.entries():
        ledger.fold(number, entry)
    try:
        return recover_state(
            DISK, collected.state, collected.output,
            journal=collected.state.journal, commit_log=log, ledger=ledger,
        )  # fmt: skip
    finally:
        log.close()


def test_a_batch_that_was_published_whole_is_committed(collected):
    """Though the log had not said so yet."""
    last = collected.ledger().last_block
    blocks = [[hit(9_400), b"odd"], [hit(9_401)]]
    intent = collected.decide(*blocks)
    journalled(collected, last + 1, blocks)
    collected.publish(intent)
    collected.state.commit_log.unlink()
    rebuilt(collected)
    assert collected.found() == []
    assert collected.ledger().last_block == last + 2
    assert started(collected).journal.blocks == []


def test_a_batch_that_is_decided_stays_decided(collected):
    """Its INTENT can be read: the next start finishes it."""
    intent = collected.decide([hit(9_400)])
    flip(collected.state.commit_log, 300)
    rebuilt(collected)
    assert collected.ledger().pending == intent
    assert collected.found() == []
    assert started(collected).redone_batch == intent.batch
    assert collected.found() == []


def test_blocks_behind_a_lost_end_are_written_off(collected, whole):
    """Parts, lists and log of the newest batches are gone, and the journal goes on behind them."""
    last = collected.ledger().last_block
    journalled(collected, last + 5, [[hit(9_500)]])
    collected.state.commit_log.unlink()
    done = rebuilt(collected)
    assert any(f"blocks {last + 1} to {last + 4}" in line for line in done.said)
    report = collected.verify()
    assert report.findings == []
    assert f"lost: blocks {last + 1} to {last + 4}, nobody knows how many records" in report.notes
    assert [block.seq for block in started(collected).journal.blocks] == [last + 5]


# ---------------------------------------------------------------- crashes of the rebuild itself


@pytest.mark.timeout(900)
@sweep
def test_it_can_be_run_again_after_a_crash_at_any_point(rotated, tmp_path, step):
    """Every disk call in turn is the last one; a second run ends as if the first had not been."""
    totals = rotated.verify().totals
    flip(rotated.state.commit_log, rotated.state.commit_log.stat().st_size // 2)
    flip(min(rotated.state.archive.iterdir()), 500)
    for fail_at in range(1, 10_000, 1 if step == 1 else 23):
        collected = rotated.copy_to(tmp_path / "crash" / str(fail_at))
        disk = FaultyDisk(fail_at)
        try:
            rebuilt(collected, disk)
        except Crashed:
            rebuilt(collected)
            assert collected.verify().findings == []
            assert collected.verify().totals == totals
            shutil.rmtree(collected.root)
        else:
            return
    raise AssertionError("it never came to its end")
