"""Two locks on a state folder: one collector at a time, and no child of a dead one beside it.

Runs in the coordinator, before its event loop. Invariant: whoever holds ``lock`` and then ``children``
is alone with the state folder: no process of an earlier collector writes to it any more.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Self

import msgspec

from collector.core.messages import UNREADABLE
from collector.errors import InUseError, StorageError
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder

_RECORD_BYTES: Final = 4096
"""Of ``children``: one page, which a kill cannot leave half written."""
_MOST_RECORD_BYTES: Final = 1 << 20
_POLL_S: Final = 0.02
_KILLED_WITHIN_S: Final = 10.0
"""A killed process gives its locks back once it leaves the kernel; a disk in trouble can hold it there."""


class ChildIdentity(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for a later one with its number."""

    pid: int
    start: int
    """Clock ticks since boot. *Source*: proc(5), field 22 of /proc/pid/stat."""


def identity_of(pid: int) -> ChildIdentity | None:
    """``None``: there is no such process (a zombie is none: it holds nothing)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else ChildIdentity(pid, int(fields[19]))


def holder(state: StateFolder) -> int | None:
    """The process that has the state folder; ``None``: none has, or it cannot be seen from here.

    Only looks: taking the lock to see whether it is free would make a collector's start fail. *Source*: the
    flocks of proc_locks(5), by inode: what it says of the device differs from stat on some file systems.
    """
    try:
        inode = state.lock.lstat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for fields in map(str.split, lines):
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4])
    return None


class StateLock:
    """A state folder that is ours alone, until the end of the ``with`` block or of the process."""

    def __init__(self, disk: Disk, state: StateFolder, fd: int) -> None:
        self._disk = disk
        self._state = state
        self._fd = fd
        self.children_fd = -1
        """Of ``children``, once taken: to be inherited by every child, which just keeps it open."""

    @classmethod
    def take(cls, disk: Disk, state: StateFolder) -> StateLock:
        """*Raises*: InUseError at once when another collector has it."""
        fd = disk.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            _take_or_refuse(disk, fd, state)
            disk.truncate(fd, 0)
            disk.pwrite_all(fd, str(os.getpid()).encode(), 0)
        except BaseException:
            disk.close(fd)
            raise
        return cls(disk, state, fd)

    def take_children(self, wait_s: float = 10.0, kill: Callable[[int, int], None] = os.kill) -> bool:
        """Wait for the children of an earlier collector to go, kill them after ``wait_s``.

        Says whether there were any. *Blocks* for up to ``wait_s``, and as long again for the killed
        to be gone.

        *Raises*: InUseError when somebody holds it who cannot be told to be such a child.
        """
        path = self._state.children
        self.children_fd = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        orphaned = not _try(self.children_fd)
        if orphaned and not _wait(self.children_fd, wait_s):
            _kill_and_wait(self._disk, self.children_fd, self._state, kill)
        self._disk.allocate(self.children_fd, _RECORD_BYTES)
        return orphaned

    def record_children(self, pids: Iterable[int]) -> None:
        """Who may have to be killed if this collector dies. Call it whenever a child was started.

        Into room that was allocated, and not synced: it needs no free space, and what it says is about
        processes, which no power failure outlives.
        """
        found = [child for child in map(identity_of, pids) if child is not None]
        record = msgspec.json.encode(found).ljust(_RECORD_BYTES)
        self._disk.pwrite_all(self.children_fd, record, 0)

    def release(self) -> None:
        for fd in (self._fd, self.children_fd):
            if fd >= 0:
                self._disk.close(fd)
        self._fd = self.children_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _take_or_refuse(disk: Disk, fd: int, state: StateFolder) -> None:
    if _try(fd):
        return
    pid = disk.pread(fd, 20, 0).decode("ascii", "replace")
    holder = f"process {pid}" if pid.isdigit() else "another collector"
    raise InUseError(f"{state.root} is in use by {holder}; stop it first, or choose another --state")


def _kill_and_wait(disk: Disk, fd: int, state: StateFolder, kill: Callable[[int, int], None]) -> None:
    killed = _kill_recorded(disk, fd, kill)
    if not _wait(fd, _KILLED_WITHIN_S):
        raise InUseError(
            f"{state.children} is still held by a child of an earlier collector"
            f" (killed: {', '.join(map(str, killed)) or 'none'}); find it with fuser and end it"
        )


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(f"flock failed: {error.strerror}; the file system must support locks") from error
    return True


def _wait(fd: int, wait_s: float) -> bool:
    deadline_s = time.monotonic() + wait_s
    while not _try(fd):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _kill_recorded(disk: Disk, fd: int, kill: Callable[[int, int], None]) -> list[int]:
    """Only who is the very process that was recorded: its number may be somebody else's by now."""
    try:
        recorded = msgspec.json.decode(disk.pread(fd, _MOST_RECORD_BYTES, 0), type=list[ChildIdentity])
    except UNREADABLE:
        return []
    found = [child for child in recorded if identity_of(child.pid) == child]
    for child in found:
        try:
            kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [child.pid for child in found]
