"""Peer: Polars' ``read_ndjson`` with a schema."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, by the import

import polars as pl

from bench.peers.contest import compete
from bench.peers.fields import FLAG, ID, INTEGER, NUMBER, TEXT, Dialect

POLARS: Dialect[Any] = Dialect(
    scalars={TEXT: pl.String, INTEGER: pl.Int64, ID: pl.UInt64, NUMBER: pl.Float64, FLAG: pl.Boolean},
    list_of=pl.List,
    map_of=lambda value: pl.Map(pl.String, value),
    struct_of=pl.Struct,
)


def convert(source: Path, target: Path) -> None:
    hits = pl.read_ndjson(gzip.decompress(source.read_bytes()), schema=POLARS.fields())
    hits.write_parquet(target, compression="zstd", compression_level=1)


if __name__ == "__main__":
    compete(
        convert,
        settings="gzip, read_ndjson with a schema (faster than scan_ndjson), POLARS_MAX_THREADS=1, zstd 1",
        lacks="drops unknown fields; the file in memory; a number of another type or one bad line ends it",
    )
