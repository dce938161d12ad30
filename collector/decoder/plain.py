"""The plain way from lines to rows: a strict pass, then a columnariser, each a library.

Run by the decoder processes, and the reference for the compiled kernel, which gives the same rows.
Invariant: the columnariser sees only lines that the strict pass took or the repair made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from collector.core.messages import Block
from collector.decoder.columns import (
    Flags,
    Int64s,
    Numbers,
    ids,
    integers,
    read_lines,
    trapped_lines,
    unfit_rows,
)
from collector.decoder.patch import patch
from collector.decoder.repair import UNREADABLE, Refusal, move_everything, repair
from collector.decoder.rows import Appended, Reject
from collector.decoder.schema import ID_COLUMNS
from collector.decoder.strict import Degree, Line, misfits
from collector.errors import ProtocolError

_LF: Final = 0x0A


class PlainRows:
    """``OpenRows`` by msgspec and arro3."""

    name = "plain"

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._firsts: list[int] = []
        """The first row of each."""
        self.rows = 0
        self.nbytes = 0

    def append(self, payload: Line, block: Block, degree: Degree) -> Appended:
        ends = line_ends(payload, block)
        sent = split_lines(payload, ends)
        work = _Work(sent, list(range(len(sent))), list(sent))
        odd = work.patch(misfits(sent, degree), degree)
        work.rewrite(sorted({*odd, *trapped_lines(payload, ends)}), repair)
        for batch in _columnarise(payload, work):
            self._firsts.append(self.rows)
            self._batches.append(batch)
            self.rows += batch.num_rows
            self.nbytes += batch.nbytes
        return Appended(
            lines=np.array(work.numbers, dtype=np.int32),
            rejects=work.rejects,
            repaired=len(work.patched | work.repaired),
            refused=work.refused,
        )

    def numbers(self, name: str, first: int) -> tuple[Numbers, Flags]:
        read = ids if name in ID_COLUMNS else integers
        found = [
            read(batch.column(name))
            for at, batch in zip(self._firsts, self._batches, strict=True)
            if at >= first
        ]
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.bool_)
        values, known = zip(*found, strict=True)
        return np.concatenate(values), np.concatenate(known)

    def take(self) -> pa.RecordBatch:
        batches, self._batches, self._firsts = self._batches, [], []
        self.rows = self.nbytes = 0
        batch: pa.RecordBatch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        return batch


@dataclass(slots=True)
class _Work:
    """The records of a block on their way to rows."""

    sent: list[Line]
    """As they came, by their number in the block."""
    numbers: list[int]
    """Of the records that are left."""
    lines: list[Line]
    """What is to be read for each of them."""
    patched: set[int] = field(default_factory=set)
    """Numbers of the records that were repaired the short way, and may yet have to go the long one."""
    repaired: set[int] = field(default_factory=set)
    """Numbers of the records that were repaired the long way."""
    rejects: list[Reject] = field(default_factory=list)
    refused: bool = False

    def patch(self, positions: Iterable[int], degree: Degree) -> list[int]:
        """Gives the positions that it could do nothing about."""
        left = []
        for position in positions:
            line = patch(self.sent[self.numbers[position]], degree)
            if line is None:
                left.append(position)
            else:
                self.lines[position] = line
                self.patched.add(self.numbers[position])
        return left

    def rewrite(self, positions: Iterable[int], rule: Callable[[Line], bytes | Refusal]) -> None:
        refused = set()
        for position in positions:
            number = self.numbers[position]
            result = rule(self.sent[number])
            if isinstance(result, Refusal):
                self.rejects.append(Reject(number, result.reason, bytes(self.sent[number])))
                refused.add(position)
            else:
                self.lines[position] = result
                self.repaired.add(number)
        if refused:
            kept = [position for position in range(len(self.lines)) if position not in refused]
            self.lines = [self.lines[position] for position in kept]
            self.numbers = [self.numbers[position] for position in kept]

    def not_repaired(self, positions: Iterable[int]) -> list[int]:
        return [position for position in positions if self.numbers[position] not in self.repaired]

    @property
    def untouched(self) -> bool:
        return not self.patched and not self.repaired and not self.rejects

    @property
    def text(self) -> bytes:
        return b"\n".join([*self.lines, b""])


def line_ends(payload: Line, block: Block) -> Int64s:
    """Where each record's LF is. *Raises* ProtocolError when the block's header says something else."""
    ends = np.flatnonzero(np.frombuffer(payload, dtype=np.uint8) == _LF)
    if len(ends) != block.records or (ends[-1] + 1 if len(ends) else 0) != len(payload):
        raise miscounted(payload, block)
    return ends


def miscounted(payload: Line, block: Block) -> ProtocolError:
    """The payload is not what the block's header says."""
    ends = np.count_nonzero(np.frombuffer(payload, dtype=np.uint8) == _LF)
    return ProtocolError(
        f"block {block.seq} has {ends} line ends in {len(payload)} bytes;"
        f" its header says {block.records} records"
    )


def split_lines(payload: Line, ends: Int64s) -> list[Line]:
    view = memoryview(payload)
    lines: list[Line] = []
    begin = 0
    for end in ends.tolist():
        lines.append(view[begin:end])
        begin = end + 1
    return lines


def _columnarise(payload: Line, work: _Work) -> list[pa.RecordBatch]:
    """Batches of the work's lines. Lines that turn out not to fit are repaired, each at most once."""
    text = payload if work.untouched else work.text
    while work.lines:
        batches = read_lines(text)
        if batches is None:
            work.refused = True
            suspects = work.not_repaired(misfits(work.lines, Degree.REPAIRED))
            suspects = suspects or work.not_repaired(range(len(work.lines)))
        else:
            suspects = work.not_repaired(_unfit(batches))
        if not suspects:
            return _last_resort(work) if batches is None else batches
        work.rewrite(suspects, repair)
        text = work.text
    return []


def _unfit(batches: Iterable[pa.RecordBatch]) -> list[int]:
    found: list[int] = []
    first = 0
    for batch in batches:
        found.extend(first + row for row in sorted(unfit_rows(batch)))
        first += batch.num_rows
    return found


def _last_resort(work: _Work) -> list[pa.RecordBatch]:
    """Every line is repaired, and yet the columnariser refuses: never seen, yet nothing must be lost."""
    alone = [position for position, line in enumerate(work.lines) if read_lines(bytes(line) + b"\n") is None]
    work.rewrite(alone, move_everything)
    batches = read_lines(work.text)
    if batches is None:
        work.rewrite(alone, lambda _: UNREADABLE)
        batches = read_lines(work.text) if work.lines else []
    if batches is None:
        raise ProtocolError("the columnariser refuses a block whose lines it takes one by one")
    return batches
