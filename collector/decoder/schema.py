"""Every schema the decoder uses, made from the one table of what a hit is (``collector.hit_fields``).

Used by the decoder processes and by the documentation. From ``HIT_FIELDS`` come the columns of the
``hits`` parts, the schema the columnariser reads JSON with, the types of the strict pass, what the
repair knows about each value, and ``docs/schema.md`` (``python -m collector.decoder.schema``).
Invariant: all parts under one schema version have the same columns in the same order; a change here
is a new schema version.
"""

from __future__ import annotations

import sys
from typing import Final

import pyarrow as pa

from collector.hit_fields import (
    EXTRA,
    FIELD_KINDS,
    HIT_FIELDS,
    ID_COLUMNS,
    MAX_EXACT_INTEGER,
    Amount,
    Count,
    Field,
    Flag,
    Id,
    Integer,
    Kind,
    ListOf,
    MapOf,
    Member,
    Object,
    Text,
    Variant,
    Wrapped,
    holds,
)

__all__ = [
    "COLLECTOR_COLUMNS",
    "CONNECTIONS_SCHEMA",
    "EXTRA",
    "FIELD_KINDS",
    "HITS_SCHEMA",
    "HIT_FIELDS",
    "ID_COLUMNS",
    "MAX_EXACT_INTEGER",
    "REJECTS_SCHEMA",
    "RESENDS_SCHEMA",
    "TEXT_MAP",
    "TIME",
    "WIRE_SCHEMA",
    "Amount",
    "Count",
    "Field",
    "Flag",
    "Id",
    "Integer",
    "Kind",
    "ListOf",
    "MapOf",
    "Member",
    "Object",
    "Text",
    "Variant",
    "Wrapped",
    "holds",
]

TIME: Final = pa.timestamp("us", tz="UTC")
TEXT_MAP: Final = pa.map_(pa.string(), pa.string())

_SCALARS: Final[dict[type[Kind], pa.DataType]] = {
    Text: pa.string(),
    Integer: pa.int64(),
    Id: pa.decimal128(20, 0),
    Amount: pa.float64(),
    Count: pa.float64(),
    Flag: pa.bool_(),
}


def _arrow(kind: Kind, *, wire: bool) -> pa.DataType:
    match kind:
        case Object(fields):
            return pa.struct([(member.name, _arrow(member.kind, wire=wire)) for member in fields])
        case ListOf(item):
            return pa.list_(pa.field("element", _arrow(item, wire=wire)))
        case MapOf(value):
            return pa.map_(pa.string(), _arrow(value, wire=wire))
        case Wrapped(key, inner):
            column = _arrow(inner, wire=wire)
            return pa.struct([(key, column)]) if wire else column
        case _:
            return _SCALARS[type(kind)]


def _schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(columns)


def _columns(*, wire: bool) -> list[tuple[str, pa.DataType]]:
    return [(field.name, _arrow(field.kind, wire=wire)) for field in HIT_FIELDS]


COLLECTOR_COLUMNS: Final[tuple[tuple[str, pa.DataType, str], ...]] = (
    (
        "received_at",
        TIME,
        "`receivedTimeGMT`; where it is missing or implausible, `collected_at`. Parts are by it",
    ),
    ("hit_at", TIME, "`timeGMT`; null where it is missing or not in the years 1 to 9999"),
    ("collected_at", TIME, "When the collector sealed the record's block"),
    (EXTRA, TEXT_MAP, "Whatever fits no other column: path to JSON text"),
    ("collector_instance", pa.string(), "State folder that the record was collected with"),
    ("collector_block", pa.int64(), "Block of the record"),
    ("collector_line", pa.int32(), "Line of the record in its block, from 0"),
)

HITS_SCHEMA: Final = pa.schema(
    _columns(wire=False)
    + [
        (
            name,
            column,
        )
        for name, column, _ in COLLECTOR_COLUMNS
    ]
)
"""Of the ``hits`` parts."""

WIRE_SCHEMA: Final = pa.schema([*_columns(wire=True), (EXTRA, TEXT_MAP)])
"""Of the lines given to the columnariser."""

REJECTS_SCHEMA: Final = _schema(
    ("raw", pa.binary()),
    ("reason", pa.string()),
    ("collector_block", pa.int64()),
    ("collector_line", pa.int32()),
    ("collected_at", TIME),
    ("collector_instance", pa.string()),
)

RESENDS_SCHEMA: Final = _schema(
    ("hitIdHigh", pa.decimal128(20, 0)),
    ("hitIdLow", pa.decimal128(20, 0)),
    ("collector_block", pa.int64()),
    ("collector_line", pa.int32()),
)

CONNECTIONS_SCHEMA: Final = _schema(
    ("kind", pa.string()),
    ("connection", pa.int64()),
    ("began_at", TIME),
    ("ended_at", TIME),
    ("opened_at", TIME),
    ("first_byte_at", TIME),
    ("closed_at", TIME),
    ("reason", pa.string()),
    ("detail", pa.string()),
    ("status", pa.int32()),
    ("bytes_received", pa.int64()),
    ("records", pa.int64()),
    ("hits", pa.int64()),
    ("resends", pa.int64()),
    ("rejects", pa.int64()),
    ("wait_s", pa.float64()),
    ("attempts", pa.map_(pa.string(), pa.int64())),
    ("resends_at_start", pa.int64()),
    ("suspected_gap", pa.string()),
    ("suspected_gap_rule", pa.string()),
    ("collector_instance", pa.string()),
)

if __name__ == "__main__":
    from collector.decoder.schemadoc import document

    sys.stdout.write(document())
