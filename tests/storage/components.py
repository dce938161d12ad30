"""The components of the storage layer, as what every sweep over their disk calls needs to know.

A component is one row of the table at the end: what is there before, what it does, and what must hold
afterwards, whatever went wrong on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow.parquet as pq
from faulty_disk import Crashed, FaultyDisk

from collector.core.entries import Entry, Made, Note
from collector.core.ledger import LogState
from collector.core.messages import ConnectionRow, FileKind, Stage, StageConnections, StagedFile, Totals
from collector.core.resends import key_of
from collector.decoder.parquet import PartIdentity, Share, stage_connections
from collector.errors import NoSpaceError, StorageError
from collector.storage.archive import all_entries
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.floor import FloorFile
from collector.storage.fs import DISK, Disk
from collector.storage.ids import MOST_RUNS, RunLimits, RunSet, merge_runs, write_run
from collector.storage.journal import (
    JournalReader,
    JournalWriter,
    delete_free,
    free_name,
    free_segment,
    recover,
)
from collector.storage.layout import StateFolder
from collector.storage.lock import StateLock
from collector.storage.publish import publish
from collector.storage.retention import retire_parts
from collector.storage.retired import read_retired, retired_records
from collector.storage.segments import SEGMENT_HEADER_BYTES, list_segments, segment_name, space_of
from tests.decoder.decode_rig import COLLECTED_AT_US, INSTANCE, decoded

T = TypeVar("T")


@dataclass
class Acknowledged:
    """What a component said was durable before it failed."""

    value: Any = 0
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Component:
    prepare: Callable[[Path], None]
    work: Callable[[Disk, Path, Acknowledged], None]
    judge: Callable[[Disk, Path, Acknowledged], None]
    """As the next start does and finds it. Must hold after any failure, after none, and again."""


def patiently(step: Callable[[], T]) -> T:
    """As the collector does it: no room is waited out."""
    try:
        return step()
    except NoSpaceError:
        return step()


def quick() -> Disk:
    """Without real syncs."""
    return FaultyDisk()


# ---------------------------------------------------------------- the journal

SMALL = SEGMENT_HEADER_BYTES + 2 * space_of(24)
BLOCKS = 7


def payload_of(seq: int) -> bytes:
    return bytes([seq]) * 24


def append(writer: JournalWriter, seq: int, segments: Iterator[int], free: list[str]) -> None:
    def once() -> bool:
        block = writer.append(
            payload_of(seq), records=1, connection=1, flags=0, collected_at_us=seq, held_us=seq
        )
        return block is not None

    def add() -> None:
        writer.add_segment(next(segments), free.pop() if free else "")

    while not patiently(once):
        patiently(add)


def journal_of(root: Path) -> Path:
    return root / "journal"


def make_journal(root: Path) -> None:
    journal_of(root).mkdir()
    (root / "quarantine").mkdir()
    (journal_of(root) / free_name(1)).write_bytes(b"stale" * 1000)


def write_journal(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """Recycled and new segments; the first is freed on the way and used again."""
    acknowledged.more["committed"] = 0
    segments, free = iter(range(2, 50)), [free_name(1)]
    writer = JournalWriter(disk, journal_of(root), next_seq=1, segment_bytes=SMALL)
    try:
        for seq in range(1, BLOCKS + 1):
            append(writer, seq, segments, free)
            if seq % 2:
                acknowledged.value = writer.sync()
            if seq == 5:
                acknowledged.more["committed"] = 2
                patiently(
                    lambda: free_segment(
                        disk, journal_of(root), list_segments(DISK, journal_of(root)).used[0]
                    )
                )
                free.append(free_name(list_segments(DISK, journal_of(root)).free[0]))
    finally:
        writer.close()


def judge_journal(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """What was synced is there, what is there is what was written, and nothing else is in the folder."""
    committed = acknowledged.more["committed"]
    folder = journal_of(root)
    known = {"known_durable_seq": acknowledged.value}
    found = recover(disk, folder, root / "quarantine", after_seq=committed, **known)
    assert found.next_seq > acknowledged.value
    assert [block.seq for block in found.blocks] == list(range(committed + 1, found.next_seq))
    reader = JournalReader(folder)
    assert all(bytes(reader.payload(block)) == payload_of(block.seq) for block in found.blocks)
    listed = list_segments(DISK, folder)
    names = {*map(segment_name, listed.used), *map(free_name, listed.free)}
    assert set(os.listdir(folder)) == names
    assert max((*listed.used, *listed.free), default=0) < found.next_segment
    again = recover(disk, folder, root / "quarantine", after_seq=committed)
    assert (again.blocks, again.cut) == (found.blocks, None)


def make_torn_journal(root: Path) -> None:
    make_journal(root)
    write_journal(FaultyDisk(), root, Acknowledged())
    folder = journal_of(root)
    newest = folder / segment_name(list_segments(DISK, folder).used[-1])
    os.truncate(newest, SEGMENT_HEADER_BYTES + space_of(24) - 5)
    spare = JournalWriter(quick(), folder, next_seq=1, segment_bytes=SMALL)
    spare.add_segment(99)
    spare.close()


def recover_journal(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """As after a start: cut, settle, free what is committed, delete what is too much."""
    acknowledged.more["committed"] = 2
    folder = journal_of(root)
    found = patiently(lambda: recover(disk, folder, root / "quarantine", after_seq=3))
    for segment in [segment for segment, last in found.last_block.items() if last <= 4]:
        free_segment(disk, folder, segment)
    acknowledged.more["committed"] = 4
    for segment in found.free:
        delete_free(disk, folder, segment)


def judge_recovered(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    acknowledged.value = 6
    judge_journal(disk, root, acknowledged)
    (torn,) = (root / "quarantine").iterdir()
    assert torn.stat().st_size == space_of(24) - 5


# ---------------------------------------------------------------- the commit log

ROTATE_BYTES = 150


def begin_log(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    with contextlib.closing(CommitLog.open(disk, root / "commit.log")) as log:
        acknowledged.value = log.append(Made(INSTANCE, "shop", "", 1))


def judge_begun(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    with contextlib.closing(CommitLog.open(disk, root / "commit.log")) as log:
        assert log.next_entry - 1 >= acknowledged.value
    assert not list(root.glob(".*"))


def make_log(root: Path) -> None:
    begin_log(quick(), root, Acknowledged())


def write_log(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """Appends, each followed by a rotation when one is due."""
    ledger = LogState()
    log = CommitLog.open(disk, root / "commit.log", rotate_bytes=ROTATE_BYTES)
    try:
        for number, entry in log.entries():
            ledger.fold(number, entry)
        for n in range(8):
            entries: list[Entry] = [Note("k", "x" * 40), Note("n", str(n))]
            last = patiently(lambda entries=entries: log.append_all(entries))
            for number, entry in enumerate(entries, last - 1):
                ledger.fold(number, entry)
            acknowledged.value = last
            if log.rotation_due:
                log.rotate(last, packed_checkpoint(last, ledger.checkpoint()))
    finally:
        log.close()


def judge_log(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """All of what was acknowledged, in order, and no half append; whoever reads it."""
    log = CommitLog.open(disk, root / "commit.log", rotate_bytes=ROTATE_BYTES)
    last = log.next_entry - 1
    assert acknowledged.value <= last <= acknowledged.value + 2 or not acknowledged.value
    assert last % 2
    found = dict(all_entries(disk, StateFolder(root)))
    assert list(found) == list(range(1, last + 1))
    assert [found[n].text for n in range(3, last + 1, 2)] == [str(n) for n in range(last // 2)]
    log.append_all([Note("k", ""), Note("n", str(last // 2))])
    acknowledged.value = last + 2
    log.close()
    assert len(dict(all_entries(disk, StateFolder(root)))) == last + 2


# ---------------------------------------------------------------- publishing

HOUR = "v=1/stream=shop/date=2026-03-01/hour=05"
FINALS = {
    "a": (FileKind.HITS, f"hits/{HOUR}/part-a.parquet"),
    "b": (FileKind.REJECTS, "rejects/v=1/stream=shop/date=2026-03-01/part-b.parquet"),
    "c": (FileKind.IDS, "ids/000000000001-000000000002-1.run"),
}


def state_of(root: Path) -> StateFolder:
    return StateFolder(root / ".state" / "shop")


def decided() -> list[StagedFile]:
    contents = {name: name.encode() * 10 for name in FINALS}
    return [
        StagedFile(kind, name, final, 10, hashlib.sha256(contents[name]).digest(), 1)
        for name, (kind, final) in FINALS.items()
    ]


def make_staged(root: Path) -> None:
    state_of(root).make(quick())
    for name in FINALS:
        (state_of(root).staging / name).write_bytes(name.encode() * 10)


def make_half_published(root: Path) -> None:
    """One file in place, one in both places, one still staged."""
    make_staged(root)
    target = root / FINALS["a"][1]
    target.parent.mkdir(parents=True)
    (state_of(root).staging / "a").rename(target)
    shutil.copy(state_of(root).staging / "c", state_of(root).root / FINALS["c"][1])


def publish_decided(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    patiently(lambda: publish(disk, state_of(root), root, decided()))
    acknowledged.value = 1


def publish_again(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    patiently(lambda: publish(disk, state_of(root), root, decided(), redo=True))
    acknowledged.value = 1


def judge_published(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """Visible is only what was decided, whole; the next start finishes it."""
    visible = {str(path.relative_to(root)) for path in root.rglob("*.parquet")}
    assert visible <= {final for _, final in FINALS.values()}
    publish(disk, state_of(root), root, decided(), redo=True)
    for name, (kind, final) in FINALS.items():
        base = state_of(root).root if kind is FileKind.IDS else root
        assert (base / final).read_bytes() == name.encode() * 10
    assert os.listdir(state_of(root).staging) == []
    files = [path.name for path in root.rglob("*") if path.is_file()]
    assert len(files) == 3


# ---------------------------------------------------------------- retention

OLD_PARTS = [
    StagedFile(FileKind.HITS, "", f"hits/{HOUR}/part-{name}.parquet", 10, hashlib.sha256(content).digest(), 1)
    for name, content in (("a", b"a" * 10), ("b", b"b" * 10))
]
KEPT_PART = "hits/v=1/stream=shop/date=2026-03-01/hour=06/part-c.parquet"


HITS_OF_DAY = "hits/v=1/stream=shop/date=2026-03-01"


def make_old(root: Path) -> None:
    state_of(root).make(quick())
    for path, content in ((OLD_PARTS[0].final, b"a"), (OLD_PARTS[1].final, b"b"), (KEPT_PART, b"c")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content * 10)


def retire_old(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    patiently(lambda: retire_parts(disk, state_of(root), root, OLD_PARTS, "old"))
    acknowledged.value = 1


def judge_retired(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """A part that is not there is told of; what is there is whole. The next look around takes the rest."""
    told = [read_retired(disk, path, 0) for path in retired_records(disk, state_of(root))]
    paths = {file.path for entry in told for file in entry.files}
    left = [part for part in OLD_PARTS if (root / part.final).exists()]
    assert paths == {part.final for part in OLD_PARTS} or (left == OLD_PARTS and not paths)
    assert all(disk.sha256(root / part.final) == part.sha256 for part in left)
    assert not (left and acknowledged.value)
    if left:
        retire_parts(disk, state_of(root), root, left, "old")
        acknowledged.value = 1
    assert not (root / OLD_PARTS[0].final).exists()
    assert (root / KEPT_PART).read_bytes() == b"c" * 10
    assert (root / HITS_OF_DAY).exists()


# ---------------------------------------------------------------- the resend index

LIMITS = RunLimits(window_us=1000, max_ids=1000)
OLD, NEW = 100, 101


def write_ids(disk: Disk, folder: Path, number: int, *, held: int) -> Path:
    path = folder / f"{number:012d}-{number:012d}-1.run"
    high = np.array([number], np.uint64)
    write_run(disk, path, high, high, held_us=(held, held), blocks=(number, number))
    return path


def make_ids(root: Path) -> None:
    folder = root / "ids"
    folder.mkdir()
    (root / "staging").mkdir()
    write_ids(quick(), folder, OLD, held=0)
    for number in range(1, MOST_RUNS + 1):
        write_ids(quick(), folder, number, held=5000)


def work_with_ids(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """A run is added, an old one expires, small ones are merged."""
    folder = root / "ids"
    runs = patiently(lambda: RunSet(disk, folder, LIMITS))
    staged = patiently(lambda: write_ids(disk, root / "staging", NEW, held=5000))
    patiently(lambda: disk.rename_noreplace(staged, folder / staged.name))
    disk.fsync_folder(folder)
    runs.add(folder / staged.name)
    acknowledged.value = 1
    runs.expire(5000)
    while (merge := runs.plan_merge()) is not None:
        patiently(lambda merge=merge: merge_runs(disk, merge.paths, merge.out))
        runs.replaced(merge)


def judge_ids(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """Every id once, the expired one perhaps, and no file that is not a run in use."""
    folder = root / "ids"
    assert not list(folder.glob("*.new")) or not acknowledged.more["can clean"]
    runs = RunSet(disk, folder, LIMITS)
    numbers = np.array([*range(1, MOST_RUNS + 1), NEW], np.uint64)
    found = runs.contains(key_of(numbers, numbers), numbers).tolist()
    assert found[:-1] == [True] * MOST_RUNS
    assert found[-1] or not acknowledged.value
    expired = np.array([OLD], np.uint64)
    assert runs.ids == sum(found) + int(runs.contains(key_of(expired, expired), expired)[0])
    assert sorted(os.listdir(folder)) == sorted(path.name for path in runs.paths)


# ---------------------------------------------------------------- small files


class Record(msgspec.Struct, frozen=True):
    number: int


def write_floor(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    floor = FloorFile(disk, root / "floor", Record)
    floor.read()
    for number in range(1, 5):
        patiently(lambda number=number: floor.write(Record(number)))
        acknowledged.value = number


def judge_floor(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """The last record that was written, or the one that was being written. It can be gone on with."""
    record, existed = FloorFile(disk, root / "floor", Record).read()
    written = acknowledged.value
    possible = [Record(number) for number in (written, written + 1) if number]
    assert record in possible or (not existed and not written)
    acknowledged.value = record.number + 1 if record else 1
    FloorFile(disk, root / "floor", Record).write(Record(acknowledged.value))
    assert FloorFile(disk, root / "floor", Record).read() == (Record(acknowledged.value), True)
    assert os.listdir(root) == ["floor"]


def take_lock(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    with StateLock.take(disk, StateFolder(root)) as lock:
        lock.take_children(wait_s=0)
        for _ in range(2):
            lock.record_children([os.getpid()])


def judge_lock(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """Nobody holds it, and what is recorded can be read."""
    with StateLock.take(disk, StateFolder(root)) as lock:
        assert not lock.take_children(wait_s=0)
        lock.record_children([])
    assert not [name for name in os.listdir(root) if name.endswith(".new")]


def make_record(root: Path) -> None:
    (root / "record").write_bytes(b"old")


def write_record(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    patiently(lambda: disk.write_file_durably(root / "record", b"the new content"))
    acknowledged.value = 1


def judge_record(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """The old content or the new one; the next write leaves nothing beside it."""
    content = (root / "record").read_bytes()
    assert content in ({b"next"} if acknowledged.more.get("next") else {b"old", b"the new content"})
    assert content != b"old" or not acknowledged.value
    assert os.listdir(root) == ["record"] or not acknowledged.more["can clean"]
    disk.write_file_durably(root / "record", b"next")
    acknowledged.more["next"] = True
    assert os.listdir(root) == ["record"]


def make_state(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    patiently(lambda: state_of(root).make(disk))
    acknowledged.value = 1


def judge_state(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    if acknowledged.value:
        assert len(list(root.rglob("*"))) >= 8
    state_of(root).make(disk)
    acknowledged.value = 1
    folders = list(root.rglob("*"))
    assert len(folders) >= 7
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


# ---------------------------------------------------------------- staging

IDENTITY = PartIdentity(INSTANCE, "shop")
ORDER = Stage(
    batch=7, last=8, share=1, attempt=1, shares=1, before=Totals(), batch_before=(0, 0), held_us=(1, 2)
)
AT_S = COLLECTED_AT_US // 1_000_000


def hit(number: int) -> bytes:
    return json.dumps({"hitIdHigh": 2**63 + number, "hitIdLow": number, "receivedTimeGMT": AT_S}).encode()


def share_of(disk: Disk, root: Path) -> list[StagedFile]:
    """Given up as a decoder does it, whatever the error."""
    share = Share(disk, root, IDENTITY, batch=7, share=1, attempt=1)
    try:
        for seq in (7, 8):
            lines = [hit(seq * 10 + n) for n in range(3)] + [b"no hit"]
            share.add(decoded(*lines, seq=seq), np.array([1], np.uint32), seq=seq)
        return share.stage(ORDER)
    except StorageError:
        share.discard()
        raise


def stage_share(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    acknowledged.value = patiently(lambda: share_of(disk, root))


ROWS = tuple(
    ConnectionRow(kind="gap", connection=1, began_us=day * 86_400_000_000, ended_us=day * 86_400_000_001)
    for day in (20_000, 20_001)
)


def stage_rows(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    order = StageConnections(first=1, last=2, rows=ROWS, before=Totals())
    acknowledged.value = patiently(lambda: stage_connections(disk, root, IDENTITY, order))


def judge_staged(disk: Disk, root: Path, acknowledged: Acknowledged) -> None:
    """What was reported is whole. What was not is in staging alone, where the next start removes it."""
    for file in acknowledged.value or ():
        content = (root / file.staged).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).digest())
        if file.kind is not FileKind.IDS:
            assert pq.read_metadata(root / file.staged).num_rows == file.rows
    if acknowledged.value:
        assert sorted(os.listdir(root)) == sorted(file.staged for file in acknowledged.value)
    elif acknowledged.more["can clean"]:
        assert os.listdir(root) == []


# ---------------------------------------------------------------- the table


def nothing(root: Path) -> None:
    """An empty folder to begin with."""


COMPONENTS = {
    "journal": Component(make_journal, write_journal, judge_journal),
    "journal recovery": Component(make_torn_journal, recover_journal, judge_recovered),
    "commit log": Component(make_log, write_log, judge_log),
    "new commit log": Component(nothing, begin_log, judge_begun),
    "publish": Component(make_staged, publish_decided, judge_published),
    "publish again": Component(make_half_published, publish_again, judge_published),
    "retention": Component(make_old, retire_old, judge_retired),
    "resend index": Component(make_ids, work_with_ids, judge_ids),
    "floor": Component(nothing, write_floor, judge_floor),
    "lock": Component(nothing, take_lock, judge_lock),
    "record": Component(make_record, write_record, judge_record),
    "state folder": Component(nothing, make_state, judge_state),
    "share": Component(nothing, stage_share, judge_staged),
    "connections": Component(nothing, stage_rows, judge_staged),
}


def attempt(
    component: Component, disk: FaultyDisk, root: Path, acknowledged: Acknowledged
) -> type[BaseException] | None:
    try:
        component.work(disk, root, acknowledged)
    except (StorageError, Crashed) as error:
        return type(error)  # without the tracebacks, which hold mappings
    return None
