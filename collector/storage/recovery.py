"""What a start does before anything else: finish what was decided, forget what was not.

Runs in the coordinator, which holds both locks and has no child. Invariant: it is idempotent; a crash
at any point of it is one more crash like the first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from collector.core.entries import Committed, ConnectionsCommitted, Entry
from collector.core.ledger import LogState
from collector.core.segments import FREE_SEGMENTS_KEPT
from collector.errors import StorageError
from collector.storage.commitlog import CommitLog
from collector.storage.fs import Disk
from collector.storage.journal import Recovered, recover
from collector.storage.layout import StateFolder
from collector.storage.publish import NotAsDecidedError, publish
from collector.storage.segments import delete_free, free_segment


@dataclass(frozen=True, slots=True)
class RecoveredState:
    """What a start found. ``journal.last_block`` names only segments with an uncommitted block."""

    journal: Recovered
    redone_batch: int | None
    """The batch that was decided but not finished."""
    staged_removed: int
    """Files of batches that were not decided: their blocks run again."""


def recover_state(
    disk: Disk,
    state: StateFolder,
    output: Path,
    *,
    journal: Path,
    commit_log: CommitLog,
    ledger: LogState,
    mode: int = 0o644,
) -> RecoveredState:
    """``ledger`` is the log's state and stays so. *Blocks* for one read of the journal at most.

    *Raises*: StorageError with what to do; DamagedError; NoSpaceError: try again.
    """
    redone = None
    if (batch := ledger.pending) is not None:
        redone = batch.batch
        with _naming(
            f"batch {redone} was decided but cannot be finished",
            "put the file back from a copy; its records are in the journal as well",
        ):
            files = [file for share in batch.shares for file in share.files]
            publish(disk, state, output, files, mode=mode, redo=True)
        _append(commit_log, ledger, Committed(redone, batch.last, time.time_ns() // 1000))
    if (rows := ledger.pending_connections) is not None:
        with _naming(
            f"the connections of log entries {rows.first} to {rows.last} were decided but cannot be finished",
            "put the file back from a copy",
        ):
            publish(disk, state, output, rows.files, mode=mode, redo=True)
        _append(commit_log, ledger, ConnectionsCommitted(rows.first, rows.last))
    removed = _clear(disk, state.staging)
    recovered = recover(disk, journal, state.quarantine, after_seq=ledger.last_block)
    return RecoveredState(_free_committed(disk, journal, recovered, ledger.last_block), redone, removed)


@contextmanager
def _naming(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except NotAsDecidedError as error:
        raise StorageError(f"{what}: {error}; {remedy}") from error


def _append(log: CommitLog, ledger: LogState, entry: Entry) -> None:
    ledger.fold(log.append(entry), entry)


def _clear(disk: Disk, staging: Path) -> int:
    names = disk.listdir(staging)
    for name in names:
        disk.unlink(staging / name)
    return len(names)


def _free_committed(disk: Disk, journal: Path, recovered: Recovered, committed: int) -> Recovered:
    done = [segment for segment, last in recovered.last_block.items() if last <= committed]
    for segment in done:
        free_segment(disk, journal, segment)
    free = (*recovered.free, *done)
    for segment in free[FREE_SEGMENTS_KEPT:]:
        delete_free(disk, journal, segment)
    left = {segment: last for segment, last in recovered.last_block.items() if segment not in done}
    return replace(recovered, last_block=left, free=free[:FREE_SEGMENTS_KEPT])
