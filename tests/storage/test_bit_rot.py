"""One bit flipped, or the end cut off, at every byte of every file of the storage layer.

Each file is read as it was written, or refused as damaged, or a smaller truth is read that was once the
whole one. Never something else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from faulty_disk import FaultyDisk

from collector.core.entries import Note
from collector.core.resends import key_of
from collector.errors import DamagedError, NewerVersionError
from collector.storage.commitlog import CommitLog
from collector.storage.floor import FloorFile
from collector.storage.fs import Disk
from collector.storage.ids import Run, write_run
from collector.storage.journal import JournalReader, JournalWriter, recover
from collector.storage.segments import SEGMENT_HEADER_BYTES, segment_name, space_of

REFUSED = (DamagedError, NewerVersionError)
PAYLOADS = [b"one", b"and two", b"", b"four four", b"five", b"and the sixth"]
SEGMENT_BYTES = SEGMENT_HEADER_BYTES + 2 * space_of(16)
RARELY_BYTES = 61
"""Between two flips in the unused rest of a header."""


@dataclass(frozen=True)
class File:
    write: Callable[[Disk, Path], Path]
    """Gives the file that is to be spoiled."""
    read: Callable[[Disk, Path], Any]
    """From the same folder. *Raises* what a start raises."""
    truths: Callable[[Any, bool], list[Any]]
    """Given what is read of the whole file: what may be read of a spoiled one, or (``True``) of a cut one."""


def write_journal(disk: Disk, root: Path) -> Path:
    (root / "quarantine").mkdir()
    (root / "journal").mkdir()
    writer = JournalWriter(disk, root / "journal", next_seq=1, segment_bytes=SEGMENT_BYTES)
    for number, payload in enumerate(PAYLOADS):
        if number % 2 == 0:
            writer.add_segment(number // 2 + 1)
        writer.append(payload, records=1, connection=1, flags=0, collected_at_us=number, held_us=number)
        writer.sync()
    writer.close()
    return root / "journal"


def write_middle(disk: Disk, root: Path) -> Path:
    return write_journal(disk, root) / segment_name(2)


def write_newest(disk: Disk, root: Path) -> Path:
    return write_journal(disk, root) / segment_name(3)


def read_journal(disk: Disk, root: Path) -> list[bytes]:
    found = recover(disk, root / "journal", root / "quarantine", after_seq=0)
    reader = JournalReader(root / "journal", disk)
    return [bytes(reader.payload(block)) for block in found.blocks]


def write_log(disk: Disk, root: Path) -> Path:
    with closing(CommitLog.open(disk, root / "commit.log")) as log:
        for number in range(4):
            log.append(Note("number", str(number)))
    return root / "commit.log"


def write_unproven_log(disk: Disk, root: Path) -> Path:
    """After a power failure, which took the note of what was acknowledged."""
    path = write_log(disk, root)
    (root / "commit.log.acknowledged").unlink()
    return path


def write_acknowledged(disk: Disk, root: Path) -> Path:
    write_log(disk, root)
    return root / "commit.log.acknowledged"


def read_log(disk: Disk, root: Path) -> list[Any]:
    with closing(CommitLog.open(disk, root / "commit.log")) as log:
        return list(log.entries())


class Record(msgspec.Struct, frozen=True):
    number: int


def write_floor(disk: Disk, root: Path) -> Path:
    file = FloorFile(disk, root / "floor", Record)
    for number in (1, 2):
        file.write(Record(number))
    return root / "floor"


def read_floor(disk: Disk, root: Path) -> Any:
    return FloorFile(disk, root / "floor", Record).read()


IDS = np.arange(1, 40, dtype=np.uint64) * np.uint64(2**57)


def write_ids(disk: Disk, root: Path) -> Path:
    write_run(disk, root / "ids.run", IDS, IDS, held_us=(3, 4), blocks=(1, 2))
    return root / "ids.run"


def read_ids(disk: Disk, root: Path) -> Any:
    run = Run(disk, root / "ids.run")
    asked = np.concatenate([IDS, IDS + np.uint64(1)])
    return run.count, run.first, run.last, run.held_us, run.contains(key_of(asked, asked), asked).tolist()


def only_whole(whole: Any, cut: bool) -> list[Any]:
    return [whole]


def prefixes(whole: list[Any], cut: bool) -> list[Any]:
    """Nothing in a last entry proves that it was durable; nothing in a cut file that there was more."""
    return [whole[:count] for count in range(0 if cut else len(whole) - 1, len(whole) + 1)]


def one_before(whole: Any, cut: bool) -> list[Any]:
    """Of the floor. Cut to nothing it says that there was a record: the full floor is waited out."""
    return [whole, (Record(1), True), *([(None, True)] if cut else [])]


FILES = {
    "segment in the middle": File(write_middle, read_journal, only_whole),
    "newest segment": File(write_newest, read_journal, prefixes),
    "commit log": File(write_log, read_log, only_whole),
    "commit log, unproven": File(write_unproven_log, read_log, prefixes),
    "acknowledged": File(write_acknowledged, read_log, only_whole),
    "floor": File(write_floor, read_floor, one_before),
    "run of ids": File(write_ids, read_ids, only_whole),
}


def places(data: bytes) -> Iterator[int]:
    """Every byte that is used, and some of those that are not."""
    for at in range(len(data)):
        if any(data[max(0, at - 8) : at + 8]) or at % RARELY_BYTES == 0:
            yield at


def spoiled(root: Path, name: str, spoil: Callable[[bytes, int], bytes], *, cut: bool) -> None:
    file, disk = FILES[name], FaultyDisk()
    (root / "whole").mkdir()
    victim = file.write(disk, root / "whole").relative_to(root / "whole")
    data = (root / "whole" / victim).read_bytes()
    truths = file.truths(file.read(disk, shutil.copytree(root / "whole", root / "read")), cut)
    refused = 0
    for at in places(data):
        again = shutil.copytree(root / "whole", root / "again")
        (again / victim).write_bytes(spoil(data, at))
        try:
            assert file.read(disk, again) in truths, at
        except REFUSED:
            refused += 1
        shutil.rmtree(again)
    assert refused or len(truths) > 1 or name == "acknowledged"


@pytest.mark.parametrize("bit", [1, 128])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_never_believed(memory_path: Path, name: str, bit: int) -> None:
    """In header, length, checksum, payload, padding: refused, or read as if it had never been flipped."""
    spoiled(
        memory_path, name, lambda data, at: data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :], cut=False
    )


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_never_believed(memory_path: Path, name: str) -> None:
    """At every length."""
    spoiled(memory_path, name, lambda data, at: data[:at], cut=True)


@pytest.mark.parametrize("source", [1, 2, 3])
def test_a_segment_under_another_name_is_refused(memory_path: Path, source: int) -> None:
    """Doubled, or put in the place of another."""
    folder = write_journal(FaultyDisk(), memory_path)
    for target in (1, 2, 3, 4):
        again = shutil.copytree(memory_path, memory_path / "again")
        if source != target:
            shutil.copy(folder / segment_name(source), again / "journal" / segment_name(target))
            with pytest.raises(DamagedError, match="under another's name"):
                read_journal(FaultyDisk(), again)
        shutil.rmtree(again)
