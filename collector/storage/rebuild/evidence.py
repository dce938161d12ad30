"""What the files say by themselves about the batches they belong to.

Runs in ``verify --rebuild``, reads only. Invariant: a file counts only where its footer and its name agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from collector.core.messages import FileKind, StagedFile, Totals
from collector.errors import StorageError
from collector.storage.fs import Disk
from collector.storage.ids import Run
from collector.storage.layout import StateFolder, below_state, run_range
from collector.storage.verify.chain import sum_of
from collector.storage.verify.lines import COUNTED
from collector.storage.verify.parts import OpenFile, Part
from collector.storage.verify.visible import look

_NAME: Final = re.compile(r"part-([0-9a-f]{16})-([0-9]{12,18})-([0-9]{12,18})-([0-9]{1,9})\.parquet")


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a collector's files are."""

    disk: Disk
    state: StateFolder
    output: Path

    def path(self, kind: FileKind, final: str) -> Path:
        return (self.state.root if below_state(kind) else self.output) / final


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is there and opens."""

    kind: FileKind
    final: str
    rows: int
    metadata: dict[str, str]

    def number(self, name: str) -> int:
        """*Raises* KeyError, ValueError."""
        return int(self.metadata[name])

    def path(self, folders: Folders) -> Path:
        return folders.path(self.kind, self.final)

    def staged(self, folders: Folders) -> StagedFile:
        """*Blocks* for one read of it."""
        path = self.path(folders)
        size, sha256 = folders.disk.size(path), folders.disk.sha256(path)
        return StagedFile(self.kind, "", self.final, size, sha256, self.rows)


@dataclass(slots=True)
class Group:
    """All files of one batch that are there."""

    first: int
    last: int
    shares: int
    before: Totals
    batch_before: tuple[int, int]
    held_us: tuple[int, int]
    files: dict[int, list[Found]] = field(default_factory=dict)
    """By share."""

    def said(self, share: int) -> Totals:
        """What the share counted, by any of its footers."""
        part = next(file for file in self.files[share] if file.kind in COUNTED)
        rows, resends, rejects = (part.number(f"share_{name}") for name in ("rows", "resends", "rejects"))
        return Totals(rows + resends + rejects, rows, resends, rejects)

    def there(self, share: int) -> Totals:
        """Rows of its files."""
        counts = {
            name: sum(file.rows for file in self.files[share] if file.kind is kind)
            for kind, name in COUNTED.items()
        }
        return Totals(sum(counts.values()), **counts)

    @property
    def complete(self) -> bool:
        """Every share is there with all it counted."""
        return set(self.files) == set(range(1, self.shares + 1)) and all(
            self.said(share) == self.there(share) for share in self.files
        )

    def counted(self) -> Totals:
        return sum_of(self.said(share) for share in self.files)

    def all_files(self) -> Iterator[Found]:
        for share in sorted(self.files):
            yield from self.files[share]

    def connections(self) -> list[tuple[int, int]]:
        """Block and connection: each holds up to the next, within one share."""
        found: set[tuple[int, int]] = set()
        for file in self.all_files():
            for text in file.metadata.get("connections", "").split():
                block, _, connection = text.partition(":")
                found.add((int(block), int(connection)))
        return sorted(found)


@dataclass(slots=True)
class Evidence:
    groups: list[Group] = field(default_factory=list)
    """Ascending."""
    connections: list[Found] = field(default_factory=list)
    """By the log entries in their names."""
    ignored: list[str] = field(default_factory=list)
    """Why a file does not count, in words."""


def gather(folders: Folders, *, stream: str, instance: str) -> Evidence:
    """*Blocks* for the footers of every part of this instance."""
    evidence = Evidence()
    groups: dict[tuple[int, int], Group] = {}
    visible = look(folders.disk, folders.output, stream, instance)
    for final in sorted([*visible.ours, *_lists(folders, instance)]):
        kind = FileKind(final.partition("/")[0])
        found = _open(folders, kind, final, evidence)
        if found is None:
            continue
        if kind is FileKind.CONNECTIONS:
            evidence.connections.append(found)
        else:
            _add(groups, found)
    evidence.groups = [group for _, group in sorted(groups.items())]
    evidence.connections.sort(key=lambda found: (found.number("first_entry"), found.number("last_entry")))
    _add_runs(folders, groups, evidence)
    return evidence


def _lists(folders: Folders, instance: str) -> list[str]:
    disk, state = folders.disk, folders.state
    names = disk.listdir(state.resends) if disk.exists(state.resends) else []
    found = [name for name in map(_NAME.fullmatch, names) if name and name[1] == instance]
    return [f"{state.resends.name}/{name[0]}" for name in found]


def _open(folders: Folders, kind: FileKind, final: str, evidence: Evidence) -> Found | None:
    path = folders.path(kind, final)
    try:
        opened = OpenFile(folders.disk, path)
    except (FileNotFoundError, StorageError) as error:
        evidence.ignored.append(f"{path}: {error}")
        return None
    try:
        part = Part(opened)
        found = Found(kind, final, part.rows, part.metadata())
    except (pa.ArrowException, OSError) as error:
        evidence.ignored.append(f"{path} does not open: {error}")
        return None
    finally:
        opened.close()
    if not _agrees(found):
        evidence.ignored.append(f"{path} is named like a part that its footer says it is not")
        return None
    return found


def _agrees(found: Found) -> bool:
    name = _NAME.fullmatch(found.final.rpartition("/")[2])
    range_of = "entry" if found.kind is FileKind.CONNECTIONS else "block"
    try:
        says = (
            found.metadata["instance"],
            found.number(f"first_{range_of}"),
            found.number(f"last_{range_of}"),
            1 if found.kind is FileKind.CONNECTIONS else found.number("share"),
        )
        if found.kind is not FileKind.CONNECTIONS:
            _group(found)
    except (KeyError, ValueError):
        return False
    return name is not None and says == (name[1], int(name[2]), int(name[3]), int(name[4]))


def _group(found: Found) -> Group:
    numbers = ("records", "rows", "resends", "rejects")
    held = [int(found.metadata.get(f"held_{name}_us", 0)) for name in ("first", "last")]
    for name in ("rows", "resends", "rejects"):
        found.number(f"share_{name}")
    return Group(
        first=found.number("first_block"),
        last=found.number("last_block"),
        shares=found.number("shares"),
        before=Totals(*(found.number(f"before_{name}") for name in numbers)),
        batch_before=(found.number("before_first_block"), found.number("before_last_block")),
        held_us=(held[0], held[1]),
    )


def _add(groups: dict[tuple[int, int], Group], found: Found) -> None:
    made = _group(found)
    group = groups.setdefault((made.first, made.last), made)
    group.files.setdefault(found.number("share"), []).append(found)


def _add_runs(folders: Folders, groups: dict[tuple[int, int], Group], evidence: Evidence) -> None:
    """The runs of ids that were not merged yet."""
    disk, state = folders.disk, folders.state
    for name in disk.listdir(state.ids) if disk.exists(state.ids) else []:
        found = run_range(name)
        group = groups.get(found[:2]) if found is not None else None
        if found is None or group is None or found[2] not in group.files:
            continue
        try:
            rows = Run(disk, state.ids / name).count
        except (FileNotFoundError, StorageError) as error:
            evidence.ignored.append(str(error))
            continue
        group.files[found[2]].append(Found(FileKind.IDS, f"{state.ids.name}/{name}", rows, {}))
