"""How long one commit takes as a table grows: python bench/table_growth.py [--parts 10000] [--format delta].

Parts are real and small; each commit adds ten, as the batch of a busy host does. Said are the median and the
slowest of the last hundred commits at each size, the first one of a new process at the end, and what the
metadata weighs. A local folder, SQLite as the catalog: an object store adds a round trip per object.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from collector.core.messages import FileKind
from collector.core.shipping import ShipPlan
from collector.decoder.partfile import part_writer
from collector.decoder.schema import HITS_SCHEMA
from collector.lake.tables import Commit, Table, TablePart, open_table
from collector.storage.layout import part_path

INSTANCE, STREAM = "00112233445566ff", "shop"
SIZES = (100, 1000, 2500, 5000, 10_000, 20_000)
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
PARTS_AN_HOUR = 60


def made_part(root: Path, number: int, templates: dict[int, Path]) -> TablePart:
    """The part of batch ``number``: one of each hour is written, the others are links to it."""
    at = BEGIN + timedelta(hours=number // PARTS_AN_HOUR)
    hour = round(at.timestamp()) // 3600
    path = part_path(FileKind.HITS, STREAM, INSTANCE, first=number, last=number, share=1, hour=hour)
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if hour not in templates:
        columns = [
            pa.array([at] * 3 if field.name == "received_at" else [None] * 3, field.type)
            for field in HITS_SCHEMA
        ]
        with open(target, "wb") as file:
            writer = part_writer(file, HITS_SCHEMA)
            writer.write_table(pa.table(columns, schema=HITS_SCHEMA))
            writer.close()
        templates.clear()
        templates[hour] = target
    else:
        target.hardlink_to(templates[hour])
    schema = pq.read_schema(target) if number == 1 else None
    return TablePart(path, target.stat().st_size, 3, schema)


def timed(table: Table, parts: Sequence[TablePart], numbers: range) -> tuple[float, float]:
    """*Units*: seconds of processor, and of clock. The first is what it costs on a host with other work."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    assert table.add(Commit(STREAM, INSTANCE, numbers[0], numbers[-1]), parts)
    return time.process_time() - began_cpu_s, time.perf_counter() - began_s


def metadata_bytes(root: Path) -> tuple[int, int]:
    """Files, and bytes of them."""
    found = [
        path for name in ("hits/_delta_log", "_tables") for path in (root / name).rglob("*") if path.is_file()
    ]
    return len(found), sum(path.stat().st_size for path in found)


def said(form: str, parts: int, taken: Sequence[tuple[float, float]], root: Path) -> str:
    cpu, clock = (sorted(each) for each in zip(*taken, strict=True))
    files, size = metadata_bytes(root)
    median, slowest = (
        f"{of(clock) * 1000:.0f} ms ({of(cpu) * 1000:.0f} of processor)" for of in (statistics.median, max)
    )
    return (
        f"{form:8} {parts:6,} parts: a commit takes {median}, the slowest of {len(taken)} {slowest};"
        f" metadata {files:,} files, {size / 1e6:,.1f} MB"
    )


def run(form: str, parts: int, at_once: int, root: Path) -> None:
    named = {"table_name": "livestream.hits", "table_catalog": f"sqlite:///{root}/_tables/catalog.db"}
    place = {"output": str(root), "state": str(root), "stream": STREAM}
    plan = ShipPlan(**place, table_format=form, **(named if form == "iceberg" else {}))
    table, templates, taken = open_table(plan), dict[int, Path](), list[tuple[float, float]]()
    sizes = iter([*(size for size in SIZES if size < parts), parts])
    size = next(sizes)
    for first in range(1, parts + 1, at_once):
        numbers = range(first, first + at_once)
        taken.append(timed(table, [made_part(root, number, templates) for number in numbers], numbers))
        if numbers[-1] >= size:
            print(said(form, numbers[-1], taken[-100:], root), flush=True)
            size = next(sizes, sys.maxsize)
    numbers = range(parts + at_once, parts + 2 * at_once)
    fresh = timed(open_table(plan), [made_part(root, number, templates) for number in numbers], numbers)
    print(said(form, numbers[-1], [fresh], root) + ", by a new process", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=10, help="parts in one commit")
    parser.add_argument("--format", choices=("delta", "iceberg"), action="append")
    arguments = parser.parse_args()
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    for form in arguments.format or ("delta", "iceberg"):
        root = Path(tempfile.mkdtemp(prefix="table-growth-"))
        try:
            run(form, arguments.parts, arguments.at_once, root)
        finally:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
