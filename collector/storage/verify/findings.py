"""What the proof found, in words: one record per finding, and the sum of all that was looked at.

Runs in ``verify``. Invariant: a finding says where, what was found, what was expected and what to do.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from collector.core.messages import Totals


class Kind(enum.StrEnum):
    """What is off. The value is the first word of the finding's line."""

    MISSING = "missing"
    NO_FILE = "no-regular-file"
    SIZE = "size"
    HASH = "hash"
    UNREADABLE = "unreadable"
    ROWS = "rows"
    METADATA = "metadata"
    LINES = "lines"
    COUNTS = "counts"
    RESEND = "resend"
    UNKNOWN = "unknown-file"
    STRAY = "stray-file"
    LOG = "log"
    INDEX = "resend-index"
    JOURNAL = "journal"
    RETIRED = "retired-record"
    COMPACTION = "compaction-record"
    REMOTE_MISSING = "missing-in-store"
    REMOTE = "other-in-store"


_MOST_SHOWN: Final = 5
_RESTORE: Final = "put the file back from a copy"
_REBUILD: Final = "restore the log from a copy, or make it again with verify --rebuild"

REMEDIES: Final[dict[Kind, str]] = {
    Kind.MISSING: f"{_RESTORE}; whoever removes a part must say so in the state folder's retired/ first",
    Kind.NO_FILE: "put the file itself there, not a link",
    Kind.SIZE: _RESTORE,
    Kind.HASH: _RESTORE,
    Kind.UNREADABLE: _RESTORE,
    Kind.ROWS: _RESTORE,
    Kind.METADATA: _RESTORE,
    Kind.LINES: _RESTORE,
    Kind.COUNTS: _REBUILD,
    Kind.RESEND: "put the part that has the row back from a copy; these hits were dropped because of it",
    Kind.UNKNOWN: "move it out of the output folder: readers count its rows, and no commit stands behind it",
    Kind.STRAY: "move it out of the output folder: most engines fail on it",
    Kind.LOG: _REBUILD,
    Kind.INDEX: f"{_RESTORE}, or stop the collector and remove it: resends of its hits are then kept",
    Kind.RETIRED: "let who wrote it write it again",
    Kind.COMPACTION: f"{_RESTORE}: without it nobody knows which compacted files there have to be",
    Kind.REMOTE_MISSING: "while the local part is there: move STATE/ship/progress away and ship again",
    Kind.REMOTE: "move the object away, then STATE/ship/progress, and ship again from the local part",
    Kind.JOURNAL: "restore it from a copy: what is in it was accepted and is nowhere else",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the commit log says."""

    kind: Kind
    where: str
    """A path, a batch, or an entry of the log."""
    found: str
    expected: str

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.where}: {self.found}; expected {self.expected}; to do: {REMEDIES[self.kind]}"
        )


@dataclass(slots=True)
class Report:
    """What ``verify`` gives back. ``notes`` are facts to know that are no faults."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches: int = 0
    totals: Totals = field(default_factory=Totals)
    files: int = 0
    bytes: int = 0
    """Read and hashed."""

    def summary(self) -> str:
        totals = self.totals
        counted = (
            f"{self.batches:,} batches, {totals.records:,} records = {totals.rows:,} rows"
            f" + {totals.resends:,} resends + {totals.rejects:,} rejects"
        )
        if not self.findings:
            return f"{counted}; all adds up"
        one = len(self.findings) == 1
        return f"{counted}; {len(self.findings):,} finding{'' if one else 's'}"


def shortened(items: Iterable[object]) -> str:
    """The first few, and how many more: a damaged part can have a fault in each of its rows."""
    texts = [str(item) for item in items]
    more = len(texts) - _MOST_SHOWN
    return ", ".join(texts[:_MOST_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
