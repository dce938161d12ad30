"""What a start does before anything else: finish what was decided, forget what was not.

Runs in the coordinator, which holds both locks and has no child. Invariant: it is idempotent; a crash
at any point of it is one more crash like the first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from collector.core.entries import (
    Committed,
    ConnectionsCommitted,
    ConnectionsIntent,
    ConnectionsVoid,
    Entry,
    GapSeen,
    Intent,
    Lost,
    Void,
)
from collector.core.ledger import LogState
from collector.core.messages import StagedFile
from collector.core.segments import FREE_SEGMENTS_KEPT
from collector.errors import ConfigurationError, StorageError
from collector.storage.commitlog import CommitLog
from collector.storage.fs import Disk
from collector.storage.journal import Recovered, recover
from collector.storage.journal_survey import Loss
from collector.storage.layout import StateFolder, below_state
from collector.storage.publish import NotAsDecidedError, is_decided, publish
from collector.storage.segments import delete_free, free_segment

JOURNAL_LOST: Final = "journal_lost"
"""The reason of a gap in what had been accepted."""


@dataclass(frozen=True, slots=True)
class WaysOn:
    """What the operator decided that no recovery may decide by itself."""

    redo_batch: int | None = None
    """``--redo-batch``: the pending batch is undone and its blocks run again."""
    accept_journal_loss: bool = False
    """``--accept-journal-loss``: damaged blocks of the journal are written off."""


RECOVER_ONLY: Final = WaysOn()


@dataclass(slots=True)
class RecoveredState:
    """What a start found. ``journal.last_block`` names only segments with an uncommitted block."""

    journal: Recovered
    redone_batch: int | None = None
    """The batch that was decided but not finished."""
    voided_batch: Intent | None = None
    """The batch that the operator had undone."""
    voided_rows: str = ""
    """Why decided rows of ``connections`` were undone; empty: none were."""
    staged_removed: int = 0
    """Files of batches that were not decided: their blocks run again."""
    losses: Sequence[Loss] = field(default_factory=tuple)
    """Written off now. ``faults``: files that were not as they were made, in words."""
    faults: Sequence[str] = field(default_factory=tuple)


def recover_state(
    disk: Disk,
    state: StateFolder,
    output: Path,
    *,
    journal: Path,
    commit_log: CommitLog,
    ledger: LogState,
    mode: int = 0o644,
    ways_on: WaysOn = RECOVER_ONLY,
    read_again: bool = False,
) -> RecoveredState:
    """``ledger`` is the log's state and stays so. *Blocks* for one read of the journal at most.

    ``read_again``: what is behind a loss comes from its saved file again, so nothing of it is kept.

    *Raises*: ConfigurationError for a batch to redo that is not the pending one; StorageError with what to
    do; DamagedError; NoSpaceError: try again.
    """
    recovery = _Recovery(disk, state, output, commit_log, ledger, mode)
    recovery.finish_batch(ways_on.redo_batch)
    recovery.finish_rows()
    recovery.clear_staging()
    recovery.read_journal(journal, accept_loss=ways_on.accept_journal_loss, read_again=read_again)
    return recovery.found


@dataclass(slots=True)
class _Recovery:
    """One pass of ``recover_state``, step by step."""

    _disk: Disk
    _state: StateFolder
    _output: Path
    _log: CommitLog
    _ledger: LogState
    _mode: int
    found: RecoveredState = field(default_factory=lambda: RecoveredState(Recovered([], 1, 1, None, {}, ())))

    def _append(self, *entries: Entry) -> None:
        last = self._log.append_all(entries)
        for number, entry in enumerate(entries, last - len(entries) + 1):
            self._ledger.fold(number, entry)

    # ------------------------------------------------------------ what was decided

    def finish_batch(self, redo_batch: int | None) -> None:
        batch = self._ledger.pending
        _check_redo(redo_batch, batch, self._ledger.voided)
        if batch is None:
            return
        files = [file for share in batch.shares for file in share.files]
        if redo_batch is not None:
            # The files first: once it is void, nothing says any more that they are not to be seen.
            self._take_back(files)
            self._append(Void(batch.batch, batch.last, "--redo-batch", _now_us()))
            self.found.voided_batch = batch
            return
        try:
            publish(self._disk, self._state, self._output, files, mode=self._mode, redo=True)
        except NotAsDecidedError as error:
            raise StorageError(
                f"batch {batch.batch} was decided but cannot be finished: {error}; put the file back from a"
                f" copy, or have its records run again from the journal: run --redo-batch {batch.batch}"
            ) from error
        self._append(Committed(batch.batch, batch.last, _now_us()))
        self.found.redone_batch = batch.batch

    def finish_rows(self) -> None:
        """Rows that cannot be made visible are undone: they are made from the log, so nothing is lost."""
        rows = self._ledger.pending_connections
        if rows is None:
            return
        try:
            publish(self._disk, self._state, self._output, rows.files, mode=self._mode, redo=True)
        except NotAsDecidedError as error:
            self._take_back(rows.files)
            self._append(_void_of(rows, str(error)))
            self.found.voided_rows = str(error)
        else:
            self._append(ConnectionsCommitted(rows.first, rows.last))

    def _take_back(self, files: Iterable[StagedFile]) -> None:
        """None of them is left under either name. What is not ours goes to quarantine."""
        folders = {self._state.staging}
        for file in files:
            staged = self._state.staging / file.staged
            if self._disk.exists(staged):
                self._disk.unlink(staged)
            target = (self._state.root if below_state(file.kind) else self._output) / file.final
            if not self._disk.exists(target):
                continue
            if is_decided(self._disk, target, file):
                self._disk.unlink(target)
            else:
                self._disk.rename_noreplace(target, self._free_name(target.name))
                folders.add(self._state.quarantine)
            folders.add(target.parent)
        for folder in sorted(folders):
            self._disk.fsync_folder(folder)

    def _free_name(self, name: str) -> Path:
        names = (self._state.quarantine / f"{name}.{n}" for n in itertools.count(1))
        return next(path for path in names if not self._disk.exists(path))

    def clear_staging(self) -> None:
        names = self._disk.listdir(self._state.staging)
        for name in names:
            self._disk.unlink(self._state.staging / name)
        self.found.staged_removed = len(names)

    # ------------------------------------------------------------ what was accepted

    def read_journal(self, journal: Path, *, accept_loss: bool, read_again: bool) -> None:
        ledger = self._ledger

        def accept(losses: Sequence[Loss], faults: Sequence[str]) -> None:
            self.found.losses, self.found.faults = tuple(losses), tuple(faults)
            entries: list[Entry] = []
            for loss in losses:
                entries.append(Lost(loss.first, loss.last, 0 if read_again else loss.records))
                entries += [] if read_again else [gap_of(loss, ledger)]
            if entries:
                self._append(*entries)

        recovered = recover(
            self._disk,
            journal,
            self._state.quarantine,
            after_seq=ledger.last_block,
            known_durable_seq=ledger.durable_block,
            written_off=ledger.lost,
            prefix_only=read_again,
            accept=accept if accept_loss else None,
        )
        self.found.journal = _free_committed(self._disk, journal, recovered, ledger.last_block)


def _check_redo(redo_batch: int | None, pending: Intent | None, voided: int) -> None:
    """A batch that was undone already is no mistake: a service manager starts with the same flags again."""
    if redo_batch is None or (pending is None and redo_batch == voided):
        return
    if pending is None:
        raise ConfigurationError(f"--redo-batch {redo_batch}: no batch is pending; start without it")
    if pending.batch != redo_batch:
        raise ConfigurationError(f"--redo-batch {redo_batch}: the pending batch is {pending.batch}")


def _void_of(rows: ConnectionsIntent, reason: str) -> ConnectionsVoid:
    return ConnectionsVoid(rows.first, rows.last, reason, _now_us())


def gap_of(loss: Loss, ledger: LogState) -> GapSeen:
    """A row of ``connections`` for the time in which the lost blocks were collected, as far as is known."""
    opened = [at for at in ledger.connections.values() if at.opened is not None]
    newest = max(opened, key=lambda at: at.number, default=None)
    connection = loss.connection or (newest.number if newest is not None else 0)
    ended_us = loss.ended_us or _now_us()
    began_us = loss.began_us or ledger.collected_us
    if not began_us:
        began_us = newest.opened.opened_us if newest is not None and newest.opened is not None else ended_us
    return GapSeen(
        connection=connection,
        began_us=min(began_us, ended_us),
        ended_us=ended_us,
        reason=JOURNAL_LOST,
        detail=loss.text + (f"; at least {loss.records} records" if loss.records else ""),
        suspected="likely",
        rule="what had been accepted is gone, and was written off",
        lost=True,
    )


def _now_us() -> int:
    return time.time_ns() // 1000


def _free_committed(disk: Disk, journal: Path, recovered: Recovered, committed: int) -> Recovered:
    done = [segment for segment, last in recovered.last_block.items() if last <= committed]
    for segment in done:
        free_segment(disk, journal, segment)
    free = (*recovered.free, *done)
    for segment in free[FREE_SEGMENTS_KEPT:]:
        delete_free(disk, journal, segment)
    left = {segment: last for segment, last in recovered.last_block.items() if segment not in done}
    return replace(recovered, last_block=left, free=free[:FREE_SEGMENTS_KEPT])
