"""A share: what is added is staged, counted, found again in every engine, or gone without a trace."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from decode_rig import COLLECTED_AT_US, INSTANCE, decoded, decoder

from collector import __version__
from collector.core.messages import ConnectionRow, FileKind, Stage, StageConnections, StagedFile, Totals
from collector.core.resends import key_of
from collector.decoder import parquet
from collector.decoder.parquet import PartIdentity, Share, stage_connections
from collector.decoder.partfile import leaves
from collector.decoder.schema import CONNECTIONS_SCHEMA, HITS_SCHEMA, REJECTS_SCHEMA, RESENDS_SCHEMA
from collector.errors import NoSpaceError, StorageError
from collector.storage.fs import DISK, Disk
from collector.storage.ids import Run
from tests import reference
from tests.storage.faulty_disk import FaultyDisk

pytestmark = pytest.mark.usefixtures("twin")

SAMPLE = Path(__file__).parents[1] / "data" / "hits-sample.jsonl"
IDENTITY = PartIdentity(INSTANCE, "shop", "memory")
ORDER = Stage(
    batch=7,
    last=12,
    share=2,
    attempt=3,
    shares=4,
    before=Totals(100, 90, 7, 3),
    batch_before=(3, 6),
    held_us=(5, 9),
)
COLLECTED_S = COLLECTED_AT_US // 1_000_000
NONE = np.empty(0, np.uint32)


def share_in(folder: Path, disk: Disk = DISK) -> Share:
    return Share(disk, folder, IDENTITY, batch=7, share=2, attempt=3)


def by_kind(files: list[StagedFile], kind: FileKind) -> list[StagedFile]:
    return [file for file in files if file.kind == kind]


def row_groups(folder: Path, files: list[StagedFile]) -> list[list[int]]:
    """Rows of each row group of each part."""
    parts = [pq.read_metadata(folder / file.staged) for file in by_kind(files, FileKind.HITS)]
    return [[part.row_group(n).num_rows for n in range(part.num_row_groups)] for part in parts]


def rows_in(folder: Path, files: list[StagedFile]) -> list[dict]:
    return [row for file in files for row in pq.read_table(folder / file.staged).to_pylist()]


def hit(number: int, **more: object) -> bytes:
    ids = {"hitIdHigh": 2**63 + number, "hitIdLow": number}
    return json.dumps({**ids, "receivedTimeGMT": COLLECTED_S - 60, **more}).encode()


# ---------------------------------------------------------------- found again


def with_pyarrow(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def with_polars(path: Path) -> list[dict]:
    return pl.read_parquet(path).to_dicts()


def with_duckdb(path: Path) -> list[dict]:
    with duckdb.connect() as connection:
        times = "received_at, hit_at, collected_at"  # Python values of these would need pytz
        found = connection.execute(f"select * exclude ({times}) from read_parquet('{path}')")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.fixture(scope="module")
def sample(tmp_path_factory, twin):
    """The sample in blocks of 50, staged: folder, files, records by block and line."""
    folder = tmp_path_factory.mktemp("sample")
    records = [line for line in SAMPLE.read_bytes().split(b"\r\n") if line]
    share = share_in(folder)
    sent = {}
    for seq, first in enumerate(range(0, len(records), 50), start=7):
        lines = records[first : first + 50]
        sent |= {(seq, number): line for number, line in enumerate(lines)}
        share.add(decoded(*lines, seq=seq), NONE, seq=seq)
    return folder, share.stage(ORDER), sent


@pytest.mark.parametrize("engine", [with_pyarrow, with_polars, with_duckdb])
def test_every_field_of_every_hit_is_found_again(sample, engine):
    """Columns with ``extra`` laid over them are the record that was sent, whoever reads the part."""
    folder, files, sent = sample
    rows = [row for file in by_kind(files, FileKind.HITS) for row in engine(folder / file.staged)]
    assert len(rows) > 300
    assert {(row["collector_block"], row["collector_line"]) for row in rows} == sent.keys()
    for row in rows:
        line = sent[row["collector_block"], row["collector_line"]].decode()
        extra = reference.plain(("map", "text"), row["extra"] or {})
        found = reference.rebuild(reference.columns_of(row), extra)
        assert reference.same(found, reference.parse(line)), line


def test_times_are_the_same_instants_in_every_engine(sample):
    """Microseconds in UTC, never shifted by a local time zone."""
    folder, files, _ = sample
    path = folder / by_kind(files, FileKind.HITS)[0].staged
    expected = [row["received_at"] for row in with_pyarrow(path)]
    assert all(moment.tzinfo is not None for moment in expected)
    assert pl.read_parquet(path)["received_at"].to_list() == expected
    with duckdb.connect() as connection:
        query = f"select epoch_us(received_at) from read_parquet('{path}')"
        found = [moment for (moment,) in connection.execute(query).fetchall()]
    assert found == [round(moment.timestamp() * 1_000_000) for moment in expected]


def test_what_users_ask_can_be_asked(sample):
    """An eVar by its name, a product's revenue, an id over 2**63: in SQL, without casts."""
    folder, files, _ = sample
    names = [str(folder / file.staged) for file in by_kind(files, FileKind.HITS)]
    with duckdb.connect() as connection:
        connection.execute(f"create view hits as from read_parquet({names})")
        ask = lambda query: connection.execute(query).fetchone()[0]  # noqa: E731
        assert ask("select count(*) from hits where hitIdHigh = 18446744073709551615") == 2
        assert ask("select count(*) from hits where evars['evar9'] = '1.0'") == 11
        assert ask("select sum(p.revenue) from (select unnest(products) p from hits)") > 1000
        assert ask("select count(*) from hits where exclude.id = '0' and mobileVideoSupport = 'MP4,3GPP'") > 0


# ---------------------------------------------------------------- counted


def test_each_record_is_a_row_a_resend_or_a_reject(tmp_path):
    """Rows, resends, rejects and hits without an id, in every mixture, with the files that say so."""
    share = share_in(tmp_path)
    lines = [hit(0), b"garbage", hit(1, zip=5), b'{"hitIdLow":1}', hit(2), hit(3), b"[]", hit(1)]
    done = share.add(decoded(*lines, seq=8), np.array([1, 4], np.uint32), seq=8)
    assert (done.rows, done.resends, done.rejects, done.without_id, done.repaired) == (4, 2, 2, 1, 1)
    assert done.hours == ((COLLECTED_S - 60) // 3600, COLLECTED_S // 3600)[: len(done.hours)]
    share.add(decoded(hit(9), seq=9), np.array([0], np.uint32), seq=9)
    assert (share.rows, share.resends, share.rejects) == (4, 3, 2)
    files = share.stage(ORDER)
    rows = rows_in(tmp_path, by_kind(files, FileKind.HITS))
    names = sorted((row["collector_block"], row["collector_line"]) for row in rows)
    assert names == [(8, 0), (8, 3), (8, 4), (8, 5)]
    resends = rows_in(tmp_path, by_kind(files, FileKind.RESENDS))
    assert [tuple(map(int, row.values())) for row in resends] == [
        (2**63 + 1, 1, 8, 2),
        (2**63 + 1, 1, 8, 7),
        (2**63 + 9, 9, 9, 0),
    ]
    rejects = rows_in(tmp_path, by_kind(files, FileKind.REJECTS))
    assert [(row["raw"], row["collector_line"]) for row in rejects] == [(b"garbage", 1), (b"[]", 6)]
    assert {row["collector_instance"] for row in rejects} == {INSTANCE}
    assert sum(file.rows for file in by_kind(files, FileKind.HITS)) == share.rows


def test_the_id_run_has_the_ids_of_the_kept_rows(tmp_path):
    """Of these alone: no resend, no hit without an id."""
    share = share_in(tmp_path)
    share.add(
        decoded(*(hit(number) for number in range(20)), b"{}", seq=8), np.array([3, 4], np.uint32), seq=8
    )
    (file,) = by_kind(share.stage(ORDER), FileKind.IDS)
    run = Run(DISK, tmp_path / file.staged)
    low = np.arange(20, dtype=np.uint64)
    found = run.contains(key_of(low + np.uint64(2**63), low), low)
    assert found.tolist() == [number not in {3, 4} for number in range(20)]
    assert (run.count, run.first, run.last, run.held_us) == (18, 7, 12, (5, 9))
    assert file.rows == 18


def test_there_is_one_part_per_hour(tmp_path):
    """Rows are filed by ``received_at``; the path says its UTC hour."""
    share = share_in(tmp_path)
    hours = [COLLECTED_S // 3600 - age for age in (0, 1, 30)]
    lines = [hit(n, receivedTimeGMT=hours[n % 3] * 3600 + n) for n in range(30)]
    done = share.add(decoded(*lines), np.array([0, 1, 2, 3], np.uint32), seq=7)
    assert done.hours == tuple(sorted(hours))
    parts = by_kind(share.stage(ORDER), FileKind.HITS)
    assert len(parts) == 3
    for part in parts:
        moments = {row["received_at"].replace(minute=0, second=0) for row in rows_in(tmp_path, [part])}
        (moment,) = moments
        assert f"/date={moment:%Y-%m-%d}/hour={moment:%H}/part-{INSTANCE}-" in part.final
        assert part.staged == f"7-2-3-hits-{moment:%Y-%m-%dT%H}.parquet"
    assert sum(part.rows for part in parts) == 26


def test_names_say_what_a_file_is_of(tmp_path):
    """Staged: batch, share and attempt, so none collides. Final: instance, blocks and share."""
    share = share_in(tmp_path)
    share.add(decoded(hit(1), hit(2), b"x"), np.array([0], np.uint32), seq=7)
    found = {file.kind: (file.staged, file.final) for file in share.stage(ORDER)}
    blocks = f"part-{INSTANCE}-000000000007-000000000012-2.parquet"
    assert found == {
        FileKind.HITS: (
            "7-2-3-hits-2026-11-18T11.parquet",
            f"hits/v=1/stream=shop/date=2026-11-18/hour=11/{blocks}",
        ),
        FileKind.REJECTS: (
            "7-2-3-rejects-2026-11-18T00.parquet",
            f"rejects/v=1/stream=shop/date=2026-11-18/{blocks}",
        ),
        FileKind.RESENDS: ("7-2-3-resends-1970-01-01T00.parquet", f"resends/{blocks}"),
        FileKind.IDS: ("7-2-3-ids.run", "ids/000000000007-000000000012-2.run"),
    }


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        ([], []),
        ([b"x"], [FileKind.REJECTS]),
        ([b"{}"], [FileKind.HITS]),
        ([hit(1)], [FileKind.HITS, FileKind.IDS]),
    ],
)
def test_there_is_no_file_without_rows(tmp_path, lines, kinds):
    """An empty part would only be in the way."""
    share = share_in(tmp_path)
    share.add(decoded(*lines), NONE, seq=7)
    assert [file.kind for file in share.stage(ORDER)] == kinds
    assert len(os.listdir(tmp_path)) == len(kinds)


# ---------------------------------------------------------------- files


def test_parts_carry_their_provenance(tmp_path):
    """Versions, stream, instance, blocks, the share's counts, and the batch before with its totals."""
    share = share_in(tmp_path)
    share.add(decoded(hit(1), hit(2), b"x", seq=7), np.array([0], np.uint32), seq=7, connection=4)
    for file in share.stage(ORDER):
        if file.kind is FileKind.IDS:
            continue
        metadata = pq.read_metadata(tmp_path / file.staged).metadata
        assert {key.decode(): value.decode() for key, value in metadata.items()} == {
            "collector.version": __version__,
            "collector.schema_version": "1",
            "collector.stream": "shop",
            "collector.instance": INSTANCE,
            "collector.journal_durability": "memory",
            "collector.decoder": "plain",
            "collector.first_block": "7",
            "collector.last_block": "12",
            "collector.share": "2",
            "collector.shares": "4",
            "collector.share_rows": "1",
            "collector.share_resends": "1",
            "collector.share_rejects": "1",
            "collector.before_first_block": "3",
            "collector.before_last_block": "6",
            "collector.before_records": "100",
            "collector.before_rows": "90",
            "collector.before_resends": "7",
            "collector.before_rejects": "3",
            "collector.held_first_us": "5",
            "collector.held_last_us": "9",
            "collector.connections": "7:4",
        }


def test_staged_files_are_described_as_they_are(sample):
    """Size, SHA-256 and rows are those of the bytes on the disk; others may read what becomes visible."""
    folder, files, _ = sample
    for file in files:
        content = (folder / file.staged).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).digest())
        own = file.kind in {FileKind.IDS, FileKind.RESENDS}
        assert (folder / file.staged).stat().st_mode & 0o777 == (0o600 if own else 0o644)
        if file.kind is not FileKind.IDS:
            assert file.rows == pq.read_metadata(folder / file.staged).num_rows
    assert sorted(os.listdir(folder)) == sorted(file.staged for file in files)


def test_a_part_reads_back_with_the_schema_as_it_is_documented(tmp_path):
    """Without any help of Arrow's own metadata, in every kind of file."""
    share = share_in(tmp_path)
    share.add(decoded(hit(1), hit(2), b"x"), np.array([0], np.uint32), seq=7)
    schemas = {FileKind.HITS: HITS_SCHEMA, FileKind.REJECTS: REJECTS_SCHEMA, FileKind.RESENDS: RESENDS_SCHEMA}
    for file in share.stage(ORDER):
        if file.kind in schemas:
            assert pq.read_schema(tmp_path / file.staged).remove_metadata() == schemas[file.kind]


def test_statistics_are_on_times_and_ids_alone(sample):
    """What tables and queries skip files by; elsewhere they cost and help nobody."""
    folder, files, _ = sample
    group = pq.read_metadata(folder / by_kind(files, FileKind.HITS)[0].staged).row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    assert {column.path_in_schema for column in columns} == {leaf for leaf, _ in leaves(HITS_SCHEMA)}
    assert {column.path_in_schema for column in columns if column.is_stats_set} == {
        *("received_at", "hit_at", "collected_at", "receivedTimeGMT", "timeGMT", "collector_block"),
        *("hitIdHigh", "hitIdLow", "mcVisIdHigh", "mcVisIdLow", "visIdHigh", "visIdLow"),
    }
    assert {column.compression for column in columns} == {"ZSTD"}
    plain = {column.path_in_schema for column in columns if "RLE_DICTIONARY" not in column.encodings}
    assert {"hitIdHigh", "hitIdLow"} <= plain
    assert not {"pageName", "evars.key_value.key", "evars.key_value.value"} & plain


def test_memory_is_bounded_by_row_groups(tmp_path, monkeypatch):
    """Past the limit the largest part is written; nothing is lost or moved by it."""
    monkeypatch.setattr(parquet, "WAITING_BYTES", 100_000)
    share = share_in(tmp_path)
    for seq in range(7, 27):
        lines = [hit(seq * 100 + n, pageName=f"page {n}" * 20) for n in range(50)] + [b"x" * 1000]
        share.add(decoded(*lines, seq=seq), NONE, seq=seq)
    files = share.stage(ORDER)
    (part,) = by_kind(files, FileKind.HITS)
    assert pq.read_metadata(tmp_path / part.staged).num_row_groups > 3
    places = [(row["collector_block"], row["collector_line"]) for row in rows_in(tmp_path, [part])]
    assert places == [(seq, n) for seq in range(7, 27) for n in range(50)]
    assert sum(file.rows for file in by_kind(files, FileKind.REJECTS)) == 20


@pytest.mark.parametrize("dropped", [100, 300])
def test_what_was_filed_for_want_of_room_does_not_wait(tmp_path, monkeypatch, dropped):
    """Without its resends it may be little: it holds the columns of all of them, until it is written."""
    share = share_in(tmp_path)
    for seq in (7, 8, 9):
        block = decoded(*(hit(seq * 1000 + n) for n in range(300)), seq=seq)
        monkeypatch.setattr(parquet, "WAITING_BYTES", block.spans[0].group.nbytes - 1)
        share.add(block, np.arange(dropped, dtype=np.uint32), seq=seq)
    files = share.stage(ORDER)
    assert row_groups(tmp_path, files) == ([[300 - dropped] * 3] if dropped < 300 else [])
    assert sum(file.rows for file in by_kind(files, FileKind.RESENDS)) == 3 * dropped


def test_a_block_that_was_decoded_ahead_waits_for_the_next_row_group(tmp_path, monkeypatch):
    """It is in a group that was closed before it was known what to drop of it: few rows, which are copied, so
    that they neither hold the columns of the whole group nor become a row group of their own.
    """
    share, by = share_in(tmp_path), decoder()
    monkeypatch.setattr(parquet, "WAITING_BYTES", 1 << 30)
    blocks = {seq: decoded(*(hit(seq * 1000 + n) for n in range(200)), seq=seq, by=by) for seq in range(1, 7)}
    for seq in (1, 2, 3, 4):
        share.add(blocks[seq], NONE, seq=seq)
    (group,) = {span.group for block in blocks.values() for span in block.spans}
    monkeypatch.setattr(parquet, "WAITING_BYTES", group.nbytes - 1)
    share.add(blocks[5], NONE, seq=5)
    share.add(blocks[6], NONE, seq=6)
    (waiting,) = [batch for part in share._parts.values() for batch in part._waiting]
    assert waiting.get_total_buffer_size() < group.batch().get_total_buffer_size() / 2
    share.add(decoded(*(hit(7000 + n) for n in range(200)), seq=7, by=by), NONE, seq=7)
    files = share.stage(ORDER)
    assert row_groups(tmp_path, files) == [[1000, 400]]
    places = [
        (row["collector_block"], row["collector_line"])
        for row in rows_in(tmp_path, by_kind(files, FileKind.HITS))
    ]
    assert places == [(seq, n) for seq in range(1, 8) for n in range(200)]


def test_the_same_share_gives_the_same_rows_and_ids(tmp_path):
    """Run again elsewhere, under another attempt."""
    contents = []
    for attempt in (1, 2):
        share = Share(DISK, tmp_path, IDENTITY, batch=7, share=2, attempt=attempt)
        share.add(decoded(*(hit(n, zip=n) for n in range(50)), b"x"), np.array([5], np.uint32), seq=7)
        contents.append([file.sha256 for file in share.stage(ORDER)])
    assert contents[0] == contents[1]
    assert len(os.listdir(tmp_path)) == 8


# ---------------------------------------------------------------- or gone


def run_share(disk: Disk, folder: Path) -> None:
    share = share_in(folder, disk)
    try:
        for seq in (7, 8):
            lines = [hit(seq * 100 + n) for n in range(40)] + [
                hit(seq, receivedTimeGMT=COLLECTED_S - 9000),
                b"x",
            ]
            share.add(decoded(*lines, seq=seq), np.array([1], np.uint32), seq=seq)
        share.stage(ORDER)
    except StorageError:
        share.discard()
        raise


def test_a_share_that_finds_no_room_leaves_nothing(tmp_path, monkeypatch):
    """ENOSPC at every write and open in turn: the error says so, and every file is gone."""
    monkeypatch.setattr(parquet, "WAITING_BYTES", 20_000)
    for number in range(1, 100):
        disk = FaultyDisk(number, errno.ENOSPC, only=frozenset({"open", "write", "pwritev"}))
        try:
            run_share(disk, tmp_path)
        except NoSpaceError:
            assert os.listdir(tmp_path) == []
            continue
        break
    assert not disk.fired
    assert number > 10


def test_a_failed_sync_is_no_lack_of_space(tmp_path):
    """What was written may be lost: the share is run again from the journal, never synced again."""
    disk = FaultyDisk(1, errno.ENOSPC, only=frozenset({"fsync", "fdatasync"}))
    with pytest.raises(StorageError) as failed:
        run_share(disk, tmp_path)
    assert not isinstance(failed.value, NoSpaceError)
    assert os.listdir(tmp_path) == []


class CuttingDisk(Disk):
    """Loses the end of every file that is synced."""

    def fsync(self, fd: int) -> None:
        if size := os.fstat(fd).st_size:
            os.ftruncate(fd, size - 10)
        super().fsync(fd)


def test_a_part_that_does_not_read_back_is_not_staged(tmp_path):
    """The footer is read from the disk before anybody hears of the file."""
    share = share_in(tmp_path, CuttingDisk())
    share.add(decoded(hit(1)), NONE, seq=7)
    with pytest.raises(StorageError, match="does not read back"):
        share.stage(ORDER)


# ---------------------------------------------------------------- connections

HOUR_US = 3600 * 1_000_000
DAY_US = 24 * HOUR_US
BEGAN_US = 1_795_000_000_000_000


def test_connections_are_one_part_per_day(tmp_path):
    """Times as timestamps, 0 as null, attempts as a map; named by log entries."""
    connection = ConnectionRow(
        kind="connection",
        connection=4,
        began_us=BEGAN_US,
        ended_us=BEGAN_US + HOUR_US,
        opened_us=BEGAN_US + 1,
        reason="lost",
        status=200,
        bytes_received=2**40,
        records=12,
        hits=10,
        resends=1,
        rejects=1,
        wait_us=61_500_000,
        attempts={"409": 2, "unreached": 1},
        resends_at_start=1,
        suspected_gap="possible",
        suspected_gap_rule="why",
    )
    gap = ConnectionRow(kind="gap", connection=4, began_us=BEGAN_US + DAY_US, ended_us=BEGAN_US + DAY_US + 5)
    order = StageConnections(first=17, last=29, rows=(connection, gap), before=Totals())
    files = stage_connections(DISK, tmp_path, IDENTITY, order)
    name = f"part-{INSTANCE}-000000000017-000000000029-1.parquet"
    assert [file.final for file in files] == [
        f"connections/v=1/stream=shop/date=2026-11-18/{name}",
        f"connections/v=1/stream=shop/date=2026-11-19/{name}",
    ]
    tables = [pq.read_table(tmp_path / file.staged) for file in files]
    assert all(table.schema.remove_metadata() == CONNECTIONS_SCHEMA for table in tables)
    first, second = (table.to_pylist()[0] for table in tables)
    assert first["opened_at"] == datetime.fromtimestamp(BEGAN_US // 10**6, UTC).replace(microsecond=1)
    assert first["closed_at"] is None
    assert dict(first["attempts"]) == {"409": 2, "unreached": 1}
    assert (first["wait_s"], first["bytes_received"], first["collector_instance"]) == (61.5, 2**40, INSTANCE)
    assert (second["kind"], second["attempts"], second["suspected_gap"]) == ("gap", [], "no")
    assert pq.read_metadata(tmp_path / files[0].staged).metadata[b"collector.first_entry"] == b"17"


def test_connections_that_find_no_room_leave_nothing(tmp_path):
    """The second of two parts fails: the first is gone as well."""
    rows = tuple(
        ConnectionRow(kind="gap", connection=1, began_us=n * DAY_US, ended_us=n * DAY_US) for n in (1, 2)
    )
    disk = FaultyDisk(2, errno.ENOSPC, only=frozenset({"write"}))
    with pytest.raises(NoSpaceError):
        stage_connections(disk, tmp_path, IDENTITY, StageConnections(1, 2, rows, Totals()))
    assert os.listdir(tmp_path) == []
