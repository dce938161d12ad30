"""Saved files with a reader and a commit log played by the test: what is read again, and what is not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from collector.coordinator import files as module
from collector.coordinator.files import Files
from collector.core.entries import FileOpened, FileRead
from collector.core.ledger import LogState
from collector.core.messages import Block, Closed, Outcome, ReadFile
from collector.errors import DamagedError, NoSpaceError
from collector.storage.fs import DISK

RECORDS = 10


class Log:
    """Stands for the commit log."""

    def __init__(self) -> None:
        self.ledger = LogState()
        self.entries: list = []
        self.on_append = lambda: None

    async def append(self, entry) -> None:
        self.entries.append(entry)
        self.ledger.fold(len(self.entries), entry)
        self.on_append()

    def of(self, kind) -> list:
        return [entry for entry in self.entries if isinstance(entry, kind)]


@dataclass
class Reader:
    """Accepts ten records of whatever it is told to read, or dies after some of them."""

    files: Files | None = None
    dies_after: list[int] = field(default_factory=list)
    orders: list[ReadFile] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    held_us: int = 0

    def __post_init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()

    def connect(self, order: ReadFile) -> None:
        self.orders.append(order)
        self.texts.append(Path(order.path).read_bytes())
        left = RECORDS - order.skip_records
        outcome, taken = Outcome.ENDED, left
        if self.dies_after:
            outcome, taken = Outcome.READER_DIED, self.dies_after.pop(0)
        self.files.accepted([Block(1, 1, 0, 1, taken, order.connection, 0, 0, 0)])
        self.files.closed(Closed(order.connection, outcome, "", 0))

    def disconnect(self) -> None:
        pass


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "hits.jsonl"
    path.write_bytes(b"saved")
    return path


def made(unpack=None, **reader) -> tuple[Files, Reader, Log]:
    log, played = Log(), Reader(**reader)
    played.files = Files(disk=DISK, intake=played, committer=log, unpack=unpack)
    return played.files, played, log


def test_a_reader_that_dies_is_followed_by_one_that_skips_what_was_taken(saved):
    """However often; the records of the file are counted over all its connections."""
    files, reader, log = made(dies_after=[4, 0, 3])
    assert asyncio.run(files.run([saved])) == []
    assert [order.skip_records for order in reader.orders] == [0, 4, 4, 7]
    assert log.of(FileRead) == [FileRead(4, RECORDS)]


def test_the_same_bytes_are_read_once(saved, tmp_path):
    """Under whatever name."""
    copy = tmp_path / "copy"
    copy.write_bytes(saved.read_bytes())
    files, reader, _ = made()
    assert asyncio.run(files.run([saved, copy])) == []
    assert [order.path for order in reader.orders] == [str(saved)]


def test_a_file_that_is_gone_is_a_fault_and_no_defect(saved, tmp_path):
    """Whoever removed it; the next one is read."""
    files, reader, _ = made()
    (fault,) = asyncio.run(files.run([tmp_path / "gone", saved]))
    assert "gone: it is gone" in fault
    assert len(reader.orders) == 1


def test_no_file_is_begun_once_it_was_told_to_stop(saved):
    """The order that follows "close the connection" would be read to its end."""
    files, reader, log = made()
    log.on_append = files.stop
    assert asyncio.run(files.run([saved, saved])) == []
    assert reader.orders == []
    assert len(log.of(FileOpened)) == 1


def test_what_is_unpacked_is_read_for_a_file_and_removed(saved, tmp_path, monkeypatch):
    """Known by the file's own hash; no room for it is waited out."""
    monkeypatch.setattr(module, "STORAGE_RETRY_S", 0.001)
    lines, full = tmp_path / "lines", [True, True]

    def unpack(path: Path) -> Path:
        if full:
            full.pop()
            raise NoSpaceError("full")
        lines.write_bytes(b"unpacked " + path.read_bytes())
        return lines

    files, reader, log = made(unpack, dies_after=[5])
    assert asyncio.run(files.run([saved, saved])) == []
    assert reader.texts == [b"unpacked saved"] * 2
    assert [opened.path for opened in log.of(FileOpened)] == [str(saved)] * 2
    assert not lines.exists()
    assert files.progress.bytes_read == files.progress.bytes_total == 10


def test_what_cannot_be_unpacked_is_a_fault_of_that_file_alone(saved, tmp_path):
    """The message says which."""
    other = tmp_path / "other"
    other.write_bytes(b"other")

    def unpack(path: Path) -> Path:
        if path == saved:
            raise DamagedError(f"{path} is damaged")
        return path

    files, reader, _ = made(unpack)
    assert asyncio.run(files.run([saved, other])) == [f"{saved} is damaged"]
    assert [order.path for order in reader.orders] == [str(other)]
