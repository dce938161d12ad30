"""The floor record's file: two slots, overwritten in turn, so that one is always whole.

The coordinator writes it, before every request and while a stream is held. Invariant: after a crash at
any moment ``read`` gives the last record whose ``write`` returned, or the one that was being written.

File: two slots of 512 bytes, 4096 bytes apart so that no sector holds both. A slot: magic, version,
payload length, counter, CRC-32 over these and the payload, payload (msgpack), zeros.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
from isal.isal_zlib import crc32

from collector.core.messages import UNREADABLE
from collector.errors import NewerVersionError, StorageError
from collector.storage.fs import Disk

SLOT_BYTES: Final = 512
FLOOR_VERSION: Final = 1

_APART_BYTES: Final = 4096
_SLOTS: Final = 2
_FILE_BYTES: Final = _APART_BYTES + SLOT_BYTES
_MAGIC: Final = b"LSfl"
_SLOT: Final = struct.Struct("<4sHHQ")
_CRC: Final = struct.Struct("<I")
_ROOM_BYTES: Final = SLOT_BYTES - _SLOT.size - _CRC.size

R = TypeVar("R", bound=msgspec.Struct)


class _Slot(NamedTuple, Generic[R]):
    counter: int
    record: R


class FloorFile(Generic[R]):
    """Holds one record of the given type. Every call *blocks* for the disk."""

    def __init__(self, disk: Disk, path: Path, record_type: type[R]) -> None:
        self._disk = disk
        self._path = path
        self._type = record_type
        self._counter: int | None = None
        """Of the newest slot; ``None``: not read yet."""
        self._whole = False
        """The file can be written to in place: it has both slots' bytes, and one that checks out."""

    def read(self) -> tuple[R | None, bool]:
        """The newest record whose slot checks out, and whether there is a file at all.

        *Raises* NewerVersionError.
        """
        self._counter = 0
        self._whole = False
        if not self._disk.exists(self._path):
            return None, False
        self._disk.fsync_folder(self._path.parent)  # whoever made it may have been killed before that
        content = self._disk.read_file(self._path, _FILE_BYTES + 1)
        slots = [slot for slot in (self._slot(content, index) for index in range(_SLOTS)) if slot]
        if not slots:
            return None, True
        self._whole = len(content) == _FILE_BYTES
        newest = max(slots, key=lambda slot: slot.counter)
        self._counter = newest.counter
        return newest.record, True

    def write(self, record: R) -> None:
        """Durable when this returns. *Raises* StorageError: then no request may be sent."""
        if self._counter is None:
            self.read()
        counter = (self._counter or 0) + 1
        slot = _packed(counter, msgspec.msgpack.encode(record))
        offset = counter % _SLOTS * _APART_BYTES
        if self._whole and self._disk.exists(self._path):
            self._overwrite(slot, offset)
        else:  # a cut file must not grow back over a slot that then checks out again
            content = bytearray(_FILE_BYTES)
            content[offset : offset + SLOT_BYTES] = slot
            self._disk.write_file_durably(self._path, content)
        self._counter, self._whole = counter, True

    def _overwrite(self, slot: bytes, offset: int) -> None:
        fd = self._disk.open(self._path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            self._disk.pwrite_all(fd, slot, offset)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)

    def _slot(self, content: bytes, index: int) -> _Slot[R] | None:
        slot = content[index * _APART_BYTES :][:SLOT_BYTES]
        if len(slot) < SLOT_BYTES:
            return None
        magic, version, length, counter = _SLOT.unpack_from(slot)
        if magic != _MAGIC or length > _ROOM_BYTES:
            return None
        (crc,) = _CRC.unpack_from(slot, _SLOT.size)
        payload = slot[_SLOT.size + _CRC.size :][:length]
        if crc != crc32(payload, crc32(slot[: _SLOT.size])):
            return None
        if version > FLOOR_VERSION:
            raise NewerVersionError(
                f"{self._path} has version {version}, this one knows {FLOOR_VERSION}; use a newer one"
            )
        try:
            return _Slot(counter, msgspec.msgpack.decode(payload, type=self._type))
        except UNREADABLE:  # whole, but not ours: as good as none
            return None


def _packed(counter: int, payload: bytes) -> bytes:
    if len(payload) > _ROOM_BYTES:
        raise StorageError(f"a floor record of {len(payload)} bytes does not fit into {_ROOM_BYTES}")
    fields = _SLOT.pack(_MAGIC, FLOOR_VERSION, len(payload), counter)
    return (fields + _CRC.pack(crc32(payload, crc32(fields))) + payload).ljust(SLOT_BYTES, b"\0")
