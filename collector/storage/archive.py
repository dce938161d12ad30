"""Everything that was ever decided: the sealed archives and the log, as one sequence.

For whoever reads the log without owning it, also beside a running collector. Invariant: entries come
from 1 without a hole up to the log's end as of the call, or the damage is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from collector.core.entries import Checkpoint, Entry
from collector.errors import DamagedError
from collector.storage.commitlog import REMEDY, Append, Archive, acknowledged_entry, archives, read_log
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder

Begin = Callable[[Sequence[Archive]], int]
"""Which of the archives to read first, by its place."""


def all_entries(disk: Disk, state: StateFolder, begin: Begin = lambda _: 0) -> Iterator[tuple[int, Entry]]:
    """Each with its number. Checkpoints, which only repeat, are left out; so is an append that is torn.

    ``begin``: older archives are not opened. *Blocks* for the reading of one file at a time.

    *Raises*: DamagedError with the file, and its offsets or the numbers of what is missing;
    NewerVersionError.
    """
    # In this order: what is acknowledged is in the log by then, and what the log leaves out in the archive.
    acknowledged = acknowledged_entry(disk, state.commit_log)
    if not disk.exists(state.commit_log):
        raise DamagedError(f"{state.commit_log} is missing; {REMEDY}")
    log = list(read_log(disk.read_file(state.commit_log), state.commit_log, acknowledged=acknowledged))
    before = _before(log)
    sealed = [archive for archive in archives(disk, state.archive) if archive.first <= before]
    start = begin(sealed)
    last = sealed[start].first - 1 if start else 0
    for archive in sealed[start:]:
        _check_follows(archive.first, last, state)
        yield from sealed_entries(disk, archive)
        last = archive.last
    _check_follows(before + 1, last, state)
    yield from _entries(log)


def checkpoint_of(disk: Disk, archive: Archive) -> Checkpoint | None:
    """What the entries before this archive add up to; ``None``: it is the oldest. *Blocks* for its reading.

    *Raises*: DamagedError; NewerVersionError.
    """
    append = next(read_log(disk.read_file(archive.path), archive.path), None)
    first = append.entries[0] if append is not None else None
    return first if isinstance(first, Checkpoint) else None


def _before(log: list[Append]) -> int:
    """The last entry that this file leaves out."""
    return log[0].first if log and isinstance(log[0].entries[0], Checkpoint) else 0


def _check_follows(first: int, last: int, state: StateFolder) -> None:
    if first != last + 1:
        raise DamagedError(f"{state.archive}: entries {last + 1} to {first - 1} are missing; {REMEDY}")


def sealed_entries(disk: Disk, archive: Archive) -> Iterator[tuple[int, Entry]]:
    """Those of one archive. *Raises*: DamagedError, NewerVersionError."""
    data = disk.read_file(archive.path)
    log = list(read_log(data, archive.path, acknowledged=archive.last))
    if (_before(log) + 1, log[-1].last, log[-1].end) != (archive.first, archive.last, len(data)):
        raise DamagedError(
            f"{archive.path}: bytes {log[-1].end} to {len(data)}: it holds entries {_before(log) + 1} to"
            f" {log[-1].last}, and was sealed with those of its name; {REMEDY}"
        )
    yield from _entries(log)


def _entries(log: list[Append]) -> Iterator[tuple[int, Entry]]:
    for append in log:
        if not isinstance(append.entries[0], Checkpoint):
            yield from enumerate(append.entries, append.first)
