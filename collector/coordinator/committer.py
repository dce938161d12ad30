"""INTENT, publish, COMMITTED: the only writer of the commit log, and of what a commit makes visible.

Runs in the coordinator; its disk calls run in one thread, in the order they were asked for, so a
slow disk delays commits and nothing else. Invariant: an entry is folded into the ledger only once
it is durable.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from collector.coordinator.clock import now_us
from collector.core.batching import Batch
from collector.core.entries import BlockCount, Committed, Entry, Intent, ShareStaged
from collector.core.ledger import LogState
from collector.core.messages import Block, FileKind, StagedFile
from collector.errors import DamagedError, NoSpaceError
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.fs import Disk
from collector.storage.ids import Merge, RunSet, merge_runs
from collector.storage.layout import StateFolder
from collector.storage.publish import publish
from collector.storage.retired import forget_retired, read_retired, retired_records
from collector.telemetry import log

T = TypeVar("T")

STORAGE_RETRY_S: Final = 10.0
"""A full disk is tried again this often: quotas free up without a sign that could be watched."""


class StorageThread:
    """One thread for disk calls that must keep their order."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """*Blocks* only the caller, until ``work`` is done in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class Committer:
    """Commits batches one at a time and keeps the ledger of what is committed."""

    def __init__(
        self,
        *,
        disk: Disk,
        state: StateFolder,
        output: Path,
        mode: int,
        commit_log: CommitLog,
        ledger: LogState,
        runs: RunSet,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._disk = disk
        self._state = state
        self._output = output
        self._mode = mode
        self._log = commit_log
        self._runs = runs
        self.failed = failed
        self._soon: set[asyncio.Task[None]] = set()
        self._appending = asyncio.Lock()
        self._taking_over = asyncio.Lock()
        self._unreadable: set[Path] = set()
        self.retired_parts = 0
        """Of which the log was told in this run."""
        self._tidying = False
        self._merge_thread = StorageThread("merge")
        self.thread = StorageThread("commit")
        self.ledger = ledger

    def close(self) -> None:
        self.thread.close()
        self._merge_thread.close()

    # ------------------------------------------------------------ the log

    async def append(self, *entries: Entry) -> None:
        """Durable, then folded. Waits for room. It is done even if its caller is cancelled meanwhile."""
        await asyncio.shield(self.append_soon(*entries))

    def append_soon(self, *entries: Entry) -> asyncio.Task[None]:
        """In its order among all appends; a failure ends the collector."""
        task = asyncio.ensure_future(self._append(entries))
        self._soon.add(task)
        task.add_done_callback(self._soon_done)
        return task

    async def _append(self, entries: Sequence[Entry]) -> None:
        async with self._appending:  # one at a time: what is in the log and what is folded never differ here
            last = await self._when_there_is_room("the commit log", lambda: self._log.append_all(entries))
            for number, entry in enumerate(entries, last - len(entries) + 1):
                self.ledger.fold(number, entry)
            if self._log.rotation_due:
                packed = packed_checkpoint(last, self.ledger.checkpoint())
                await self.thread.run(lambda: self._log.rotate(last, packed))

    def _soon_done(self, task: asyncio.Task[None]) -> None:
        self._soon.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    async def appended(self) -> None:
        """Returns once every append so far is durable."""
        while self._soon:
            await asyncio.wait(self._soon)

    # ------------------------------------------------------------ a batch

    async def commit(self, batch: Batch) -> None:
        """The decision, the renames, the confirmation."""
        began_s = time.monotonic()
        files = [file for share in batch.shares if share.staged for file in share.staged.files]
        await self.append(_intent(batch))
        await self.publish(files)
        await self.append(Committed(batch=batch.first, last=batch.last, at_us=now_us()))
        await self.thread.run(lambda: self._add_runs(files))
        counts = batch.counts()
        oldest = batch.share_of[batch.first].blocks[batch.first]
        log(
            "batch.committed",
            batch=batch.first,
            last=batch.last,
            records=counts.records,
            rows=counts.rows,
            resends=counts.resends,
            rejects=counts.rejects,
            files=len(files),
            bytes=sum(file.size for file in files),
            duration_s=time.monotonic() - began_s,
            lag_s=max(0.0, time.time() - oldest.collected_at_us / 1e6),
        )
        if counts.rejects:
            log(
                "rejects.seen",
                batch=batch.first,
                last=batch.last,
                rejects=counts.rejects,
                records=counts.records,
            )

    async def publish(self, files: Sequence[StagedFile]) -> None:
        """Every file to its final name, durable. Never over another file."""
        await self._when_there_is_room(
            "the output folder",
            lambda: publish(self._disk, self._state, self._output, files, mode=self._mode),
        )

    async def take_over_retired(self) -> None:
        """Parts that somebody took away: what is said of them in ``retired/`` goes into the log."""
        async with self._taking_over:
            told: Counter[str] = Counter()
            for path in await self.thread.run(lambda: list(retired_records(self._disk, self._state))):
                told += await self._take_over(path)
            for reason, files in told.items():
                log("parts.retired", files=files, reason=reason)

    async def _take_over(self, path: Path) -> Counter[str]:
        """How many files by the reason that is given."""
        try:
            entry = await self.thread.run(partial(read_retired, self._disk, path, now_us()))
        except DamagedError as error:
            self._say_unreadable(path, str(error))
            return Counter()
        await self.append(entry)
        await self.thread.run(partial(forget_retired, self._disk, path))
        self.retired_parts += len(entry.files)
        return Counter({entry.reason: len(entry.files)})

    def _say_unreadable(self, path: Path, reason: str) -> None:
        """Once. Its parts count as missing until it is put right."""
        if path not in self._unreadable:
            self._unreadable.add(path)
            log("attention.needed", reason=reason)

    async def forget_staged(self, prefixes: Sequence[str]) -> None:
        """What a dead decoder left in the staging folder."""

        def forget() -> None:
            for name in self._disk.listdir(self._state.staging):
                if name.startswith(tuple(prefixes)):
                    self._disk.unlink(self._state.staging / name)

        if prefixes:
            await self.thread.run(forget)

    async def _when_there_is_room(self, what: str, work: Callable[[], T]) -> T:
        began_s = time.monotonic()
        full = False
        while True:
            try:
                done = await self.thread.run(work)
                break
            except NoSpaceError as error:
                full = True
                log("storage.full", what=what, reason=str(error), retry_s=STORAGE_RETRY_S)
                await asyncio.sleep(STORAGE_RETRY_S)
        if full:
            log("storage.resumed", what=what, full_s=time.monotonic() - began_s)
        return done

    # ------------------------------------------------------------ the resend index

    def _add_runs(self, files: Sequence[StagedFile]) -> None:
        for file in files:
            if file.kind is FileKind.IDS:
                self._runs.add(self._state.root / file.final)

    async def tidy(self, oldest_uncommitted: Block | None, held_us: int) -> None:
        """Drop runs behind the window, merge small ones. One at a time; never in a commit's way."""
        if self._tidying:
            return
        self._tidying = True
        try:
            edge_us = held_us if oldest_uncommitted is None else oldest_uncommitted.held_us
            expired = await self.thread.run(lambda: self._runs.expire(edge_us))
            if expired.early:
                log("resends.limited", ids=self._runs.ids)
            while (merge := self._runs.plan_merge()) is not None:
                await self._merge(merge)
        except NoSpaceError as error:
            log("storage.full", what="the resend index", reason=str(error))
        finally:
            self._tidying = False

    async def _merge(self, merge: Merge) -> None:
        await self._merge_thread.run(lambda: merge_runs(self._disk, merge.paths, merge.out))
        await self.thread.run(lambda: self._runs.replaced(merge))


def _intent(batch: Batch) -> Intent:
    return Intent(
        batch=batch.first,
        last=batch.last,
        shares=tuple(
            ShareStaged(share.number, staged.rows, staged.resends, staged.rejects, staged.files)
            for share in batch.shares
            if (staged := share.staged) is not None
        ),
        blocks=tuple(
            BlockCount(
                seq=block.seq,
                connection=block.connection,
                records=block.records,
                rows=done.rows,
                resends=done.resends,
                rejects=done.rejects,
                collected_at_us=block.collected_at_us,
            )
            for block, done in batch.blocks()
        ),
        before=batch.before,
        held_us=batch.held_us,
    )
