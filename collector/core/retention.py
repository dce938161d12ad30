"""Which committed parts have outlived their use, by age or by size.

Pure. Asked by the coordinator. Invariants: what goes is whole folders of parts, an hour of ``hits`` or a day
of ``rejects`` or ``connections``, so that no query meets half of one; only those that are past; the oldest
first where it is a matter of size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from collector.core.messages import FileKind

RETAINED: Final = (FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS)

_DAY_US: Final = 86_400_000_000
_FOLDER: Final = re.compile(
    r"([a-z]+)/v=[0-9]+/stream=[^/]+/date=([0-9]{4}-[0-9]{2}-[0-9]{2})(?:/hour=([0-9]{2}))?"
)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Limit:
    """For one kind of part. ``None``: no limit."""

    max_age_days: float | None = None
    """Since the end of the hour or day that a folder is of."""
    max_bytes: int | None = None
    """Of all parts of this kind together."""

    @property
    def none(self) -> bool:
        return self.max_age_days is None and self.max_bytes is None


@dataclass(frozen=True, slots=True)
class Outdated:
    """Parts of one folder that go together."""

    kind: FileKind
    folder: str
    paths: tuple[str, ...]
    """Below the output folder, like ``folder``."""
    size: int
    """Bytes."""
    reason: str


@dataclass(frozen=True, slots=True)
class _Shelf:
    """One folder with its parts."""

    folder: str
    end_us: int
    paths: tuple[str, ...]
    size: int


def outdated(
    parts: Mapping[str, int],
    limits: Mapping[FileKind, Limit],
    now_us: int,
    may_go: Callable[[str], bool],
) -> list[Outdated]:
    """The parts to take away now, oldest folder first.

    ``parts``: size in bytes by path, this collector's own. ``may_go``: a folder with a part that may not go
    yet stays as it is.
    """
    found = []
    for kind, limit in limits.items():
        shelves = _shelves(kind, parts)
        left = sum(shelf.size for shelf in shelves)
        for shelf in shelves:
            reason = _reason(kind, limit, shelf, left, now_us)
            if reason and all(map(may_go, shelf.paths)):
                found.append(Outdated(kind, shelf.folder, shelf.paths, shelf.size, reason))
                left -= shelf.size
    return found


def _reason(kind: FileKind, limit: Limit, shelf: _Shelf, left: int, now_us: int) -> str:
    """Why it goes; empty: it stays. ``left``: bytes of the kind that are there."""
    if shelf.end_us > now_us:
        return ""
    if _is_too_old(limit, shelf.end_us, now_us):
        return f"retention.{kind}_max_age_days = {limit.max_age_days:g}"
    if limit.max_bytes is not None and left > limit.max_bytes:
        return f"retention.{kind}_max_bytes = {limit.max_bytes}"
    return ""


def _is_too_old(limit: Limit, end_us: int, now_us: int) -> bool:
    days = limit.max_age_days
    return days is not None and end_us + round(days * _DAY_US) <= now_us


def is_of_interest(kind: FileKind, folder: str, limit: Limit, now_us: int) -> bool:
    """Whether the parts of this folder matter to ``outdated``: most do not where age alone counts."""
    end_us = folder_end_us(kind, folder)
    return end_us is not None and (limit.max_bytes is not None or _is_too_old(limit, end_us, now_us))


def _shelves(kind: FileKind, parts: Mapping[str, int]) -> Sequence[_Shelf]:
    """Oldest first."""
    by_folder: dict[str, list[str]] = {}
    for path in parts:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    return sorted(_shelves_in(kind, by_folder, parts), key=lambda shelf: (shelf.end_us, shelf.folder))


def _shelves_in(
    kind: FileKind, by_folder: Mapping[str, list[str]], parts: Mapping[str, int]
) -> Iterator[_Shelf]:
    for folder, paths in by_folder.items():
        end_us = folder_end_us(kind, folder)
        if end_us is not None:
            yield _Shelf(folder, end_us, tuple(sorted(paths)), sum(parts[path] for path in paths))


def folder_end_us(kind: FileKind, folder: str) -> int | None:
    """When the hour or day is over that this folder's parts are of; ``None``: it is no folder of the kind."""
    match = _FOLDER.fullmatch(folder)
    if match is None or match[1] != kind or (match[3] is None) is (kind is FileKind.HITS):
        return None
    try:
        begin = datetime.fromisoformat(f"{match[2]}T{match[3] or '00'}:00:00").replace(tzinfo=UTC)
        end = begin + (_DAY if match[3] is None else _HOUR)
    except (ValueError, OverflowError):
        return None
    return round(end.timestamp()) * 1_000_000
