"""State folders as the collector leaves them: a log of so many batches, a batch that waits for its commit.

A batch is 100,000 hits in blocks of a MiB, run by two decoders, each with a part and a run of ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import uvloop

from bench.blocks import COLLECTED_AT_US
from collector import telemetry
from collector.coordinator.committer import Committer
from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    Entry,
    GapSeen,
    Intent,
    Made,
    ShareStaged,
)
from collector.core.ledger import LogState
from collector.core.messages import Block, BlockDone, Closed, FileKind, Outcome, Staged, StagedFile
from collector.core.shares import Batch, Share
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.fs import DISK, Disk
from collector.storage.ids import RunLimits, RunSet, write_run
from collector.storage.layout import StateFolder, part_path

STREAM: Final = "shop"
INSTANCE: Final = "0" * 16
SHARES: Final = 2
BLOCKS_PER_BATCH: Final = 320
RECORDS_PER_BLOCK: Final = 313
HITS_PER_BATCH: Final = BLOCKS_PER_BATCH * RECORDS_PER_BLOCK
BATCHES_PER_CONNECTION: Final = 100
BATCH_US: Final = 60_000_000
BLOCK_BYTES: Final = 1 << 20
HOUR: Final = COLLECTED_AT_US // 3_600_000_000

LIMITS: Final = RunLimits(window_us=1 << 60, max_ids=1 << 40)
"""Of an index that nothing leaves."""


class NoSyncs(Disk):
    """For making what is measured later."""

    def fdatasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...


NO_SYNCS: Final = NoSyncs()


def new_ids(count: int, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    high, low = draw.integers(0, 2**64, (2, count), np.uint64)
    return high, low


# ---------------------------------------------------------------- a log


def grow_log(state: StateFolder, batches: int) -> None:
    """The log, with its archives, of so many committed batches in connections of a hundred each."""
    ledger = LogState()
    log = CommitLog.open(NO_SYNCS, state.commit_log)
    for entry in _entries(ledger, batches):
        ledger.fold(log.append(entry), entry)
        if log.rotation_due:
            log.rotate(ledger.last_entry, packed_checkpoint(ledger.last_entry, ledger.checkpoint()))
    log.close()


def opened(state: StateFolder) -> tuple[CommitLog, LogState]:
    """As a start opens it."""
    log = CommitLog.open(DISK, state.commit_log)
    ledger = LogState()
    for number, entry in log.entries():
        ledger.fold(number, entry)
    return log, ledger


def _entries(ledger: LogState, batches: int) -> Iterator[Entry]:
    yield Made(INSTANCE, STREAM, STREAM, COLLECTED_AT_US)
    for batch in range(batches):
        now_us, place = COLLECTED_AT_US + batch * BATCH_US, batch % BATCHES_PER_CONNECTION
        number = batch // BATCHES_PER_CONNECTION + 1
        if place == 0:
            yield ConnectionOpened(number, now_us, 0, {}, number - 1)
            if number > 1:
                yield GapSeen(number - 1, now_us - 1, now_us, "lost", "reset", "no", "")
        intent = _intent(ledger, number, now_us)
        yield intent
        yield Committed(intent.batch, intent.last, now_us)
        if place == BATCHES_PER_CONNECTION - 1:
            yield from _closed(ledger, number, now_us)


def _closed(ledger: LogState, connection: int, now_us: int) -> Iterator[Entry]:
    """The connection, and its rows."""
    yield ConnectionClosed(Closed(connection, Outcome.LOST, "reset", now_us), ledger.last_entry)
    rows = tuple((at.number, hour) for at, hour in ledger.unwritten_rows(now_us))
    first, last = ledger.connections_until + 1, ledger.last_entry
    yield ConnectionsIntent(first, last, (), rows, tuple(ledger.gaps))
    yield ConnectionsCommitted(first, last)


def _intent(ledger: LogState, connection: int, now_us: int) -> Intent:
    first = ledger.last_block + 1
    last = first + BLOCKS_PER_BATCH - 1
    shares = tuple(
        ShareStaged(share, HITS_PER_BATCH // SHARES, 0, 0, tuple(_files(first, last, share)))
        for share in range(1, SHARES + 1)
    )
    counts = (connection, RECORDS_PER_BLOCK, RECORDS_PER_BLOCK, 0, 0, now_us)
    blocks = tuple(BlockCount(seq, *counts) for seq in range(first, last + 1))
    return Intent(first, last, shares, blocks, ledger.totals, (first, last))


def _files(first: int, last: int, share: int) -> Iterator[StagedFile]:
    for kind in (FileKind.HITS, FileKind.IDS):
        final = part_path(kind, STREAM, INSTANCE, first=first, last=last, share=share, hour=HOUR)
        yield StagedFile(kind, f"{first}-{share}-1-{kind}", final, 1, bytes(32), HITS_PER_BATCH // SHARES)


# ---------------------------------------------------------------- commits


class Commits:
    """A ``Committer`` over a state folder, and batches that are staged and wait for it."""

    def __init__(self, folder: Path, state: StateFolder, log: CommitLog, ledger: LogState) -> None:
        telemetry.configure(write=lambda _: None)
        self._state = state
        self._log = log
        self._last_block = ledger.last_block
        self._totals = ledger.totals
        self._committer = Committer(
            disk=DISK,
            state=state,
            output=folder / "output",
            mode=0o644,
            commit_log=log,
            ledger=ledger,
            runs=RunSet(DISK, state.ids, LIMITS),
            failed=_raise,
        )

    def close(self) -> None:
        self._committer.close()
        self._log.close()

    def staged(self, count: int) -> list[Batch]:
        """One after the other, their files in the staging folder."""
        return [self._staged() for _ in range(count)]

    def _staged(self) -> Batch:
        first = self._last_block + 1
        self._last_block += BLOCKS_PER_BATCH
        batch = Batch(first=first, opened_at_s=0.0, before=self._totals)
        shares = [Share(number=number, owner=number) for number in range(1, SHARES + 1)]
        batch.shares.extend(shares)
        for seq in range(first, self._last_block + 1):
            place = (1, 4096, BLOCK_BYTES, RECORDS_PER_BLOCK, 1, 0, COLLECTED_AT_US, seq)
            batch.add(Block(seq, *place), shares[seq % SHARES])
            shares[seq % SHARES].finished(BlockDone(seq, RECORDS_PER_BLOCK, 0, 0, 0, 0, (HOUR,), 0))
        for share in shares:
            files = tuple(_files(batch.first, batch.last, share.number))
            self._write(files, share, batch)
            share.staged = Staged(batch.first, share.number, 1, files, share.counts.rows, 0, 0)
        self._totals += batch.counts()
        return batch

    def _write(self, files: Iterable[StagedFile], share: Share, batch: Batch) -> None:
        for file in files:
            path = self._state.staging / file.staged
            if file.kind is FileKind.IDS:
                high, low = new_ids(share.counts.rows, (batch.first, share.number))
                blocks = (batch.first, batch.last)
                write_run(NO_SYNCS, path, high, low, held_us=batch.held_us, blocks=blocks)
            else:
                path.write_bytes(b"\0")

    def commit(self, batches: Iterable[Batch]) -> None:
        uvloop.run(self._commit(batches))

    async def _commit(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            await self._committer.commit(batch)


@contextmanager
def commits_after(folder: Path, state: StateFolder) -> Iterator[Commits]:
    """Those that follow what is in its log; what becomes visible does so below ``folder``."""
    commits = Commits(folder, state, *opened(state))
    try:
        yield commits
    finally:
        commits.close()


def aged_state(folder: Path, batches: int) -> StateFolder:
    """With the log of so many committed batches, and nothing else."""
    state = StateFolder(folder / "state")
    state.make(DISK)
    grow_log(state, batches)
    return state


def _raise(error: BaseException) -> None:
    asyncio.get_running_loop().stop()
    raise error
