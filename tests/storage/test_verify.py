"""``verify`` by doing the damage: each kind of it is named, and what is in order is not."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collector.core.entries import (
    Committed,
    Entry,
    Intent,
    Lost,
    Made,
    Retired,
    RetiredFile,
    Void,
)
from collector.core.messages import FileKind, StagedFile, Totals
from collector.errors import ConfigurationError
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.fs import DISK, Disk
from collector.storage.journal import JournalWriter
from collector.storage.retired import RetiredPart, RetiredRecord, write_retired
from collector.storage.verify.findings import Kind, Report
from collector.storage.verify.proof import verify
from tests.storage.collected_rig import INSTANCE, STREAM, Collected, hit, make_collected


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Collected:
    return make_collected(tmp_path_factory.mktemp("whole") / "c")


@pytest.fixture
def collected(whole, tmp_path) -> Collected:
    """A copy to be damaged."""
    return whole.copy_to(tmp_path / "c")


def test_what_is_in_order_adds_up(collected):
    """Every batch, its equation, and no finding; every byte of the parts was read once."""
    report = collected.verify()
    assert report.findings == []
    totals = collected.ledger().totals
    assert (report.batches, report.totals) == (6, totals)
    assert totals.records == totals.rows + totals.resends + totals.rejects
    assert totals.resends == 11
    assert totals.rejects == 5
    assert report.summary().endswith("all adds up")
    assert collected.watcher.done_bytes == collected.watcher.total_bytes == report.bytes


# ---------------------------------------------------------------- parts


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """The same part with other rows, its footer as before."""
    table = pq.read_table(path, partitioning=None)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def again_in_log(collected: Collected, path: Path) -> None:
    """The log agrees with the file as it is now, so only its rows can tell."""
    collected.rewrite_log(
        lambda entries: entries.__setitem__(slice(None), _agreeing(collected, path, entries))
    )


def _agreeing(collected: Collected, path: Path, entries: list[Entry]) -> list[Entry]:
    def change(file: StagedFile) -> StagedFile:
        if collected.path(file) != path:
            return file
        size, sha256 = path.stat().st_size, hashlib.sha256(path.read_bytes()).digest()
        rows = pq.read_metadata(path).num_rows
        return msgspec.structs.replace(file, size=size, sha256=sha256, rows=rows)

    return [with_files(entry, change) if isinstance(entry, Intent) else entry for entry in entries]


def with_files(intent: Intent, change: Callable[[StagedFile], StagedFile]) -> Intent:
    shares = tuple(
        msgspec.structs.replace(share, files=tuple(change(file) for file in share.files))
        for share in intent.shares
    )
    return msgspec.structs.replace(intent, shares=shares)


@pytest.mark.parametrize("kind", [FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS, FileKind.RESENDS])
def test_a_file_that_is_gone_is_missing(collected, kind):
    """One finding, whatever else could be concluded from it."""
    path = collected.paths(kind)[0]
    path.unlink()
    (finding,) = collected.verify().findings
    assert finding.kind is Kind.MISSING
    assert finding.where == str(path)


@pytest.mark.parametrize("kind", [FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS, FileKind.RESENDS])
def test_a_file_that_was_cut_is_named(collected, kind):
    """By its size, and because it does not open."""
    path = collected.paths(kind)[0]
    os.truncate(path, path.stat().st_size - 9)
    findings = collected.verify().findings
    assert [finding.kind for finding in findings] == [Kind.SIZE, Kind.UNREADABLE]
    assert {finding.where for finding in findings} == {str(path)}


@pytest.mark.parametrize("kind", [FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS, FileKind.RESENDS])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.95, 1.0])
def test_one_byte_that_changed_is_named(collected, kind, where):
    """In the data, in the footer, in the magic: the hash tells, whether or not the file still opens."""
    path = collected.paths(kind)[0]
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * where)] ^= 0x01
    path.write_bytes(data)
    findings = collected.verify().findings
    assert findings[0].kind is Kind.HASH
    assert {finding.where for finding in findings if finding.kind is not Kind.LINES} == {str(path)}


def test_two_parts_that_changed_places_are_named(collected):
    """Both: neither is the part of its name."""
    first, second = collected.paths(FileKind.HITS)[1:3]
    other = first.with_suffix(".other")
    first.rename(other)
    second.rename(first)
    other.rename(second)
    findings = collected.verify().findings
    for path in (first, second):
        kinds = {finding.kind for finding in findings if finding.where == str(path)}
        assert Kind.METADATA in kinds
        assert kinds & {Kind.HASH, Kind.SIZE}


def test_a_link_is_no_part(collected, tmp_path):
    """Not even to a file with the right content."""
    path = collected.paths(FileKind.HITS)[0]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert collected.found() == ["no-regular-file"]


def test_a_folder_or_a_pipe_is_no_part(collected):
    """And verify does not wait for a writer."""
    folder, pipe = collected.paths(FileKind.HITS)[:2]
    folder.unlink()
    folder.mkdir()
    pipe.unlink()
    os.mkfifo(pipe)
    assert collected.found() == ["no-regular-file", "no-regular-file"]


def test_a_part_that_nobody_committed_is_named(collected):
    """A copy of a real one under another block range, or in another folder, would double its rows."""
    path = collected.paths(FileKind.HITS)[0]
    name = f"part-{INSTANCE}-000000000900-000000000901-1.parquet"
    shutil.copy(path, path.with_name(name))
    (path.parents[1] / "hour=23").mkdir()
    shutil.copy(path, path.parents[1] / "hour=23" / path.name)
    findings = collected.verify().findings
    assert [finding.kind for finding in findings] == [Kind.UNKNOWN] * 2
    assert any(finding.where.endswith(name) for finding in findings)


@pytest.mark.parametrize(
    "name",
    [
        "hits/v=1/stream=shop/x.tmp",
        "hits/readme.txt",
        "rejects/v=1/stream=shop/date=2026-11-18/part-1.parquet",
    ],
)
def test_a_file_that_engines_would_meet_is_named(collected, name):
    """Below the folders of this stream there is nothing but parts."""
    path = collected.output / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    assert collected.found() == ["stray-file"]


def test_others_are_listed_and_no_fault(collected):
    """Parts of another instance and of compaction, hidden names, other streams, other files beside them."""
    path = collected.paths(FileKind.HITS)[0]
    shutil.copy(path, path.with_name(f"part-{'ab' * 8}-000000000001-000000000003-1.parquet"))
    shutil.copy(path, path.with_name("compact-000000000001.parquet"))
    path.with_name("_SUCCESS").touch()
    (collected.output / "hits/v=1/stream=other").mkdir()
    (collected.output / "hits/v=1/stream=other/whatever").touch()
    (collected.output / "notes.txt").touch()
    report = collected.verify()
    assert report.findings == []
    assert "1 files of instance abababababababab are there too" in report.notes
    assert "1 files of a compaction are there too" in report.notes
    assert any("notes.txt" in note for note in report.notes)


# ---------------------------------------------------------------- lines and resends


def column_with(table: pa.Table, name: str, row: int, value: int) -> pa.Table:
    values = table.column(name).to_pylist()
    values[row] = value
    return table.set_column(
        table.schema.get_field_index(name), name, pa.array(values, table.schema.field(name).type)
    )


@pytest.mark.parametrize("kind", [FileKind.HITS, FileKind.REJECTS, FileKind.RESENDS])
def test_a_row_that_takes_the_line_of_another_is_named(collected, kind):
    """One line twice, one nowhere; the log's hash agrees, so the rows alone tell."""
    path = max(collected.paths(kind), key=lambda path: pq.read_metadata(path).num_rows)
    rewritten(path, lambda table: column_with(table, "collector_line", 0, table["collector_line"][1].as_py()))
    again_in_log(collected, path)
    findings = collected.verify().findings
    assert {finding.kind for finding in findings} == {Kind.LINES}
    assert any("more than once" in finding.found for finding in findings)
    assert any("1 lines nowhere" in finding.found for finding in findings)


@pytest.mark.parametrize(
    ("column", "value"), [("collector_line", 51), ("collector_line", -1), ("collector_block", 4)]
)
def test_a_row_outside_its_blocks_is_named(collected, column, value):
    """Of a line its block does not have, or of a block of another batch."""
    path = collected.paths(FileKind.HITS)[0]
    rewritten(path, lambda table: column_with(table, column, 0, value))
    again_in_log(collected, path)
    faults = [finding.found for finding in collected.verify().findings if finding.kind is Kind.LINES]
    assert any("in no block of the batch" in fault for fault in faults)


def test_a_row_that_is_gone_is_named(collected):
    """Though the log counts one less in that file."""
    path = collected.paths(FileKind.HITS)[0]
    rewritten(path, lambda table: table.slice(1))
    again_in_log(collected, path)
    assert collected.found() == ["counts", "lines"]


def test_a_row_that_became_a_reject_is_named(collected):
    """Each line is there once, but the block's counts are others."""

    def swap(entries: list[Entry]) -> None:
        at = next(i for i, entry in enumerate(entries) if isinstance(entry, Intent))
        first, second, *rest = entries[at].blocks
        first = msgspec.structs.replace(first, rows=first.rows - 1, rejects=first.rejects + 1)
        second = msgspec.structs.replace(second, rows=second.rows + 1, rejects=second.rejects - 1)
        entries[at] = msgspec.structs.replace(entries[at], blocks=(first, second, *rest))

    collected.rewrite_log(swap)
    assert "lines" in collected.found()


def test_a_resend_of_a_row_that_is_nowhere_is_named(collected):
    """The hit was dropped because of a row; without it the hit is lost."""
    path = collected.paths(FileKind.HITS)[1]
    listed = pq.read_table(collected.paths(FileKind.RESENDS)[0], partitioning=None)["hitIdLow"].to_pylist()
    table = pq.read_table(path, partitioning=None)
    row = next(i for i, low in enumerate(table["hitIdLow"].to_pylist()) if low in listed)
    ids = table["hitIdLow"].to_pylist()
    ids[row] += 1
    rewritten(
        path,
        lambda table: table.set_column(
            table.schema.get_field_index("hitIdLow"), "hitIdLow", pa.array(ids, pa.decimal128(20, 0))
        ),
    )
    again_in_log(collected, path)
    (finding,) = collected.verify().findings
    assert finding.kind is Kind.RESEND
    assert "1 hits were dropped" in finding.found


# ---------------------------------------------------------------- retired parts


def retire(collected: Collected, paths: list[Path]) -> None:
    """As whoever removes a part announces it."""
    names = [str(path.relative_to(collected.output)) for path in paths]
    parts = [RetiredPart(name, DISK.sha256(collected.output / name).hex()) for name in names]
    write_retired(DISK, collected.state, "shipped-1", RetiredRecord(tuple(parts), "shipped"))


def test_parts_that_are_retired_may_be_gone(collected):
    """Announced in ``retired/``; resends of their rows stay resends."""
    paths = collected.paths(FileKind.HITS)[:2]
    retire(collected, paths)
    for path in paths:
        path.unlink()
    report = collected.verify()
    assert report.findings == []
    assert "2 parts are retired" in report.notes


def test_parts_that_the_log_says_are_retired_may_be_gone(collected):
    """The announcement was folded into the log."""
    file = collected.files(FileKind.REJECTS)[0]
    collected.append(Retired((RetiredFile(file.final, file.sha256),), "old", (), 1))
    collected.path(file).unlink()
    assert collected.found() == []


def test_a_retired_part_that_is_still_there_is_whole(collected):
    """It may go at any time, and until then it is read."""
    paths = collected.paths(FileKind.HITS)[:2]
    retire(collected, paths)
    assert collected.found() == []
    os.truncate(paths[1], 100)
    assert collected.found() == ["size", "unreadable"]


def test_a_part_that_goes_unannounced_is_missing_whatever_else_is_retired(collected):
    """The announcement names files, not batches."""
    first, second = collected.paths(FileKind.HITS)[:2]
    retire(collected, [first])
    second.unlink()
    assert collected.found() == ["missing"]


def test_a_retired_record_that_cannot_be_read_is_named(collected):
    """And a part that it may have been about is missing."""
    (collected.state.retired / "shipped-1.json").write_text("{")
    collected.paths(FileKind.HITS)[0].unlink()
    assert sorted(collected.found()) == ["missing", "retired-record"]


# ---------------------------------------------------------------- the log


def changed(entries: list[Entry], kind: type[Entry], nth: int, **fields: object) -> None:
    at = [i for i, entry in enumerate(entries) if isinstance(entry, kind)][nth]
    entries[at] = msgspec.structs.replace(entries[at], **fields)


def dropped(entries: list[Entry], kind: type[Entry], nth: int) -> None:
    del entries[[i for i, entry in enumerate(entries) if isinstance(entry, kind)][nth]]


def swapped(entries: list[Entry], kind: type[Entry], nth: int, mth: int) -> None:
    at = [i for i, entry in enumerate(entries) if isinstance(entry, kind)]
    entries[at[nth]], entries[at[mth]] = entries[at[mth]], entries[at[nth]]


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: dropped(entries, Intent, 1),
        lambda entries: dropped(entries, Committed, 1),
        lambda entries: dropped(entries, Committed, 4),
        lambda entries: dropped(entries, Made, 0),
        lambda entries: swapped(entries, Intent, 1, 2),
        lambda entries: swapped(entries, Committed, 1, 2),
        lambda entries: changed(entries, Intent, 2, batch=8),
        lambda entries: changed(entries, Intent, 2, last=9),
        lambda entries: changed(entries, Committed, 2, batch=1),
        lambda entries: changed(entries, Made, 0, instance="ff" * 8),
        lambda entries: entries.insert(5, entries[5]),
        lambda entries: entries.append(Void(1, 3, "no", 1)),
    ],
)
def test_a_log_that_contradicts_itself_or_the_parts_is_named(collected, change):
    """Entries that are gone, changed, doubled or out of order, under valid checksums."""
    collected.rewrite_log(change)
    assert set(collected.found()) & {"log", "counts", "metadata"}


@pytest.mark.parametrize("count", ["records", "rows", "resends", "rejects"])
def test_a_count_that_was_changed_is_named(collected, count):
    """In a block; the equation, the share's counts and the lines speak against it."""

    def change(entries: list[Entry]) -> None:
        at = next(i for i, entry in enumerate(entries) if isinstance(entry, Intent))
        first, *rest = entries[at].blocks
        first = msgspec.structs.replace(first, **{count: getattr(first, count) + 1})
        entries[at] = msgspec.structs.replace(entries[at], blocks=(first, *rest))

    collected.rewrite_log(change)
    assert "counts" in collected.found()


def test_a_hash_that_was_changed_is_named(collected):
    """A part is what the log says it is, byte for byte."""

    def change(entries: list[Entry]) -> None:
        at = next(i for i, entry in enumerate(entries) if isinstance(entry, Intent))
        entries[at] = with_files(entries[at], lambda file: msgspec.structs.replace(file, sha256=b"\0" * 32))

    collected.rewrite_log(change)
    assert "hash" in collected.found()


def test_rows_that_the_log_counts_and_the_file_has_not_are_named(collected):
    """By the file's own footer."""

    def change(entries: list[Entry]) -> None:
        at = next(i for i, entry in enumerate(entries) if isinstance(entry, Intent))
        entries[at] = with_files(entries[at], lambda file: msgspec.structs.replace(file, rows=file.rows + 1))

    collected.rewrite_log(change)
    assert {"rows", "counts"} <= set(collected.found())


def test_totals_that_do_not_follow_from_the_batches_are_named(collected):
    """What an intent says came before it is what the batches before it add up to."""
    collected.rewrite_log(lambda entries: changed(entries, Intent, 2, before=Totals(1, 1, 0, 0)))
    assert "log" in collected.found()


@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_log_that_is_damaged_is_named_with_the_way_on(collected, where):
    """The file, its offsets, and ``--rebuild``; no part is judged by half a log."""
    path = collected.state.commit_log
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * where)] ^= 0x40
    path.write_bytes(data)
    (finding,) = collected.verify().findings
    assert finding.kind is Kind.LOG
    assert "commit.log" in finding.found
    assert "--rebuild" in str(finding)


def test_a_log_that_is_gone_is_named(collected):
    """The parts are there, what decided on them is not."""
    collected.state.commit_log.unlink()
    (finding,) = collected.verify().findings
    assert finding.kind is Kind.LOG


def test_blocks_that_are_lost_are_printed_and_no_fault(collected):
    """They are recorded; the batches go on behind them."""
    last = collected.ledger().last_block
    collected.append(Lost(last + 1, last + 3, 77))
    collected.commit([hit(9_000)])
    report = collected.verify()
    assert report.findings == []
    assert report.batches == 7
    assert f"lost: blocks {last + 1} to {last + 3}, 77 records" in report.notes


def test_blocks_in_no_batch_are_named(collected):
    """A hole that nothing explains."""
    collected.rewrite_log(lambda entries: entries.__setitem__(slice(None), without_batch(entries, 3)))
    found = collected.verify().findings
    assert {finding.kind for finding in found} >= {Kind.LOG, Kind.UNKNOWN}


def without_batch(entries: list[Entry], nth: int) -> list[Entry]:
    batch = [entry for entry in entries if isinstance(entry, Intent)][nth].batch
    return [
        entry for entry in entries if not (isinstance(entry, Intent | Committed) and entry.batch == batch)
    ]


def test_the_stream_must_be_the_one_that_was_asked_for(collected):
    """The state folder of another stream proves nothing about this one."""
    with pytest.raises(ConfigurationError, match=f"of stream '{STREAM}'"):
        verify(DISK, collected.state, collected.output, stream="other", watcher=collected.watcher)


# ---------------------------------------------------------------- what is under way


@pytest.mark.parametrize("published", [0, 1, None])
def test_a_batch_that_is_decided_and_not_committed_is_in_flight(collected, published):
    """Its files are staged or in place, and no fault either way."""
    intent = collected.decide([hit(9_001), b"odd"], [hit(9_002)])
    if published != 0:
        collected.publish(intent, slice(published))
    report = collected.verify()
    assert report.findings == []
    assert any(note.startswith("in flight: ") for note in report.notes)


def test_a_batch_that_was_undone_has_no_files(collected):
    """VOID: its blocks are in the batch that follows; a file left of it would double rows."""
    intent = collected.decide([hit(9_001), b"odd"], [hit(9_002)])
    collected.publish(intent)
    collected.append(Void(intent.batch, intent.last, "operator", 1))
    assert set(collected.found()) == {"unknown-file"}
    for file in chain.from_iterable(share.files for share in intent.shares):
        collected.path(file).unlink()
    collected.commit([hit(9_001), b"odd"], [hit(9_002)])
    assert collected.found() == []


class Meanwhile(Disk):
    """Something happens beside ``verify`` just before its first call of this kind on such a path."""

    def __init__(self, call: str, path: str, work: Callable[[], None]) -> None:
        self._call, self._path, self._work = call, path, work

    def _now(self, call: str, path: object) -> None:
        if self._work is not None and call == self._call and self._path in str(path):
            work, self._work = self._work, None
            work()

    def open(self, path, flags, mode=0o600):
        self._now("open", path)
        return super().open(path, flags, mode)

    def listdir(self, path):
        self._now("listdir", path)
        return super().listdir(path)


def beside(collected: Collected, call: str, path: str, work: Callable[[], None]) -> Report:
    disk = Meanwhile(call, path, work)
    report = verify(disk, collected.state, collected.output, watcher=collected.watcher)
    assert disk._work is None, "nothing happened"
    return report


@pytest.mark.parametrize("folded", [False, True])
def test_a_part_that_is_retired_meanwhile_is_not_missing(collected, folded):
    """Looked up again: in ``retired/`` first, then in the log that takes it over."""
    file = collected.files(FileKind.HITS)[-1]

    def go() -> None:
        if folded:
            collected.append(Retired((RetiredFile(file.final, file.sha256),), "old", (), 1))
        else:
            retire(collected, [collected.path(file)])
        collected.path(file).unlink()

    report = beside(collected, "open", "/hits/", go)
    assert report.findings == []
    assert "1 parts are retired" in report.notes


@pytest.mark.parametrize("moment", [("listdir", "/hits"), ("listdir", "/rejects"), ("open", "/hits/")])
def test_what_is_committed_meanwhile_is_not_unknown(collected, moment):
    """Its files are seen, its decision came after the start: the log is asked again."""
    report = beside(collected, *moment, lambda: collected.commit([hit(9_003), b"odd"]))
    assert report.findings == []
    assert report.batches == 6


def test_a_log_that_is_rotated_meanwhile_reads_the_same(collected):
    """What was in the log is in the archive by then."""
    report = beside(collected, "open", "/hits/", lambda: seal(collected))
    assert report.findings == []


def seal(collected: Collected) -> None:
    log = CommitLog.open(DISK, collected.state.commit_log)
    ledger = collected.ledger()
    assert log.rotate(ledger.last_entry, packed_checkpoint(ledger.last_entry, ledger.checkpoint()))
    log.close()


def test_what_is_in_the_journal_is_counted(collected):
    """Accepted, not committed: not a part of the proof yet."""
    last = collected.ledger().last_block
    write_journal(collected, last, [[b"a"], [b"b", b"c"], [b"d"]])
    report = collected.verify()
    assert report.findings == []
    assert "in the journal: 2 blocks of 3 records, accepted and not yet committed" in report.notes


def write_journal(collected: Collected, first: int, blocks: list[list[bytes]]) -> None:
    writer = JournalWriter(DISK, collected.state.journal, next_seq=first, segment_bytes=1 << 16)
    writer.add_segment(1)
    for lines in blocks:
        writer.append(
            b"".join(line + b"\n" for line in lines),
            records=len(lines), connection=3, flags=0, collected_at_us=1_795_000_060_123_456, held_us=1,
        )  # fmt: skip
    writer.sync()
    writer.close()


def test_a_damaged_run_of_the_resend_index_is_named(collected):
    """One that is gone was merged, or is behind the window."""
    first, second = collected.paths(FileKind.IDS)[:2]
    first.unlink()
    assert collected.found() == []
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    assert collected.found() == ["resend-index"]


def test_a_finding_is_one_line_that_says_what_to_do(collected):
    """Where, what was found, what was expected, what to do."""
    path = collected.paths(FileKind.HITS)[0]
    path.unlink()
    (finding,) = collected.verify().findings
    assert str(finding).startswith(f"missing: {path}: is not there; expected a part of ")
    assert "put the file back" in str(finding)
