"""Disks for tests: one fails call N, one writes short, one forgets what was never synced."""

from __future__ import annotations

import errno as errors
import os
import random
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from collector.storage.fs import DISK, Disk, storage_error

SYNCS = frozenset({"fdatasync", "fsync"})

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
    "remove_empty_folder",
    "mkdir",
    "listdir",
    "size",
    "free_bytes",
)

TAKES_ROOM = frozenset(
    {"open", "pwritev", "write", "fdatasync", "fsync", "allocate", "rename", "rename_noreplace", "mkdir"}
)
"""What can meet a full disk. ``open``: only where it makes a file."""


class Crashed(BaseException):
    """The process is gone: nothing of it runs any more, no clean-up either."""


class FaultyDisk(Disk):
    """Fails call number ``fail_at`` (from 1), once or from then on; a failing write is half done.

    Without ``error`` the failure is a crash, which every later call repeats. ``over``: the disk behind it;
    without one nothing is really synced, or the sweeps over every call would last minutes.
    """

    def __init__(
        self,
        fail_at: int = 0,
        error: int | None = None,
        *,
        sticky: bool = False,
        only: frozenset[str] = frozenset(FALLIBLE),
        over: Disk | None = None,
    ) -> None:
        self._fail_at = fail_at
        self._error = error
        self.sticky = sticky or error is None
        self._only = only
        self._full = error in {errors.ENOSPC, errors.EDQUOT}
        self._over = over
        self._failed_syncs: set[int] = set()
        self._opened: set[int] = set()
        self._crashed = False
        self.calls: list[str] = []

    @property
    def fired(self) -> bool:
        return 0 < self._fail_at <= len(self.calls)

    @property
    def failed_call(self) -> str:
        """The first call that failed; empty: none has."""
        return self.calls[self._fail_at - 1] if self.fired else ""

    def _close_all(self) -> None:
        """What the kernel does when the process is gone."""
        self._crashed = True
        for fd in self._opened:
            os.close(fd)
        self._opened = set()

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        if self._fails(name, arguments):
            self._half_done(name, arguments)
            if self._error is None:
                self._close_all()
                raise Crashed
            raise storage_error(name, arguments[0], OSError(self._error, os.strerror(self._error)))
        assert name not in SYNCS or arguments[0] not in self._failed_syncs, "a failed sync was tried again"
        if name in SYNCS and self._over is None:
            return None
        found = getattr(self._over or DISK, name)(*arguments, **named)
        if name == "open":
            self._opened.add(found)
        return found

    def _fails(self, name: str, arguments: tuple[Any, ...]) -> bool:
        if name not in self._only or (self._full and name == "open" and not arguments[1] & os.O_CREAT):
            return False
        self.calls.append(name)
        number = len(self.calls)
        return bool(self._fail_at) and (number == self._fail_at or (number > self._fail_at and self.sticky))

    def _half_done(self, name: str, arguments: tuple[Any, ...]) -> None:
        over = self._over or DISK
        if name in {"pwritev", "write"} and len(self.calls) == self._fail_at:
            whole = b"".join(arguments[1]) if name == "pwritev" else bytes(arguments[1])
            half = whole[: len(whole) // 2]
            if name == "pwritev":
                over.pwritev(arguments[0], [half], arguments[2])
            else:
                over.write(arguments[0], half)
        if name in SYNCS:
            self._failed_syncs.add(arguments[0])

    def close(self, fd: int) -> None:
        if self._crashed:
            return
        (self._over or DISK).close(fd)
        self._opened.discard(fd)
        self._failed_syncs.discard(fd)


def _counted(name: str) -> Callable[..., Any]:
    def call(self: FaultyDisk, *arguments: Any, **named: Any) -> Any:
        return self._call(name, *arguments, **named)

    return call


for _name in FALLIBLE:
    setattr(FaultyDisk, _name, _counted(_name))


class ShortDisk(Disk):
    """Every write takes one byte fewer than asked for, until one is left."""

    def pwritev(self, fd: int, buffers: Any, offset: int) -> int:
        joined = b"".join(buffers)
        return super().pwritev(fd, [joined[: max(1, len(joined) - 1)]], offset)

    def write(self, fd: int, data: Any) -> int:
        return super().write(fd, memoryview(data)[: max(1, len(data) - 1)])


# ---------------------------------------------------------------- power loss


class Fate(Enum):
    KEPT = "kept"
    DROPPED = "dropped"
    GARBLED = "garbled"
    """Of a write: some of its sectors became something else. Of anything else: dropped."""


@dataclass(slots=True)
class Contents:
    """One file's bytes as they are durable, and what was done to them since, in order."""

    durable: bytes
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and bytes of a write; size and ``None`` of a new size."""


@dataclass(frozen=True, slots=True)
class Linked:
    """``path`` names the file from now on. ``was``: the file it named before; 0: none."""

    path: str
    inode: int
    was: int = 0


@dataclass(frozen=True, slots=True)
class Unlinked:
    path: str
    inode: int


@dataclass(frozen=True, slots=True)
class Renamed:
    source: str
    target: str
    inode: int
    was: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A folder."""

    path: str


NameChange = Linked | Unlinked | Renamed | Made


class LossyDisk(Disk):
    """Remembers everything that is not synced; ``lose_power`` decides each change's fate.

    Bytes and sizes are durable once their file is synced; names (created, renamed, removed, folders) once
    their folder is. Until then each may or may not have come to the disk, in any order, and a write may have
    come to it in part. Nothing else is assumed of a file system, but that a rename never leaves a file
    without a name. ``beside``: a folder of the same file system, where the tests' own has another.
    """

    def __init__(self, beside: Path | None = None) -> None:
        self._grave = Path(tempfile.mkdtemp(prefix="lossy-", dir=beside))
        """A second name of every file that was touched: no inode is ever given again."""
        weakref.finalize(self, shutil.rmtree, self._grave, ignore_errors=True)
        self._contents: dict[int, Contents] = {}
        self._names: list[NameChange] = []
        self._lost_folders: dict[str, Path] = {}

    # ------------------------------------------------------------ what is done to it

    def open(self, path: Any, flags: int, mode: int = 0o600) -> int:
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        if not new and not flags & (os.O_WRONLY | os.O_RDWR):
            return super().open(path, flags, mode)
        if not new:
            self._known(path)
        fd = super().open(path, flags, mode)
        if new:
            self._names.append(Linked(_absolute(path), self._known(path)))
        elif flags & os.O_TRUNC:
            self._of(fd).changes.append((0, None))
        return fd

    def pwritev(self, fd: int, buffers: Any, offset: int) -> int:
        data = b"".join(buffers)
        written = super().pwritev(fd, [data], offset)
        self._of(fd).changes.append((offset, data[:written]))
        return written

    def write(self, fd: int, data: Any) -> int:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        written = super().write(fd, data)
        self._of(fd).changes.append((offset, bytes(data)[:written]))
        return written

    def truncate(self, fd: int, size_bytes: int) -> None:
        super().truncate(fd, size_bytes)
        self._of(fd).changes.append((size_bytes, None))

    def allocate(self, fd: int, size_bytes: int) -> None:
        before = os.fstat(fd).st_size
        super().allocate(fd, size_bytes)
        if size_bytes > before:
            self._of(fd).changes.append((size_bytes, None))

    def rename(self, source: Any, target: Any) -> None:
        inode = self._known(source)
        was = self._known(target) if os.path.lexists(target) else 0
        super().rename(source, target)
        self._names.append(Renamed(_absolute(source), _absolute(target), inode, was))

    def rename_noreplace(self, source: Any, target: Any) -> None:
        if os.path.lexists(source):
            self._known(source)
        super().rename_noreplace(source, target)
        self._names.append(Renamed(_absolute(source), _absolute(target), os.lstat(target).st_ino))

    def unlink(self, path: Any) -> None:
        inode = self._known(path)
        super().unlink(path)
        self._names.append(Unlinked(_absolute(path), inode))

    def mkdir(self, path: Any, mode: int) -> None:
        super().mkdir(path, mode)
        self._names.append(Made(_absolute(path)))

    def fdatasync(self, fd: int) -> None:
        self.fsync(fd)

    def fsync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.isdir(path):
            self._names = [left for change in self._names if (left := _rest(change, path)) is not None]
        else:
            contents = self._of(fd)
            contents.durable = self._bytes(os.fstat(fd).st_ino)
            contents.changes = []

    def _known(self, path: Any) -> int:
        """Keep the file, whatever becomes of its name."""
        found = os.lstat(path)
        if found.st_ino not in self._contents:
            os.link(path, self._grave / str(found.st_ino), follow_symlinks=False)
            self._contents[found.st_ino] = Contents(self._bytes(found.st_ino))
        return found.st_ino

    def _of(self, fd: int) -> Contents:
        return self._contents[os.fstat(fd).st_ino]

    def _bytes(self, inode: int) -> bytes:
        return (self._grave / str(inode)).read_bytes()

    # ------------------------------------------------------------ what becomes of it

    def lose_power(self, fate: Callable[[], Fate], seed: int) -> None:
        """Every change that is not durable is kept, dropped, or comes out as something else."""
        chance = random.Random(seed)
        names, self._names = self._names, []
        for change in reversed(names):
            self._undo(change)
        for inode, contents in self._contents.items():
            self._settle(inode, contents, fate, chance)
        for change in names:
            if fate() is Fate.KEPT:
                self._redo(change)
        self._lost_folders = {}
        for inode in self._contents:
            (self._grave / str(inode)).unlink()  # a later run may touch it again
        self._contents = {}

    def _settle(
        self, inode: int, contents: Contents, fate: Callable[[], Fate], chance: random.Random
    ) -> None:
        if not contents.changes:
            return
        data = bytearray(contents.durable)
        for at, new in contents.changes:
            what = fate()
            if new is None and what is Fate.KEPT:
                del data[at:]
                data.extend(bytes(max(0, at - len(data))))
            elif new and what is not Fate.DROPPED:
                old = bytes(data[at : at + len(new)])
                data.extend(bytes(max(0, at - len(data))))
                data[at : at + len(new)] = new if what is Fate.KEPT else _garbled(old, new, chance)
        with (self._grave / str(inode)).open("r+b") as file:
            file.truncate(0)
            file.write(data)

    def _undo(self, change: NameChange) -> None:
        match change:
            case Linked(path):
                os.unlink(path)
            case Unlinked(path, inode):
                self._link(inode, path)
            case Renamed(source, target, inode, was):
                os.unlink(target)
                self._link(inode, source)
                if was:
                    self._link(was, target)
            case Made(path):
                self._lost_folders[path] = self._grave / f"folder-{len(self._lost_folders)}"
                os.rename(path, self._lost_folders[path])

    def _redo(self, change: NameChange) -> None:
        match change:
            case Linked(path, inode):
                self._link(inode, path)
            case Unlinked(path, inode):
                self._drop(path, inode)
            case Renamed(source, target, inode):
                if self._link(inode, target):
                    self._drop(source, inode)
            case Made(path):
                if os.path.isdir(os.path.dirname(path)):
                    os.rename(self._lost_folders[path], path)

    def _link(self, inode: int, path: str) -> bool:
        if not os.path.isdir(os.path.dirname(path)):
            return False  # its folder never came to the disk
        if os.path.lexists(path):
            os.unlink(path)
        os.link(self._grave / str(inode), path)
        return True

    def _drop(self, path: str, inode: int) -> None:
        if os.path.lexists(path) and os.lstat(path).st_ino == inode:
            os.unlink(path)


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fspath(path))


def _rest(change: NameChange, folder: str) -> NameChange | None:
    """What of it is still not durable once the folder is synced."""
    match change:
        case Renamed(source, target, inode):
            if os.path.dirname(source) == folder:
                return None
            return Unlinked(source, inode) if os.path.dirname(target) == folder else change
        case _:
            return None if os.path.dirname(change.path) == folder else change


def _garbled(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """Sector by sector: new, old, zeros or noise; at least one sector is not new."""
    sector = chance.choice((16, 64, 512))
    old = old.ljust(len(new), b"\0")
    starts = range(0, len(new), sector)
    spoiled = chance.choice(starts)
    pieces = []
    for start in starts:
        piece = new[start : start + sector]
        choices = [old[start : start + sector], bytes(len(piece)), chance.randbytes(len(piece))]
        if start != spoiled:
            choices.append(piece)
        pieces.append(chance.choice(choices))
    return b"".join(pieces)


def cycle(fates: list[Fate]) -> Callable[[], Fate]:
    """One after the other, over and over."""

    def endless() -> Iterator[Fate]:
        while True:
            yield from fates

    return endless().__next__


NO_SPACE = errors.ENOSPC
BROKEN = errors.EIO
