"""Which rows of an hour are resends, and the order of the rest: one expression for every engine.

Imported by the engines of ``compact``. Invariant: of all rows with one id the earliest is no double;
a row without an id never is one. Nothing but this expression decides about a row.
"""

from __future__ import annotations

from typing import Final

import ibis
import pyarrow as pa

from collector.decoder.schema import TIME

PLACES: Final = "places"
"""What the table is called that the statement reads."""

PLACES_SCHEMA: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("here", pa.bool_()),
        ("hitIdHigh", pa.decimal128(20, 0)),
        ("hitIdLow", pa.decimal128(20, 0)),
        ("visIdHigh", pa.decimal128(20, 0)),
        ("visIdLow", pa.decimal128(20, 0)),
        ("hit_at", TIME),
        ("collected_at", TIME),
        ("collector_instance", pa.string()),
        ("collector_block", pa.int64()),
        ("collector_line", pa.int32()),
    ]
)
"""A row of the hour (``here``) or of one beside it: in which file it is, and which of its rows.

The rest is what its name says in the parts; three columns name a record for ever.
"""

_ID: Final = ["hitIdHigh", "hitIdLow"]
_SOONEST: Final = ["collected_at", "collector_instance", "collector_block", "collector_line"]
_VISITOR: Final = ["visIdHigh", "visIdLow", "hit_at"]


def judged_rows() -> ibis.Table:
    """Every row of the hour once: ``file``, ``row``, and whether it is a ``double``.

    By visitor and time. The order has no ties, so it is the same wherever it is made.
    """
    # A time zone in the type would make engines differ; the values are UTC everywhere.
    schema = ibis.schema({name: _column(name) for name in PLACES_SCHEMA.names})
    places = ibis.table(schema, name=PLACES)
    same_id = ibis.window(group_by=_ID, order_by=[places[name] for name in _SOONEST])
    has_id = places.hitIdHigh.notnull() & places.hitIdLow.notnull()
    judged = places.mutate(double=has_id & (ibis.row_number().over(same_id) > 0))
    here = judged.filter(judged.here)
    return here.order_by([here[name] for name in (*_VISITOR, *_SOONEST)]).select("file", "row", "double")


def statement(dialect: str) -> str:
    """SQL for an engine that knows a table ``places``."""
    return str(ibis.to_sql(judged_rows(), dialect=dialect))


def _column(name: str) -> str:
    kind = PLACES_SCHEMA.field(name).type
    if pa.types.is_timestamp(kind):
        return "timestamp('UTC', 6)"
    if pa.types.is_decimal(kind):
        return "decimal(20, 0)"
    return {"bool": "boolean"}.get(str(kind), str(kind))
