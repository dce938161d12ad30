"""What ``compact`` takes, beside a plain ``COPY`` of the same rows by DuckDB: ``python -m bench.compacting``.

Prints a line for each: seconds, CPU seconds, rows a second, and the most memory that was resident. The hits
are the simulator's, repeated with ids, visitors, times and places of their own; one in fifty is a resend of a
hit that the other of two collectors took. ``--narrow`` leaves all but the columns of ids and times empty.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.staging import staged
from bench.state import STREAM
from collector.core.entries import BlockCount, Committed, Intent, Made, ShareStaged
from collector.core.messages import Block, BlockFlag, FileKind, StagedFile, Totals
from collector.decoder.decode import Decoded, decode_block
from collector.decoder.partfile import PartFile
from collector.decoder.schema import HITS_SCHEMA
from collector.lake.expression import PLACES_SCHEMA
from collector.simulator.hits import Hits
from collector.storage.commitlog import CommitLog
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder, part_path
from collector.storage.publish import publish

INSTANCES = ("00112233445566aa", "00112233445566bb")
HOUR = 498_600
"""Since the epoch: in November 2026."""

HOUR_US = 3_600_000_000
BLOCK_ROWS = 400
PART_ROWS = 20_000
RESENT_PARTS = 10
"""Every tenth part begins with hits of the part before, which the other collector took: a fifth of it."""

_HASH = np.uint64(0x9E3779B97F4A7C15)


# ---------------------------------------------------------------- what there is to compact


def base_rows(folder: Path, *, narrow: bool) -> pa.Table:
    """Rows of one part, as a decoder writes them."""
    lines = Hits(1).lines(0, PART_ROWS)
    files = staged(folder, _decoded(lines))
    tables = [pq.read_table(folder / file.staged) for file in files if file.kind is FileKind.HITS]
    table = pa.concat_tables(tables).combine_chunks().cast(HITS_SCHEMA)
    if not narrow:
        return table
    kept = {*PLACES_SCHEMA.names, "received_at", "pageName"}
    columns = [
        table[field.name] if field.name in kept else pa.nulls(len(table), field.type) for field in HITS_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=HITS_SCHEMA)


def _decoded(lines: list[bytes]) -> Iterator[Decoded]:
    for seq, first in enumerate(range(0, len(lines), BLOCK_ROWS), 1):
        payload = b"".join(line + b"\n" for line in lines[first : first + BLOCK_ROWS])
        block = Block(seq, 1, 4160, len(payload), BLOCK_ROWS, 1, BlockFlag.UNBOUNDED, HOUR * HOUR_US, seq)
        yield decode_block(payload, block, instance=INSTANCES[0])


def collect(output: Path, rows: int, *, narrow: bool) -> None:
    """Two collectors' parts in turn, committed, in one hour."""
    states = [StateFolder(output / ".state" / name) for name in (STREAM, f"{STREAM}-b")]
    for state, instance in zip(states, INSTANCES, strict=True):
        state.make(DISK)
        log = CommitLog.open(DISK, state.commit_log)
        log.append(Made(instance, STREAM, STREAM, HOUR * HOUR_US))
        log.close()
    base = base_rows(states[0].staging, narrow=narrow)
    for staged_file in states[0].staging.iterdir():
        staged_file.unlink()
    rng = np.random.default_rng(1)
    for part in range(-(-rows // PART_ROWS)):
        side = part % 2
        table = _one_part(base, part, rows, INSTANCES[side], rng)
        _commit(output, states[side], INSTANCES[side], part // 2, table)


def _one_part(base: pa.Table, part: int, rows: int, instance: str, rng: np.random.Generator) -> pa.Table:
    numbers = np.arange(part * PART_ROWS, (part + 1) * PART_ROWS, dtype=np.uint64)
    if part % RESENT_PARTS == RESENT_PARTS - 1:
        numbers[: PART_ROWS // 5] -= np.uint64(PART_ROWS)
    visitors = rng.integers(0, max(1, rows // 10), PART_ROWS, dtype=np.uint64) * _HASH
    times = pa.array(np.sort(rng.integers(HOUR * HOUR_US, (HOUR + 1) * HOUR_US, PART_ROWS)))
    time_type = HITS_SCHEMA.field("collected_at").type
    own = {
        "hitIdHigh": _decimals(numbers * _HASH),
        "hitIdLow": _decimals(numbers * _HASH ^ np.uint64(0xABCDEF)),
        "visIdHigh": _decimals(visitors),
        "visIdLow": _decimals(visitors >> np.uint64(3)),
        **{name: times.cast(time_type) for name in ("received_at", "hit_at", "collected_at")},
        "collector_instance": pa.array([instance] * PART_ROWS),
        "collector_block": pa.array(
            part // 2 * PART_ROWS // BLOCK_ROWS + np.arange(PART_ROWS) // BLOCK_ROWS + 1
        ),
        "collector_line": pa.array((np.arange(PART_ROWS) % BLOCK_ROWS).astype(np.int32)),
    }
    columns = [own.get(field.name, base[field.name]) for field in HITS_SCHEMA]
    return pa.Table.from_arrays(columns, schema=HITS_SCHEMA)


def _commit(output: Path, state: StateFolder, instance: str, number: int, table: pa.Table) -> None:
    blocks = PART_ROWS // BLOCK_ROWS
    first, last = number * blocks + 1, (number + 1) * blocks
    final = part_path(FileKind.HITS, STREAM, instance, first=first, last=last, share=1, hour=HOUR)
    part = PartFile(DISK, state.staging, "part.parquet", FileKind.HITS, HITS_SCHEMA, mode=0o644)
    for batch in table.to_batches(max_chunksize=7_000):
        part.add(batch)
        part.write()
    file: StagedFile = part.finish(final, {})
    counts = tuple(BlockCount(seq, 1, BLOCK_ROWS, BLOCK_ROWS, 0, 0, 0) for seq in range(first, last + 1))
    before = Totals((first - 1) * BLOCK_ROWS, (first - 1) * BLOCK_ROWS, 0, 0)
    log = CommitLog.open(DISK, state.commit_log)
    log.append(Intent(first, last, (ShareStaged(1, PART_ROWS, 0, 0, (file,)),), counts, before, (0, 0)))
    publish(DISK, state, output, [file])
    log.append(Committed(first, last, 0))
    log.close()


def _decimals(values: np.ndarray) -> pa.Array:
    words = np.zeros((len(values), 2), np.uint64)
    words[:, 0] = values
    return pa.Array.from_buffers(pa.decimal128(20, 0), len(values), [None, pa.py_buffer(words.tobytes())])


# ---------------------------------------------------------------- taking the time


COPY = """
import duckdb, sys
output, target, memory, spill = sys.argv[1:]
config = {"memory_limit": memory, "temp_directory": spill, "preserve_insertion_order": False}
connection = duckdb.connect(config=config)
connection.execute(
    f"COPY (FROM read_parquet('{output}/hits/**/part-*.parquet')) TO '{target}'"
    " (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
)
"""


def timed(name: str, rows: int, command: list[str]) -> None:
    """Runs it and prints what it took. *Raises* CalledProcessError."""
    began_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began_s
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, said)
    cpu_s = usage.ru_utime + usage.ru_stime
    print(
        f"{name:<24} {seconds:8.1f} s {cpu_s:8.1f} s CPU {rows / seconds:10,.0f} rows/s"
        f" {cpu_s / rows * 1e6:7.1f} us CPU a row {usage.ru_maxrss / 1024:7,.0f} MiB resident",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--copy", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--folder", type=Path, default=None, help="Where to work; default a temporary folder."
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        output = Path(folder) / "output"
        collect(output, given.rows, narrow=given.narrow)
        parts = list(output.rglob("part-*.parquet"))
        size = sum(part.stat().st_size for part in parts)
        rows = sum(pq.read_metadata(part).num_rows for part in parts)
        kind = "narrow" if given.narrow else "wide"
        print(f"{rows:,} {kind} hits in {len(parts):,} parts, {size / 1e6:,.0f} MB; {given.memory}")
        if given.copy:
            target, spill = Path(folder) / "copy.parquet", Path(folder) / "spill"
            copy = [sys.executable, "-c", COPY, str(output), str(target), given.memory, str(spill)]
            timed("DuckDB COPY", rows, copy)
            target.unlink()
        compact = [sys.executable, "-m", "collector", "compact", "--output", str(output), "--stream", STREAM]
        timed("compact", rows, [*compact, "--memory", given.memory])
        (made,) = output.rglob("compact-*.parquet")
        left = pq.read_metadata(made).num_rows
        print(f"{rows - left:,} doubles removed, {made.stat().st_size / 1e6:,.0f} MB in one file")


if __name__ == "__main__":
    main()
