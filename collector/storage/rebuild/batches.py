"""A batch's decision made again from its files.

Runs in ``verify --rebuild``; pure but for reading columns. Invariant: the counts it gives add up to what
the batch is known to have counted, and rows that are in no file are said to be in one that is retired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.core.entries import BlockCount, Intent, Retired, RetiredFile, ShareStaged
from collector.core.messages import FileKind, StagedFile, Totals
from collector.storage.layout import part_path
from collector.storage.rebuild.evidence import Folders, Found, Group
from collector.storage.verify.lines import COUNTED
from collector.storage.verify.parts import OpenFile, Part

REASON: Final = "not there when the commit log was made again from the parts"
_HOUR_US: Final = 3_600_000_000
_ABSENT_SHARE: Final = 0
"""In the name that stands for a file nobody knows; real shares are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Remade:
    intent: Intent
    retired: Retired | None
    absent: Totals
    """Counted and in no file that is there."""


@dataclass(frozen=True, slots=True)
class Whose:
    instance: str
    stream: str


class BlockTable:
    """Counts of each block of a batch, from the (block, line) of what is there."""

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        size = last - first + 1
        self._counts = {kind: np.zeros(size, np.int64) for kind in COUNTED}
        self._lines = np.zeros(size, np.int64)
        """Highest line and 1."""
        self._collected_us = np.zeros(size, np.int64)

    def add(
        self, kind: FileKind, block: NDArray[np.int64], line: NDArray[Any], at_us: NDArray[np.int64] | None
    ) -> None:
        index = block - self._first
        inside = (index >= 0) & (index < len(self._lines))
        index, line = index[inside], line[inside]
        self._counts[kind] += np.bincount(index, minlength=len(self._lines))
        np.maximum.at(self._lines, index, line.astype(np.int64) + 1)
        if at_us is not None:
            np.maximum.at(self._collected_us, index, at_us[inside])

    def counts(
        self, absent: Totals, connections: Sequence[tuple[int, int]], *, at_us: int
    ) -> tuple[BlockCount, ...]:
        """Blocks with what is in no file shared out: to the lines that are missing, the rest to one block."""
        there = np.sum(list(self._counts.values()), axis=0)
        missing = np.maximum(self._lines - there, 0)
        rest = absent.records - int(missing.sum())
        if rest > 0:
            missing[int(np.argmin(there))] += rest
        given = {
            FileKind.HITS: _shared_out(missing, absent.rows),
            FileKind.RESENDS: _shared_out(missing, absent.resends),
        }
        given[FileKind.REJECTS] = missing  # whatever is left
        counts = {kind: (self._counts[kind] + given[kind]).tolist() for kind in COUNTED}
        times = _filled(self._collected_us, at_us)
        return tuple(
            BlockCount(
                seq=self._first + at,
                connection=_connection_of(self._first + at, connections),
                records=rows + resends + rejects,
                rows=rows,
                resends=resends,
                rejects=rejects,
                collected_at_us=times[at],
            )
            for at, (rows, resends, rejects) in enumerate(
                zip(*(counts[kind] for kind in COUNTED), strict=True)
            )
        )


def _shared_out(missing: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Takes up to ``count`` from ``missing``, from the first block on."""
    before = missing.cumsum() - missing
    given = np.clip(count - before, 0, missing)
    missing -= given
    return given


def _filled(times: NDArray[np.int64], before_us: int) -> list[int]:
    """A block of resends alone does not say when it was collected: at about the time of the one before."""
    known = np.maximum.accumulate(np.concatenate([[before_us], times]))[1:]
    return [int(time) for time in np.where(times > 0, times, known)]


def _connection_of(block: int, connections: Sequence[tuple[int, int]]) -> int:
    """0: not known."""
    return max((entry for entry in connections if entry[0] <= block), default=(0, 0))[1]


def remake(
    folders: Folders, whose: Whose, group: Group, *, counted: Totals, before: Totals, at_us: int
) -> Remade:
    """``counted``: what it is known to hold in all; ``at_us``: when the block before it was collected.

    *Blocks* for one read of its files.
    """
    table = BlockTable(group.first, group.last)
    shares = []
    for number in sorted(group.files):
        files = [found.staged(folders) for found in group.files[number]]
        for found in group.files[number]:
            _read(folders, found, table)
        files += _absent_files(whose, group, number, _less(group.said(number), group.there(number)))
        said = group.said(number)
        shares.append(ShareStaged(number, said.rows, said.resends, said.rejects, tuple(files)))
    unseen = _less(counted, group.counted())
    for number in sorted(set(range(1, group.shares + 1)) - set(group.files)):
        files = [*_absent_files(whose, group, number, unseen)]
        shares.append(ShareStaged(number, unseen.rows, unseen.resends, unseen.rejects, tuple(files)))
        unseen = Totals()
    there = Totals()
    for number in group.files:
        there += group.there(number)
    absent = _less(counted, there)
    intent = Intent(
        batch=group.first,
        last=group.last,
        shares=tuple(sorted(shares, key=lambda share: share.share)),
        blocks=table.counts(absent, group.connections(), at_us=at_us),
        before=before,
        held_us=group.held_us,
    )
    return Remade(intent, retirement(intent), absent)


def unseen_batch(
    whose: Whose, first: int, last: int, counted: Totals, *, before: Totals, held_us: int, at_us: int
) -> Remade:
    """A batch that brought no file which is there: only how much it was is known."""
    table = BlockTable(first, last)
    group = Group(first, last, 1, before, (0, 0), (held_us, held_us))
    files = tuple(_absent_files(whose, group, 1, counted, at_us=at_us))
    share = ShareStaged(1, counted.rows, counted.resends, counted.rejects, files)
    intent = Intent(first, last, (share,), table.counts(counted, (), at_us=at_us), before, (held_us, held_us))
    return Remade(intent, retirement(intent), counted)


def _absent_files(
    whose: Whose, group: Group, share: int, absent: Totals, *, at_us: int = 0
) -> Iterator[StagedFile]:
    for kind, name in COUNTED.items():
        if rows := getattr(absent, name):
            final = part_path(
                kind,
                whose.stream,
                whose.instance,
                first=group.first,
                last=group.last,
                share=_ABSENT_SHARE,
                hour=at_us // _HOUR_US,
            )
            yield StagedFile(kind, "", final.replace("-0.parquet", f"-0-of-{share}.parquet"), 0, b"", rows)


def retirement(intent: Intent) -> Retired | None:
    absent = [file for share in intent.shares for file in share.files if not file.sha256]
    if not absent:
        return None
    files = tuple(RetiredFile(file.final, file.sha256) for file in absent)
    return Retired(files, REASON, (), 0)


def _less(whole: Totals, part: Totals) -> Totals:
    counts = [max(0, getattr(whole, name) - getattr(part, name)) for name in ("rows", "resends", "rejects")]
    return Totals(sum(counts), *counts)


def _read(folders: Folders, found: Found, table: BlockTable) -> None:
    if found.kind not in COUNTED:
        return
    opened = OpenFile(folders.disk, found.path(folders))
    try:
        for place in Part(opened).places(ids=False, times=found.kind is not FileKind.RESENDS):
            table.add(found.kind, place.block, place.line, place.collected_at_us)
    finally:
        opened.close()
