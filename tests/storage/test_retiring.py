"""Old parts are found, looked up in the log and taken away; the proof holds at every step of it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from collected_rig import INSTANCE, STREAM, Collected, hit
from faulty_disk import Crashed, FaultyDisk

from collector.core.entries import Committed, Note, Retired
from collector.core.messages import FileKind, StagedFile
from collector.errors import DamagedError, StorageError
from collector.storage.archive import checkpoint_of
from collector.storage.commitlog import CommitLog, archives, packed_checkpoint
from collector.storage.fs import DISK, Disk
from collector.storage.publish import publish
from collector.storage.retention import (
    NamedUpTo,
    committed_parts,
    remove_empty_folders,
    retire_parts,
    sizes_of_parts,
)
from collector.storage.retired import forget_retired, read_retired, retired_records

RETAINED = (FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Collected:
    """Four batches with an archive each, rejects, and rows of connections."""
    collected = Collected(tmp_path_factory.mktemp("made"))
    collected.make()
    for batch in range(4):
        collected.commit([hit(batch * 10 + n) for n in range(3)] + [b"no hit"])
        if batch == 2:
            collected.connect(1)
        rotate(collected)
    return collected


@pytest.fixture
def collected(made: Collected, tmp_path: Path) -> Collected:
    return made.copy_to(tmp_path / "copy")


def rotate(collected: Collected) -> None:
    ledger = collected.ledger()
    log = CommitLog.open(DISK, collected.state.commit_log)
    log.rotate(ledger.last_entry, packed_checkpoint(ledger.last_entry, ledger.checkpoint()))
    log.close()


def parts_of(collected: Collected) -> list[StagedFile]:
    return [file for kind in RETAINED for file in collected.files(kind)]


class Reading(Disk):
    """Notes the archives that are read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def read_file(self, path, limit_bytes: int = 1 << 62) -> bytes:
        self.read.append(os.path.basename(path))
        return super().read_file(path, limit_bytes)


# ---------------------------------------------------------------- finding them


def test_every_visible_part_of_ours_has_its_size(collected: Collected) -> None:
    """Neither another's parts nor what is none; and of no folder that makes no difference."""
    folder = collected.path(collected.files(FileKind.HITS)[0]).parent
    (folder / f"part-{'0' * 16}-000000000001-000000000001-1.parquet").write_bytes(b"another's")
    (folder / "compact-1.parquet").write_bytes(b"compacted")
    (folder / f"part-{INSTANCE}-000000000099-000000000099-1.parquet").symlink_to("elsewhere")
    expected = {file.final: file.size for file in parts_of(collected)}
    assert sizes_of_parts(DISK, collected.output, STREAM, INSTANCE, lambda *_: True) == expected
    rejects = {path: size for path, size in expected.items() if path.startswith("rejects/")}
    only = sizes_of_parts(DISK, collected.output, STREAM, INSTANCE, lambda kind, _: kind is FileKind.REJECTS)
    assert only == rejects


def test_folders_that_go_meanwhile_are_none(collected: Collected) -> None:
    """Somebody else removes them, such as a compaction."""

    def take_away(_: FileKind, folder: str) -> bool:
        shutil.rmtree(collected.output / folder)
        return True

    assert sizes_of_parts(DISK, collected.output, STREAM, INSTANCE, take_away) == {}


def test_a_committed_part_is_found_wherever_in_the_log_it_is(collected: Collected) -> None:
    """In any archive or the log itself, alone or with others; what no commit names is not found."""
    parts = parts_of(collected)
    for part in parts:
        assert committed_parts(DISK, collected.state, [part.final]) == {part.final: part}
    stranger = f"hits/v=1/stream={STREAM}/date=2026-11-18/hour=01/part-{INSTANCE}-{1:012d}-{1:012d}-9.parquet"
    paths = [part.final for part in parts]
    assert committed_parts(DISK, collected.state, [*paths, stranger]) == {part.final: part for part in parts}


def test_older_archives_are_not_read_through(collected: Collected) -> None:
    """A log of years is not read again for each hour that is removed."""
    last = collected.files(FileKind.HITS)[-1]
    first_archive = archives(DISK, collected.state.archive)[0]
    assert checkpoint_of(DISK, first_archive) is None
    for _ in range(12):
        collected.append(Note("n", ""))
        rotate(collected)
    disk = Reading()
    assert set(committed_parts(disk, collected.state, [last.final])) == {last.final}
    assert first_archive.path.name not in disk.read
    assert len(set(disk.read)) < len(archives(DISK, collected.state.archive))


def test_a_batch_that_is_committed_in_a_later_file_of_the_log_is_found(collected: Collected) -> None:
    """The decision in one archive, the commit behind it."""
    intent = collected.decide([hit(900)])
    rotate(collected)
    (path,) = (file.final for share in intent.shares for file in share.files if file.kind is FileKind.HITS)
    assert committed_parts(DISK, collected.state, [path]) == {}
    collected.append(Committed(intent.batch, intent.last, 1))
    rotate(collected)
    assert set(committed_parts(DISK, collected.state, [path])) == {path}


def test_a_log_with_a_hole_is_not_believed(collected: Collected) -> None:
    """Nothing is removed on the word of a damaged log."""
    _, second, *_ = archives(DISK, collected.state.archive)
    second.path.unlink()
    with pytest.raises(DamagedError, match="are missing"):
        committed_parts(DISK, collected.state, [collected.files(FileKind.HITS)[0].final])


def test_what_is_decided_and_not_committed_may_not_go() -> None:
    """By its name alone; of connections by their log entries."""
    edge = NamedUpTo(block=7, entry=3)

    def path(kind: str, last: int) -> str:
        return f"{kind}/v=1/stream=s/date=2026-01-01/part-{INSTANCE}-{1:012d}-{last:012d}-1.parquet"

    assert edge.includes(path("rejects", 7))
    assert not edge.includes(path("rejects", 8))
    assert edge.includes(path("connections", 3))
    assert not edge.includes(path("connections", 4))
    assert not edge.includes("hits/v=1/stream=s/date=2026-01-01/hour=00/compact-1.parquet")


# ---------------------------------------------------------------- taking them away


def test_the_proof_holds_at_every_step(collected: Collected, memory_path: Path) -> None:
    """Whatever call the collector dies at: ``verify`` finds nothing, and the next one ends it."""
    parts = parts_of(collected)
    for call in range(1, 400):
        copy = collected.copy_to(memory_path / str(call))
        disk = FaultyDisk(call, None)
        with suppress(Crashed):
            retire_parts(disk, copy.state, copy.output, parts, "old")
        assert copy.found() == []
        take_over(copy)
        assert copy.found() == []
        left = [part for part in parts if copy.path(part).exists()]
        if left:
            retire_parts(DISK, copy.state, copy.output, left, "old")
        assert copy.found() == []
        assert not any(copy.path(part).exists() for part in parts)
        if not disk.fired:
            break
    assert not disk.fired
    assert call > len(parts)


def take_over(collected: Collected) -> None:
    """As the coordinator does."""
    for path in list(retired_records(DISK, collected.state)):
        collected.append(read_retired(DISK, path, 1))
        forget_retired(DISK, path)


def test_folders_that_are_empty_go_too_and_no_others(collected: Collected) -> None:
    """The hour's, then the day's; what else lies there keeps its folder, and the stream's stays."""
    hits, rejects = collected.files(FileKind.HITS), collected.files(FileKind.REJECTS)
    other = collected.path(rejects[0]).parent / "another"
    other.write_bytes(b"")
    retire_parts(DISK, collected.state, collected.output, [*hits, *rejects], "old")
    assert [path.name for path in (collected.output / "hits" / "v=1").rglob("*")] == [f"stream={STREAM}"]
    assert os.listdir(other.parent) == ["another"]
    take_over(collected)
    (entry,) = [entry for _, entry in collected.entries() if isinstance(entry, Retired)]
    assert (len(entry.files), entry.reason) == (len(hits) + len(rejects), "old")


def test_folders_that_a_crash_left_empty_go_at_the_next_look(collected: Collected) -> None:
    """Of this stream; with what was in them, their day goes."""
    hits = collected.output / "hits" / "v=1"
    date = hits / f"stream={STREAM}" / "date=2020-01-01"
    other = hits / f"stream={STREAM}2" / "date=2020-01-01" / "hour=00"
    for folder in (date / "hour=00", date / "hour=01", other):
        folder.mkdir(parents=True)
    (hits / "no folder").write_bytes(b"")
    remove_empty_folders(DISK, collected.output, STREAM)
    assert not date.exists()
    assert other.exists()
    assert all(collected.path(part).exists() for part in parts_of(collected))


def test_a_reader_keeps_what_it_has_open(collected: Collected) -> None:
    """A query that is under way ends well."""
    (part, *_) = collected.files(FileKind.HITS)
    with pq.ParquetFile(collected.path(part)) as opened:
        retire_parts(DISK, collected.state, collected.output, [part], "old")
        assert opened.read().num_rows == part.rows


def test_parts_are_published_while_their_folders_are_removed(tmp_path: Path) -> None:
    """An hour's folder can vanish between its making and the rename: it is made again."""
    collected = Collected(tmp_path)
    collected.make()
    intent = collected.decide(*([hit(n)] for n in range(8)), shares=8)
    files = [file for share in intent.shares for file in share.files if file.kind is FileKind.HITS]
    folder = collected.path(files[0]).parent

    class Removing(Disk):
        """Removes the folder before each rename, a few times."""

        left = 5

        def rename_noreplace(self, source, target) -> None:
            if Path(target).parent == folder and self.left and not os.listdir(folder):
                self.left -= 1
                folder.rmdir()
                folder.parent.rmdir()
            super().rename_noreplace(source, target)

    disk = Removing()
    publish(disk, collected.state, collected.output, files)
    assert disk.left == 0
    assert all(collected.path(file).exists() for file in files)


def test_a_folder_that_never_stays_ends_in_words(tmp_path: Path) -> None:
    """Something keeps removing it: that is no reason to try for ever."""
    collected = Collected(tmp_path)
    collected.make()
    intent = collected.decide([hit(1)], shares=1)
    (file,) = (file for file in intent.shares[0].files if file.kind is FileKind.HITS)

    class Removing(Disk):
        def rename_noreplace(self, source, target) -> None:
            Path(target).parent.rmdir()
            super().rename_noreplace(source, target)

    with pytest.raises(StorageError, match="is removed again and again"):
        publish(Removing(), collected.state, collected.output, [file])
    assert (collected.state.staging / file.staged).exists()
