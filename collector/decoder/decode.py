"""The seam of the decoder: the bytes of a block in; record batches, claims and rejects out.

Run by the decoder processes; no state, no I/O. Invariant: every record of the block is one row or
one reject, in line order, and the same block gives the same rows wherever and whenever it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collector.core.messages import Block, BlockFlag, Oversized
from collector.decoder.columns import (
    Columns,
    Flags,
    Int64s,
    Uint64s,
    finish,
    read_lines,
    trapped_lines,
    unfit_rows,
)
from collector.decoder.patch import patch
from collector.decoder.repair import Refusal, move_everything, repair
from collector.decoder.strict import Degree, Line, misfits
from collector.errors import ProtocolError

_LF: Final = 0x0A


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no hit."""

    line: int
    reason: str
    raw: bytes


@dataclass(slots=True)
class Decoded:
    """A block as rows and rejects. *Shape*: every array has one item per row, in line order."""

    batches: list[pa.RecordBatch]
    """Of ``HITS_SCHEMA``."""
    high: Uint64s
    low: Uint64s
    has_id: Flags
    """Whether the row has both halves of its id; ``high`` and ``low`` say nothing where it has not."""
    lines: npt.NDArray[np.int32]
    """From 0."""
    hours: Int64s
    """Hours since the epoch that the row is filed under."""
    rejects: list[Reject]
    repaired: int
    refused: bool
    """The columnariser found what the usual degree had not looked at, and had to be called again."""
    records: int
    collected_at_us: int


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
    first_line: int = 0
    """Of the first record sent, in its block."""

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
    def block_lines(self) -> npt.NDArray[np.int32]:
        """Of the records that are left, in their block."""
        return np.array(self.numbers, dtype=np.int32) + np.int32(self.first_line)

    @property
    def text(self) -> bytes:
        return b"\n".join([*self.lines, b""])


def decode_block(
    payload: Line, block: Block, *, instance: str, degree: Degree = Degree.USUAL, first_line: int = 0
) -> Decoded:
    """All records of a block. The payload is not held afterwards.

    ``degree`` changes the cost, never the result: ``THOROUGH`` where ``Decoded.refused`` is to be expected.
    ``first_line`` is the number of the first record, where these are some out of a larger block.

    *Raises* ProtocolError when the payload is not what its header says.
    """
    if block.flags & BlockFlag.OVERSIZED:
        return _decoded(block, _Work([], [], [], rejects=[_oversized(payload)]), [])
    ends = line_ends(payload, block)
    sent = _split(payload, ends)
    work = _Work(sent, list(range(len(sent))), list(sent), first_line=first_line)
    odd = work.patch(misfits(sent, degree), degree)
    work.rewrite(sorted({*odd, *trapped_lines(payload, ends)}), repair)
    batches = _columnarise(payload, work)
    return _decoded(block, work, _finished(batches, work.block_lines, block, instance))


def _oversized(payload: Line) -> Reject:
    record = msgspec.msgpack.decode(payload, type=Oversized)
    reason = (
        f"oversized: record of {record.length} bytes is over the limit;"
        f" raw is its first {len(record.head)} bytes, sha256 {record.sha256.hex()}"
    )
    return Reject(0, reason, record.head)


def line_ends(payload: Line, block: Block) -> Int64s:
    """Where each record's LF is. *Raises* ProtocolError when the block's header says something else."""
    ends = np.flatnonzero(np.frombuffer(payload, dtype=np.uint8) == _LF)
    if len(ends) != block.records or (ends[-1] + 1 if len(ends) else 0) != len(payload):
        raise ProtocolError(
            f"block {block.seq} has {len(ends)} line ends in {len(payload)} bytes;"
            f" its header says {block.records} records"
        )
    return ends


def _split(payload: Line, ends: Int64s) -> list[Line]:
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
        work.rewrite(alone, lambda _: Refusal("unreadable: the columnariser refuses it"))
        batches = read_lines(work.text) if work.lines else []
    if batches is None:
        raise ProtocolError("the columnariser refuses a block whose lines it takes one by one")
    return batches


def _finished(
    batches: Iterable[pa.RecordBatch], lines: npt.NDArray[np.int32], block: Block, instance: str
) -> list[Columns]:
    finished = []
    first = 0
    for batch in batches:
        last = first + batch.num_rows
        finished.append(finish(batch, lines[first:last], block, instance))
        first = last
    return finished


def _decoded(block: Block, work: _Work, columns: list[Columns]) -> Decoded:
    def joined(arrays: Iterable[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
        return np.concatenate([np.empty(0, dtype=dtype), *arrays])

    return Decoded(
        batches=[part.batch for part in columns],
        high=joined((part.high for part in columns), np.uint64),
        low=joined((part.low for part in columns), np.uint64),
        has_id=joined((part.has_id for part in columns), np.bool_),
        lines=work.block_lines,
        hours=joined((part.hours for part in columns), np.int64),
        rejects=sorted(
            (replace(reject, line=reject.line + work.first_line) for reject in work.rejects),
            key=lambda reject: reject.line,
        ),
        repaired=len(work.patched | work.repaired),
        refused=work.refused,
        records=block.records,
        collected_at_us=block.collected_at_us,
    )
