"""Makes the golden files: one small file of each format that outlives the process that wrote it.

``python tests/golden/make.py`` writes those that are missing, and never over one that is there: a golden
file is of the version that made it. Everything is fixed: salt, times, instance.
"""

# ruff: noqa: E402 - it is run as a program, from anywhere

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2])]

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    ConnectionsVoid,
    Entry,
    FileOpened,
    FileRead,
    GapSeen,
    Intent,
    Lost,
    Made,
    Note,
    Retired,
    RetiredFile,
    ShareStaged,
    Void,
)
from collector.core.floor_record import FloorRecord
from collector.core.ledger import LogState
from collector.core.messages import (
    Block,
    BlockFlag,
    Closed,
    ConnectionRow,
    FileKind,
    Outcome,
    Oversized,
    Stage,
    StageConnections,
    StagedFile,
    Totals,
)
from collector.decoder.decode import decode_block
from collector.decoder.parquet import PartIdentity, Share, stage_connections
from collector.storage import segments
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.floor import FloorFile
from collector.storage.fs import DISK
from collector.storage.ids import write_run
from collector.storage.layout import StateFolder
from collector.storage.retired import RetiredPart, RetiredRecord, write_retired

FOLDER = Path(__file__).parent
INSTANCE = "0123456789abcdef"
STREAM = "shop"
AT_US = 1_795_000_000_000_000
HOUR_US = AT_US - AT_US % 3_600_000_000
SHA256 = bytes(range(32))

# ---------------------------------------------------------------- journal

SALT = b"a salt of 16 by."
SEGMENT_BYTES = 8192
LINES = b'{"pageName":"one"}\n{"pageName":"two"}\n'
OVERSIZED = Oversized(b'{"pageName":"', 20_000_000, SHA256)
BLOCKS = [
    (segments.BlockHeader(7, 3, BlockFlag.NONE, len(LINES), 2, AT_US, 5, 6), LINES),
    (
        segments.BlockHeader(
            8, 3, BlockFlag.OVERSIZED, len(msgspec.msgpack.encode(OVERSIZED)), 1, AT_US + 1, 6, 7
        ),
        msgspec.msgpack.encode(OVERSIZED),
    ),
]


def segment(folder: Path) -> bytes:
    """Segment 2 as the journal's writer leaves it."""
    opened = segments.make_segment(DISK, folder, 2, SEGMENT_BYTES)
    header = segments._pack_header(2, SALT, SEGMENT_BYTES)
    DISK.pwrite_all(opened.fd, header, 0)
    seed, at = segments.salt_crc(SALT), segments.SEGMENT_HEADER_BYTES
    for block, payload in BLOCKS:
        DISK.pwrite_all(opened.fd, segments.pack_block(block, payload, seed) + payload, at)
        at += segments.space_of(block.length)
    DISK.close(opened.fd)
    return (folder / segments.segment_name(2)).read_bytes()


# ---------------------------------------------------------------- commit log


def _file(kind: FileKind, name: str, rows: int) -> StagedFile:
    return StagedFile(kind, f"1-1-1-{kind}.parquet", f"{kind}/{name}", 100, SHA256, rows)


FIRST = Intent(
    batch=1,
    last=2,
    shares=(
        ShareStaged(1, 3, 1, 1, (_file(FileKind.HITS, "v=1/p1", 3), _file(FileKind.REJECTS, "v=1/p1", 1))),
        ShareStaged(2, 1, 0, 0, (_file(FileKind.HITS, "v=1/p2", 1), _file(FileKind.IDS, "1-2-2.run", 1))),
    ),
    blocks=(BlockCount(1, 1, 5, 3, 1, 1, AT_US), BlockCount(2, 1, 1, 1, 0, 0, AT_US + 1)),
    before=Totals(),
    held_us=(0, 5),
)
SECOND = Intent(
    batch=3,
    last=3,
    shares=(ShareStaged(1, 2, 0, 0, (_file(FileKind.RESENDS, "p3", 2),)),),
    blocks=(BlockCount(3, 1, 2, 2, 0, 0, AT_US + 2),),
    before=Totals(6, 4, 1, 1),
    held_us=(5, 9),
)
LOST = Closed(
    1,
    Outcome.LOST,
    "the service closed it",
    AT_US + 9,
    status=200,
    error_description="described",
    retry_after_s=1.5,
    opened_at_us=AT_US,
    first_byte_us=AT_US + 1,
    bytes_received=1000,
    records=8,
    cut_bytes=3,
    held_us=9,
)
ROWS = ConnectionsIntent(1, 11, (_file(FileKind.CONNECTIONS, "v=1/p", 2),), ((1, HOUR_US),), (11,))
ENTRIES: list[Entry] = [
    Made(INSTANCE, STREAM, "shop-live", AT_US),
    ConnectionOpened(1, AT_US, 0, {"lost": 2}, 0, reset=True),
    FIRST,
    Void(1, 2, "--redo-batch 1", AT_US + 3),
    FIRST,
    Committed(1, 2, AT_US + 4),
    SECOND,
    Committed(3, 3, AT_US + 5),
    ConnectionClosed(LOST, 9),
    Lost(4, 5, 7),
    GapSeen(
        1, AT_US + 9, AT_US + 99, "lost", "the service closed it", "possible", "its end was cut", lost=True
    ),
    ROWS,
    ConnectionsVoid(1, 11, "--redo-batch 1", AT_US + 6),
    ROWS,
    ConnectionsCommitted(1, 11),
    FileOpened(2, SHA256, "/data/hits.jsonl", 1000),
    FileRead(2, 5),
    Retired((RetiredFile("hits/v=1/p1", SHA256),), "older than a year", ("hits/v=1/p9",), AT_US + 7),
    Note("note", "for people"),
]


def commit_log(folder: Path) -> bytes:
    """Every kind of entry but ``Checkpoint``; the last two in one append."""
    log = CommitLog.open(DISK, folder / "commit.log")
    for entry in ENTRIES[:-2]:
        log.append(entry)
    log.append_all(ENTRIES[-2:])
    log.close()
    return (folder / "commit.log").read_bytes()


def acknowledged(folder: Path) -> bytes:
    """How far the log is known to have been durable."""
    commit_log(folder)
    return (folder / "commit.log.acknowledged").read_bytes()


def rotated_log(_folder: Path) -> bytes:
    """All of the log's entries as one ``Checkpoint``."""
    state = LogState()
    for number, entry in enumerate(ENTRIES, 1):
        state.fold(number, entry)
    return packed_checkpoint(state.last_entry, state.checkpoint())


# ---------------------------------------------------------------- ids and floor

KEYS = np.array([3, 1, 2**64 - 1, 2**63], np.uint64)
LOWS = np.array([30, 10, 2**64 - 1, 0], np.uint64)
RECORDS = [
    FloorRecord("boot-1", 100.5, None, 160.5, open=True, cause="", counters={}, settings="f" * 16),
    FloorRecord("boot-1", 110.5, 130.25, 190.5, False, "lost", {"lost": 2}, "f" * 16, written_us=AT_US),
]


def id_run(folder: Path) -> bytes:
    write_run(DISK, folder / "run", KEYS, LOWS, held_us=(5, 9), blocks=(7, 12))
    return (folder / "run").read_bytes()


def floor(folder: Path) -> bytes:
    file = FloorFile(DISK, folder / "floor", FloorRecord)
    for record in RECORDS:
        file.write(record)
    return (folder / "floor").read_bytes()


# ---------------------------------------------------------------- parts

IDENTITY = PartIdentity(INSTANCE, STREAM)
HITS = [
    (
        b'{"receivedTimeGMT":1794999990,"timeGMT":1794999980,"hitIdHigh":9223372036854775809,"hitIdLow":1,'
        b'"pageName":"one","evars":{"evars":{"eVar1":"a"}},"props":{"prop1":"b"},'
        b'"events":{"e1":[{"count":1.0}]},"products":[{"name":"hat","revenue":5.5}],"exclude":{"id":3}}'
    ),
    (
        b'{"receivedTimeGMT":1794999991,"hitIdHigh":18446744073709551615,"hitIdLow":18446744073709551615,'
        b'"unknown":[1,{"x":null}]}'
    ),
    b"no hit",
]
RESENT = b'{"receivedTimeGMT":1794999992,"hitIdHigh":5,"hitIdLow":6}'
ORDER = Stage(
    batch=7,
    last=12,
    share=1,
    attempt=1,
    shares=2,
    before=Totals(100, 90, 7, 3),
    batch_before=(3, 6),
    held_us=(5, 9),
)
GAP = ConnectionRow(
    kind="gap", connection=3, began_us=AT_US, ended_us=AT_US + 9, reason="lost", suspected_gap="possible"
)
CONNECTION = ConnectionRow(
    kind="connection",
    connection=3,
    began_us=AT_US,
    ended_us=AT_US + 5,
    opened_us=AT_US,
    first_byte_us=AT_US + 1,
    closed_us=AT_US + 5,
    reason="lost",
    detail="the service closed it",
    status=200,
    bytes_received=1000,
    records=4,
    hits=2,
    resends=1,
    rejects=1,
    wait_us=60_000_000,
    attempts={"lost": 2},
    resends_at_start=1,
    suspected_gap_rule="nothing is missing",
)


def _staged(folder: Path, kind: FileKind) -> bytes:
    payload = b"".join(line + b"\n" for line in [*HITS, RESENT])
    block = Block(7, 1, 4160, len(payload), 4, 3, 0, AT_US, 5)
    share = Share(DISK, folder, IDENTITY, batch=7, share=1, attempt=1)
    share.add(decode_block(payload, block, instance=INSTANCE), np.array([2], np.uint32), seq=7)
    (file,) = (file for file in share.stage(ORDER) if file.kind is kind)
    return (folder / file.staged).read_bytes()


def connections(folder: Path) -> bytes:
    (file,) = stage_connections(
        DISK, folder, IDENTITY, StageConnections(5, 9, (CONNECTION, GAP), Totals(100, 90, 7, 3))
    )
    return (folder / file.staged).read_bytes()


# ---------------------------------------------------------------- requests


def retired(folder: Path) -> bytes:
    record = RetiredRecord((RetiredPart("hits/v=1/p1", SHA256.hex()),), "older than a year", ("hits/v=1/p9",))
    (folder / "retired").mkdir()
    return write_retired(DISK, StateFolder(folder), "golden", record).read_bytes()


WRITERS: dict[str, Callable[[Path], bytes]] = {
    "0000000000000002.segment": segment,
    "commit.log": commit_log,
    "commit.log.acknowledged": acknowledged,
    "rotated.log": rotated_log,
    "000000000007-000000000012-1.run": id_run,
    "floor": floor,
    "hits.parquet": lambda folder: _staged(folder, FileKind.HITS),
    "rejects.parquet": lambda folder: _staged(folder, FileKind.REJECTS),
    "resends.parquet": lambda folder: _staged(folder, FileKind.RESENDS),
    "connections.parquet": connections,
    "retired.json": retired,
    "reset-request": lambda _: b"smallest\n",
}
PARTS = [name for name in WRITERS if name.endswith(".parquet")]


def made(name: str) -> bytes:
    """What today's writer makes of it."""
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        return WRITERS[name](Path(folder))


def main() -> None:
    for name in WRITERS:
        path = FOLDER / name
        if not path.exists():
            path.write_bytes(made(name))
            print(f"made {path}")


if __name__ == "__main__":
    main()
