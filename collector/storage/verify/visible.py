"""What is to be seen in the output folder, sorted into ours, others' and what should not be there.

Runs in ``verify``, reads only. Invariant: every name below this stream's folders ends up in one heap.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from collector.core.messages import FileKind
from collector.storage.fs import Disk
from collector.storage.layout import part_range

ROOTS: Final = (str(FileKind.HITS), str(FileKind.REJECTS), str(FileKind.CONNECTIONS))
_COMPACT: Final = re.compile(r"compact-.*\.parquet")
_HIDDEN: Final = (".", "_")
"""Names that begin so are skipped by every engine."""


@dataclass(slots=True)
class Visible:
    """Paths below the output folder."""

    ours: set[str] = field(default_factory=set)
    """Parts that say in their name that this instance made them."""
    others: dict[str, int] = field(default_factory=dict)
    """How many files by which other instance made them."""
    compacted: set[str] = field(default_factory=set)
    """Files that say in their name that a compaction made them."""
    stray: list[str] = field(default_factory=list)
    """Files that a query of this stream would meet and that no collector made."""
    beside: list[str] = field(default_factory=list)
    """Names in the output folder itself that are not ours; queries do not meet them."""


def look(disk: Disk, output: Path, stream: str, instance: str) -> Visible:
    """*Blocks* for one listing of each folder of the stream."""
    visible = Visible()
    names = disk.listdir(output) if disk.exists(output) else []
    visible.beside = [name for name in names if name not in ROOTS and not name.startswith(_HIDDEN)]
    for root in ROOTS:
        if root in names:
            for path in _files(disk, output, root, stream):
                _sort(visible, path, instance)
    return visible


def _files(disk: Disk, output: Path, folder: str, stream: str) -> Iterator[str]:
    """Every name that is no folder, a symbolic link to one included; folders of other streams are theirs."""
    try:
        names = disk.listdir(output / folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = f"{folder}/{name}"
        if name.startswith(_HIDDEN):
            continue
        if not _is_folder(output / path):
            yield path
        elif not name.startswith("stream=") or name == f"stream={stream}":
            yield from _files(disk, output, path, stream)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _sort(visible: Visible, path: str, instance: str) -> None:
    name = path.rpartition("/")[2]
    part = part_range(name)
    if part is not None and part[0] == instance:
        visible.ours.add(path)
    elif part is not None:
        visible.others[f"instance {part[0]}"] = visible.others.get(f"instance {part[0]}", 0) + 1
    elif _COMPACT.fullmatch(name):
        visible.compacted.add(path)
    else:
        visible.stray.append(path)
