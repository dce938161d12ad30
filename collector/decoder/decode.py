"""The seam of the decoder: the bytes of a block in; rows, claims and rejects out.

Run by the decoder processes; no I/O. Invariant: every record of the block is one row or one reject,
in line order, and the same block gives the same rows wherever and whenever it is run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa

from collector.core.messages import Block, BlockFlag, Oversized
from collector.decoder.columns import Flags, Int32s, Int64s, Uint64s
from collector.decoder.plain import PlainRows
from collector.decoder.privacy import Hider
from collector.decoder.rows import HOUR_US, Appended, OpenRows, Reject, RowGroup
from collector.decoder.strict import Degree, Line


@dataclass(frozen=True, slots=True)
class Span:
    """Rows ``[first, last)`` of a group."""

    group: RowGroup
    first: int
    last: int


@dataclass(slots=True)
class Decoded:
    """A block as rows and rejects. *Shape*: every array has one item per row, in line order."""

    spans: list[Span]
    """Where the rows are, in line order."""
    high: Uint64s
    low: Uint64s
    has_id: Flags
    """Whether the row has both halves of its id; ``high`` and ``low`` say nothing where it has not."""
    lines: Int32s
    """From 0."""
    hours: Int64s
    """Hours since the epoch that the row is filed under."""
    rejects: list[Reject]
    repaired: int
    refused: bool
    """The columnariser found what the usual degree had not looked at, and had to be called again."""
    records: int
    collected_at_us: int

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """The rows, of ``HITS_SCHEMA``. Closes their groups."""
        return [span.group.batch().slice(span.first, span.last - span.first) for span in self.spans]


class BlockDecoder:
    """One block after another; their rows go to the group that is open.

    Rows come out without what is hidden of them; rejects have all of it until ``may_keep``.
    """

    def __init__(self, instance: str, open_rows: OpenRows | None = None, hider: Hider | None = None) -> None:
        self._instance = instance
        self._open = open_rows or PlainRows()
        self._hider = hider
        self._group = self._next_group()

    def decode(
        self, payload: Line, block: Block, *, degree: Degree = Degree.USUAL, first_line: int = 0
    ) -> Decoded:
        """All records of a block. The payload is not held afterwards.

        ``degree`` changes the cost, never the result: ``THOROUGH`` where ``Decoded.refused`` is to be
        expected. ``first_line`` is the first record's number, where these are some out of a larger block.

        *Raises* ProtocolError when the payload is not what its header says.
        """
        if block.flags & BlockFlag.OVERSIZED:
            return nothing(block, [replace(_oversized(payload), line=first_line)])
        if self._group.is_closed:
            self._group = self._next_group()
        first = self._open.rows
        appended = self._open.append(payload, block, degree)
        if self._open.rows == first:
            return nothing(block, _named(appended, first_line), refused=appended.refused)
        piece = self._group.add(block, appended.lines + np.int32(first_line), first)
        high, has_high = self._open.numbers("hitIdHigh", first)
        low, has_low = self._open.numbers("hitIdLow", first)
        return Decoded(
            spans=[Span(self._group, first, self._open.rows)],
            high=high,
            low=low,
            has_id=has_high & has_low,
            lines=piece.lines,
            hours=piece.received_us // HOUR_US,
            rejects=_named(appended, first_line),
            repaired=appended.repaired,
            refused=appended.refused,
            records=block.records,
            collected_at_us=block.collected_at_us,
        )

    def may_keep(self, reject: Reject) -> Reject:
        """What of it may reach a file."""
        return reject if self._hider is None else self._hider.reject(reject)

    def _next_group(self) -> RowGroup:
        return RowGroup(self._open, self._instance, self._hider.rows if self._hider is not None else None)


def decode_block(
    payload: Line, block: Block, *, instance: str, degree: Degree = Degree.USUAL, first_line: int = 0
) -> Decoded:
    """One block alone."""
    return BlockDecoder(instance).decode(payload, block, degree=degree, first_line=first_line)


def nothing(block: Block, rejects: list[Reject], *, refused: bool = False) -> Decoded:
    """A block without rows."""
    return Decoded(
        spans=[],
        high=np.empty(0, np.uint64),
        low=np.empty(0, np.uint64),
        has_id=np.empty(0, np.bool_),
        lines=np.empty(0, np.int32),
        hours=np.empty(0, np.int64),
        rejects=rejects,
        repaired=0,
        refused=refused,
        records=block.records,
        collected_at_us=block.collected_at_us,
    )


def _named(appended: Appended, first_line: int) -> list[Reject]:
    """By their lines in the block, ascending."""
    rejects = (replace(reject, line=reject.line + first_line) for reject in appended.rejects)
    return sorted(rejects, key=lambda reject: reject.line)


def _oversized(payload: Line) -> Reject:
    record = msgspec.msgpack.decode(payload, type=Oversized)
    reason = (
        f"oversized: record of {record.length} bytes is over the limit;"
        f" raw is its first {len(record.head)} bytes, sha256 {record.sha256.hex()}"
    )
    return Reject(0, reason, record.head, record.length, record.sha256)
