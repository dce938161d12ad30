"""The commit log, read as it grows by somebody who does not own it.

For whoever follows a running collector. Invariant: each entry comes once, in order, and only when it is
durable: what a power failure could still take back is synced first, or not given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from collector.core.entries import Checkpoint, Entry
from collector.errors import DamagedError
from collector.storage.archive import sealed_entries
from collector.storage.commitlog import REMEDY, Append, acknowledged_entry, archives, later_appends, read_log
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder


class LogFollower:
    """Entries from number ``begin`` on."""

    def __init__(self, disk: Disk, state: StateFolder, *, begin: int = 1) -> None:
        self._disk = disk
        self._state = state
        self.last = begin - 1
        """The last entry that was given."""
        self._file = 0
        """Inode of the log as it was read last."""
        self._offset = 0

    def read(self) -> Iterator[tuple[int, Entry]]:
        """Those that are new. *Blocks* for the reading of one file at a time.

        *Raises*: DamagedError, NewerVersionError; FileNotFoundError when there is no log yet.
        """
        appends, file = self._appends()
        before = _before(appends)
        if before > self.last:
            yield from self._archived(before)
        for append in appends:
            if isinstance(append.entries[0], Checkpoint):
                continue
            for number, entry in enumerate(append.entries, append.first):
                if number > self.last:
                    self.last = number
                    yield number, entry
        # Here and not before: whoever stops in between gets the rest the next time.
        self._offset = (self._offset if file == self._file else 0) + (appends[-1].end if appends else 0)
        self._file = file

    def _appends(self) -> tuple[list[Append], int]:
        """Of the log file what was not read before: all of it after a rotation. And which file that is."""
        path = self._state.commit_log
        fd = self._disk.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            found = os.fstat(fd)
            offset = self._offset if found.st_ino == self._file else 0
            data = self._disk.pread(fd, max(0, found.st_size - offset), offset)
            appends = list(later_appends(data, path) if offset else read_log(data, path))
            if appends and appends[-1].last > acknowledged_entry(self._disk, path):
                self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)
        return appends, found.st_ino

    def _archived(self, before: int) -> Iterator[tuple[int, Entry]]:
        for archive in archives(self._disk, self._state.archive):
            if archive.last <= self.last or archive.first > before:
                continue
            for number, entry in sealed_entries(self._disk, archive):
                if self.last < number <= before:
                    self._check_follows(number)
                    self.last = number
                    yield number, entry
        self._check_follows(before + 1)

    def _check_follows(self, number: int) -> None:
        if self.last and number != self.last + 1:
            raise DamagedError(
                f"{self._state.archive}: entries {self.last + 1} to {number - 1} are missing; {REMEDY}"
            )


def _before(appends: list[Append]) -> int:
    return appends[0].first if appends and isinstance(appends[0].entries[0], Checkpoint) else 0
