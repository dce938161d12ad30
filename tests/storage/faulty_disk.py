"""Disks for tests: one fails call N, one forgets what was never synced."""

from __future__ import annotations

import errno as errors
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from collector.storage.fs import Disk, storage_error

FALLIBLE = (
    "open",
    "pread",
    "pwritev",
    "write",
    "fdatasync",
    "fsync",
    "allocate",
    "truncate",
    "set_mode",
    "map_read_only",
    "rename",
    "rename_noreplace",
    "unlink",
    "listdir",
    "size",
    "free_bytes",
)


class Crashed(BaseException):
    """The process is gone: nothing of it runs any more, no clean-up either."""


class FaultyDisk(Disk):
    """Fails call number ``fail_at`` (from 1), once or from then on; a failing write is half done.

    Nothing is really synced: the power never fails here, and the sweeps over every call would last minutes.
    Without ``error`` the failure is a crash, which every later call repeats.
    """

    def __init__(
        self,
        fail_at: int = 0,
        error: int | None = None,
        *,
        sticky: bool = False,
        only: frozenset[str] = frozenset(FALLIBLE),
    ) -> None:
        self._fail_at = fail_at
        self._error = error
        self._sticky = sticky or error is None
        self._only = only
        self.calls: list[str] = []

    @property
    def fired(self) -> bool:
        return 0 < self._fail_at <= len(self.calls)

    def _before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in self._only:
            return
        self.calls.append(name)
        number = len(self.calls)
        if not self._fail_at or number < self._fail_at or (number > self._fail_at and not self._sticky):
            return
        if name == "pwritev" and number == self._fail_at:
            fd, buffers, offset = arguments
            joined = b"".join(buffers)
            os.pwrite(fd, joined[: len(joined) // 2], offset)
        if self._error is None:
            raise Crashed
        raise storage_error(name, arguments[0], OSError(self._error, os.strerror(self._error)))


class ShortDisk(Disk):
    """Every write takes one byte fewer than asked for, until one is left."""

    def pwritev(self, fd: int, buffers: Any, offset: int) -> int:
        joined = b"".join(buffers)
        return super().pwritev(fd, [joined[: max(1, len(joined) - 1)]], offset)

    def write(self, fd: int, data: Any) -> int:
        return super().write(fd, memoryview(data)[: max(1, len(data) - 1)])


class Fate(Enum):
    KEPT = "kept"
    DROPPED = "dropped"
    GARBLED = "garbled"


@dataclass(frozen=True)
class Unsynced:
    path: str
    offset: int
    old: bytes
    old_size: int
    new: bytes


class LossyDisk(Disk):
    """Remembers every write until its file is synced; ``lose_power`` decides each one's fate.

    Names, sizes given by ``allocate`` and truncations count as durable at once.
    """

    def __init__(self) -> None:
        self._unsynced: list[Unsynced] = []

    def pwritev(self, fd: int, buffers: Any, offset: int) -> int:
        new = b"".join(buffers)
        path = os.readlink(f"/proc/self/fd/{fd}")
        reader = os.open(path, os.O_RDONLY)
        old = os.pread(reader, len(new), offset)
        os.close(reader)
        written = super().pwritev(fd, [new], offset)
        self._unsynced.append(Unsynced(path, offset, old, os.fstat(fd).st_size, new[:written]))
        return written

    def fdatasync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        before = [write for write in self._unsynced if write.path == path]
        super().fdatasync(fd)
        self._unsynced = [write for write in self._unsynced if write not in before]

    def fsync(self, fd: int) -> None:
        self.fdatasync(fd)

    def lose_power(self, fate: Callable[[], Fate], seed: int) -> None:
        """Every unsynced write is kept, dropped, or some of its sectors become something else."""
        chance = random.Random(seed)
        present = [write for write in self._unsynced if os.path.exists(write.path)]
        for write in reversed(present):
            _put(write, write.old)
        for write in present:
            match fate():
                case Fate.KEPT:
                    _put(write, write.new)
                case Fate.GARBLED:
                    _put(write, _garbled(write, chance))
                case Fate.DROPPED:
                    pass
        self._unsynced = []


def _put(write: Unsynced, data: bytes) -> None:
    fd = os.open(write.path, os.O_RDWR)
    os.pwrite(fd, data, write.offset)
    os.close(fd)


def _garbled(write: Unsynced, chance: random.Random) -> bytes:
    """Sector by sector: new, old, zeros or noise; at least one sector is not new."""
    sector = chance.choice((16, 64, 512))
    old = write.old.ljust(len(write.new), b"\0")
    starts = range(0, len(write.new), sector)
    spoiled = chance.choice(starts)
    pieces = []
    for start in starts:
        piece = write.new[start : start + sector]
        choices = [old[start : start + sector], bytes(len(piece)), chance.randbytes(len(piece))]
        if start != spoiled:
            choices.append(piece)
        pieces.append(chance.choice(choices))
    return b"".join(pieces)


def _counted(name: str) -> Callable[..., Any]:
    real = getattr(Disk, name)

    def call(self: FaultyDisk, *arguments: Any, **named: Any) -> Any:
        self._before(name, arguments)
        if name in {"fsync", "fdatasync"}:
            return None
        return real(self, *arguments, **named)

    return call


for _name in FALLIBLE:
    setattr(FaultyDisk, _name, _counted(_name))

NO_SPACE = errors.ENOSPC
BROKEN = errors.EIO
