"""Row groups: the rows of many blocks on their way to one record batch of ``hits``.

Run by the decoder processes. A block is appended to the open group and keeps the place of its rows;
closing the group gives all of them at once, since a record batch costs the same for a hundred rows as
for ten thousand. How lines become rows is the twins' affair (``OpenRows``): ``plain`` and ``kernel``.
Invariant: rows stand in the order in which their blocks were appended, and in line order within one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collector.core.messages import Block, BlockFlag
from collector.core.reject_begin import RejectBegin
from collector.decoder.columns import Flags, Int32s, Int64s, Numbers, integers
from collector.decoder.schema import FIELD_KINDS, HITS_SCHEMA, TIME, Kind, Wrapped
from collector.decoder.strict import Degree, Line
from collector.escaping import printable

SHOWN_CHARACTERS: Final = 200
"""Of a reject, to people."""

ArrowArray: TypeAlias = Any  # the type stubs know no nested arrays

Hide: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch]
"""Gives rows of ``WIRE_SCHEMA`` without what is hidden of them."""

S_US: Final = 1_000_000
HOUR_US: Final = 3600 * S_US
DAY_US: Final = 24 * HOUR_US

OLDEST_US: Final = 31 * DAY_US
NEWEST_US: Final = 1 * DAY_US
"""How far ``receivedTimeGMT`` may be before and after ``collected_at`` and still be believed."""

YEAR_1_S: Final = -62_135_596_800
YEAR_9999_S: Final = 253_402_300_799
"""Times outside these years are no timestamps to most engines."""


POISON: Final = "poison"
"""How the reason begins of a reject that decoding itself failed on."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no hit."""

    line: int
    reason: str
    raw: bytes | None
    """``None``: withheld."""
    length: int = 0
    sha256: bytes = b""
    """Of the record, where ``raw`` is not all of it."""

    def begin(self) -> RejectBegin:
        """For people: escaped and shortened."""
        raw = self.raw or b""
        text = raw[:SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")
        return RejectBegin(
            self.line,
            printable(self.reason, SHOWN_CHARACTERS),
            printable(text, SHOWN_CHARACTERS),
            self.length or len(raw),
        )


@dataclass(slots=True)
class Appended:
    """What became of a payload's records. *Shape*: ``lines`` has one item per row, from 0, ascending."""

    lines: Int32s
    rejects: list[Reject] = field(default_factory=list)
    repaired: int = 0
    refused: bool = False
    """The columnariser found what the usual degree had not looked at, and had to be called again."""


class OpenRows(Protocol):
    """Rows of ``WIRE_SCHEMA`` in the making."""

    name: str

    @property
    def rows(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Arrow memory of these rows."""

    def append(self, payload: Line, block: Block, degree: Degree) -> Appended:
        """The records of a block. The payload is not held afterwards.

        *Raises* ProtocolError when the payload is not what the block says.
        """

    def numbers(self, name: str, first: int) -> tuple[Numbers, Flags]:
        """A column of integers or ids from row ``first`` on, which is where an ``append`` began.

        *Shape*: two arrays of one item per row; what stands where the second is False is anything.
        """

    def take(self) -> pa.RecordBatch:
        """All rows, of which there is at least one; none are left."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one block in a group."""

    block: Block
    lines: Int32s
    """Of the block."""
    received_us: Int64s


class RowGroup:
    """Appended to until somebody asks for its batch."""

    def __init__(self, open_rows: OpenRows, instance: str, hide: Hide | None = None) -> None:
        self._open = open_rows
        self._instance = instance
        self._hide = hide
        self._pieces: list[Piece] = []
        self._batch: pa.RecordBatch | None = None
        self._nbytes = 0

    @property
    def is_closed(self) -> bool:
        return self._batch is not None

    @property
    def nbytes(self) -> int:
        return self._open.nbytes if self._batch is None else self._nbytes

    def add(self, block: Block, lines: Int32s, first: int) -> Piece:
        """Say where the rows from ``first`` on are from, which were just appended."""
        received_us = _received_us(*self._open.numbers("receivedTimeGMT", first), block)
        piece = Piece(block, lines, received_us)
        self._pieces.append(piece)
        return piece

    def batch(self) -> pa.RecordBatch:
        """All rows, of ``HITS_SCHEMA``. Closes the group."""
        if self._batch is None:
            self._nbytes = self._open.nbytes
            batch = self._open.take()
            if self._hide is not None:
                batch = self._hide(batch)
            self._batch = finish(batch, self._pieces, self._instance)
        return self._batch


def finish(batch: pa.RecordBatch, pieces: list[Piece], instance: str) -> pa.RecordBatch:
    """Add the collector's columns to rows of ``WIRE_SCHEMA``."""
    counts = [len(piece.lines) for piece in pieces]

    def of_blocks(name: str) -> Int64s:
        return np.repeat(np.array([getattr(piece.block, name) for piece in pieces], np.int64), counts)

    hit_s, has_time = integers(batch.column("timeGMT"))
    has_time &= (hit_s >= YEAR_1_S) & (hit_s <= YEAR_9999_S)
    arrays = [_column(batch, name, kind) for name, kind in FIELD_KINDS.items()]
    arrays += [
        _times(_joined([piece.received_us for piece in pieces], np.int64)),
        _times(np.where(has_time, hit_s, 0) * S_US, has_time),
        _times(of_blocks("collected_at_us")),
        batch.column("extra"),
        pa.repeat(instance, batch.num_rows),
        pa.array(of_blocks("seq")),
        pa.array(_joined([piece.lines for piece in pieces], np.int32)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=HITS_SCHEMA)


def _joined(arrays: list[Any], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays])


def _column(batch: pa.RecordBatch, name: str, kind: Kind) -> ArrowArray:
    column: ArrowArray = batch.column(name)
    return column.flatten()[0] if isinstance(kind, Wrapped) else column


def _received_us(received_s: Numbers, known: Flags, block: Block) -> Int64s:
    oldest_s = -(-(block.collected_at_us - OLDEST_US) // S_US)
    if block.flags & BlockFlag.UNBOUNDED:
        oldest_s = YEAR_1_S
    newest_s = min((block.collected_at_us + NEWEST_US) // S_US, YEAR_9999_S)
    plausible = known & (received_s >= max(oldest_s, YEAR_1_S)) & (received_s <= newest_s)
    return np.where(plausible, np.where(plausible, received_s, 0) * S_US, block.collected_at_us)


def _times(times_us: Int64s, known: Flags | None = None) -> ArrowArray:
    mask = None if known is None else ~known
    return pa.array(times_us.view("datetime64[us]"), type=TIME, mask=mask)
