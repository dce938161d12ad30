"""The output folder as views of DuckDB: ``hits``, ``rejects``, ``connections``, and ``hours`` made of these.

Run by ``query`` and ``demo``; reads only. Invariant: a view has the same columns and types whatever files
there are, none included.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from collector.core.messages import FileKind
from collector.decoder.schema import CONNECTIONS_SCHEMA, HITS_SCHEMA, REJECTS_SCHEMA
from collector.storage.layout import SCHEMA_VERSION, check_schema_version

VIEWS: Final[Mapping[str, str]] = {
    "hits": "one row per hit",
    "rejects": "records that are no hits: raw bytes and reason",
    "connections": "one row per connection and hour, one per gap",
    "hours": "per stream and hour: hits, rejects, resends, gaps, whether it is complete",
}


_PATH_TYPES: Final = "'stream': VARCHAR, 'date': DATE"
_HOUR_IN_PATH: Final = "hour"
"""Unpinned, DuckDB takes hours for numbers where none of them begins with a zero."""


class _Source(NamedTuple):
    schema: pa.Schema
    hour: str
    """Of a row: from the path, or by the time that its path's date is from."""


_SOURCES: Final[Mapping[FileKind, _Source]] = {
    FileKind.HITS: _Source(HITS_SCHEMA, _HOUR_IN_PATH),
    FileKind.REJECTS: _Source(REJECTS_SCHEMA, "strftime(collected_at AT TIME ZONE 'UTC', '%H')"),
    FileKind.CONNECTIONS: _Source(CONNECTIONS_SCHEMA, "strftime(began_at AT TIME ZONE 'UTC', '%H')"),
}

_HOURS: Final = """CREATE OR REPLACE VIEW hours AS
WITH taken AS (
    SELECT stream, date, hour, count(*) AS hits, max(least(received_at, collected_at)) AS seen_until
    FROM hits GROUP BY ALL
), refused AS (
    SELECT stream, date, hour, count(*) AS rejects FROM rejects GROUP BY ALL
), held AS (
    SELECT stream, date, hour, sum(resends)::BIGINT AS resends, max(ended_at) AS seen_until
    FROM connections WHERE kind = 'connection' GROUP BY ALL
), gap AS (
    SELECT stream, began_at AT TIME ZONE 'UTC' AS began, ended_at AT TIME ZONE 'UTC' AS ended,
           list_position(['no', 'possible', 'likely'], suspected_gap) AS suspicion
    FROM connections WHERE kind = 'gap'
), gap_in_hour AS (
    SELECT *, unnest(generate_series(date_trunc('hour', began), ended, INTERVAL 1 HOUR)) AS start FROM gap
), missed AS (
    SELECT stream, start::DATE AS date, strftime(start, '%H') AS hour, count(*) AS gaps,
           round(sum(epoch(least(ended, start + INTERVAL 1 HOUR) - greatest(began, start))), 3) AS gap_s,
           max(suspicion) AS suspicion
    FROM gap_in_hour WHERE start < ended OR began = ended GROUP BY ALL
), watermark AS (
    SELECT stream, max(seen_until) AS seen_until
    FROM (SELECT stream, seen_until FROM taken UNION ALL SELECT stream, seen_until FROM held) GROUP BY ALL
)
SELECT stream, date, hour, coalesce(hits, 0) AS hits, coalesce(rejects, 0) AS rejects, resends,
       coalesce(gaps, 0) AS gaps, coalesce(gap_s, 0) AS gap_s,
       ['no', 'possible', 'likely'][coalesce(suspicion, 1)] AS suspected_gap,
       coalesce(
           date + (hour::INTEGER + 1) * INTERVAL 1 HOUR + INTERVAL '{lateness_s:g} seconds'
           <= watermark.seen_until AT TIME ZONE 'UTC', false
       ) AS complete
FROM taken FULL JOIN refused USING (stream, date, hour) FULL JOIN held USING (stream, date, hour)
     FULL JOIN missed USING (stream, date, hour) LEFT JOIN watermark USING (stream)
ORDER BY stream, date, hour"""


def define_views(database: Any, folder: Path, lateness_s: float = 0) -> None:
    """Make them, or make them anew for the files that there are by now.

    *Blocks* for a look for one file of each kind. *Raises* NewerVersionError.
    """
    for statement in definitions(database, folder, lateness_s):
        database.execute(statement)


def definitions(database: Any, folder: Path, lateness_s: float) -> list[str]:
    """The same as SQL, one statement a view in the order of ``VIEWS``, for any DuckDB."""
    views = [_definition(database, folder, kind, source) for kind, source in _SOURCES.items()]
    return [*views, _HOURS.format(lateness_s=lateness_s)]


def _definition(database: Any, folder: Path, kind: FileKind, source: _Source) -> str:
    root = folder / kind
    for version in root.glob("v=*"):
        check_schema_version(version, version.name.removeprefix("v="))
    columns = [f'"{name}"' for name in source.schema.names]
    root /= f"v={SCHEMA_VERSION}"
    if _has_parts(root):
        files = f"{glob.escape(str(root))}/**/*.parquet".replace("'", "''")
        types = _PATH_TYPES + (", 'hour': VARCHAR" if source.hour == _HOUR_IN_PATH else "")
        rows = f"read_parquet('{files}', hive_partitioning = true, hive_types = {{{types}}})"
        columns += ["stream", "date", f"{source.hour} AS hour"]
        return f"CREATE OR REPLACE VIEW {kind} AS\nSELECT {', '.join(columns)}\nFROM {rows}"
    kinds = database.from_arrow(source.schema.empty_table()).types
    empty = [f"NULL::{of} AS {name}" for name, of in zip(columns, kinds, strict=True)]
    empty += ["NULL::VARCHAR AS stream", "NULL::DATE AS date", "NULL::VARCHAR AS hour"]
    return f"CREATE OR REPLACE VIEW {kind} AS\nSELECT {', '.join(empty)}\nWHERE false"


def _has_parts(root: Path) -> bool:
    return any(name.endswith(".parquet") for _, _, names in os.walk(root) for name in names)
