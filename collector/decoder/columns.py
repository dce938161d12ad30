"""From accepted lines to the columns of ``WIRE_SCHEMA``, the plain way.

Run by the decoder processes. One call of arro3 makes the columns; what it lets through is found here:
ids over 64 bits and keys that are twice in a map. Invariant: rows are in line order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import arro3.core
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from arro3.io import read_json

from collector.decoder.schema import (
    FIELD_KINDS,
    HIT_FIELDS,
    ID_COLUMNS,
    WIRE_SCHEMA,
    Kind,
    ListOf,
    MapOf,
    Object,
    Wrapped,
    holds,
)
from collector.decoder.strict import Line

Int32s: TypeAlias = npt.NDArray[np.int32]
Int64s: TypeAlias = npt.NDArray[np.int64]
Uint64s: TypeAlias = npt.NDArray[np.uint64]
Numbers: TypeAlias = npt.NDArray[Any]
"""Of int64 or uint64."""
Flags: TypeAlias = npt.NDArray[np.bool_]

BATCH_ROWS: Final = 1000
"""Source: 10.4 us a hit at 256 rows, 9.9 at 1000, 9.8 at 4096 (3.2 KB hits, one core of an AMD EPYC)."""

ArrowArray: TypeAlias = Any  # the type stubs know no nested arrays

_WIRE: Final = arro3.core.Schema.from_arrow(
    WIRE_SCHEMA
)  # made once: from pyarrow's it costs a millisecond a call


def _any_of(characters: bytes) -> Flags:
    return np.isin(np.arange(256), list(characters))


_TRAPS: Final = (
    tuple(map(_any_of, (b"u", b"dD", b"89abAB", b"4567cdefCDEF"))),
    tuple(map(_any_of, (b"u", b"0", b"0", b"0", b"0"))),
)
"""What follows the backslash of an escape that arro3 0.9 does not survive or gets wrong."""

_MARKS_LIMIT: Final = 1 << 24


def read_lines(text: Line) -> list[pa.RecordBatch] | None:
    """Lines, each ended by LF, as batches of ``WIRE_SCHEMA``; ``None``: something in them does not fit.

    Only for lines that the strict pass took or the repair made. The buffer is not held afterwards.
    """
    try:
        return list(pa.RecordBatchReader.from_stream(read_json(text, _WIRE, batch_size=BATCH_ROWS)))
    except pa.ArrowException:
        return None


def trapped_lines(payload: Line, ends: Int64s) -> list[int]:
    r"""Lines with an escape that arro3 must not meet before they are repaired.

    Characters of the even planes, such as ``"\udb40\udc67"``, it takes for others: it puts the two
    halves together by OR where it should add; the repair spells them in UTF-8. ``"\u0000"`` in a value
    it refuses ends up in the text of its error and aborts the process; of a repaired line it refuses
    nothing. ``ends`` is where the payload's LFs are.
    """
    text = np.frombuffer(payload, dtype=np.uint8)
    escapes = np.flatnonzero(text == ord("\\"))
    found = [np.searchsorted(ends, _followed_by(trap, text, escapes)) for trap in _TRAPS]
    lines: list[int] = np.unique(np.concatenate(found)).tolist()
    return lines


def _followed_by(trap: Sequence[Flags], text: npt.NDArray[np.uint8], at: Int64s) -> Int64s:
    for offset, allowed in enumerate(trap, start=1):
        at = at[at + offset < len(text)]
        at = at[allowed[text[at + offset]]]
    return at


def unfit_rows(batch: pa.RecordBatch) -> set[int]:
    """Rows of a ``WIRE_SCHEMA`` batch with an id over 64 bits or a key twice in one map."""
    found: set[int] = set()
    for name in ID_COLUMNS:
        found.update(np.flatnonzero(_words(batch.column(name))[:, 1]).tolist())
    rows = np.arange(batch.num_rows)
    for name in _MAPPED:
        found.update(_doubled(batch.column(name), FIELD_KINDS[name], rows))
    return found


def _values(column: ArrowArray, dtype: str, per_value: int) -> npt.NDArray[Any]:
    """The column's value buffer without copying; what stands at nulls is anything."""
    values = np.frombuffer(column.buffers()[1] or b"", dtype=dtype)
    return values[column.offset * per_value : (column.offset + len(column)) * per_value]


def _known(column: ArrowArray) -> Flags:
    if column.null_count == 0:
        return np.ones(len(column), dtype=np.bool_)
    known: Flags = column.is_valid().to_numpy(zero_copy_only=False)
    return known


def integers(column: ArrowArray) -> tuple[Int64s, Flags]:
    """Values and which of them are not null. *Shape*: one of each per row."""
    return _values(column, "<i8", 1), _known(column)


def _words(column: ArrowArray) -> npt.NDArray[np.uint64]:
    """*Shape*: (n, 2): lower and upper 64 bits of decimals; 0 at nulls."""
    words = _values(column, "<u8", 2).reshape(-1, 2)
    if column.null_count:
        words = np.where(_known(column)[:, None], words, np.uint64(0))
    return words


def ids(column: ArrowArray) -> tuple[Uint64s, Flags]:
    """As ``integers``, of a column of ids."""
    return np.ascontiguousarray(_words(column)[:, 0]), _known(column)


# ---------------------------------------------------------------- keys that are twice in a map


_MAPPED: Final = tuple(field.name for field in HIT_FIELDS if holds(field.kind, MapOf))


def _doubled(column: ArrowArray, kind: Kind, rows: Int64s) -> set[int]:
    """Rows (of those the column's items belong to) where a map has a key twice. No map is inside another."""
    match kind:
        case Wrapped(_, inner):
            return _doubled(column.field(0), inner, rows)
        case Object(fields):
            found: set[int] = set()
            for member in fields:
                if holds(member.kind, MapOf):
                    found |= _doubled(column.field(member.name), member.kind, rows)
            return found
        case ListOf(item):
            values, owners = _children(column, column.values)
            return _doubled(values, item, rows[owners])
        case MapOf():
            keys, owners = _children(column, column.keys)
            return set(rows[_with_doubles(keys, owners, len(column))].tolist())
        case _:
            return set()


def _children(column: ArrowArray, children: ArrowArray) -> tuple[ArrowArray, Int64s]:
    """A list's or map's children and the position of the list or map each belongs to."""
    offsets = np.asarray(column.offsets)
    first, last = int(offsets[0]), int(offsets[-1])
    return children.slice(first, last - first), np.repeat(np.arange(len(column)), np.diff(offsets))


def _with_doubles(keys: ArrowArray, owners: Int64s, maps: int) -> Int64s:
    if len(owners) < 2 or not (owners[1:] == owners[:-1]).any():
        return owners[:0]
    encoded = keys.dictionary_encode()
    pairs = owners * len(encoded.dictionary) + np.asarray(encoded.indices)
    if maps * len(encoded.dictionary) <= _MARKS_LIMIT:
        marks = np.zeros(maps * len(encoded.dictionary), dtype=np.bool_)
        marks[pairs] = True
        if np.count_nonzero(marks) == len(pairs):
            return owners[:0]
    pairs.sort()
    return np.unique(pairs[1:][pairs[1:] == pairs[:-1]] // len(encoded.dictionary))
