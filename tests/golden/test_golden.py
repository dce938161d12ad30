"""Golden files: what an earlier version wrote is read to what it meant, and what is newer is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import make
import pyarrow.parquet as pq
import pytest
from isal.isal_zlib import crc32

from collector import __version__
from collector.cli import main
from collector.core import entries as e
from collector.core.entries import Entry, Intent
from collector.core.floor_record import FloorRecord
from collector.core.ledger import LogState
from collector.core.messages import Block, FileKind, Totals
from collector.decoder.decode import decode_block
from collector.decoder.schema import CONNECTIONS_SCHEMA, HITS_SCHEMA, REJECTS_SCHEMA, RESENDS_SCHEMA
from collector.errors import ExitCode, NewerVersionError
from collector.storage.commitlog import CommitLog, acknowledged_entry
from collector.storage.floor import FloorFile
from collector.storage.fs import DISK
from collector.storage.ids import Run
from collector.storage.journal import JournalReader, recover
from collector.storage.rejects import LeftOut, rejects_parts, version_of, write_lines
from collector.storage.retired import read_retired

SEGMENT = "0000000000000002.segment"
RUN = "000000000007-000000000012-1.run"
COLLECTED = datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
SHA256 = bytes(range(32))


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str], Path]:
    """A copy to work on: readers of ours may cut, lock or take over what they read."""

    def copy(name: str, to: str = "") -> Path:
        path = tmp_path / (to or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(make.FOLDER / name, path)
        return path

    return copy


# ---------------------------------------------------------------- read as it was meant


def test_a_segment_is_read(golden, tmp_path):
    """Two blocks, the second of one oversized record."""
    folder = golden(SEGMENT, f"journal/{SEGMENT}").parent
    found = recover(DISK, folder, tmp_path, after_seq=6)
    assert found.cut is None
    assert found.blocks == [
        Block(7, 2, 4160, 38, 2, 3, 0, 1_795_000_000_000_000, 5),
        Block(8, 2, 4264, 55, 1, 3, 1, 1_795_000_000_000_001, 6),
    ]
    first, second = (
        decode_block(JournalReader(folder).payload(block), block, instance="x") for block in found.blocks
    )
    names = [row["pageName"] for batch in first.batches for row in batch.to_pylist()]
    assert names == ["one", "two"]
    assert [(reject.raw, reject.line) for reject in second.rejects] == [(b'{"pageName":"', 0)]
    assert "20000000 bytes" in second.rejects[0].reason


def _entries(path: Path) -> list[tuple[int, Entry]]:
    log = CommitLog.open(DISK, path)
    try:
        return list(log.entries())
    finally:
        log.close()


def test_a_commit_log_is_read(golden):
    """One entry of each kind that a log has."""
    golden("commit.log.acknowledged")
    path = golden("commit.log")
    entries = _entries(path)
    assert acknowledged_entry(DISK, path) == 19
    assert [number for number, _ in entries] == list(range(1, 20))
    assert [type(entry).__name__ for _, entry in entries] == [
        "Made",
        "ConnectionOpened",
        "Intent",
        "Void",
        "Intent",
        "Committed",
        "Intent",
        "Committed",
        "ConnectionClosed",
        "Lost",
        "GapSeen",
        "ConnectionsIntent",
        "ConnectionsVoid",
        "ConnectionsIntent",
        "ConnectionsCommitted",
        "FileOpened",
        "FileRead",
        "Retired",
        "Note",
    ]
    known = {member.__name__ for member in Entry.__args__}
    assert {type(entry).__name__ for _, entry in entries} == known - {"Checkpoint"}
    by_number = dict(entries)
    assert by_number[1] == e.Made("0123456789abcdef", "shop", "shop-live", 1_795_000_000_000_000)
    assert by_number[2] == e.ConnectionOpened(1, 1_795_000_000_000_000, 0, {"lost": 2}, 0, reset=True)
    intent = by_number[3]
    assert isinstance(intent, Intent)
    assert (intent.batch, intent.last, intent.before, intent.held_us) == (1, 2, Totals(), (0, 5))
    assert [(share.share, share.rows, share.resends, share.rejects) for share in intent.shares] == [
        (1, 3, 1, 1),
        (2, 1, 0, 0),
    ]
    files = [file for share in intent.shares for file in share.files]
    assert [(file.kind, file.staged, file.final, file.size, file.rows) for file in files] == [
        (FileKind.HITS, "1-1-1-hits.parquet", "hits/v=1/p1", 100, 3),
        (FileKind.REJECTS, "1-1-1-rejects.parquet", "rejects/v=1/p1", 100, 1),
        (FileKind.HITS, "1-1-1-hits.parquet", "hits/v=1/p2", 100, 1),
        (FileKind.IDS, "1-1-1-ids.parquet", "ids/1-2-2.run", 100, 1),
    ]
    assert {file.sha256 for file in files} == {SHA256}
    assert intent.blocks[0] == e.BlockCount(1, 1, 5, 3, 1, 1, 1_795_000_000_000_000)
    assert by_number[4] == e.Void(1, 2, "--redo-batch 1", 1_795_000_000_000_003)
    assert by_number[6] == e.Committed(1, 2, 1_795_000_000_000_004)
    closed = by_number[9].closed
    assert (str(closed.outcome), closed.status, closed.retry_after_s, closed.cut_bytes) == (
        "lost",
        200,
        1.5,
        3,
    )
    assert by_number[10] == e.Lost(4, 5, 7)
    assert by_number[11].lost
    assert by_number[14] == by_number[12]
    assert by_number[14].covers == ((1, 1_794_999_600_000_000),)
    assert by_number[15] == e.ConnectionsCommitted(1, 11)
    assert by_number[16] == e.FileOpened(2, SHA256, "/data/hits.jsonl", 1000)
    assert by_number[17] == e.FileRead(2, 5)
    assert by_number[18].files == (e.RetiredFile("hits/v=1/p1", SHA256),)
    assert by_number[19] == e.Note("note", "for people")


def test_a_rotated_log_adds_up_to_the_same(golden):
    """Its checkpoint stands for every entry in the archive."""
    whole, rotated = LogState(), LogState()
    for number, entry in _entries(golden("commit.log")):
        whole.fold(number, entry)
    for number, entry in _entries(golden("rotated.log")):
        rotated.fold(number, entry)
    assert rotated.last_entry == whole.last_entry == 19
    assert rotated.checkpoint() == whole.checkpoint()
    assert (rotated.instance, rotated.totals) == ("0123456789abcdef", Totals(8, 6, 1, 1))
    assert (rotated.last_block, rotated.lost_blocks, rotated.last_connection) == (5, 2, 2)


def test_a_run_of_ids_is_read(golden):
    """Its ids, and what it says of its blocks."""
    run = Run(DISK, golden(RUN))
    assert (run.count, run.first, run.last, run.held_us) == (4, 7, 12, (5, 9))
    assert run.keys.tolist() == sorted(run.keys.tolist())
    assert sorted(run.lows.tolist()) == [0, 10, 30, 2**64 - 1]
    written = Run(DISK, _written(golden, RUN))
    assert run.contains(written.keys, written.lows).all()


def _written(golden, name: str) -> Path:
    path = golden(name, f"written/{name}")
    path.write_bytes(make.made(name))
    return path


def test_a_floor_record_is_read(golden):
    """The newer of two."""
    assert FloorFile(DISK, golden("floor"), FloorRecord).read() == (
        FloorRecord(
            boot_id="boot-1",
            written_s=110.5,
            held_until_s=130.25,
            not_before_s=190.5,
            open=False,
            cause="lost",
            counters={"lost": 2},
            settings="ffffffffffffffff",
            written_us=1_795_000_000_000_000,
        ),
        True,
    )


def _rows(path: Path) -> list[dict]:
    """Without what is empty."""
    rows = pq.read_table(path).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def test_a_part_of_hits_is_read(golden):
    """Every kind of column has something in it, ids over 2**63 and ``extra`` too."""
    assert _rows(golden("hits.parquet")) == [
        {
            "receivedTimeGMT": 1_794_999_990,
            "received_at": COLLECTED - timedelta(seconds=10),
            "timeGMT": 1_794_999_980,
            "hit_at": COLLECTED - timedelta(seconds=20),
            "collected_at": COLLECTED,
            "hitIdHigh": Decimal(2**63 + 1),
            "hitIdLow": Decimal(1),
            "pageName": "one",
            "evars": [("eVar1", "a")],
            "props": [("prop1", "b")],
            "events": [("e1", [{"count": 1.0, "exponent": None, "unique": None}])],
            "products": [
                {
                    "category": None,
                    "evars": None,
                    "events": None,
                    "name": "hat",
                    "revenue": 5.5,
                    "units": None,
                }
            ],
            "exclude": {"id": "3", "value": None, "description": None},
            "extra": [("exclude.id", "3")],
            "collector_instance": "0123456789abcdef",
            "collector_block": 7,
            "collector_line": 0,
        },
        {
            "receivedTimeGMT": 1_794_999_991,
            "received_at": COLLECTED - timedelta(seconds=9),
            "collected_at": COLLECTED,
            "hitIdHigh": Decimal(2**64 - 1),
            "hitIdLow": Decimal(2**64 - 1),
            "extra": [("unknown", '[1,{"x":null}]')],
            "collector_instance": "0123456789abcdef",
            "collector_block": 7,
            "collector_line": 1,
        },
    ]


def test_a_part_of_rejects_is_read(golden, tmp_path):
    """As a table, and as lines that are run again."""
    path = golden("rejects.parquet")
    assert _rows(path) == [
        {
            "raw": b"no hit",
            "reason": "not an object: it starts with 'n'",
            "collector_block": 7,
            "collector_line": 2,
            "collected_at": COLLECTED,
            "collector_instance": "0123456789abcdef",
        }
    ]
    assert write_lines(DISK, path, tmp_path / "lines") == LeftOut()
    assert (tmp_path / "lines").read_bytes() == b"\r\nno hit\r\n"


def test_a_list_of_resends_is_read(golden):
    """Which ids were dropped, and where they stood."""
    assert _rows(golden("resends.parquet")) == [
        {"hitIdHigh": Decimal(5), "hitIdLow": Decimal(6), "collector_block": 7, "collector_line": 3}
    ]


def test_a_part_of_connections_is_read(golden):
    """A connection and the gap after it."""
    connection, gap = _rows(golden("connections.parquet"))
    assert (connection["kind"], connection["connection"], connection["reason"]) == ("connection", 3, "lost")
    assert connection["closed_at"] - connection["opened_at"] == timedelta(microseconds=5)
    assert (connection["hits"], connection["resends"], connection["rejects"]) == (2, 1, 1)
    assert (connection["attempts"], connection["wait_s"]) == ([("lost", 2)], 60.0)
    assert (gap["kind"], gap["suspected_gap"], gap["began_at"]) == ("gap", "possible", COLLECTED)
    assert "opened_at" not in gap


def test_requests_are_read(golden):
    """What other commands leave for the coordinator."""
    assert read_retired(DISK, golden("retired.json"), 5) == e.Retired(
        (e.RetiredFile("hits/v=1/p1", SHA256),), "older than a year", ("hits/v=1/p9",), 5
    )
    assert golden("reset-request").read_text() == "smallest\n"


# ---------------------------------------------------------------- written as before


@pytest.mark.parametrize("name", [name for name in make.WRITERS if name not in make.PARTS])
def test_todays_writer_makes_the_same_bytes(name):
    """Another byte is another format: it needs another version, and a golden file of its own."""
    assert make.made(name) == (make.FOLDER / name).read_bytes()


SCHEMAS = {
    "hits.parquet": HITS_SCHEMA,
    "rejects.parquet": REJECTS_SCHEMA,
    "resends.parquet": RESENDS_SCHEMA,
    "connections.parquet": CONNECTIONS_SCHEMA,
}


@pytest.mark.parametrize("name", make.PARTS)
def test_todays_writer_makes_the_same_part(name, tmp_path):
    """Schema, rows and footer; the bytes are Arrow's own affair."""
    before = make.FOLDER / name
    now = tmp_path / name
    now.write_bytes(make.made(name))
    assert pq.read_schema(before).remove_metadata() == SCHEMAS[name]
    assert pq.read_table(before).equals(pq.read_table(now), check_metadata=False)
    metadata = {key.decode(): value.decode() for key, value in pq.read_metadata(before).metadata.items()}
    written = {key.decode(): value.decode() for key, value in pq.read_metadata(now).metadata.items()}
    assert written == metadata | {"collector.version": __version__}
    assert metadata["collector.schema_version"] == "1"


def test_every_golden_file_has_its_writer():
    """And every format its golden file."""
    found = {path.name for path in make.FOLDER.iterdir() if path.is_file()}
    assert found - {"make.py", "test_golden.py"} == set(make.WRITERS)


# ---------------------------------------------------------------- newer than known


def _raised(data: bytes, at: int, checked: int) -> bytes:
    """The version there one higher, and the checksum behind the checked bytes right for it."""
    new = bytearray(data)
    new[at] += 1
    new[checked : checked + 4] = crc32(bytes(new[:checked])).to_bytes(4, "little")
    return bytes(new)


def _raised_block(data: bytes) -> bytes:
    new = bytearray(data)
    new[4096 + 4] += 1
    seed = crc32(make.SALT)
    new[4152:4156] = crc32(bytes(new[4096:4152]), seed).to_bytes(4, "little")
    return bytes(new)


def _raised_floor(data: bytes) -> bytes:
    """The newer slot is the first."""
    new = bytearray(data)
    new[4] += 1
    length = int.from_bytes(new[6:8], "little")
    new[16:20] = crc32(bytes(new[20 : 20 + length]), crc32(bytes(new[:16]))).to_bytes(4, "little")
    return bytes(new)


NEWER: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {
    "segment": (SEGMENT, f"journal/{SEGMENT}", lambda data: _raised(data, 8, 48)),
    "block": (SEGMENT, f"journal/{SEGMENT}", _raised_block),
    "commit log": ("commit.log", "commit.log", lambda data: _raised(data, 8, 12)),
    "run": (RUN, f"ids/{RUN}", lambda data: _raised(data, 8, 64)),
    "floor": ("floor", "floor", _raised_floor),
}


@pytest.mark.parametrize("name", NEWER)
def test_a_file_of_a_newer_version_stops_the_start(name, golden, tmp_path, capsys):
    """With both versions and the file's name; the file stays as it is."""
    file, place, raised = NEWER[name]
    saved = tmp_path / "hits.jsonl"
    saved.write_bytes(b"")
    path = golden(file, f"output/.state/files.files/{place}")
    newer = raised(path.read_bytes())
    path.write_bytes(newer)
    (tmp_path / "output/.state/files.files").chmod(0o700)
    with pytest.raises(SystemExit) as ended:
        main(["decode", str(saved), "--output", str(tmp_path / "output"), "--set", "journal.durability=disk"])
    assert ended.value.code == ExitCode.STORAGE
    said = capsys.readouterr().err
    assert str(path) in said
    assert "version 2, this one knows 1" in said
    assert path.read_bytes() == newer


def _with_schema_version(path: Path, version: str) -> None:
    table = pq.read_table(path)
    metadata = {**(table.schema.metadata or {}), b"collector.schema_version": version.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_rejects_of_a_newer_schema_are_refused(golden, tmp_path):
    """By the footer, and by the folder."""
    path = golden("rejects.parquet")
    _with_schema_version(path, "2")
    newer = path.read_bytes()
    for read in (lambda: version_of(DISK, path), lambda: write_lines(DISK, path, tmp_path / "lines")):
        with pytest.raises(
            NewerVersionError, match=r"rejects\.parquet has schema version 2, this one knows 1"
        ):
            read()
    assert path.read_bytes() == newer
    assert not (tmp_path / "lines").exists()
    (tmp_path / "rejects" / "v=2" / "stream=shop").mkdir(parents=True)
    with pytest.raises(NewerVersionError, match=r"v=2 has schema version 2, this one knows 1"):
        rejects_parts(DISK, tmp_path, "shop")
