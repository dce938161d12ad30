"""What can still be read of a damaged commit log and its archives.

Runs in ``verify --rebuild``, reads only. Invariant: an entry counts only with its checksum and its number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from collector.core.entries import Checkpoint, Entry
from collector.storage.commitlog import (
    acknowledged_entry,
    acknowledged_path,
    archives,
    readable_appends,
)
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder


@dataclass(slots=True)
class Salvaged:
    entries: dict[int, Entry] = field(default_factory=dict)
    """By number; checkpoints are not among them."""
    checkpoint: Checkpoint | None = None
    """That of the log itself: what the collector goes on from."""
    checkpoint_at: int = 0
    """The last entry in it."""
    last: int = 0
    """The highest number that any entry is known to have had."""
    files: list[Path] = field(default_factory=list)
    """All that was there to be read."""


def salvage(disk: Disk, state: StateFolder) -> Salvaged:
    """*Raises*: NewerVersionError; StorageError when the disk cannot be read."""
    found = Salvaged(last=acknowledged_entry(disk, state.commit_log))
    sealed = archives(disk, state.archive)
    found.last = max([found.last, *(archive.last for archive in sealed)])
    for path in [*(archive.path for archive in sealed), state.commit_log]:
        if disk.exists(path):
            found.files.append(path)
            _read(disk, path, found, is_log=path == state.commit_log)
    if disk.exists(acknowledged_path(state.commit_log)):
        found.files.append(acknowledged_path(state.commit_log))
    found.last = max([found.last, *found.entries, found.checkpoint_at])
    return found


def _read(disk: Disk, path: Path, found: Salvaged, *, is_log: bool) -> None:
    for append in readable_appends(disk.read_file(path), path):
        for number, entry in enumerate(append.entries, append.first):
            if not isinstance(entry, Checkpoint):
                found.entries.setdefault(number, entry)
            elif is_log:
                found.checkpoint, found.checkpoint_at = entry, number
