"""``compact`` on what real parts hold: each hit once, nothing lost, nothing undecided touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compact_rig import (
    Lake,
    by_place,
    copies,
    hit,
    hit_without_id,
    hour_of,
    id_of,
    make_lake,
    stays,
)

from collector.core.messages import FileKind
from collector.decoder.schema import HITS_SCHEMA
from collector.errors import ConfigurationError, InUseError
from collector.lake import reorder
from collector.lake.engines import DuckDbEngine
from collector.storage.fs import DISK
from collector.storage.retired import RetiredPart, RetiredRecord, write_retired
from tests.storage.collected_rig import COLLECTED_AT_US, HOUR_US


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Lake:
    return make_lake(tmp_path_factory.mktemp("whole") / "c")


@pytest.fixture
def lake(whole, tmp_path) -> Lake:
    """A copy to be compacted."""
    return whole.copy_to(tmp_path / "c")


# ---------------------------------------------------------------- what comes out


def test_of_each_hit_the_copy_collected_first_stays(lake):
    """Across collectors, hours and index windows; rows without ids all stay; nothing else changes."""
    before = lake.rows()
    outcome = lake.compact()
    after = lake.rows()
    assert by_place(after) == stays(before)
    assert len(before) - len(after) == sum(done.doubles for done in outcome.done) == 35
    assert sum(id_of(row) is None for row in after) == 3
    assert (outcome.faults, outcome.changed) == ([], [])
    assert lake.watcher.done_bytes == lake.watcher.total_bytes
    lake.assert_green()


def test_an_hour_becomes_one_file_like_the_parts(lake):
    """The same schema to the letter, statistics on the same columns, and the inputs by name."""
    parts = {
        hour_of(path): [p.name for p in lake.files() if hour_of(p) == hour_of(path)] for path in lake.files()
    }
    statistics = {name for path in lake.files() for name in with_statistics(path)}
    lake.compact()
    assert len(lake.files()) == len(parts) == 3
    for path in lake.files():
        file = pq.ParquetFile(path)
        assert path.name.startswith("compact-")
        assert file.schema_arrow.equals(HITS_SCHEMA)
        assert with_statistics(path) == statistics
        metadata = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
        assert all(name in metadata["collector.inputs"] for name in parts[hour_of(path)])
        assert metadata["collector.stream"] == "shop"
        assert path.stat().st_mode & 0o777 == 0o644


def with_statistics(path: Path) -> set[str]:
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    return {column.path_in_schema for column in columns if column.is_stats_set}


def test_rows_are_by_visitor_and_time(lake):
    """Ids above 2**63 too; rows without a visitor come last."""
    lake.compact()
    for path in lake.files():
        rows = pq.ParquetFile(path).read(["visIdHigh", "visIdLow", "collected_at"]).to_pylist()
        keys = [
            (row["visIdHigh"] is None, row["visIdHigh"], row["visIdLow"], row["collected_at"]) for row in rows
        ]
        assert keys == sorted(keys, key=lambda key: (key[0], key[1] or 0, key[2] or 0, key[3]))


def test_what_was_compacted_is_left_alone(lake):
    """A second run changes no byte."""
    lake.compact()
    before = lake.contents()
    outcome = lake.compact()
    assert outcome.done == []
    assert lake.contents() == before


def test_hits_that_come_late_are_merged(lake):
    """With what was compacted before; their resends of it go, in their hour and in the hour beside it."""
    lake.compact()
    lake.second.commit([hit(200, 1, 5), hit(0, 1), hit(201)], [hit_without_id(9, 1)])
    before = lake.rows()
    outcome = lake.compact()
    assert by_place(lake.rows()) == stays(before)
    assert [done.doubles for done in outcome.done] == [0, 1]
    assert all(name.startswith("compact-") for name in lake.names())
    lake.assert_green()


def test_a_row_in_a_compacted_hour_goes_when_an_earlier_copy_comes_beside_it(tmp_path):
    """The hour that holds no part is looked through as well."""
    lake = Lake(tmp_path / "c")
    first, second = lake.first, lake.second
    first.make()
    second.make()
    second.commit([hit(1, 1), hit(2, 1)])
    lake.compact()
    first.commit([hit(1), hit(3)])
    before = lake.rows()
    lake.compact()
    assert by_place(lake.rows()) == stays(before)
    assert len(lake.rows()) == 3
    lake.assert_green()


def test_an_hour_of_nothing_but_resends_is_emptied(tmp_path):
    """It has no file any more, and no record."""
    lake = Lake(tmp_path / "c")
    lake.first.make()
    lake.second.make()
    lake.first.commit([hit(1, 1), hit(2, 1)])
    lake.second.commit([hit(1), hit(2)])
    lake.compact()
    assert [hour_of(path) for path in lake.files()] == [hour_of(path) for path in lake.files()][:1]
    assert len(list(lake.folder.files.iterdir())) == 1
    lake.assert_green()
    assert lake.compact().done == []


def test_bounded_memory_gives_the_same_rows(lake, tmp_path, monkeypatch):
    """Buckets on the disk and several files an hour instead of one bucket in memory."""
    other = lake.copy_to(tmp_path / "other")
    lake.compact()
    monkeypatch.setattr(reorder, "_GROUP_BYTES", 20_000)
    monkeypatch.setattr(reorder, "_BUCKET_SHARE", 1 << 40)
    other.compact(target_bytes=10_000)
    assert len(other.files()) > len(lake.files())
    assert by_place(other.rows()) == by_place(lake.rows())
    other.assert_green()
    assert other.compact().done == []


# ---------------------------------------------------------------- what is left alone


def test_only_hours_that_are_over_for_long_enough(lake):
    """The newest one is not; its rows are compared with all the same."""
    before = lake.rows()
    newest = COLLECTED_AT_US - COLLECTED_AT_US % HOUR_US + HOUR_US
    compaction = lake.compaction(now_us=newest + 4, lateness_us=5)
    found = compaction.survey()
    assert (len(found.due), len(found.open)) == (2, 1)
    lake.compact(now_us=newest + 4, lateness_us=5)
    open_hour = max(hour_of(path) for path in lake.files())
    untouched = [row for row in before if row["hour"] == open_hour]
    assert by_place([row for row in lake.rows() if row["hour"] == open_hour]) == by_place(untouched)
    assert {id_of(row) for row in lake.rows()} == {id_of(row) for row in before}
    lake.assert_green()


@pytest.mark.parametrize("visible", [False, True])
def test_an_hour_of_a_batch_in_flight_waits(lake, visible):
    """Decided and not committed, whether or not its parts are to be seen yet."""
    newest = [path for path in lake.files() if hour_of(path) == hour_of(lake.files()[-1])]
    intent = lake.first.decide([hit(500)], shares=1)
    if visible:
        lake.first.publish(intent)
    found = lake.compaction().survey()
    assert (len(found.due), len(found.unsettled)) == (2, 1)
    lake.compact()
    assert sum(name.startswith("part-") for name in lake.names()) == len(newest) + visible
    assert all(path.exists() for path in newest)
    lake.assert_green()


def test_parts_of_a_collector_that_is_not_reached_are_named_and_stay(lake, tmp_path):
    """Nothing is dropped because of them: their owner might drop the other copy."""
    hidden = tmp_path / "elsewhere"
    lake.second.state.root.rename(hidden)
    theirs = [row for row in lake.rows() if row["collector_instance"] == lake.second.instance]
    ours = [row for row in lake.rows() if row["collector_instance"] == lake.first.instance]
    compaction = lake.compaction()
    compaction.survey()
    (why,) = compaction.inventory.left
    assert lake.second.instance in why
    lake.compact()
    assert by_place(lake.rows()) == by_place([*theirs, *stays(ours)])
    lake.compact(states=[hidden])
    assert by_place(lake.rows()) == stays([*theirs, *ours])
    retired = list((hidden / "retired").iterdir())
    assert len(retired) == 3


def test_a_state_folder_that_is_none_of_the_stream_is_refused(lake, tmp_path):
    """Named; nothing is looked at."""
    with pytest.raises(ConfigurationError, match=r"no commit\.log"):
        lake.compaction(states=[tmp_path]).survey()


def test_a_damaged_input_leaves_its_hour_as_it_was(lake):
    """Named; hours that it does not touch are compacted."""
    oldest = lake.files()[0]
    data = bytearray(oldest.read_bytes())
    data[len(data) // 2] ^= 1
    oldest.write_bytes(data)
    before = [path for path in lake.files() if hour_of(path) in {hour_of(oldest), hour_of(lake.files()[2])}]
    outcome = lake.compact()
    assert len(outcome.faults) == 2
    assert all(str(oldest) in fault for fault in outcome.faults)
    assert [path for path in before if not path.exists()] == []
    assert len(outcome.done) == 1


def test_a_retired_part_that_is_still_there_is_no_input(lake):
    """Its rows may be elsewhere by now."""
    part = lake.first.files(FileKind.HITS)[0]
    record = RetiredRecord((RetiredPart(part.final, part.sha256.hex()),), "shipped", ("s3://x",))
    write_retired(DISK, lake.first.state, "shipped-1", record)
    compaction = lake.compaction()
    compaction.survey()
    assert any("retired" in why for why in compaction.inventory.left)
    lake.compact()
    assert lake.first.path(part).exists()


def test_two_do_not_work_at_once(lake):
    """The second says so, with the exit code of a folder in use."""
    with lake.compaction().alone(), pytest.raises(InUseError, match="another compact"):
        lake.compact()


class LyingEngine:
    """Leaves a row out, names one twice, or names one of no file."""

    def __init__(self, true: DuckDbEngine, lie: str) -> None:
        self._true = true
        self._lie = lie

    def judged(self, places: Path) -> Iterator[pa.RecordBatch]:
        table = pa.Table.from_batches(list(self._true.judged(places)))
        if self._lie == "twice":
            table = pa.concat_tables([table.slice(1), table.slice(1, 1)])
        yield from (table.slice(1) if self._lie == "none" else table).to_batches()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("lie", ["none", "twice"])
def test_nothing_is_replaced_when_rows_do_not_add_up(lake, lie):
    """Rows in = rows out + doubles, each place once, whatever the engine says."""
    before = lake.contents()
    outcome = lake.compact(engine=LyingEngine(DuckDbEngine(lake.folder.scratch, 1 << 29), lie))
    assert len(outcome.faults) == 3
    assert lake.contents() == before


# ---------------------------------------------------------------- what verify says


def test_a_compacted_file_that_goes_or_changes_is_found(lake):
    """By the verify of each collector whose rows may be in it."""
    lake.compact()
    first, second, _ = lake.files()
    first.unlink()
    data = bytearray(second.read_bytes())
    data[100] ^= 1
    second.write_bytes(data)
    for collected in (lake.first, lake.second):
        findings = collected.verify().findings
        assert {(str(finding.kind), finding.where) for finding in findings} >= {
            ("missing", str(first)),
            ("hash", str(second)),
        }


def test_a_compacted_file_may_be_taken_away_when_that_is_said(lake):
    """In the retired/ of the compaction's folder; the next run leaves it at that."""
    lake.compact()
    path = lake.files()[0]
    name = str(path.relative_to(lake.output))
    record = RetiredRecord((RetiredPart(name, "ab" * 32),), "older than 90 days")
    write_retired(DISK, lake.folder, "retention-1", record)
    path.unlink()
    lake.assert_green()
    lake.compact()
    lake.assert_green()


def test_a_damaged_record_is_named(lake):
    """By verify; and a compact stops rather than guess."""
    lake.compact()
    record = next(lake.folder.files.iterdir())
    record.write_text("{")
    assert "compaction-record" in {str(finding.kind) for finding in lake.first.verify().findings}
    with pytest.raises(Exception, match="put it back from a copy"):
        lake.compact()


def test_copies_of_other_compactions_are_no_fault(lake):
    """They are noted, and no input."""
    lake.compact()
    path = lake.files()[0]
    path.with_name("compact-0123456789abcdef.parquet").write_bytes(path.read_bytes())
    assert any("files of a compaction are there too" in note for note in lake.first.verify().notes)
    lake.assert_green()
    assert lake.compact().done == []
    assert max(copies(lake.rows()).values()) == 2
