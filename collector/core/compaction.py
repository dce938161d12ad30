"""Which hours are compacted, and what the files that come of it are called.

Imported by the command ``compact``; pure. Invariant: an hour is rewritten only when it is closed and
nothing in it is undecided, and only files whose maker is known are ever inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

HOUR_US: Final = 3_600_000_000
_NAME_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, order=True)
class HourFile:
    """A file of hits that may be replaced. *Units*: ``hour`` is hours since the Unix epoch, UTC."""

    path: str
    """Below the output folder."""
    hour: int
    sha256: bytes
    size: int
    rows: int
    instance: str
    """Whose part it is; empty: a compaction made it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Hours, the newest first: so a row is compared with what the hour before it still has.

    Of the same hit in three hours in a row the earliest copy is then the one that stays.
    """

    due: tuple[int, ...] = ()
    """They hold parts."""
    beside: tuple[int, ...] = ()
    """They hold only what was compacted before, next to one that is due: a row of theirs may be a resend."""
    open: tuple[int, ...] = ()
    """They hold parts, and more may come soon."""
    unsettled: tuple[int, ...] = ()
    """They hold parts, and something in them is decided but not committed."""

    @property
    def looked_at(self) -> tuple[int, ...]:
        return tuple(sorted({*self.due, *self.beside}, reverse=True))


def plan(files: Iterable[HourFile], unsettled: Collection[int], now_us: int, lateness_us: int) -> Plan:
    """``unsettled``: hours in which not every file is known to be committed."""
    hours: dict[int, bool] = {}
    for file in files:
        hours[file.hour] = hours.get(file.hour, False) or bool(file.instance)
    waiting = {hour for hour in hours if not is_closed(hour, now_us, lateness_us)}
    undecided = {*unsettled} - waiting
    with_parts = {hour for hour, parts in hours.items() if parts}
    due = with_parts - waiting - undecided
    beside = {hour + step for hour in due for step in (-1, 1)} & hours.keys()
    beside -= with_parts | waiting | undecided
    return Plan(
        *(_newest_first(each) for each in (due, beside, with_parts & waiting, with_parts & undecided))
    )


def is_closed(hour: int, now_us: int, lateness_us: int) -> bool:
    return (hour + 1) * HOUR_US + lateness_us <= now_us


def compaction_id(inputs: Iterable[HourFile]) -> str:
    """The same inputs, the same id: a run that follows a crash knows its own work by it."""
    digest = hashlib.sha256()
    for file in sorted(inputs):
        digest.update(f"{file.path} {file.sha256.hex()}\n".encode())
    return digest.hexdigest()[:_NAME_DIGITS]


def compact_names(inputs: Sequence[HourFile], count: int) -> list[str]:
    """One for each of ``count`` files that the inputs become."""
    if count == 1:
        return [f"compact-{compaction_id(inputs)}.parquet"]
    key = compaction_id(inputs)
    digests = (hashlib.sha256(f"{key} {number} of {count}".encode()) for number in range(1, count + 1))
    return [f"compact-{digest.hexdigest()[:_NAME_DIGITS]}.parquet" for digest in digests]


def files_wanted(inputs: Iterable[HourFile], target_bytes: int) -> int:
    """Into how many files the inputs go, so that each has about that size."""
    return max(1, -(-sum(file.size for file in inputs) // target_bytes))


def _newest_first(hours: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(hours, reverse=True))
