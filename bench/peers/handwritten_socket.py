"""Peer: what one writes by hand for the stream itself: requests, json and ``pyarrow.Table.from_pylist``.

``python -m bench.peers.handwritten_socket URL CA.pem HITS OUT.parquet`` takes so many hits and prints what
the other peers print. The clock runs from the response's head to the closed file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import requests

from bench.peers.contest import report
from bench.peers.fields import SCHEMA

CHUNK_ROWS = 2_500
READ_BYTES = 64 * 1024
TIMEOUT_S = 30.0


def main() -> None:
    url, ca_file, hits, target = sys.argv[1:]
    headers = {"Accept-Encoding": "gzip"}
    with requests.get(url, stream=True, headers=headers, verify=ca_file, timeout=TIMEOUT_S) as response:
        response.raise_for_status()
        began_ns = time.process_time_ns()
        convert(response, Path(target), int(hits))
        spent_ns = time.process_time_ns() - began_ns
    report(
        Path(target),
        spent_ns,
        settings=f"requests, {READ_BYTES // 1024} KiB at a time, json, from_pylist with the schema by"
        f" {CHUNK_ROWS} rows, zstd 1",
        lacks="drops unknown fields; makes 5 of 5.5; one value of another type or one bad line ends it,"
        " and what it has received is lost",
    )


def convert(response: requests.Response, target: Path, hits: int) -> None:
    lines = islice(_hits(response), hits)
    with pq.ParquetWriter(target, SCHEMA, compression="zstd", compression_level=1) as writer:
        while rows := list(islice(lines, CHUNK_ROWS)):
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def _hits(response: requests.Response) -> Iterator[dict[str, Any]]:
    """An empty line is no hit: the stream has some, and ``iter_lines`` makes one of a CRLF cut in two."""
    return (json.loads(line) for line in response.iter_lines(READ_BYTES) if line)


if __name__ == "__main__":
    main()
