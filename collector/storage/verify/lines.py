"""Whether the rows, rejects and resends of a batch are its records, each once.

Runs in ``verify``; pure. Invariant: every (block, line) that is added is counted in exactly one of the
batch's records, or is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.core.entries import BlockCount
from collector.core.messages import FileKind
from collector.storage.verify.findings import shortened

Int64s = NDArray[np.int64]

COUNTED: Final = {FileKind.HITS: "rows", FileKind.RESENDS: "resends", FileKind.REJECTS: "rejects"}
"""Kinds whose rows are records of blocks, and the count of a block that they make up."""


class BatchLines:
    """The records of one batch, and which of them were met. ``blocks`` are contiguous.

    *Units*: 8 bytes a record until ``faults``, as much again there.
    """

    def __init__(self, blocks: Sequence[BlockCount]) -> None:
        self._blocks = blocks
        self._first = blocks[0].seq
        self._records = np.array([block.records for block in blocks], np.int64)
        self._ends = self._records.cumsum()
        self._starts = self._ends - self._records
        self._met: dict[FileKind, list[Int64s]] = {kind: [] for kind in COUNTED}
        self._outside: list[str] = []

    def add(self, kind: FileKind, block: Int64s, line: NDArray[Any]) -> None:
        """*Shape*: n and n, in any order."""
        index = block - self._first
        inside = (index >= 0) & (index < len(self._blocks))
        inside &= (line >= 0) & (line < self._records.take(index, mode="clip"))
        if not inside.all():
            outside = np.flatnonzero(~inside)[:100]
            self._outside += [_name(block[at], line[at]) for at in outside]
            index, line = index[inside], line[inside]
        self._met[kind].append(self._starts[index] + line)

    def faults(self, absent_rows: dict[FileKind, int]) -> Iterator[str]:
        """In words. ``absent_rows``: rows of files that may be missing, by kind."""
        if self._outside:
            yield f"lines that are in no block of the batch: {shortened(self._outside)}"
        positions = np.concatenate([np.empty(0, np.int64), *(at for met in self._met.values() for at in met)])
        counts = np.bincount(positions, minlength=int(self._records.sum()))
        if (doubled := np.flatnonzero(counts > 1)).size:
            yield f"{len(doubled):,} lines more than once: {shortened(self._names(doubled))}"
        missing = np.flatnonzero(counts == 0)
        absent = sum(absent_rows.values())
        if len(missing) != absent:
            lead = f"{len(missing):,} lines nowhere, {absent:,} are accounted for elsewhere"
            yield f"{lead}: {shortened(self._names(missing))}"
        else:
            yield from self._miscounted(absent_rows)

    def _miscounted(self, absent_rows: dict[FileKind, int]) -> Iterator[str]:
        for kind, name in COUNTED.items():
            if absent_rows.get(kind):
                continue
            at = np.concatenate([np.empty(0, np.int64), *self._met[kind]])
            met = np.bincount(np.searchsorted(self._ends, at, side="right"), minlength=len(self._blocks))
            said = np.array([getattr(block, name) for block in self._blocks])
            wrong = np.flatnonzero(met != said).tolist()
            if wrong:
                each = (f"block {self._blocks[i].seq} has {met[i]} and not {said[i]}" for i in wrong)
                yield f"{name} of {len(wrong):,} blocks are not as counted: {shortened(each)}"

    def _names(self, positions: Int64s) -> Iterable[str]:
        index = np.searchsorted(self._ends, positions, side="right")
        for at, position in zip(index, positions, strict=True):
            yield _name(self._first + at, position - self._starts[at])


def _name(block: Any, line: Any) -> str:
    return f"({block}, {line})"
