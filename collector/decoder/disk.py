"""The decoder's disk: every call that may take as long as the device likes says so in the progress cell.

Run by the decoder processes. Invariant: a decoder that waits for the disk is never taken for a hung one.
"""

from __future__ import annotations

from collections.abc import Sequence

from collector.ipc.cell import ProgressCell
from collector.storage.fs import AnyPath, Bytes, Disk


class WatchedDisk(Disk):
    """As ``Disk``; what is built of these calls needs no word of its own."""

    def __init__(self, cell: ProgressCell) -> None:
        self._cell = cell

    def open(self, path: AnyPath, flags: int, mode: int = 0o600) -> int:
        with self._cell.waits_for_disk():
            return super().open(path, flags, mode)

    def close(self, fd: int) -> None:
        with self._cell.waits_for_disk():
            super().close(fd)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        with self._cell.waits_for_disk():
            return super().pread(fd, count, offset)

    def pwritev(self, fd: int, buffers: Sequence[Bytes], offset: int) -> int:
        with self._cell.waits_for_disk():
            return super().pwritev(fd, buffers, offset)

    def write(self, fd: int, data: Bytes) -> int:
        with self._cell.waits_for_disk():
            return super().write(fd, data)

    def fdatasync(self, fd: int) -> None:
        with self._cell.waits_for_disk():
            super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        with self._cell.waits_for_disk():
            super().fsync(fd)

    def allocate(self, fd: int, size_bytes: int) -> None:
        with self._cell.waits_for_disk():
            super().allocate(fd, size_bytes)

    def unlink(self, path: AnyPath) -> None:
        with self._cell.waits_for_disk():
            super().unlink(path)

    def rename_noreplace(self, source: AnyPath, target: AnyPath) -> None:
        with self._cell.waits_for_disk():
            super().rename_noreplace(source, target)
