"""Journal segments as files: their format, how one is made, freed and opened.

The reader makes and fills segments, decoders read them, the coordinator frees and recovers them.
Invariant: a file named ``<number>.segment`` has a durable header that checks out, so a bad header is
damage, never a torn write; and a block checks out only under the salt of the segment it was written
to, so what a recycled file still holds never comes back.

Segment: header of 4096 bytes, then blocks, each aligned to 8 bytes. All numbers little-endian.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from isal.isal_zlib import crc32

from collector.errors import DamagedError, NewerVersionError
from collector.storage.fs import Bytes, Disk
from collector.storage.layout import in_memory

SEGMENT_VERSION: Final = 1
SEGMENT_HEADER_BYTES: Final = 4096
BLOCK_HEADER_BYTES: Final = 64
ALIGNMENT_BYTES: Final = 8

END_OF_BLOCKS: Final = bytes(BLOCK_HEADER_BYTES)
"""Follows the newest block: without it a recycled file's old bytes would look like a torn write."""

_SEGMENT_MAGIC: Final = b"LSsegmnt"
_SEGMENT: Final = struct.Struct("<8sHxxxxxxQ16sQ")
"""Magic, version, number, salt, size in bytes; then the CRC-32 of these."""
_BLOCK_MAGIC: Final = b"LSbk"
_BLOCK: Final = struct.Struct("<4sHHQQIIqqQ")
"""Magic, version, flags, seq, connection, payload bytes, records, collected_at_us, held_us, synced_seq."""
_CRC: Final = struct.Struct("<I")
_CHECKED_BYTES: Final = _BLOCK.size + _CRC.size
"""Of a block's header: the fields and their own CRC; the CRC over these and the payload is the rest."""

_POPULATE_READ: Final = 22
"""MADV_POPULATE_READ, which the module ``mmap`` does not name. *Source*: linux/mman.h."""

_FAULT_AROUND_BYTES: Final = 64 * 1024
"""A touch maps so much, if it is in memory already. *Source*: linux/mm/memory.c, fault_around_bytes."""

_SEGMENT_NAME: Final = re.compile(r"(free-)?([0-9]{16})\.segment")


def segment_name(number: int) -> str:
    return f"{number:016d}.segment"


def free_name(number: int | None) -> str:
    """Of a segment that was freed and may be recycled; ``None``: none, the empty text."""
    return "" if number is None else f"free-{segment_name(number)}"


class Listed(NamedTuple):
    """Segment numbers in a journal folder, ascending."""

    used: tuple[int, ...]
    free: tuple[int, ...]


def list_segments(disk: Disk, folder: Path) -> Listed:
    found = [name for name in map(_SEGMENT_NAME.fullmatch, disk.listdir(folder)) if name]
    used = sorted(int(name[2]) for name in found if not name[1])
    return Listed(tuple(used), tuple(sorted(int(name[2]) for name in found if name[1])))


# ---------------------------------------------------------------- blocks


class BlockHeader(NamedTuple):
    """``synced_seq`` is the highest block known durable when this one was sealed."""

    seq: int
    connection: int
    flags: int
    length: int
    records: int
    collected_at_us: int
    held_us: int
    synced_seq: int


def space_of(length: int) -> int:
    """What a block with this many bytes of payload takes in its segment."""
    return BLOCK_HEADER_BYTES + length + -length % ALIGNMENT_BYTES


def salt_crc(salt: bytes) -> int:
    return crc32(salt)


def pack_block(header: BlockHeader, payload: Bytes, seed: int) -> bytes:
    """*Shape*: BLOCK_HEADER_BYTES bytes."""
    seq, connection, flags, length, records, collected_at_us, held_us, synced_seq = header
    fields = _BLOCK.pack(
        _BLOCK_MAGIC, SEGMENT_VERSION, flags, seq, connection, length, records,
        collected_at_us, held_us, synced_seq,
    )  # fmt: skip
    own = crc32(fields, seed)
    checked = fields + _CRC.pack(own)
    return checked + _CRC.pack(crc32(payload, crc32(checked, seed)))


# ---------------------------------------------------------------- segments on disk


@dataclass(slots=True)
class OpenSegment:
    """A segment that is being written: blocks go to ``tail``."""

    number: int
    fd: int
    size_bytes: int
    seed: int
    tail: int = SEGMENT_HEADER_BYTES
    dirty: bool = False

    def has_room(self, length: int) -> bool:
        return self.tail + space_of(length) <= self.size_bytes


def make_segment(disk: Disk, folder: Path, number: int, size_bytes: int, recycled: str = "") -> OpenSegment:
    """From the named free file, or new. Durable, header and name, when this returns.

    *Raises*: NoSpaceError, and then nothing is left behind.
    """
    name = recycled or free_name(number)
    if recycled:  # it was freed by a rename: its old name must not come back over the new header
        disk.fsync_folder(folder)
    fd = disk.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        salt = secrets.token_bytes(16)
        disk.truncate(fd, size_bytes)
        disk.allocate(fd, size_bytes)
        disk.pwrite_all(fd, _pack_header(number, salt, size_bytes) + END_OF_BLOCKS, 0)
        disk.fsync(fd)
        disk.rename_noreplace(folder / name, folder / segment_name(number))
        disk.fsync_folder(folder)
    except BaseException:
        disk.close(fd)
        _remove(disk, folder / name)
        raise
    return OpenSegment(number, fd, size_bytes, salt_crc(salt))


def _pack_header(number: int, salt: bytes, size_bytes: int) -> bytes:
    fields = _SEGMENT.pack(_SEGMENT_MAGIC, SEGMENT_VERSION, number, salt, size_bytes)
    return (fields + _CRC.pack(crc32(fields))).ljust(SEGMENT_HEADER_BYTES, b"\0")


def _remove(disk: Disk, path: Path) -> None:
    if disk.exists(path):
        disk.unlink(path)


def rewrite_header(disk: Disk, segment: MappedSegment) -> None:
    """The one it was made with, as far as its name, its size and its salt tell."""
    fd = disk.open(segment.path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        disk.pwrite_all(fd, _pack_header(segment.number, segment.salt, segment.size_bytes), 0)
        disk.fsync(fd)
    finally:
        disk.close(fd)


def free_segment(disk: Disk, folder: Path, number: int) -> None:
    """Every block of it is committed: from now on it can be recycled or deleted."""
    disk.rename(folder / segment_name(number), folder / free_name(number))


def delete_free(disk: Disk, folder: Path, number: int) -> None:
    disk.unlink(folder / free_name(number))


# ---------------------------------------------------------------- segments read again


class MappedSegment:
    """A whole segment, mapped read-only, that judges what it holds.

    *Raises*: NewerVersionError; DamagedError for a header that does not check out, or with ``lenient`` only
    for a file without one: ``fault`` says it then, and blocks are judged by the salt as it stands there.
    """

    def __init__(self, disk: Disk, folder: Path, number: int, *, lenient: bool = False) -> None:
        self.number = number
        self.path = folder / segment_name(number)
        self._in_memory = in_memory(folder)
        self._mapping, self.size_bytes = _map(disk, self.path)
        self._view = memoryview(self._mapping)
        *_, salt, _ = _SEGMENT.unpack_from(self._view)
        self.salt = bytes(salt)
        self._seed = salt_crc(self.salt)
        try:
            self.fault = self._header_fault(lenient=lenient)
        except BaseException:
            self.close()
            raise

    def _header_fault(self, *, lenient: bool) -> str:
        fault = self._fault()
        if fault and not lenient:
            raise DamagedError(fault)
        return fault

    def _fault(self) -> str:
        magic, version, number, *_ = _SEGMENT.unpack_from(self._view)
        (crc,) = _CRC.unpack_from(self._view, _SEGMENT.size)
        if magic == _SEGMENT_MAGIC and version > SEGMENT_VERSION:
            raise NewerVersionError(
                f"{self.path} has version {version}, this one knows {SEGMENT_VERSION}; use a newer one"
            )
        if magic != _SEGMENT_MAGIC or crc != crc32(self._view[: _SEGMENT.size]):
            return f"{self.path}: its header, bytes 0 to {SEGMENT_HEADER_BYTES}, is damaged"
        if number != self.number:
            return f"{self.path} is segment {number} under another's name; put it back"
        return ""

    def header_at(self, offset: int) -> BlockHeader | None:
        """The block header there, if it checks out by itself; its payload may not.

        *Raises*: NewerVersionError for one that does, and is of a version not known here.
        """
        if offset + BLOCK_HEADER_BYTES > self.size_bytes:
            return None
        magic, version, flags, *numbers = _BLOCK.unpack_from(self._view, offset)
        (crc,) = _CRC.unpack_from(self._view, offset + _BLOCK.size)
        if magic != _BLOCK_MAGIC or crc != crc32(self._view[offset : offset + _BLOCK.size], self._seed):
            return None
        if version > SEGMENT_VERSION:
            raise NewerVersionError(
                f"{self.path}: the block at byte {offset} has version {version}, this one knows"
                f" {SEGMENT_VERSION}; use a newer one"
            )
        seq, connection, length, records, collected_at_us, held_us, synced_seq = numbers
        return BlockHeader(seq, connection, flags, length, records, collected_at_us, held_us, synced_seq)

    def block_at(self, offset: int) -> BlockHeader | None:
        """The block there, if all of it checks out."""
        header = self.header_at(offset)
        if header is None:
            return None
        payload = offset + BLOCK_HEADER_BYTES
        if payload + header.length > self.size_bytes:
            return None
        (crc,) = _CRC.unpack_from(self._view, offset + _CHECKED_BYTES)
        seed = crc32(self._view[offset : offset + _CHECKED_BYTES], self._seed)
        return header if crc == crc32(self._view[payload : payload + header.length], seed) else None

    def headers(self) -> Iterator[tuple[int, BlockHeader]]:
        """Every block header that checks out, with where it is; behind damage from the next one that does.

        Their seqs ascend: what stands behind a later block is a copy that no writer made.
        """
        at, last = SEGMENT_HEADER_BYTES, 0
        while (at := self._mapping.find(_BLOCK_MAGIC, at)) >= 0:
            header = self.header_at(at) if at % ALIGNMENT_BYTES == 0 else None
            if header is not None and header.seq > last:
                last = header.seq
                yield at, header
            at += len(_BLOCK_MAGIC) if header is None else space_of(header.length)

    def began_at(self, offset: int) -> bool:
        """Whether a block was begun there: its place does not hold ``END_OF_BLOCKS``."""
        return any(self._view[offset : offset + BLOCK_HEADER_BYTES])

    def view(self, offset: int, length: int) -> memoryview:
        return self._view[offset : offset + length]

    def load(self, offset: int, length: int) -> None:
        """Have these bytes in memory, and mapped. *Blocks* for the disk.

        *Source*: madvise(2). In one call 0.01 us for a hit of a journal on the disk, page by page 0.39. In
        memory 0.25 in one call, touched here and there 0.14.
        """
        first, end = offset - offset % mmap.PAGESIZE, offset + length
        if self._in_memory:
            bytes(self._view[first:end:_FAULT_AROUND_BYTES])
            return
        try:
            self._mapping.madvise(_POPULATE_READ, first, end - first)
        except OSError:  # Linux before 5.14, or a page that cannot be read: touching it ends us
            bytes(self._view[first : end : mmap.PAGESIZE])

    def bytes_from(self, offset: int, limit_bytes: int) -> bytes:
        """Up to the last byte that is not zero."""
        return bytes(self._view[offset : offset + limit_bytes]).rstrip(b"\0")

    def close(self) -> None:
        self._view.release()
        self._mapping.close()


def _map(disk: Disk, path: Path) -> tuple[mmap.mmap, int]:
    size_bytes = disk.size(path)
    if size_bytes < SEGMENT_HEADER_BYTES:
        raise DamagedError(
            f"{path} has {size_bytes} bytes, less than its header of {SEGMENT_HEADER_BYTES}; it was cut"
        )
    fd = disk.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return disk.map_read_only(fd), size_bytes
    finally:
        disk.close(fd)
