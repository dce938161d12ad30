"""What every peer has in common: its command line, a small conversion before, the clock, and what it reports.

A peer is ``python -m bench.peers.<name> IN.jsonl.gz OUT.parquet``, run from the repository's root, and prints
one JSON line: ``rows`` of the file it wrote, ``warm_cpu_us`` of the whole conversion, ``settings``, ``lacks``
(what it does not do that the collector does) and ``unclaimed`` (the columns whose values are not as sent). It
converts the first hits of the file before the clock starts, so imports and first uses are not counted.
"""

from __future__ import annotations

import gzip
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

WARM_HITS = 100
EVERY_PEER_LACKS = "keeps resends, journals nothing, syncs nothing"


def compete(
    convert: Callable[[Path, Path], object],
    *,
    settings: str,
    lacks: str,
    unclaimed: Sequence[str] = (),
    prepare: Callable[[Path], object] | None = None,
) -> None:
    """Convert the files of the command line. ``prepare`` runs before the clock starts."""
    source, target = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        convert(_few(source, Path(folder)), Path(folder, "few.parquet"))
    if prepare:
        prepare(source)
    began_ns = time.process_time_ns()
    convert(source, target)
    spent_ns = time.process_time_ns() - began_ns
    report(target, spent_ns, settings=settings, lacks=lacks, unclaimed=unclaimed)


def report(target: Path, spent_ns: int, *, settings: str, lacks: str, unclaimed: Sequence[str] = ()) -> None:
    """Print the line that the test reads."""
    numbers = {"rows": pq.read_metadata(target).num_rows, "warm_cpu_us": spent_ns / 1e3}
    lacks = f"{lacks}; {EVERY_PEER_LACKS}"
    print(json.dumps(numbers | {"settings": settings, "lacks": lacks, "unclaimed": list(unclaimed)}))


def _few(source: Path, folder: Path) -> Path:
    few = folder / "few.jsonl.gz"
    with gzip.open(source) as hits:
        few.write_bytes(gzip.compress(b"".join(itertools.islice(hits, WARM_HITS))))
    return few
