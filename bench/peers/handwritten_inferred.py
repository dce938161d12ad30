"""Peer: what one writes by hand at first: gzip, json and ``pyarrow.Table.from_pylist`` without a schema."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.peers.contest import compete
from collector.decoder.schema import ID_COLUMNS


def convert(source: Path, target: Path) -> None:
    with gzip.open(source, "rb") as lines:
        hits = [_with_ids_as_text(json.loads(line)) for line in lines]
    pq.write_table(pa.Table.from_pylist(hits), target, compression="zstd", compression_level=1)


def _with_ids_as_text(hit: dict[str, Any]) -> dict[str, Any]:
    """What is inferred for integers is int64, and half of the ids are larger."""
    return hit | {name: str(hit[name]) for name in ID_COLUMNS if name in hit}


if __name__ == "__main__":
    compete(
        convert,
        settings="gzip, json, from_pylist of the whole file, types inferred, ids as text, zstd 1",
        lacks="drops columns that the first hit has not; maps are structs of all keys seen; all in memory;"
        " one value of another type or one bad line ends it",
        unclaimed=ID_COLUMNS,
    )
