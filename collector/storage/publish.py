"""Staged files to their final names, once a batch is decided.

Runs in the coordinator, after the intent is in the commit log. Invariant: it can be repeated after any
failure at any point, never replaces a file, and when it returns every file is whole, in place, durable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from collector.core.messages import StagedFile
from collector.errors import StorageError
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder, below_state

_FOLDER_TRIES: Final = 10


class NotAsDecidedError(StorageError):
    """Raised when a decided file is neither staged nor in place, or is another than was decided."""


def publish(
    disk: Disk,
    state: StateFolder,
    output: Path,
    files: Iterable[StagedFile],
    *,
    mode: int = 0o644,
    redo: bool = False,
) -> None:
    """Move each file from staging to its final name. *Blocks* for the folders' syncs.

    ``mode`` is that of files in the output; a new folder may be entered by whoever may read them.
    ``redo``: an earlier process may have got anywhere, so nothing is taken on trust.

    *Raises*: NoSpaceError: call it again. NotAsDecidedError: a person has to look.
    """
    folders: set[Path] = set()
    for file in files:
        root = state.root if below_state(file.kind) else output
        target = root / file.final
        of_folder = 0o700 if below_state(file.kind) else folder_mode(mode)
        _place(disk, state.staging / file.staged, target, file, of_folder, redo=redo)
        folders |= _down_to(root, target.parent) if redo else {target.parent}
    for folder in sorted(folders, reverse=True):
        disk.fsync_folder(folder)


def folder_mode(mode: int) -> int:
    """Of folders that hold files of this mode: 0755 for 0644, 0700 for 0600."""
    return 0o700 | mode | (mode & 0o444) >> 2


def _down_to(root: Path, folder: Path) -> set[Path]:
    """From ``root`` down to the folder: any of them may have been made just before a crash."""
    names = os.path.relpath(folder, root).split(os.sep)
    return {root.joinpath(*names[:depth]) for depth in range(len(names) + 1)}


def _place(disk: Disk, source: Path, target: Path, file: StagedFile, of_folder: int, *, redo: bool) -> None:
    """Whoever removes empty folders may do so at any time, in another process too."""
    for _ in range(_FOLDER_TRIES):
        with suppress(FileNotFoundError):
            disk.make_folder(target.parent, of_folder)
            return _move(disk, source, target, file, redo=redo)
    raise StorageError(f"{target.parent} is removed again and again; find out by what, and end that")


def _move(disk: Disk, source: Path, target: Path, file: StagedFile, *, redo: bool) -> None:
    if redo and disk.exists(source) and not is_decided(disk, source, file):
        raise NotAsDecidedError(f"{source} is not the file that was decided on")
    try:
        disk.rename_noreplace(source, target)
    except (FileExistsError, FileNotFoundError):
        if not disk.exists(target):
            if disk.exists(source) and not disk.exists(target.parent):
                raise FileNotFoundError(target.parent) from None
            raise NotAsDecidedError(f"neither {source} nor {target} exists") from None
        if not is_decided(disk, target, file):
            raise NotAsDecidedError(f"{target} is not the file that was decided on") from None
        if disk.exists(source):
            disk.unlink(source)


def is_decided(disk: Disk, path: Path, file: StagedFile) -> bool:
    """Whether it is the file that was decided on, byte for byte."""
    return disk.size(path) == file.size and disk.sha256(path) == file.sha256
