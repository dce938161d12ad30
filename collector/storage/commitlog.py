"""The commit log: an append-only file of decisions, each durable before it is acted on.

The coordinator writes it. Invariant: an entry that ``append`` numbered is read back for ever, or the
log is reported as damaged; an append that was cut short by a crash is as if it had never been made.

File: header of 16 bytes (magic, version, CRC-32 of both), then frames: u32 length, u32 CRC-32 over
length and payload, payload = msgpack of the first entry's number and the entries. One append is one
frame, so a crash can tear only the last one. All numbers little-endian.

When it has grown, the file is copied into the archive and begun again with one ``Checkpoint``, so that a
start reads no more than that and the tail. Every step of it leaves one whole log under its name.

A last frame that does not check out is torn, or it was durable and is damaged. What tells is
``commit.log.acknowledged``: 20 bytes (magic, number of the last entry that was synced, CRC-32) written
after each sync and not synced themselves. There, they prove; missing or behind, they prove less: a kill
never takes them, a power failure may, and then a damaged last frame passes for a torn one.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from isal.isal_zlib import crc32

from collector.core.entries import Checkpoint, Entry
from collector.core.messages import UNREADABLE
from collector.errors import DamagedError, NewerVersionError, NoSpaceError, StorageError
from collector.storage.fs import Disk

LOG_VERSION: Final = 1
ROTATE_BYTES: Final = 4 << 20
"""Entries behind the checkpoint beyond this go to the archive. Reading and folding them takes 0.1 s."""

_MAGIC: Final = b"LScommit"
_HEADER: Final = struct.Struct("<8sI")
_FRAME: Final = struct.Struct("<II")
_U32: Final = struct.Struct("<I")
_HEADER_BYTES: Final = _HEADER.size + _U32.size
_SEEN_MAGIC: Final = b"LSseen01"
_SEEN: Final = struct.Struct("<8sQ")
REMEDY: Final = "restore the newest copy there is, or make it again: verify --rebuild"
_ARCHIVE_NAME: Final = re.compile(r"([0-9]{12,18})-([0-9]{12,18})\.log")
_RETRY_PARTS: Final = 8
"""A rotation that found no room is tried again after this part of ``rotate_bytes`` more."""


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    first: int
    entries: tuple[Entry, ...]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Frame)

_PAYLOAD_BEGINS: Final = b"\x92"
"""An array of two, as msgpack."""


# ---------------------------------------------------------------- reading


class Append(NamedTuple):
    """One frame: what was appended together. A ``Checkpoint`` stands alone, before all others."""

    first: int
    entries: tuple[Entry, ...]
    end: int
    """Where the frame ends in the file."""

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1


def read_log(data: bytes, path: Path, *, acknowledged: int = 0) -> Iterator[Append]:
    """Every append of a log file, in order, up to one that was torn.

    *Raises*: DamagedError with the offsets: for anything else than a torn end, and when the end comes
    before entry ``acknowledged``. NewerVersionError.
    """
    _check_header(data, path)
    end, last = _HEADER_BYTES, 0
    for append in _frames(data, path):
        if not append.entries or not (append.first == last + 1 or (last == 0 and _is_checkpoint(append))):
            raise DamagedError(
                f"{path}: entries in bytes {end} to {append.end} are numbered from {append.first},"
                f" expected {last + 1}; {REMEDY}"
            )
        yield append
        end, last = append.end, append.last
    if last < acknowledged:
        raise DamagedError(
            f"{path}: bytes {end} to {len(data)} are damaged or missing: entries {last + 1} to"
            f" {acknowledged} were durable and are not there; {REMEDY}"
        )


def later_appends(data: bytes, path: Path) -> Iterator[Append]:
    """Those of a piece of a log that begins behind a whole append, up to one that is being written.

    Where each ends is counted from the piece's beginning. *Raises*: DamagedError, NewerVersionError.
    """
    return _frames(data, path, 0)


def readable_appends(data: bytes, path: Path) -> Iterator[Append]:
    """Whatever checks out in a log file that ``read_log`` refuses: before, between and behind the damage.

    *Raises*: NewerVersionError.
    """
    with suppress(DamagedError):
        _check_header(data, path)
    offset = _HEADER_BYTES
    view = memoryview(data)
    while offset < len(data):
        with suppress(DamagedError):
            for append in _frames(data, path, offset):
                offset = append.end
                yield append
        starts = _starts(data, offset + 1)
        offset = next((at for at in starts if _payload_at(view, at) is not None), len(data))


def _is_checkpoint(append: Append) -> bool:
    return len(append.entries) == 1 and isinstance(append.entries[0], Checkpoint)


def _check_header(data: bytes, path: Path) -> None:
    if len(data) < _HEADER_BYTES:
        raise DamagedError(f"{path}: its header, {_HEADER_BYTES} bytes, was cut; {REMEDY}")
    magic, version = _HEADER.unpack_from(data)
    (crc,) = _U32.unpack_from(data, _HEADER.size)
    if magic != _MAGIC or crc != crc32(data[: _HEADER.size]):
        raise DamagedError(f"{path}: its header, bytes 0 to {_HEADER_BYTES}, is damaged; {REMEDY}")
    if version > LOG_VERSION:
        raise NewerVersionError(
            f"{path} has version {version}, this one knows {LOG_VERSION}; use a newer one"
        )


def _frames(data: bytes, path: Path, offset: int = _HEADER_BYTES) -> Iterator[Append]:
    """Each frame up to a torn one. *Raises* DamagedError when that is not the last."""
    view = memoryview(data)
    while (payload := _payload_at(view, offset)) is not None:
        offset += _FRAME.size + len(payload)
        try:
            frame = _decoder.decode(payload)
        except UNREADABLE as error:
            raise NewerVersionError(
                f"{path}: the entry before offset {offset} is of no known kind ({error});"
                " use a newer collector"
            ) from error
        yield Append(frame.first, frame.entries, offset)
    later = next((at for at in _starts(data, offset + 1) if _payload_at(view, at) is not None), None)
    if later is not None:
        raise DamagedError(f"{path}: bytes {offset} to {later} are damaged; {REMEDY}")


def _starts(data: bytes, offset: int) -> Iterator[int]:
    """Where a frame could begin: what follows its head begins like every payload."""
    while (found := data.find(_PAYLOAD_BEGINS, offset + _FRAME.size)) >= 0:
        offset = found - _FRAME.size
        yield offset
        offset += 1


def _payload_at(view: memoryview, offset: int) -> memoryview | None:
    if offset + _FRAME.size > len(view):
        return None
    length, crc = _FRAME.unpack_from(view, offset)
    payload = view[offset + _FRAME.size : offset + _FRAME.size + length]
    if not length or len(payload) < length:
        return None
    return payload if crc == crc32(payload, crc32(view[offset : offset + _U32.size])) else None


class Archive(NamedTuple):
    """A sealed log of the entries ``first`` to ``last``."""

    first: int
    last: int
    path: Path


def archives(disk: Disk, folder: Path) -> list[Archive]:
    """Ascending. A crash in a rotation can leave one of entries that are in the log still."""
    if not disk.exists(folder):
        return []
    found = [name for name in map(_ARCHIVE_NAME.fullmatch, disk.listdir(folder)) if name]
    return sorted(Archive(int(name[1]), int(name[2]), folder / name[0]) for name in found)


def acknowledged_path(path: Path) -> Path:
    return path.with_name(path.name + ".acknowledged")


def acknowledged_entry(disk: Disk, path: Path) -> int:
    """The last entry of the log at ``path`` that is known to have been durable; 0: none is."""
    try:
        data = disk.read_file(acknowledged_path(path))
    except FileNotFoundError:
        return 0
    if len(data) < _SEEN.size + _U32.size:
        return 0
    magic, number = _SEEN.unpack_from(data)
    (crc,) = _U32.unpack_from(data, _SEEN.size)
    return int(number) if magic == _SEEN_MAGIC and crc == crc32(data[: _SEEN.size]) else 0


# ---------------------------------------------------------------- writing


class CommitLog:
    """One file, one writer. Open it with ``CommitLog.open``; every call *blocks* for the disk."""

    def __init__(self, disk: Disk, path: Path, fd: int, rotate_bytes: int) -> None:
        self._disk = disk
        self._path = path
        self._fd = fd
        self._seen_fd: int | None = None
        self._end = 0
        self._next = 1
        self._failed = False
        self._rotate_bytes = rotate_bytes
        self._rotate_at = 0

    @classmethod
    def open(cls, disk: Disk, path: Path, *, rotate_bytes: int = ROTATE_BYTES) -> CommitLog:
        """Make it if it is not there, check all of it, cut an append that a crash tore.

        What it then holds is durable. *Raises*: DamagedError with the offset; NewerVersionError.
        """
        acknowledged = acknowledged_entry(disk, path)
        if not disk.exists(path):
            if acknowledged:
                raise DamagedError(f"{path}, of {acknowledged} entries, is missing; {REMEDY}")
            disk.write_file_durably(path, _packed_header())
        log = cls(disk, path, disk.open(path, os.O_RDWR | os.O_NOFOLLOW), rotate_bytes)
        try:
            disk.fsync_folder(path.parent)  # whoever made it may have been killed before that
            log._check_and_cut(acknowledged)
        except BaseException:
            log.close()
            raise
        return log

    @property
    def next_entry(self) -> int:
        """The number the next entry will get."""
        return self._next

    @property
    def archive(self) -> Path:
        return self._path.parent / "archive"

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Every entry of this file with its number, in order; a ``Checkpoint`` in place of older ones."""
        for append in read_log(self._disk.read_file(self._path), self._path):
            yield from enumerate(append.entries, append.first)

    def append(self, entry: Entry) -> int:
        """Durable when this returns its number. *Raises* NoSpaceError: it is not in the log."""
        return self.append_all([entry])

    def append_all(self, entries: Sequence[Entry]) -> int:
        """All or none, with one sync; gives the last one's number.

        *Raises* NoSpaceError: none is in the log, try again later. StorageError: the log is unusable
        from now on.
        """
        self._check()
        frame = _packed_frame(_Frame(self._next, tuple(entries)))
        self._failed = True  # until proven otherwise
        try:
            self._disk.pwrite_all(self._fd, frame, self._end)
        except NoSpaceError:
            self._disk.truncate(self._fd, self._end)
            self._failed = False
            raise
        self._disk.fdatasync(self._fd)
        self._end += len(frame)
        self._next += len(entries)
        self._acknowledge()
        self._failed = False
        return self._next - 1

    def close(self) -> None:
        self._disk.close(self._fd)
        if self._seen_fd is not None:
            self._disk.close(self._seen_fd)

    def _check(self) -> None:
        if self._failed:
            raise StorageError(f"{self._path} failed to be written before; restart the collector")

    def _acknowledge(self) -> None:
        """A disk too full for it takes evidence from us, no entry."""
        fields = _SEEN.pack(_SEEN_MAGIC, self._next - 1)
        with suppress(NoSpaceError):
            if self._seen_fd is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
                self._seen_fd = self._disk.open(acknowledged_path(self._path), flags)
            self._disk.pwrite_all(self._seen_fd, fields + _U32.pack(crc32(fields)), 0)

    def _check_and_cut(self, acknowledged: int) -> None:
        data = self._disk.read_file(self._path)
        checkpoint_bytes, self._end = 0, _HEADER_BYTES
        for append in read_log(data, self._path, acknowledged=acknowledged):
            if _is_checkpoint(append):
                checkpoint_bytes = append.end
            self._end = append.end
            self._next = append.last + 1
        if self._end < len(data):
            self._disk.truncate(self._fd, self._end)
        self._disk.fsync(self._fd)  # a killed writer may have left what was never synced
        self._plan_rotation(checkpoint_bytes)

    # ------------------------------------------------------------ rotation

    @property
    def rotation_due(self) -> bool:
        return self._end >= self._rotate_at

    def rotate(self, number: int, checkpoint: bytes) -> bool:
        """Put the log into the archive and begin it again with ``packed_checkpoint``'s bytes.

        ``False``: not now. There are entries after ``number``, or there is no room; it goes on as it is.

        *Raises* StorageError: the log is unusable from now on.
        """
        self._check()
        if number != self._next - 1:
            return False
        self._failed = True  # until proven otherwise
        try:
            self._seal(number)
            self._disk.write_file_durably(self._path, checkpoint)
        except NoSpaceError:
            self._rotate_at = self._end + self._rotate_bytes // _RETRY_PARTS
            self._failed = False
            return False
        old, self._end = self._fd, len(checkpoint)
        self._fd = self._disk.open(self._path, os.O_RDWR | os.O_NOFOLLOW)
        self._disk.close(old)
        self._plan_rotation(len(checkpoint))
        self._failed = False
        return True

    def _seal(self, number: int) -> None:
        data = self._disk.read_file(self._path)[: self._end]
        first = min(append.first + _is_checkpoint(append) for append in read_log(data, self._path))
        self._disk.make_folder(self.archive)
        for stale in archives(self._disk, self.archive):  # of a rotation that a crash ended before its time
            if stale.first >= first:
                self._disk.unlink(stale.path)
        self._disk.write_file_durably(self.archive / f"{first:012d}-{number:012d}.log", data)

    def _plan_rotation(self, checkpoint_bytes: int) -> None:
        """A large checkpoint is not written again and again for a few entries."""
        self._rotate_at = checkpoint_bytes + max(self._rotate_bytes, checkpoint_bytes)


def packed_checkpoint(number: int, checkpoint: Checkpoint) -> bytes:
    """A whole log file: what ``CommitLog.rotate`` takes."""
    return _packed_header() + _packed_frame(_Frame(number, (checkpoint,)))


def _packed_header() -> bytes:
    fields = _HEADER.pack(_MAGIC, LOG_VERSION)
    return fields + _U32.pack(crc32(fields))


def _packed_frame(frame: _Frame) -> bytes:
    payload = _encoder.encode(frame)
    length = _U32.pack(len(payload))
    return length + _U32.pack(crc32(payload, crc32(length))) + payload
