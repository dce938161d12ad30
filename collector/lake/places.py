"""The narrow pass: where each row of an hour and of the hours beside it is, and its ids, as one file.

Used by ``compact``. Invariant: what is written comes from files whose bytes are those that were committed;
each is read to its end, and hashed, before anything is decided about its rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collector.core.compaction import HourFile
from collector.core.privacy import METADATA_PREFIX
from collector.errors import CollectorError, DamagedError
from collector.lake.expression import PLACES_SCHEMA
from collector.storage.fs import Disk
from collector.storage.verify.parts import OpenFile

_BATCH_ROWS: Final = 1 << 16
_TOLD: Final = frozenset({"file", "row", "here"})
"""Columns that no part has."""

_COLUMNS: Final = [name for name in PLACES_SCHEMA.names if name not in _TOLD]


class ChangedError(CollectorError):
    """Raised when a file went away that was there when the hour was looked at: it is for the next run."""


class Checked:
    """Files whose content was compared with what was committed. Each is hashed once in a run."""

    def __init__(self, disk: Disk, output: Path) -> None:
        self._disk = disk
        self._output = output
        self._good: set[HourFile] = set()
        self.privacy: dict[HourFile, dict[str, str]] = {}
        """What the metadata of each opened file says of hidden fields; no more, for files may be many."""

    @contextlib.contextmanager
    def opened(self, file: HourFile) -> Iterator[pq.ParquetFile]:
        """*Blocks* for one read of it the first time. *Raises* DamagedError, ChangedError, StorageError."""
        path = self._output / file.path
        try:
            handle = OpenFile(self._disk, path)
        except FileNotFoundError as error:
            raise ChangedError(f"{file.path} went away") from error
        with contextlib.closing(handle):
            if file not in self._good:
                self._check(handle, file, path)
            try:
                with pq.ParquetFile(pa.PythonFile(handle, mode="r"), pre_buffer=False) as parquet:
                    if parquet.metadata.num_rows != file.rows:
                        raise DamagedError(f"{path} has {parquet.metadata.num_rows} rows, not {file.rows}")
                    if file not in self.privacy:
                        self.privacy[file] = {
                            key.decode(): value.decode()
                            for key, value in (parquet.metadata.metadata or {}).items()
                            if key.startswith(METADATA_PREFIX.encode())
                        }
                    yield parquet
            except pa.ArrowException as error:
                raise DamagedError(f"{path} cannot be read: {error}; run verify") from error

    def _check(self, handle: OpenFile, file: HourFile, path: Path) -> None:
        if not handle.regular or handle.size != file.size or handle.sha256(lambda _: None) != file.sha256:
            raise DamagedError(
                f"{path} is not the file that was committed; run verify, and put it back from a copy"
            )
        self._good.add(file)


def write_places(
    checked: Checked,
    disk: Disk,
    path: Path,
    inputs: Sequence[HourFile],
    beside: Iterable[HourFile],
    *,
    progress: Callable[[int], None],
) -> None:
    """``file`` is the place in ``inputs``; what is in ``beside`` is not ``here``.

    *Raises*: DamagedError, ChangedError, NoSpaceError, StorageError.
    """
    writer = disk.create_writer(path)
    with contextlib.closing(writer):
        with pq.ParquetWriter(
            pa.PythonFile(writer),
            PLACES_SCHEMA,
            compression="lz4",
            use_dictionary=["collector_instance"],
            write_statistics=False,
            store_schema=False,
        ) as parquet:
            for number, file in enumerate((*inputs, *beside)):
                here = number < len(inputs)
                for batch in _places_of(checked, file, number, here=here):
                    parquet.write_batch(batch)
                if here:
                    progress(file.size)
        writer.flush()


def _places_of(checked: Checked, file: HourFile, number: int, *, here: bool) -> Iterator[pa.RecordBatch]:
    first = 0
    with checked.opened(file) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=_COLUMNS, use_threads=False):
            rows = batch.num_rows
            told: dict[str, Any] = {
                "file": np.full(rows, number, np.int32),
                "row": np.arange(first, first + rows, dtype=np.int64),
                "here": np.full(rows, here, np.bool_),
            }
            arrays = [
                pa.array(told[field.name])
                if field.name in told
                else batch.column(field.name).cast(field.type)
                for field in PLACES_SCHEMA
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=PLACES_SCHEMA)
            first += rows
