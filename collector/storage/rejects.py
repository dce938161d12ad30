"""Rejects parts as lines again, for a version of the collector that knows more than the one that wrote them.

Run by ``decode --rejects``. Invariant: a part gives the same lines each time, whichever version reads
it, since reading that was cut short goes on after a number of records; the part itself is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from collector.core.messages import FileKind
from collector.errors import DamagedError
from collector.storage.fs import Disk
from collector.storage.layout import check_schema_version

OVERSIZED: Final = "oversized:"
"""How the reason begins of a reject whose raw bytes are not the whole record."""

LINE_END: Final = b"\r\n"
"""Exactly one CR is dropped before an LF, so that a record which itself ends in CR comes back whole."""

_COLUMNS: Final = ["raw", "reason"]
_BATCH_ROWS: Final = 1024


def rejects_parts(disk: Disk, output: Path, stream: str) -> list[Path]:
    """Of all instances and schema versions, the oldest day first; within a day by instance and block.

    *Raises* NewerVersionError.
    """
    root = output / FileKind.REJECTS
    folders = [
        root / version / f"stream={stream}" / date
        for version in _versions(disk, root)
        for date in _names(disk, root / version / f"stream={stream}", "date=")
    ]
    parts = [
        folder / name
        for folder in folders
        for name in _names(disk, folder, "part-")
        if name.endswith(".parquet")
    ]
    return sorted(parts, key=lambda part: (part.parent.name, part.name))


def version_of(disk: Disk, part: Path) -> str:
    """Of the collector that wrote it. *Raises* DamagedError, NewerVersionError."""
    with _opened(disk, part) as file:
        metadata = file.metadata.metadata or {}
    return bytes(metadata.get(b"collector.version", b"")).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Numbers of the records that cannot be run again."""

    cut: int = 0
    """Only their beginning was kept."""
    withheld: int = 0
    """Nothing was kept: ``[privacy]`` was set."""

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(self.cut + other.cut, self.withheld + other.withheld)


def write_lines(disk: Disk, part: Path, lines: Path) -> LeftOut:
    """The part's whole records as text that ``FileSource`` reads; counts those left out.

    *Blocks* for a read of the part. *Raises* DamagedError, NoSpaceError, StorageError; then no file is left.
    """
    writer = disk.create_writer(lines)
    try:
        # An empty line is no record. Without it a record that begins like gzip would pass for a gzip file.
        writer.write(LINE_END)
        left_out = LeftOut()
        with _opened(disk, part) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                columns: Any = (batch.column(name).to_pylist() for name in _COLUMNS)
                records = [record for record in zip(*columns, strict=True) if record[0] is not None]
                whole = [raw for raw, reason in records if not reason.startswith(OVERSIZED)]
                writer.write(b"".join(raw + LINE_END for raw in whole))
                left_out += LeftOut(len(records) - len(whole), batch.num_rows - len(records))
        writer.flush()
    except BaseException:
        disk.unlink(lines)
        raise
    finally:
        writer.close()
    return left_out


def _versions(disk: Disk, root: Path) -> list[str]:
    names = _names(disk, root, "v=")
    for name in names:
        check_schema_version(root / name, name.removeprefix("v="))
    return names


def _names(disk: Disk, folder: Path, prefix: str) -> list[str]:
    try:
        return [name for name in disk.listdir(folder) if name.startswith(prefix)]
    except FileNotFoundError:
        return []


@contextmanager
def _opened(disk: Disk, part: Path) -> Iterator[pq.ParquetFile]:
    fd = disk.open(part, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        with pq.ParquetFile(pa.BufferReader(pa.py_buffer(disk.map_read_only(fd)))) as file:
            version = (file.metadata.metadata or {}).get(b"collector.schema_version", b"")
            check_schema_version(part, version.decode("ascii", "replace"))
            yield file
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedError(
            f"{part} is no whole rejects part ({error}): put it back from a copy, or move it away"
        ) from error
    finally:
        disk.close(fd)
