"""The one writer of the commit log: entries in order, rotation beside them, what is said in ``retired/``."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from collector import telemetry
from collector.coordinator.committer import Committer
from collector.core.entries import Made, Note, Retired
from collector.core.ledger import LogState
from collector.errors import StorageError
from collector.storage.archive import all_entries
from collector.storage.commitlog import CommitLog, archives
from collector.storage.fs import DISK, Disk
from collector.storage.ids import RunLimits, RunSet
from collector.storage.layout import StateFolder
from collector.storage.retired import RetiredPart, RetiredRecord, write_retired


class NoSyncs(Disk):
    """The power does not fail here."""

    def fdatasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...


class Rig:
    def __init__(self, folder: Path, rotate_bytes: int) -> None:
        self.state = StateFolder(folder / "state")
        self.state.make(DISK)
        self.log = CommitLog.open(NoSyncs(), self.state.commit_log, rotate_bytes=rotate_bytes)
        self.failures: list[BaseException] = []
        self.committer = Committer(
            disk=DISK,
            state=self.state,
            output=folder,
            mode=0o644,
            commit_log=self.log,
            ledger=LogState(),
            runs=RunSet(DISK, self.state.ids, RunLimits(1, 1)),
            failed=self.failures.append,
        )

    def close(self) -> None:
        self.committer.close()
        self.log.close()


@pytest.fixture
def rig(tmp_path: Path):
    with closing(Rig(tmp_path, rotate_bytes=400)) as rig:
        yield rig


def reopened(state: StateFolder) -> LogState:
    ledger = LogState()
    with closing(CommitLog.open(DISK, state.commit_log)) as log:
        for number, entry in log.entries():
            ledger.fold(number, entry)
    return ledger


def test_appends_from_everywhere_keep_their_order_while_the_log_is_rotated(rig):
    """Whoever appends, and whenever: the log, its archives and the ledger hold the same."""

    async def append() -> None:
        await rig.committer.append(Made("0" * 16, "shop", "shop", 1))
        for n in range(120):
            rig.committer.append_soon(Note("soon", str(n)))
            if n % 7 == 0:
                await rig.committer.append(Note("now", str(n)))
        await rig.committer.appended()
        await rig.committer.append(Note("last", ""))  # nothing is under way: this one rotates, if need be

    asyncio.run(append())
    found = list(all_entries(DISK, rig.state))
    assert [number for number, _ in found] == list(range(1, rig.committer.ledger.last_entry + 1))
    soon = [entry.text for _, entry in found if isinstance(entry, Note) and entry.kind == "soon"]
    assert soon == [str(n) for n in range(120)]
    assert len(archives(DISK, rig.state.archive)) > 3
    assert reopened(rig.state).checkpoint() == rig.committer.ledger.checkpoint()


def test_a_rotation_that_fails_ends_the_collector(rig):
    """It is the log: what becomes of it is unknown until it is opened again."""

    def fail(*_: object) -> bool:
        raise StorageError("rename failed")

    rig.log.rotate = fail

    async def append() -> None:
        while True:
            await rig.committer.append(Note("n", "x" * 100))

    with pytest.raises(StorageError, match="rename failed"):
        asyncio.run(append())


def test_what_is_said_of_retired_parts_goes_into_the_log(rig, monkeypatch):
    """Each record once; one that cannot be read stays, and is called out once."""
    lines: list[str] = []
    telemetry.configure(form="json", write=lines.append)
    part = RetiredPart("hits/v=1/part.parquet", "ab" * 32)
    write_retired(DISK, rig.state, "one", RetiredRecord((part,), "too old"))
    write_retired(DISK, rig.state, "two", RetiredRecord((part,), "shipped", ("s3://x",)))
    (rig.state.retired / "bad.json").write_text("{}")

    async def settle() -> None:
        await rig.committer.take_over_retired()
        await rig.committer.take_over_retired()

    asyncio.run(settle())
    monkeypatch.setattr(telemetry, "_configured", None)
    entries = [entry for _, entry in all_entries(DISK, rig.state)]
    assert [(type(entry), entry.reason) for entry in entries] == [(Retired, "too old"), (Retired, "shipped")]
    assert [path.name for path in rig.state.retired.iterdir()] == ["bad.json"]
    assert sum("attention.needed" in line for line in lines) == 1
    assert sum("parts.retired" in line for line in lines) == 2


def test_a_cancelled_append_is_folded_all_the_same(rig):
    """A drain that ran out of time cancels whoever waits; what got into the log must not be missed later."""

    async def append() -> None:
        for n in range(20):
            waiting = asyncio.create_task(rig.committer.append(Note("n", str(n))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
        await rig.committer.append(Note("last", ""))

    asyncio.run(append())
    assert rig.failures == []
    assert reopened(rig.state).checkpoint() == rig.committer.ledger.checkpoint()
    assert rig.committer.ledger.last_entry == 21
