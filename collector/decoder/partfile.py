"""One Parquet file on its way to being staged: rows in, row groups out, synced and checked.

Run by the decoder processes. Invariant: ``finish`` returns only for a file whose content is durable
and whose footer, read back from the disk, counts the rows that were added.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from collector.core.messages import FileKind, StagedFile
from collector.decoder.schema import ID_COLUMNS
from collector.errors import StorageError
from collector.storage.fs import Disk, FileWriter
from collector.storage.layout import below_state

OWN_MODE: Final = 0o600
"""Of files in the state folder."""

WRITE_BATCH_ROWS: Final = 1 << 16

DICTIONARY_BYTES: Final = 2 << 20
"""Of a leaf in a row group. Beyond it the rest of its values stand there as they are.

Source: all values of eVars, as the simulator repeats them, find room, which takes 0.6 us a hit less than with
1 MiB, pyarrow's own limit, and makes a part a third smaller. If no two were alike it would take 0.6 us more
than with 1 MiB, 0.8 us more than without a dictionary, and make a part 5 % larger than without.
"""

_NO_DICTIONARY: Final = frozenset({*ID_COLUMNS, "raw"})
"""Leaves whose values hardly repeat: a dictionary takes 0.03 us a hit more for each id."""

_STATISTICS: Final = frozenset({*ID_COLUMNS, "receivedTimeGMT", "timeGMT", "collector_block"})
"""Leaves with minimum and maximum, beside all timestamps: what queries and tables skip files by."""


def staged_file(
    disk: Disk, folder: Path, staged: str, *, kind: FileKind, final: str, rows: int
) -> StagedFile:
    """Describe a synced file by what the disk gives back."""
    path = folder / staged
    return StagedFile(
        kind=kind, staged=staged, final=final, size=disk.size(path), sha256=disk.sha256(path), rows=rows
    )


class PartFile:
    """Rows of one schema that go to one file. The file is made when its first row group is written."""

    def __init__(
        self, disk: Disk, folder: Path, name: str, kind: FileKind, schema: pa.Schema, *, mode: int
    ) -> None:
        self.name = name
        self.kind = kind
        self.rows = 0
        self.waiting_bytes = 0
        """Of rows that are not written yet."""
        self._disk = disk
        self._folder = folder
        self._schema = schema
        self._mode = OWN_MODE if below_state(kind) else mode
        self._waiting: list[pa.RecordBatch] = []
        self._file: FileWriter | None = None
        self._writer: pq.ParquetWriter | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self.rows += batch.num_rows
        self.waiting_bytes += batch.nbytes

    def write(self) -> None:
        """Write what waits as one row group. *Raises* NoSpaceError, StorageError."""
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting = []
        self.waiting_bytes = 0
        self._opened().write_table(table, row_group_size=max(1, table.num_rows))

    def finish(self, final: str, metadata: Mapping[str, str]) -> StagedFile:
        """Write the rest and the footer, sync, reopen, check. *Raises* NoSpaceError, StorageError."""
        if self._waiting:
            self.write()
        writer = self._opened()
        writer.add_key_value_metadata(dict(metadata))
        writer.close()
        if self._file is not None:
            self._file.sync()
            self._file.close()
        self._check()
        return staged_file(self._disk, self._folder, self.name, kind=self.kind, final=final, rows=self.rows)

    def abandon(self) -> None:
        """Give back what is held for it. The file stays as it is."""
        self._waiting = []
        if self._writer is not None:
            self._writer.is_open = False  # no footer for it
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Remove the file, whatever state it is in."""
        self.abandon()
        path = self._folder / self.name
        if self._disk.exists(path):
            self._disk.unlink(path)

    def _opened(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._file = self._disk.create_writer(self._folder / self.name, self._mode)
            self._writer = part_writer(self._file, self._schema)
        return self._writer

    def _check(self) -> None:
        path = self._folder / self.name
        fd = self._disk.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            rows = _rows_in(self._disk.map_read_only(fd))
        finally:
            self._disk.close(fd)
        if rows != self.rows:
            raise StorageError(f"{path} was written with {self.rows} rows and reads back with {rows}")


def part_writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """As every part is written."""
    dictionaries: Any = [leaf for leaf, _ in leaves(schema) if leaf not in _NO_DICTIONARY]
    statistics = [leaf for leaf, kind in leaves(schema) if leaf in _STATISTICS or pa.types.is_timestamp(kind)]
    return pq.ParquetWriter(
        pa.PythonFile(file),
        schema,
        version="2.6",
        compression="zstd",
        compression_level=1,
        use_dictionary=dictionaries,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
        write_statistics=statistics,
        write_batch_size=WRITE_BATCH_ROWS,
        store_schema=False,
    )


def _rows_in(mapping: mmap.mmap) -> int:
    try:
        return int(pq.read_metadata(pa.BufferReader(pa.py_buffer(mapping))).num_rows)
    except pa.ArrowException as error:
        raise StorageError(f"a staged file does not read back: {error}") from error


def leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """Path and type of each Parquet column of a schema. Source: Parquet format, LogicalTypes.md."""
    for field in schema:
        yield from _leaves(field.name, field.type)


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind
