"""One committed file as it is on disk: is it whole, and does it say what the log says.

Runs in ``verify``, reads only. Invariant: nothing of a file is believed that the descriptor it was
hashed through did not give.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from collector.core.entries import ConnectionsIntent
from collector.core.messages import FileKind, StagedFile
from collector.core.resends import U64
from collector.errors import StorageError
from collector.storage.fs import Disk
from collector.storage.layout import check_schema_version
from collector.storage.verify.chain import Decided
from collector.storage.verify.findings import Finding, Kind

_READ_BYTES: Final = 1 << 20
_BATCH_ROWS: Final = 1 << 16
_PLACE: Final = ["collector_block", "collector_line"]
_ID: Final = ["hitIdHigh", "hitIdLow"]
_TIME: Final = "collected_at"
_PREFIX: Final = "collector."
_VERSION: Final = re.compile(r"/v=([0-9]+)/")


@dataclass(frozen=True, slots=True)
class Place:
    """Where some rows are from, and their ids where they have one. *Shape*: n, n; m, m with m <= n."""

    block: NDArray[np.int64]
    line: NDArray[np.int32]
    high: U64
    low: U64
    collected_at_us: NDArray[np.int64] | None = None
    """*Shape*: n, where it was asked for."""


class OpenFile:
    """A regular file, open for reading, also as pyarrow wants it. Close it.

    *Raises*: FileNotFoundError; StorageError.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._fd = disk.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        self.closed = False
        found = os.fstat(self._fd)
        self.size = found.st_size
        self.regular = stat.S_ISREG(found.st_mode)
        self._at = 0

    def sha256(self, progress: Callable[[int], None]) -> bytes:
        digest = hashlib.sha256()
        offset = 0
        while chunk := self._disk.pread(self._fd, _READ_BYTES, offset):
            digest.update(chunk)
            offset += len(chunk)
            progress(len(chunk))
        return digest.digest()

    def read(self, count: int = -1) -> bytes:
        wanted = self.size - self._at if count < 0 else count
        pieces = []
        while wanted > 0 and (piece := self._disk.pread(self._fd, wanted, self._at)):
            pieces.append(piece)
            wanted -= len(piece)
            self._at += len(piece)
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._disk.close(self._fd)


class Part:
    """A Parquet file that is open. *Raises*: pa.ArrowException, OSError from every method."""

    def __init__(self, file: Any) -> None:
        self._parquet = pq.ParquetFile(pa.PythonFile(file, mode="r"), pre_buffer=False)

    @property
    def rows(self) -> int:
        return int(self._parquet.metadata.num_rows)

    def metadata(self) -> dict[str, str]:
        """What the collector wrote into the footer, without ``collector.`` before each name."""
        pairs = (self._parquet.metadata.metadata or {}).items()
        texts = ((key.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for key, value in pairs)
        return {key.removeprefix(_PREFIX): value for key, value in texts if key.startswith(_PREFIX)}

    def rows_as_dicts(self) -> list[dict[str, Any]]:
        """All of them: of small parts only."""
        return list(self._parquet.read(use_threads=False).to_pylist())

    def places(self, *, ids: bool, times: bool = False) -> Iterator[Place]:
        """A few thousand rows at a time."""
        columns = [*_PLACE, *(_ID if ids else ()), *([_TIME] if times else ())]
        batches = self._parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False)
        for batch in batches:
            block, line = (batch.column(name).to_numpy() for name in _PLACE)
            high, low = _ids(batch) if ids else (np.empty(0, np.uint64), np.empty(0, np.uint64))
            at_us = batch.column(_TIME).cast(pa.int64()).to_numpy() if times else None
            yield Place(block, line, high, low, at_us)


def _ids(batch: pa.RecordBatch) -> tuple[U64, U64]:
    halves = [batch.column(name) for name in _ID]
    high, low = (_low_words(half) for half in halves)
    if not any(half.null_count for half in halves):
        return high, low
    both = np.logical_and(*(half.is_valid().to_numpy(zero_copy_only=False) for half in halves))
    return high[both], low[both]


def _low_words(column: Any) -> U64:
    """Of decimals below 2**64. *Source*: Arrow columnar format: 16 bytes each, little-endian."""
    words = np.frombuffer(column.buffers()[1], "<u8")
    return words[2 * column.offset : 2 * (column.offset + len(column)) : 2]


@dataclass(slots=True)
class Checked:
    """What came of one file."""

    findings: list[Finding]
    absent: bool = False
    """There is none under this name."""
    usable: bool = False
    """It is that part, and what ``take`` was given is all of it."""


def check_file(
    disk: Disk,
    root: Path,
    file: StagedFile,
    expected: Mapping[str, str],
    *,
    ids: bool,
    take: Callable[[Place], None],
    progress: Callable[[int], None],
) -> Checked:
    """Everything about one file; its rows go to ``take``. *Blocks* for one read of it.

    ``expected``: what its footer must say.

    *Raises*: StorageError when the disk cannot be read; NewerVersionError.
    """
    path = root / file.final
    try:
        opened = OpenFile(disk, path)
    except FileNotFoundError:
        return Checked([], absent=True)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ELOOP:
            return Checked([Finding(Kind.NO_FILE, str(path), "a symbolic link", "a regular file")])
        raise
    try:
        if not opened.regular:
            return Checked([Finding(Kind.NO_FILE, str(path), "a folder or a device", "a regular file")])
        return _checked(opened, path, file, expected, ids=ids, take=take, progress=progress)
    finally:
        opened.close()


def places_of(disk: Disk, path: Path) -> Iterator[Place]:
    """With ids, as far as it can be read: what is wrong with the file is not said here."""
    try:
        opened = OpenFile(disk, path)
    except (FileNotFoundError, StorageError):
        return
    with contextlib.closing(opened), contextlib.suppress(pa.ArrowException, OSError, KeyError):
        yield from Part(opened).places(ids=True)


def _checked(
    opened: OpenFile,
    path: Path,
    file: StagedFile,
    expected: Mapping[str, str],
    *,
    ids: bool,
    take: Callable[[Place], None],
    progress: Callable[[int], None],
) -> Checked:
    checked = Checked([])

    def fault(kind: Kind, found: object, wanted: object) -> None:
        checked.findings.append(Finding(kind, str(path), str(found), str(wanted)))

    sha256 = opened.sha256(progress)
    if opened.size != file.size:
        fault(Kind.SIZE, f"{opened.size} bytes", file.size)
    elif sha256 != file.sha256:
        fault(Kind.HASH, f"sha256 {sha256.hex()}", file.sha256.hex())
    try:
        part = Part(opened)
        rows, metadata = part.rows, part.metadata()
    except (pa.ArrowException, OSError) as error:
        fault(Kind.UNREADABLE, f"does not open: {error}", "a Parquet file")
        return checked
    check_schema_version(path, metadata.get("schema_version", ""))
    if rows != file.rows:
        fault(Kind.ROWS, f"{rows} rows", file.rows)
    wrong = {name: metadata.get(name, "nothing") for name in expected if metadata.get(name) != expected[name]}
    if wrong:
        fault(Kind.METADATA, _pairs(wrong), _pairs({name: expected[name] for name in wrong}))
        return checked
    if file.kind is FileKind.CONNECTIONS:
        return checked
    try:
        for place in part.places(ids=ids):
            take(place)
    except (pa.ArrowException, OSError, KeyError) as error:
        fault(Kind.UNREADABLE, f"cannot be read to its end: {error}", "whole columns")
        return checked
    checked.usable = True
    return checked


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def expected_metadata(instance: str, stream: str, decided: Decided, file: StagedFile) -> dict[str, str]:
    """What the file's footer must say."""
    expected = {"stream": stream, "instance": instance}
    if (version := _VERSION.search(file.final)) is not None:
        expected["schema_version"] = version[1]
    intent = decided.intent
    if isinstance(intent, ConnectionsIntent):
        return expected | {"first_entry": str(intent.first), "last_entry": str(intent.last)}
    share = next(share for share in intent.shares if file in share.files)
    numbers = {
        "first_block": intent.batch,
        "last_block": intent.last,
        "share": share.share,
        "shares": len(intent.shares),
        "share_rows": share.rows,
        "share_resends": share.resends,
        "share_rejects": share.rejects,
        "before_first_block": decided.batch_before[0],
        "before_last_block": decided.batch_before[1],
        "before_records": intent.before.records,
        "before_rows": intent.before.rows,
        "before_resends": intent.before.resends,
        "before_rejects": intent.before.rejects,
    }
    return expected | {name: str(value) for name, value in numbers.items()}
