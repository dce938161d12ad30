"""Parts that have outlived their use: found, looked up in the log, taken away.

Runs in threads of the coordinator. Invariants: only a part that the log calls committed ever goes, what is
said of it in ``STATE/retired/`` is durable first, and a crash anywhere leaves either a part or that word.
"""

from __future__ import annotations

import bisect
import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from collector.core.messages import FileKind, StagedFile
from collector.core.retention import RETAINED
from collector.errors import StorageError
from collector.storage.archive import all_entries, checkpoint_of
from collector.storage.commitlog import Archive
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder, part_range
from collector.storage.retired import RetiredPart, RetiredRecord, write_retired
from collector.storage.verify.chain import Chain


def sizes_of_parts(
    disk: Disk, output: Path, stream: str, instance: str, is_of_interest: Callable[[FileKind, str], bool]
) -> dict[str, int]:
    """Of every visible part that this instance made, by path, in the folders that are of interest.

    *Blocks* for listing these folders and a look at each part.
    """
    sizes = {}
    for kind, folder in _folders_of(disk, output, stream):
        if not is_of_interest(kind, folder):
            continue
        for name in _names(disk, output / folder):
            found = part_range(name)
            if found is None or found[0] != instance:
                continue
            with suppress(FileNotFoundError, StorageError):  # gone meanwhile; or no regular file: not ours
                sizes[f"{folder}/{name}"] = disk.size(f"{output}/{folder}/{name}")
    return sizes


def _names(disk: Disk, folder: Path) -> list[str]:
    """Of what is in it; none if it is gone meanwhile."""
    try:
        return disk.listdir(folder)
    except FileNotFoundError:
        return []


class NamedUpTo(NamedTuple):
    """The newest block, and the newest log entry of ``connections``, that a committed part is named by."""

    block: int
    entry: int

    def includes(self, path: str) -> bool:
        """Whether a part of this name can be committed: what is decided and not yet committed is not."""
        folder, _, name = path.rpartition("/")
        found = part_range(name)
        edge = self.entry if folder.startswith(FileKind.CONNECTIONS) else self.block
        return found is not None and found[2] <= edge


def committed_parts(disk: Disk, state: StateFolder, paths: Collection[str]) -> dict[str, StagedFile]:
    """Those of ``paths`` that the log calls committed, as it names them.

    *Blocks* for reading the log from where the oldest of them may be on.

    *Raises*: DamagedError, NewerVersionError.
    """
    wanted, found = set(paths), dict[str, StagedFile]()
    chain = Chain()
    for number, entry in all_entries(disk, state, _Begin(disk, wanted)):
        decided = chain.fold(number, entry)
        for file in decided.files if decided is not None else ():
            if file.final in wanted:
                found[file.final] = file
        if len(found) == len(wanted):
            break
    return found


class _Begin:
    """Finds the archive in which the oldest of these parts may have been decided."""

    def __init__(self, disk: Disk, paths: Collection[str]) -> None:
        self._disk = disk
        ranges = {path: part_range(path.rpartition("/")[2]) for path in paths}
        firsts = [
            (path.startswith(FileKind.CONNECTIONS), found)
            for path, found in ranges.items()
            if found is not None
        ]
        self._block = min((found[1] for of_rows, found in firsts if not of_rows), default=sys.maxsize)
        self._entry = min((found[2] for of_rows, found in firsts if of_rows), default=sys.maxsize)

    def __call__(self, sealed: Sequence[Archive]) -> int:
        return max(0, bisect.bisect_left(sealed, True, key=self._is_behind) - 1)

    def _is_behind(self, archive: Archive) -> bool:
        """Whether one of them was decided before this archive begins, perhaps."""
        if archive.first > self._entry:
            return True
        before = checkpoint_of(self._disk, archive)
        if before is None:
            return False
        pending = before.pending.last if before.pending is not None else 0
        return max(before.last_block, pending) >= self._block


def retire_parts(
    disk: Disk, state: StateFolder, output: Path, parts: Sequence[StagedFile], reason: str
) -> None:
    """Takes these parts away; folders that are empty then go too. Whoever reads one goes on reading it.

    *Blocks* for syncs. *Raises*: NoSpaceError, when nothing was removed; StorageError.
    """
    record = RetiredRecord(tuple(RetiredPart(part.final, part.sha256.hex()) for part in parts), reason)
    write_retired(disk, state, f"retention-{secrets.token_hex(8)}", record)
    for part in parts:
        with suppress(FileNotFoundError):
            disk.unlink(output / part.final)
    for folder in {(output / part.final).parent for part in parts}:
        with suppress(FileNotFoundError):  # somebody else removed it, empty
            disk.fsync_folder(folder)
            _remove_empty(disk, folder)


def remove_empty_folders(disk: Disk, output: Path, stream: str) -> None:
    """Of hours and days: what a crash left between the last part of one and its end. *Blocks* for a look."""
    for _, folder in _folders_of(disk, output, stream):
        with suppress(FileNotFoundError):
            _remove_empty(disk, output / folder)


def _folders_of(disk: Disk, output: Path, stream: str) -> Iterator[tuple[FileKind, str]]:
    """Of hours before those of their days."""
    for kind in RETAINED:
        for folder in _folders(disk, output / kind, ("v=*", f"stream={stream}", "date=*", "hour=*")):
            yield kind, str(folder.relative_to(output))


def _folders(disk: Disk, folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """Each below this one whose path fits, deeper ones first; and itself."""
    for name in _names(disk, folder) if patterns else ():
        if fnmatchcase(name, patterns[0]):
            yield from _folders(disk, folder / name, patterns[1:])
    yield folder


def _remove_empty(disk: Disk, folder: Path) -> None:
    """The folder of an hour, and that of its day."""
    while folder.name.startswith(("hour=", "date=")) and disk.remove_empty_folder(folder):
        folder = folder.parent
        disk.fsync_folder(folder)
