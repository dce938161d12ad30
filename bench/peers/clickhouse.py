"""Peer: ClickHouse in this process (chdb), ``JSONEachRow`` with explicit types, into Parquet."""

from __future__ import annotations

from pathlib import Path

from chdb import session

from bench.peers.contest import compete
from bench.peers.fields import FLAG, ID, INTEGER, NUMBER, TEXT, Dialect, listed

SCALARS = {TEXT: "String", INTEGER: "Int64", ID: "Decimal(20, 0)", NUMBER: "Float64", FLAG: "Bool"}
SQL: Dialect[str] = Dialect(
    scalars={kind: f"Nullable({name})" for kind, name in SCALARS.items()},
    list_of="Array({})".format,
    map_of="Map(String, {})".format,
    struct_of=lambda fields: f"Tuple({listed(fields, '`')})",
)
COLUMNS = listed(SQL.fields(), "`")
SETTINGS = (
    "max_threads=1, input_format_parallel_parsing=0, output_format_parquet_parallel_encoding=0,"
    " output_format_parquet_compression_method='zstd', output_format_compression_level=1,"
    " output_format_parquet_write_bloom_filter=0"
)

SESSION = session.Session()


def convert(source: Path, target: Path) -> None:
    SESSION.query(
        f"SELECT * FROM file('{source}', 'JSONEachRow', '{COLUMNS}')"
        f" INTO OUTFILE '{target}' FORMAT Parquet SETTINGS {SETTINGS}"
    )


if __name__ == "__main__":
    compete(
        convert,
        settings=f"chdb, JSONEachRow with explicit columns, {SETTINGS}",
        lacks="drops unknown fields; one number of another type, one key sent twice or one bad line ends it",
    )
