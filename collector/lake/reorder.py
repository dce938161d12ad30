"""The wide pass: the rows that stay, from many files into few, in the order that was decided.

Used by ``compact``. Whole hits never go through an engine: which rows stay, and in which order, is known
by now, so they are moved once into buckets of neighbouring places and each bucket is put in order in
memory. Invariant: memory is bounded by ``memory_bytes`` whatever the size of the hour; every place of the
order is written once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collector.core.compaction import HourFile
from collector.decoder.schema import HITS_SCHEMA
from collector.errors import VerificationError
from collector.lake.places import Checked
from collector.storage.fs import Disk, FileWriter

_POSITION: Final = "position"
_SPILLED_SCHEMA: Final = HITS_SCHEMA.append(pa.field(_POSITION, pa.int64()))
_SPILLED: Final = pa.ipc.IpcWriteOptions(compression="lz4")

_GROUP_BYTES: Final = 48 << 20
"""Arrow memory of the rows of a row group."""

_BUCKET_SHARE: Final = 8
"""A bucket is in memory twice while it is put in order, beside what a row group needs to be written."""

_CHUNK_BYTES: Final = 32 << 20
"""Arrow memory of the rows that are moved at a time."""

_SAMPLE_FILES: Final = 8
_SAMPLE_ROWS: Final = 1000
_DOUBLE: Final = -2
_UNSEEN: Final = -1


@dataclass(frozen=True, slots=True)
class Order:
    """What the engine decided. *Shape* of ``positions``: one for each row of the inputs, in their order."""

    positions: NDArray[np.int64]
    """Its place among the rows that stay; negative: it is a double."""
    kept: int
    doubles: int


def take_order(judged: Iterable[pa.RecordBatch], inputs: Sequence[HourFile], scratch: Path) -> Order:
    """In a mapped file: 8 bytes a row that need not be in memory.

    *Raises* VerificationError where the engine named a row twice, none, or one that there is not.
    """
    rows = sum(file.rows for file in inputs)
    offsets = np.cumsum([0, *(file.rows for file in inputs)])
    positions = np.memmap(scratch / "positions", np.int64, "w+", shape=(max(1, rows),))[:rows]
    positions[:] = _UNSEEN
    kept = doubles = 0
    for batch in judged:
        file, row = (batch.column(name).to_numpy() for name in ("file", "row"))
        double = batch.column("double").to_numpy(zero_copy_only=False)
        at = offsets[file] + row
        count = int(np.count_nonzero(double))
        positions[at[double]] = _DOUBLE
        positions[at[~double]] = np.arange(kept, kept + len(at) - count)
        kept, doubles = kept + len(at) - count, doubles + count
    if kept + doubles != rows or (positions == _UNSEEN).any():
        raise VerificationError(f"the engine judged {kept + doubles:,} rows of {rows:,}, or not each once")
    return Order(positions, kept, doubles)


@dataclass(frozen=True, slots=True)
class Sizes:
    """*Units*: rows."""

    group: int
    bucket: int
    chunk: int


def sizes_of(checked: Checked, inputs: Sequence[HourFile], memory_bytes: int) -> Sizes:
    """By the first rows of some of the files."""
    step = max(1, len(inputs) // _SAMPLE_FILES)
    bytes_a_row = 1.0
    for file in inputs[::step]:
        with checked.opened(file) as parquet:
            for batch in parquet.iter_batches(_SAMPLE_ROWS, use_threads=False):
                bytes_a_row = max(bytes_a_row, batch.nbytes / max(1, batch.num_rows))
                break
    group = max(1, int(_GROUP_BYTES / bytes_a_row))
    groups = max(1, memory_bytes // _BUCKET_SHARE // _GROUP_BYTES)
    return Sizes(group, group * groups, max(1, int(_CHUNK_BYTES / bytes_a_row)))


def in_order(
    checked: Checked,
    disk: Disk,
    scratch: Path,
    inputs: Sequence[HourFile],
    order: Order,
    *,
    sizes: Sizes,
    chosen: Callable[[NDArray[np.int64], NDArray[np.int32]], None],
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    """Row groups, the last of each bucket perhaps a smaller one.

    ``chosen`` is told block and line of every row that stays, as its input has it.

    *Raises*: DamagedError, ChangedError, NoSpaceError, StorageError.
    """
    count = -(-order.kept // sizes.bucket)
    # One bucket stays in memory.
    buckets = [_Bucket(disk, scratch / f"bucket-{n}" if count > 1 else None) for n in range(count)]
    try:
        for chunk in _chunks(checked, inputs, order, sizes, progress):
            chosen(chunk.column("collector_block").to_numpy(), chunk.column("collector_line").to_numpy())
            _deal(chunk, buckets, sizes.bucket)
        for number, bucket in enumerate(buckets):
            first = number * sizes.bucket
            rows = min(sizes.bucket, order.kept - first)
            yield from bucket.ordered(first, rows, sizes.group)
            progress(sum(file.size for file in inputs) * rows // order.kept)
    finally:
        for bucket in buckets:
            bucket.discard()


def _chunks(
    checked: Checked,
    inputs: Sequence[HourFile],
    order: Order,
    sizes: Sizes,
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    """The rows that stay, with their positions, as they come."""
    first = 0
    for file in inputs:
        with checked.opened(file) as parquet:
            for batch in parquet.iter_batches(sizes.chunk, use_threads=False):
                position = order.positions[first : first + batch.num_rows]
                first += batch.num_rows
                stays = np.flatnonzero(position >= 0)
                whole = pa.RecordBatch.from_arrays(
                    [*(batch.column(f.name).cast(f.type) for f in HITS_SCHEMA), pa.array(position)],
                    schema=_SPILLED_SCHEMA,
                )
                yield whole if len(stays) == len(position) else whole.take(pa.array(stays))
        progress(file.size)


def _deal(chunk: pa.RecordBatch, buckets: Sequence[_Bucket], bucket_rows: int) -> None:
    if len(buckets) == 1:
        buckets[0].add(chunk)
        return
    of_bucket = chunk.column(_POSITION).to_numpy() // bucket_rows
    sorted_chunk = chunk.take(pa.array(np.argsort(of_bucket, kind="stable")))
    edges = np.searchsorted(np.sort(of_bucket), np.arange(len(buckets) + 1))
    for number, bucket in enumerate(buckets):
        if edges[number] < edges[number + 1]:
            bucket.add(sorted_chunk.slice(edges[number], edges[number + 1] - edges[number]))


class _Bucket:
    """Rows of neighbouring positions, in the order they came. ``path``: where they wait; else in memory."""

    def __init__(self, disk: Disk, path: Path | None) -> None:
        self._disk = disk
        self._path = path
        self._batches: list[pa.RecordBatch] = []
        self._file: FileWriter | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        if self._path is None:
            self._batches.append(batch)
            return
        if self._writer is None:
            self._file = self._disk.create_writer(self._path)
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._file), _SPILLED_SCHEMA, options=_SPILLED)
        self._writer.write_batch(batch)

    def ordered(self, first: int, rows: int, group_rows: int) -> Iterator[pa.RecordBatch]:
        """Once; then it is empty. *Raises* VerificationError where a place got no row, or two."""
        pieces = self._pieces()
        position = pa.concat_arrays(pieces.pop()).to_numpy() - first
        index = np.full(rows, -1, np.int64)
        if len(position) == rows:
            index[position] = np.arange(rows)
        if (index < 0).any():
            raise VerificationError(f"{len(position):,} rows came for {rows:,} places, or not one for each")
        order = pa.array(index)
        # One column at a time: only one is in memory twice.
        columns = [pa.concat_arrays(pieces.pop()).take(order) for _ in HITS_SCHEMA]
        whole = pa.RecordBatch.from_arrays(columns[::-1], schema=HITS_SCHEMA)
        del columns
        for at in range(0, rows, group_rows):
            yield whole.slice(at, group_rows)

    def _pieces(self) -> list[list[pa.Array]]:
        """By column."""
        batches, self._batches = self._batches, []
        if self._writer is not None and self._file is not None and self._path is not None:
            self._writer.close()
            self._file.flush()
            self._file.close()
            self._writer = None
            with contextlib.closing(pa.OSFile(str(self._path))) as file, pa.ipc.open_stream(file) as stream:
                batches = list(stream)
            self._disk.unlink(self._path)
        return [[batch.column(at) for batch in batches] for at in range(len(_SPILLED_SCHEMA))]

    def discard(self) -> None:
        self._batches = []
        if self._file is not None:
            self._file.close()
        if self._path is not None and self._disk.exists(self._path):
            self._disk.unlink(self._path)
