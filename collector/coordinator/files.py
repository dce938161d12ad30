"""Saved files as transport: each is read once, as a connection of its own, known by its SHA-256.

Runs in the coordinator. A file that was read before adds nothing; one whose reading was cut short
goes on after its last accepted record, since the reader cuts a file into the same records each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.coordinator.committer import STORAGE_RETRY_S, Committer, StorageThread
from collector.coordinator.intake import Intake
from collector.core.entries import FileOpened, FileRead
from collector.core.messages import Block, Closed, Opened, Outcome, Progress, ReadFile
from collector.errors import DamagedError, NoSpaceError
from collector.storage.fs import Disk
from collector.telemetry import log

_READ_BYTES: Final = 1 << 16
"""So little that each read has the memory of the one before; of 1 MiB each byte would be on a new page."""

Unpack = Callable[[Path], Path]
"""Writes a file's records as lines to another file, which is removed once it is read.

It may be called again for the same file and must write the same lines each time. *Raises* DamagedError.
"""


@dataclass(slots=True)
class FilesProgress:
    """What a progress bar shows."""

    path: Path | None = None
    bytes_read: int = 0
    """Of the files as they are on disk."""
    bytes_total: int = 0


class Files:
    """A ``Transport`` of the intake: one file after the other.

    ``unpack`` is for files that hold records in another form; they are known by their own SHA-256, too.
    """

    def __init__(
        self, *, disk: Disk, intake: Intake, committer: Committer, unpack: Unpack | None = None
    ) -> None:
        self._disk = disk
        self._intake = intake
        self._committer = committer
        self._unpack = unpack
        self._reading = dict(committer.ledger.reading)
        """Which file a connection reads, by its SHA-256: those whose blocks were or can be in the journal."""
        self._records = {sha256: file.committed for sha256, file in committer.ledger.files.items()}
        """Accepted of each file."""
        self._stopping = False
        self._over: asyncio.Future[Closed] | None = None
        self._thread = StorageThread("files")
        self._done_bytes = 0
        self._scale = 1.0
        """Bytes of a file for each byte that the reader reads of it."""
        self.progress = FilesProgress()

    async def run(self, paths: Sequence[Path]) -> list[str]:
        """Returns once every record is accepted; gives what is wrong with files that are damaged."""
        sizes = {path: self._disk.size(path) for path in paths if self._disk.exists(path)}
        self.progress.bytes_total = sum(sizes.get(path, 0) for path in paths)
        faults = []
        try:
            for path in paths:
                if self._stopping:
                    break
                size = sizes.get(path, 0)
                self.progress.path = path
                if (fault := await self._read(path, size)) is not None:
                    faults.append(fault)
                self._done_bytes += size
                self.progress.bytes_read = self._done_bytes
        finally:
            self._thread.close()
        return faults

    async def _read(self, path: Path, size: int) -> str | None:
        try:
            found = await self._find(path)
        except FileNotFoundError:
            return f"{path}: it is gone"
        except DamagedError as error:
            return str(error)
        if found is None:
            return None
        sha256, readable = found
        try:
            closed = await self._read_through(path, readable, sha256, size)
        finally:
            if readable != path:
                self._disk.unlink(readable)
        if closed is None:
            return None
        records = self._accepted(sha256)
        if closed.outcome is not Outcome.ENDED:
            return f"{path}: {closed.detail}; the {records} records before that were taken, the rest was not"
        await self._committer.append(FileRead(connection=closed.connection, records=records))
        log("file.read", connection=closed.connection, path=path, records=records)
        return None

    async def _find(self, path: Path) -> tuple[bytes, Path] | None:
        """What it is known by, and what the reader is to read for it; ``None``: nothing."""
        sha256 = await self._thread.run(lambda: self._sha256(path))
        if self._stopping:
            return None
        if self._is_known(sha256):
            log("file.skipped", path=path, records=self._accepted(sha256))
            return None
        return sha256, path if self._unpack is None else await self._unpacked(path, self._unpack)

    def _sha256(self, path: Path) -> bytes:
        """Of the whole file, unless it is stopped, when nobody asks for it any more."""
        digest = hashlib.sha256()
        fd = self._disk.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            offset = 0
            while not self._stopping and (chunk := self._disk.pread(fd, _READ_BYTES, offset)):
                digest.update(chunk)
                offset += len(chunk)
        finally:
            self._disk.close(fd)
        return digest.digest()

    def _is_known(self, sha256: bytes) -> bool:
        known = self._committer.ledger.files.get(sha256)
        return known is not None and known.records is not None and self._accepted(sha256) >= known.records

    async def _unpacked(self, path: Path, unpack: Unpack) -> Path:
        """Waits for room."""
        while True:
            try:
                readable = await self._thread.run(lambda: unpack(path))
                break
            except NoSpaceError as error:
                log("storage.full", what="records", reason=str(error), retry_s=STORAGE_RETRY_S)
                await asyncio.sleep(STORAGE_RETRY_S)
        self._scale = self._disk.size(path) / max(1, self._disk.size(readable))
        return readable

    async def _read_through(self, path: Path, readable: Path, sha256: bytes, size: int) -> Closed | None:
        """``None``: it was stopped, or a reader died behind the last record."""
        while not self._is_known(sha256):
            closed = await self._read_once(path, readable, sha256, size)
            if self._stopping or closed is None:
                return None
            if closed.outcome is not Outcome.READER_DIED:
                return closed
        return None

    async def _read_once(self, path: Path, readable: Path, sha256: bytes, size: int) -> Closed | None:
        """``None``: it was stopped before it began."""
        await self._intake.ready.wait()
        number = self._committer.ledger.next_connection
        skip = self._accepted(sha256)
        self._reading[number] = sha256
        await self._committer.append(FileOpened(number, sha256, str(path), size))
        if self._stopping:  # a reader that was told to stop would read on with the next order
            return None
        log("file.opened", connection=number, path=path, bytes=size, skip_records=skip)
        self._over = asyncio.get_running_loop().create_future()
        self._intake.connect(ReadFile(number, str(readable), skip, self._intake.held_us))
        return await self._over

    def stop(self) -> None:
        """Read no more; what is accepted is committed, and the rest is read by the next call."""
        self._stopping = True
        self._intake.disconnect()

    def accepted(self, blocks: Sequence[Block]) -> None:
        """Found in the journal at the start, or new."""
        for block in blocks:
            sha256 = self._reading[block.connection]
            self._records[sha256] = self._accepted(sha256) + block.records

    def _accepted(self, sha256: bytes) -> int:
        return self._records.get(sha256, 0)

    # ------------------------------------------------------------ Transport

    def reader_ready(self) -> None:
        pass

    def reader_gone(self) -> None:
        pass

    def opened(self, message: Opened) -> None:
        pass

    def progressed(self, message: Progress) -> None:
        self.progress.bytes_read = self._done_bytes + round(message.bytes_received * self._scale)

    def closed(self, message: Closed) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(message)
