"""Peer: DuckDB's ``read_json`` as it comes, types inferred, copied to Parquet."""

from __future__ import annotations

from bench.peers.contest import compete
from bench.peers.duckdb import copy
from collector.decoder.schema import ID_COLUMNS

if __name__ == "__main__":
    compete(
        copy,
        settings="read_json with inferred columns, threads=1, COPY TO Parquet zstd 1, no Bloom filters",
        lacks="ids as DOUBLE, which changes them; maps are structs of all keys seen; types differ by file;"
        " one key sent twice or one bad line ends it",
        unclaimed=ID_COLUMNS,
    )
