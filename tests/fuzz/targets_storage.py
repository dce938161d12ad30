"""The commit log, runs of the resend index and the floor record, fed with bent files."""

# ruff: noqa: PT017 - a judge looks at both outcomes

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
from fuzzing import DISK, Target, bent, bent_files, folder, packed, snapshot, unpacked
from hypothesis import strategies as st
from isal.isal_zlib import crc32

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    Entry,
    FileOpened,
    FileRead,
    GapSeen,
    Intent,
    Lost,
    Made,
    Note,
    ShareStaged,
)
from collector.core.floor_record import FloorRecord, held_until_us, resume
from collector.core.ledger import LogState
from collector.core.messages import Closed, FileKind, Outcome, StagedFile, Totals
from collector.errors import DamagedError, NewerVersionError
from collector.storage import commitlog, floor, ids
from collector.storage.archive import all_entries
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.floor import FloorFile
from collector.storage.ids import Run, write_run
from collector.storage.layout import StateFolder
from collector.storage.retired import read_retired

AT_US = 1_795_000_000_000_000

# ---------------------------------------------------------------- the commit log

PART = StagedFile(FileKind.HITS, "1-1-1-hits.parquet", "hits/v=1/part.parquet", 9, bytes(32), 2)
ENTRIES: list[Entry] = [
    Made("00112233445566ff", "web", "web", AT_US),
    ConnectionOpened(1, AT_US, 0, {"lost": 2}, 0),
    Intent(
        1,
        2,
        (ShareStaged(1, 2, 1, 0, (PART,)),),
        (BlockCount(1, 1, 2, 1, 1, 0, AT_US), BlockCount(2, 1, 1, 1, 0, 0, AT_US)),
        Totals(),
        (0, 5),
    ),
    Committed(1, 2, AT_US),
    ConnectionClosed(Closed(1, Outcome.LOST, "cut", AT_US + 9, opened_at_us=AT_US, records=3), 9),
    GapSeen(1, AT_US + 9, AT_US + 99, "lost", "cut", "possible", "silence"),
    ConnectionsIntent(1, 6, (PART,), ((1, AT_US - AT_US % 3_600_000_000),), (6,)),
    ConnectionsCommitted(1, 6),
    FileOpened(2, bytes(32), "/tmp/hits.jsonl", 10),
    FileRead(2, 5),
    Lost(3, 2, 0),
    Note("note", "text"),
]


def log_of(*frames: bytes) -> bytes:
    """Frames whose checksums are right, whatever is in them."""
    lengths = [len(frame).to_bytes(4, "little") for frame in frames]
    return commitlog._packed_header() + b"".join(
        length + crc32(frame, crc32(length)).to_bytes(4, "little") + frame
        for length, frame in zip(lengths, frames, strict=True)
    )


def frame_of(first: int, *entries: Entry) -> bytes:
    return msgspec.msgpack.encode([first, entries])


FRAMES = [frame_of(number, entry) for number, entry in enumerate(ENTRIES, 1)]
LOGS = {
    "all-entries": log_of(*FRAMES),
    "one-frame": log_of(frame_of(1, *ENTRIES)),
    "new": log_of(),
    "torn": log_of(*FRAMES)[:-7],
}


def judge_log(data: bytes) -> None:
    with folder() as root:
        path = root / "commit.log"
        path.write_bytes(data)
        try:
            log = CommitLog.open(DISK, path)
        except (DamagedError, NewerVersionError) as error:
            assert str(path) in str(error)
            assert path.read_bytes() == data, "a refusal changes nothing"
            return
        try:
            entries = list(log.entries())
            assert [number for number, _ in entries] == list(range(1, log.next_entry))
            kept_bytes = path.read_bytes()
            assert data.startswith(kept_bytes), "only a tail is ever cut"
            _fold(entries)
            number = log.append(Note("after", ""))
            assert list(log.entries()) == [*entries, (number, Note("after", ""))]
        finally:
            log.close()


def _fold(entries: list[tuple[int, Entry]]) -> None:
    state = LogState()
    try:
        for number, entry in entries:
            state.fold(number, entry)
    except DamagedError:
        return
    assert state.totals.records >= 0 or any(isinstance(entry, Intent) for _, entry in entries)


@st.composite
def crafted_log(draw: st.DrawFn) -> bytes:
    """Right checksums around bent entries, and known entries in any order."""
    if draw(st.booleans()):
        chosen = draw(st.lists(st.sampled_from(ENTRIES), max_size=12))
        return log_of(*(frame_of(number, entry) for number, entry in enumerate(chosen, 1)))
    frames = list(FRAMES)
    at = draw(st.integers(0, len(frames) - 1))
    frames[at] = draw(bent([frames[at], frames[at], *FRAMES], 3))
    return log_of(*frames)


# ---------------------------------------------------------------- the log with its archive


def rotated() -> bytes:
    """Two sealed archives, a log that goes on, and how far it is known to have been durable."""
    with folder() as root:
        state, ledger = StateFolder(root), LogState()
        log = CommitLog.open(DISK, state.commit_log)
        for number, entry in enumerate(ENTRIES, 1):
            ledger.fold(log.append(entry), entry)
            if number in {4, 8}:
                assert log.rotate(number, packed_checkpoint(number, ledger.checkpoint()))
        log.close()
        return packed(snapshot(root).items())


def judge_archive(data: bytes) -> None:
    with folder() as root:
        state = StateFolder(root)
        state.archive.mkdir()
        for name, content in unpacked(data):
            if name in ARCHIVE_NAMES:
                (root / name).write_bytes(content)
        before = snapshot(root)
        try:
            numbers = [number for number, _ in all_entries(DISK, state)]
        except (DamagedError, NewerVersionError) as error:
            assert str(root) in str(error)
        else:
            assert numbers == list(range(1, len(numbers) + 1))
        assert snapshot(root) == before, "reading changes nothing"


ROTATED = rotated()
ARCHIVE_NAMES = sorted({name for name, _ in unpacked(ROTATED)} | {"archive/000000000005-000000000006.log"})
ARCHIVES = {"rotated": ROTATED}

# ---------------------------------------------------------------- records of other commands

RETIRED = {
    "one": b'{"files":[{"path":"hits/v=1/p","sha256":"'
    + b"00" * 32
    + b'"}],"reason":"old","replaced_by":["x"]}',
    "none": b'{"files":[],"reason":"old"}',
}


def judge_retired(data: bytes) -> None:
    with folder() as root:
        path = root / "r.json"
        path.write_bytes(data)
        try:
            entry = read_retired(DISK, path, 5)
        except DamagedError as error:
            assert str(path) in str(error)
            return
        for file in entry.files:
            assert len(file.sha256) == 32
            parts = Path(file.path).parts
            assert parts[0] in {"hits", "rejects", "connections"}
            assert ".." not in parts


# ---------------------------------------------------------------- runs of ids


def run_of(count: int) -> bytes:
    chance = np.random.default_rng(count)
    high, low = (chance.integers(0, 2**64, count, np.uint64) for _ in range(2))
    with folder() as root:
        path = root / "1.run"
        write_run(DISK, path, high, low, held_us=(5, 9), blocks=(1, 3))
        return path.read_bytes()


def crafted_run(keys: list[int], lows: list[int]) -> bytes:
    """Right checksums around ids in any order."""
    columns = [np.array(values, np.uint64).tobytes() for values in (keys, lows)]
    fields = ids._HEADER.pack(ids._MAGIC, ids.RUN_VERSION, len(keys), 5, 9, 1, 3, *map(crc32, columns))
    return (fields + ids._CRC.pack(crc32(fields))).ljust(4096, b"\0") + b"".join(columns)


RUNS = {"empty": run_of(0), "one": run_of(1), "some": run_of(40), "more": run_of(300)}
U64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1])


@st.composite
def crafted_runs(draw: st.DrawFn) -> bytes:
    keys = draw(st.lists(U64, max_size=40))
    return crafted_run(keys, draw(st.lists(U64, min_size=len(keys), max_size=len(keys))))


def judge_run(data: bytes) -> None:
    with folder() as root:
        path = root / "000000000001-000000000003-1.run"
        path.write_bytes(data)
        try:
            run = Run(DISK, path)
        except (DamagedError, NewerVersionError) as error:
            assert str(path) in str(error)
            return
        finally:
            assert path.read_bytes() == data
        count = (len(data) - 4096) // 16
        keys, lows = (np.frombuffer(data, "<u8", count, 4096 + skip) for skip in (0, 8 * count))
        assert run.contains(keys, lows).all(), "what is in it is found"
        others = np.array([0, 1, 2**63, 2**64 - 1, 12345], np.uint64)
        known = {(int(key), int(low)) for key, low in zip(keys, lows, strict=True)}
        assert run.contains(others, others).tolist() == [(int(one), int(one)) in known for one in others]


# ---------------------------------------------------------------- the floor record

RECORD = FloorRecord("boot", 100.0, 90.0, 150.0, open=True, cause="lost", counters={"lost": 2}, settings="x")


def floor_of(*records: FloorRecord) -> bytes:
    with folder() as root:
        file = FloorFile(DISK, root / "floor", FloorRecord)
        for record in records:
            file.write(record)
        return (root / "floor").read_bytes()


def crafted_floor(payload: bytes) -> bytes:
    fields = floor._SLOT.pack(floor._MAGIC, floor.FLOOR_VERSION, len(payload), 1)
    slot = fields + floor._CRC.pack(crc32(payload, crc32(fields))) + payload
    return bytes(4096) + slot.ljust(512, b"\0")


FLOORS = {
    "one-slot": floor_of(RECORD),
    "two-slots": floor_of(RECORD, msgspec.structs.replace(RECORD, open=False, held_until_s=None)),
    "empty": b"",
}
NUMBERS = st.floats() | st.integers(-(2**63), 2**64 - 1) | st.floats(0, 1000)


@st.composite
def crafted_floors(draw: st.DrawFn) -> bytes:
    fields = msgspec.to_builtins(RECORD)
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)):
        fields[name] = draw(NUMBERS | st.text(max_size=5) | st.none() | st.booleans())
    if draw(st.booleans()):
        fields["counters"] = draw(st.dictionaries(st.sampled_from(["lost", "x"]), NUMBERS, max_size=2))
    payload = msgspec.msgpack.encode(fields)
    return crafted_floor(draw(bent([payload], 2))[:400] if draw(st.booleans()) else payload)


def judge_floor(data: bytes) -> None:
    now_s, wait_s = 120.0, 60.0
    with folder() as root:
        path = root / "floor"
        path.write_bytes(data)
        file = FloorFile(DISK, path, FloorRecord)
        try:
            record, existed = file.read()
        except NewerVersionError as error:
            assert str(path) in str(error)
            assert path.read_bytes() == data
            return
        assert existed
        resumed = resume(
            record, existed=True, boot_id="boot", now=now_s, wait_s=wait_s, settings="x", orphaned=False
        )
        assert math.isfinite(resumed.not_before_s)
        if record is None or record.open or record.boot_id != "boot":
            assert resumed.not_before_s >= now_s + wait_s, "where the end is not known, the floor is whole"
        if record is not None:
            held_until_us(record)
        file.write(RECORD)
        assert FloorFile(DISK, path, FloorRecord).read() == (RECORD, True)


TARGETS = [
    Target("commitlog", judge_log, LOGS, bent(list(LOGS.values())) | crafted_log(), everyday=300),
    Target(
        "archive",
        judge_archive,
        ARCHIVES,
        bent_files([ROTATED], st.sampled_from(ARCHIVE_NAMES)),
        everyday=150,
    ),
    Target("retired", judge_retired, RETIRED, bent(list(RETIRED.values())), everyday=150),
    Target("idrun", judge_run, RUNS, bent(list(RUNS.values())) | crafted_runs(), everyday=240),
    Target("floor", judge_floor, FLOORS, bent(list(FLOORS.values())) | crafted_floors(), everyday=300),
]
