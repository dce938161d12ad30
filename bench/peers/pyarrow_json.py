"""Peer: ``pyarrow.json.read_json`` with the types it knows; it has no maps, so those are inferred."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from bench.peers.contest import compete
from bench.peers.fields import FLAG, ID, INTEGER, NUMBER, TEXT, Dialect

BLOCK_BYTES = 1 << 30


def _struct(fields: Mapping[str, pa.DataType | None]) -> pa.DataType | None:
    known = [(name, kind) for name, kind in fields.items() if kind is not None]
    return pa.struct(known) if known else None


ARROW: Dialect[pa.DataType | None] = Dialect(
    scalars={kind: kind for kind in (TEXT, INTEGER, ID, NUMBER, FLAG)},
    list_of=lambda item: None if item is None else pa.list_(item),
    map_of=lambda _: None,
    struct_of=_struct,
)
KNOWN = pa.schema([(name, kind) for name, kind in ARROW.fields().items() if kind is not None])


def convert(source: Path, target: Path) -> None:
    table = pyarrow.json.read_json(
        source,
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=KNOWN, unexpected_field_behavior="infer"),
    )
    pq.write_table(table, target, compression="zstd", compression_level=1)


if __name__ == "__main__":
    pa.set_cpu_count(1)
    compete(
        convert,
        settings="read_json with the types it has, maps inferred, use_threads=False, blocks of 1 GiB, zstd 1",
        lacks="has no maps: structs of all keys seen; one value of another type, one key sent twice or one"
        " bad line ends it",
    )
