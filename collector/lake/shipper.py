"""Ships what the commit log calls committed: to the store, then into the table, then the local copy may go.

Run by the shipping process and by ``ship``. Invariants: deliveries go out in the order of their commits;
what the progress file says is out, is; after a crash anywhere some are looked at again, and none is doubled.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from collector.core.messages import StagedFile
from collector.core.shipping import Deliveries, Delivery, ShipFailure, ShipPlan, ShipReport
from collector.lake.gone import SHIPPED, Gone
from collector.lake.store import ShipError, Store, Stored, uri_of
from collector.lake.tables import Commit, Table, TablePart, read_schema
from collector.storage.follow import LogFollower
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder
from collector.storage.retired import RetiredPart, RetiredRecord, write_retired
from collector.storage.shipped import ShipProgress, read_progress, write_progress

READ_AHEAD: Final = 10_000
"""Deliveries that are known and not out; further ones stay in the log."""

GROUP_PARTS: Final = 64
"""At most uploaded before the table is told and the progress written; but one delivery always."""

REMOVED_AT_ONCE: Final = 200
"""Deliveries in one retired record."""

LONGEST_CALL_S: Final = 1800.0
"""Beyond it nothing beats any more, and the process is ended as one that hangs."""

_BEAT_S: Final = 1.0
_NEXT: Final = 4
"""One batch and one delivery of ``connections`` are open at a time: none that follows began before these."""

T = TypeVar("T")


class Say(Protocol):
    """Writes an event of the catalogue."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


class Shipper:
    """One state folder to one destination. *Raises* ShipError from every method: later it may go."""

    def __init__(
        self,
        disk: Disk,
        plan: ShipPlan,
        instance: str,
        *,
        store: Store | None,
        table: Table | None,
        now_us: Callable[[], int],
        say: Say,
        beat: Callable[[], object],
    ) -> None:
        self._disk = disk
        self._plan = plan
        self._instance = instance
        self._state = StateFolder(Path(plan.state))
        self._output = Path(plan.output)
        self._store = store
        self._table = table
        self._now_us = now_us
        self._log_event = say
        self._beat = beat
        self._pool = ThreadPoolExecutor(plan.uploads, thread_name_prefix="upload")
        self._waiting: deque[Delivery] = deque()
        self._local: deque[Delivery] = deque()
        """Out, and their local copies are still to go."""
        self._deliveries = Deliveries()
        self._known_versions: set[str] = set()
        self._gone = Gone(disk, self._state)
        self.progress = self._found_progress()
        begin = self.progress.begin
        if self._removes:
            begin = min(begin, self.progress.removal_begin)
        self._follower = LogFollower(disk, self._state, begin=begin)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _removes(self) -> bool:
        return self._store is not None and self._plan.keep_local_s is not None

    def report(self) -> ShipReport:
        progress = self.progress
        return ShipReport(
            behind_parts=sum(len(delivery.files) for delivery in self._waiting),
            behind_bytes=sum(delivery.size for delivery in self._waiting),
            oldest_us=self._waiting[0].at_us if self._waiting else 0,
            parts=progress.parts,
            bytes=progress.bytes,
            table_commits=progress.table_commits,
            removed_parts=progress.removed_parts,
            block=progress.block,
            rows_entry=progress.rows_entry,
        )

    def step(self) -> bool:
        """One group out, or what is due taken away. ``False``: there was nothing to do. *Blocks* for it."""
        self.read()
        if not self._waiting:
            return self._remove_due()
        group = list(self._next_group())
        shipped = self._upload(group)
        for delivery in group:
            self._tell_table(delivery, shipped)
        self._note_out(group, shipped)
        return True

    # ------------------------------------------------------------ what there is

    def _found_progress(self) -> ShipProgress:
        plan = self._plan
        found = read_progress(self._disk, self._state) or ShipProgress()
        fresh = msgspec.structs.replace(
            ShipProgress(url=plan.url, table=plan.table),
            parts=found.parts,
            bytes=found.bytes,
            table_commits=found.table_commits,
            removed_parts=found.removed_parts,
        )
        if (found.url, found.table) != (plan.url, plan.table):
            return fresh
        if not self._is_same_log(found):
            reason = f"the commit log is another one than that of entry {found.entry}: it was made again"
            self._log_event("ship.began_again", reason=reason)
            return fresh
        if self._table is not None:
            self._check_table(self._table.committed(self._instance), found.table_block)
        return found

    def _is_same_log(self, progress: ShipProgress) -> bool:
        deliveries = Deliveries()
        if not progress.entry:
            return True
        with suppress(FileNotFoundError):
            for number, entry in LogFollower(self._disk, self._state, begin=progress.begin).read():
                delivery = deliveries.fold(number, entry)
                if number >= progress.entry:
                    return delivery is not None and delivery.last == progress.last
        return False

    def _check_table(self, there: int, block: int) -> None:
        if there < block:
            raise ShipError(
                ShipFailure.TABLE,
                f"it has this collector's blocks up to {there}, and block {block} had been committed: it was"
                f" dropped or put back from a copy. To add every part again, remove"
                f" {self._state.root}/ship/progress",
            )

    def read(self) -> None:
        """What the log says by now."""
        with suppress(FileNotFoundError):  # the collector has not begun yet
            for number, entry in self._follower.read():
                self._beat()
                delivery = self._deliveries.fold(number, entry)
                if delivery is not None:
                    self._sort(delivery)
                if len(self._waiting) >= READ_AHEAD:
                    break

    def _sort(self, delivery: Delivery) -> None:
        if delivery.entry > self.progress.entry:
            self._waiting.append(delivery)
        elif self._removes and delivery.entry > self.progress.removed:
            self._local.append(delivery)

    def _next_group(self) -> Iterator[Delivery]:
        parts = 0
        for delivery in self._waiting:
            parts += len(delivery.files)
            if parts > GROUP_PARTS and parts > len(delivery.files):
                return
            yield delivery

    def _begin_after(self, last: Delivery, following: deque[Delivery]) -> int:
        """Where to begin to read, so that it comes again and what follows is whole."""
        later = [delivery.begun for delivery in islice(following, _NEXT)]
        return min([last.begun, *later, self._deliveries.begin(self._follower.last)])

    # ------------------------------------------------------------ out

    def _upload(self, group: Sequence[Delivery]) -> set[str]:
        """Paths that are where they are to be now; the others were taken away by somebody before."""
        files = [file for delivery in group for file in delivery.files]
        reasons = self._all_of([partial(self._put, file) for file in files])
        gone = [(file.final, reason) for file, reason in zip(files, reasons, strict=True) if reason]
        if gone:
            self._log_event("ship.left_out", parts=len(gone), path=gone[0][0], reason=gone[0][1])
        return {file.final for file in files} - {path for path, _ in gone}

    def _put(self, file: StagedFile) -> str:
        """Empty: it is where it is to be. Else why it was taken away before it could go."""
        source = self._output / file.final
        if self._disk.exists(source):
            self._check_local(source, file)
            if self._store is None:
                return ""
            try:
                self._store.put_new(source, file.final, file.size, file.sha256)
            except ShipError:
                if self._disk.exists(source):
                    raise
            else:
                return ""
        if self._store is not None and self._store.find(file.final) == Stored(file.size, file.sha256):
            return ""
        reason = self._gone.reason(file.final)
        if reason is None:
            raise ShipError(ShipFailure.LOCAL, f"{source} is not there, nor in the store")
        return reason or "retired"

    def _check_local(self, source: Path, file: StagedFile) -> None:
        try:
            size, sha256 = self._disk.size(source), self._disk.sha256(source)
        except FileNotFoundError:
            return
        if (size, sha256) != (file.size, file.sha256):
            raise ShipError(ShipFailure.LOCAL, f"{source} is not the file that was committed")

    def _tell_table(self, delivery: Delivery, shipped: set[str]) -> None:
        if self._table is None or not delivery.is_batch or delivery.last <= self.progress.table_block:
            return
        hits = [file for file in delivery.hits if file.final in shipped]
        commit = Commit(self._plan.stream, self._instance, delivery.first, delivery.last)
        commits = self.progress.table_commits
        if hits and self._all_of([partial(self._commit, self._table, commit, hits)])[0]:
            commits += 1
        block = delivery.last if hits else self.progress.table_block
        self.progress = msgspec.structs.replace(self.progress, table_block=block, table_commits=commits)

    def _commit(self, table: Table, commit: Commit, hits: Sequence[StagedFile]) -> bool:
        added = table.add(commit, [self._table_part(file) for file in hits])
        self._known_versions.update(_version(file.final) for file in hits)
        return added

    def _table_part(self, file: StagedFile) -> TablePart:
        schema: Any = None
        if _version(file.final) not in self._known_versions:
            source = self._output / file.final
            if self._store is None or self._disk.exists(source):
                schema = read_schema(source)
            else:
                schema = read_schema(self._store.read(file.final))
        return TablePart(file.final, file.size, file.rows, schema)

    def _note_out(self, group: Sequence[Delivery], shipped: set[str]) -> None:
        for _ in group:
            self._waiting.popleft()
        last, progress = group[-1], self.progress
        out = [file for delivery in group for file in delivery.files if file.final in shipped]
        self.progress = msgspec.structs.replace(
            progress,
            entry=last.entry,
            last=last.last,
            begin=self._begin_after(last, self._waiting),
            block=max([progress.block, *(each.last for each in group if each.is_batch)]),
            rows_entry=max([progress.rows_entry, *(each.last for each in group if not each.is_batch)]),
            parts=progress.parts + (len(out) if self._store is not None else 0),
            bytes=progress.bytes + (sum(file.size for file in out) if self._store is not None else 0),
        )
        write_progress(self._disk, self._state, self.progress)
        if self._removes:
            self._local.extend(group)

    # ------------------------------------------------------------ local copies away

    def _remove_due(self) -> bool:
        keep_s = self._plan.keep_local_s
        if not self._removes or keep_s is None:
            return False
        edge_us = self._now_us() - round(keep_s * 1e6)
        due = [each for each in islice(self._local, REMOVED_AT_ONCE) if each.at_us <= edge_us]
        if not due:
            return False
        files = [file for each in due for file in each.files if self._disk.exists(self._output / file.final)]
        name = f"shipped-{due[0].entry}-{due[-1].entry}"
        if files and not self._disk.exists(self._state.retired / f"{name}.json"):  # or it says more than this
            record = RetiredRecord(
                files=tuple(RetiredPart(file.final, file.sha256.hex()) for file in files),
                reason=SHIPPED,
                replaced_by=tuple(uri_of(self._plan.url, file.final) for file in files),
            )
            write_retired(self._disk, self._state, name, record)
        for file in files:
            with suppress(FileNotFoundError):
                self._disk.unlink(self._output / file.final)
        for _ in due:
            self._local.popleft()
        following = deque([*islice(self._local, _NEXT), *islice(self._waiting, _NEXT)])
        self.progress = msgspec.structs.replace(
            self.progress,
            removed=due[-1].entry,
            removal_begin=self._begin_after(due[-1], following),
            removed_parts=self.progress.removed_parts + len(files),
        )
        write_progress(self._disk, self._state, self.progress)
        return True

    # ------------------------------------------------------------ at once

    def _all_of(self, work: Sequence[Callable[[], T]]) -> list[T]:
        """All of it in threads, while this one beats. *Raises* the first failure, when all have ended."""
        futures = [self._pool.submit(each) for each in work]
        left: set[Future[T]] = set(futures)
        limit_s = time.monotonic() + LONGEST_CALL_S
        while left:
            done, left = wait(left, _BEAT_S)
            if done:
                limit_s = time.monotonic() + LONGEST_CALL_S
            if time.monotonic() < limit_s:
                self._beat()
            if any(_failure(future) for future in done):
                for future in left:
                    future.cancel()
        for future in futures:
            if (error := _failure(future)) is not None:
                raise error
        return [future.result() for future in futures]


def _failure(future: Future[Any]) -> BaseException | None:
    return None if future.cancelled() else future.exception()


def _version(path: str) -> str:
    return path.split("/")[1]
