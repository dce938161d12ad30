"""Peer: DuckDB's ``read_json`` with explicit types, copied to Parquet."""

from __future__ import annotations

from pathlib import Path

import duckdb

from bench.peers.contest import compete
from bench.peers.fields import FLAG, ID, INTEGER, NUMBER, TEXT, Dialect, listed

SQL: Dialect[str] = Dialect(
    scalars={TEXT: "VARCHAR", INTEGER: "BIGINT", ID: "DECIMAL(20, 0)", NUMBER: "DOUBLE", FLAG: "BOOLEAN"},
    list_of="{}[]".format,
    map_of="MAP(VARCHAR, {})".format,
    struct_of=lambda fields: "STRUCT(" + listed(fields, '"') + ")",
)
COLUMNS = f", columns = {SQL.fields()}"


def copy(source: Path, target: Path, columns: str = "") -> None:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_json('{source}', format = 'newline_delimited'{columns})) TO '{target}'"
            " (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, WRITE_BLOOM_FILTER false)"
        )


def convert(source: Path, target: Path) -> None:
    copy(source, target, COLUMNS)


if __name__ == "__main__":
    compete(
        convert,
        settings="read_json with explicit columns, threads=1, COPY TO Parquet zstd 1, no Bloom filters",
        lacks="drops unknown fields; makes 6 of 5.5; an object for a list, one key sent twice or one bad line"
        " ends it",
    )
