"""The commit log: an append-only file of decisions, each durable before it is acted on.

The coordinator writes it. Invariant: an entry that ``append`` numbered is read back for ever, or the
log is reported as damaged; an append that was cut short by a crash is as if it had never been made.

File: header of 16 bytes (magic, version, CRC-32 of both), then frames: u32 length, u32 CRC-32 over
length and payload, payload = msgpack of the first entry's number and the entries. One append is one
frame, so a crash can tear only the last one. All numbers little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from isal.isal_zlib import crc32

from collector.core.entries import Entry
from collector.errors import DamagedError, NewerVersionError, NoSpaceError, StorageError
from collector.storage.fs import Disk

LOG_VERSION: Final = 1

_MAGIC: Final = b"LScommit"
_HEADER: Final = struct.Struct("<8sI")
_FRAME: Final = struct.Struct("<II")
_U32: Final = struct.Struct("<I")
_HEADER_BYTES: Final = _HEADER.size + _U32.size


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    first: int
    entries: tuple[Entry, ...]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Frame)


class CommitLog:
    """One file, one writer. Open it with ``CommitLog.open``; every call *blocks* for the disk."""

    def __init__(self, disk: Disk, path: Path, fd: int) -> None:
        self._disk = disk
        self._path = path
        self._fd = fd
        self._end = 0
        self._next = 1
        self._failed = False

    @classmethod
    def open(cls, disk: Disk, path: Path) -> CommitLog:
        """Make it if it is not there, check all of it, cut an append that a crash tore.

        *Raises*: DamagedError with the offset; NewerVersionError.
        """
        if not disk.exists(path):
            disk.write_file_durably(path, _packed_header())
        log = cls(disk, path, disk.open(path, os.O_RDWR | os.O_NOFOLLOW))
        try:
            log._check_and_cut()
        except BaseException:
            log.close()
            raise
        return log

    @property
    def next_entry(self) -> int:
        """The number the next entry will get."""
        return self._next

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Every entry with its number, in order, as of this call."""
        for _, frame in _frames(self._read(), self._path):
            yield from enumerate(frame.entries, frame.first)

    def append(self, entry: Entry) -> int:
        """Durable when this returns its number. *Raises* NoSpaceError: it is not in the log."""
        return self.append_all([entry])

    def append_all(self, entries: Sequence[Entry]) -> int:
        """All or none, with one sync; gives the last one's number.

        *Raises* NoSpaceError: none is in the log, try again later. StorageError: the log is unusable
        from now on.
        """
        if self._failed:
            raise StorageError(f"{self._path} failed to be written before; restart the collector")
        frame = _packed_frame(_Frame(self._next, tuple(entries)))
        self._failed = True  # until proven otherwise
        try:
            self._disk.pwrite_all(self._fd, frame, self._end)
        except NoSpaceError:
            self._disk.truncate(self._fd, self._end)
            self._failed = False
            raise
        self._disk.fdatasync(self._fd)
        self._failed = False
        self._end += len(frame)
        self._next += len(entries)
        return self._next - 1

    def close(self) -> None:
        self._disk.close(self._fd)

    # ------------------------------------------------------------ reading

    def _read(self) -> bytes:
        return self._disk.read_file(self._path)

    def _check_and_cut(self) -> None:
        data = self._read()
        _check_header(data, self._path)
        self._end = _HEADER_BYTES
        for end, frame in _frames(data, self._path):
            if frame.first != self._next or not frame.entries:
                raise DamagedError(
                    f"{self._path}: entries in bytes {self._end} to {end} are numbered from {frame.first},"
                    f" expected {self._next}; restore it from a copy"
                )
            self._end = end
            self._next += len(frame.entries)
        if self._end < len(data):
            self._disk.truncate(self._fd, self._end)
            self._disk.fsync(self._fd)


def _packed_header() -> bytes:
    fields = _HEADER.pack(_MAGIC, LOG_VERSION)
    return fields + _U32.pack(crc32(fields))


def _check_header(data: bytes, path: Path) -> None:
    if len(data) < _HEADER_BYTES:
        raise DamagedError(f"{path}: its header, {_HEADER_BYTES} bytes, was cut; restore it from a copy")
    magic, version = _HEADER.unpack_from(data)
    (crc,) = _U32.unpack_from(data, _HEADER.size)
    if magic != _MAGIC or crc != crc32(data[: _HEADER.size]):
        raise DamagedError(
            f"{path}: its header, bytes 0 to {_HEADER_BYTES}, is damaged; restore it from a copy"
        )
    if version > LOG_VERSION:
        raise NewerVersionError(
            f"{path} has version {version}, this one knows {LOG_VERSION}; use a newer one"
        )


def _packed_frame(frame: _Frame) -> bytes:
    payload = _encoder.encode(frame)
    length = _U32.pack(len(payload))
    return length + _U32.pack(crc32(payload, crc32(length))) + payload


def _frames(data: bytes, path: Path) -> Iterator[tuple[int, _Frame]]:
    """Each frame with where it ends, up to a torn one. *Raises* DamagedError when that is not the last."""
    view = memoryview(data)
    offset = _HEADER_BYTES
    while (payload := _payload_at(view, offset)) is not None:
        offset += _FRAME.size + len(payload)
        try:
            frame = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise NewerVersionError(
                f"{path}: the entry before offset {offset} is of no known kind; use a newer collector"
            ) from error
        yield offset, frame
    later = next((at for at in range(offset + 1, len(data)) if _payload_at(view, at) is not None), None)
    if later is not None:
        raise DamagedError(f"{path}: bytes {offset} to {later} are damaged; restore it from a copy")


def _payload_at(view: memoryview, offset: int) -> memoryview | None:
    if offset + _FRAME.size > len(view):
        return None
    length, crc = _FRAME.unpack_from(view, offset)
    payload = view[offset + _FRAME.size : offset + _FRAME.size + length]
    if not length or len(payload) < length:
        return None
    return payload if crc == crc32(payload, crc32(view[offset : offset + _U32.size])) else None
