"""Peer: what one writes by hand, with a schema: gzip, json and ``pyarrow.Table.from_pylist``."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.peers.contest import compete
from bench.peers.fields import SCHEMA

CHUNK_ROWS = 2_500


def convert(source: Path, target: Path) -> None:
    writer = pq.ParquetWriter(target, SCHEMA, compression="zstd", compression_level=1)
    with gzip.open(source, "rb") as lines, writer:
        while hits := [json.loads(line) for line in islice(lines, CHUNK_ROWS)]:
            writer.write_table(pa.Table.from_pylist(hits, schema=SCHEMA))


if __name__ == "__main__":
    compete(
        convert,
        settings=f"gzip, json, from_pylist with the schema by {CHUNK_ROWS} rows, zstd 1",
        lacks="drops unknown fields; makes 5 of 5.5; one value of another type or one bad line ends it",
    )
