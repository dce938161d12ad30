"""Saved files as transport: each is read once, as a connection of its own, known by its SHA-256.

Runs in the coordinator. A file that was read before adds nothing; one whose reading was cut short
goes on after its last accepted record, since the reader cuts a file into the same records each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.coordinator.committer import Committer, StorageThread
from collector.coordinator.intake import Intake
from collector.core.entries import FileOpened, FileRead
from collector.core.messages import Closed, Opened, Outcome, Progress, ReadFile
from collector.storage.fs import Disk
from collector.telemetry import log


@dataclass(slots=True)
class FilesProgress:
    """What a progress bar shows."""

    path: Path | None = None
    bytes_read: int = 0
    """Of the files as they are on disk."""
    bytes_total: int = 0


class Files:
    """A ``Transport`` of the intake: one file after the other."""

    def __init__(self, *, disk: Disk, intake: Intake, committer: Committer) -> None:
        self._disk = disk
        self._intake = intake
        self._committer = committer
        self._stopping = False
        self._over: asyncio.Future[Closed] | None = None
        self._hash_thread = StorageThread("hash")
        self._done_bytes = 0
        self.progress = FilesProgress()

    async def run(self, paths: Sequence[Path]) -> list[str]:
        """Returns once every record is accepted; gives what is wrong with files that are damaged."""
        sizes = {path: path.stat().st_size for path in paths}
        self.progress.bytes_total = sum(sizes[path] for path in paths)
        faults = []
        for path in paths:
            if self._stopping:
                break
            self.progress.path = path
            if (fault := await self._read(path, sizes[path])) is not None:
                faults.append(fault)
            self._done_bytes += sizes[path]
            self.progress.bytes_read = self._done_bytes
        self._hash_thread.close()
        return faults

    async def _read(self, path: Path, size: int) -> str | None:
        sha256 = await self._hash_thread.run(lambda: self._disk.sha256(path))
        while True:
            skip = self._accepted(sha256)
            known = self._committer.ledger.files.get(sha256)
            if known is not None and known.records is not None and skip >= known.records:
                log("file.skipped", path=path, records=known.records)
                return None
            closed = await self._read_once(path, sha256, size, skip)
            if self._stopping:
                return None
            if closed.outcome is not Outcome.READER_DIED:
                break
        records = self._accepted(sha256)
        if closed.outcome is not Outcome.ENDED:
            return f"{path}: {closed.detail}; the {records} records before that were taken, the rest was not"
        await self._committer.append(FileRead(connection=closed.connection, records=records))
        log("file.read", connection=closed.connection, path=path, records=records)
        return None

    async def _read_once(self, path: Path, sha256: bytes, size: int, skip: int) -> Closed:
        await self._intake.ready.wait()
        number = self._committer.ledger.next_connection
        await self._committer.append(FileOpened(number, sha256, str(path), size))
        log("file.opened", connection=number, path=path, bytes=size, skip_records=skip)
        self._over = asyncio.get_running_loop().create_future()
        self._intake.connect(ReadFile(number, str(path), skip, self._intake.held_us))
        return await self._over

    def stop(self) -> None:
        """Read no more; what is accepted is committed, and the rest is read by the next call."""
        self._stopping = True
        self._intake.disconnect()

    def _accepted(self, sha256: bytes) -> int:
        file = self._committer.ledger.files.get(sha256)
        numbers = file.connections if file is not None else []
        return sum(self._intake.accepted_records.get(number, 0) for number in numbers)

    # ------------------------------------------------------------ Transport

    def reader_ready(self) -> None:
        pass

    def reader_gone(self) -> None:
        pass

    def opened(self, message: Opened) -> None:
        pass

    def progressed(self, message: Progress) -> None:
        self.progress.bytes_read = self._done_bytes + message.bytes_received

    def closed(self, message: Closed) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(message)
