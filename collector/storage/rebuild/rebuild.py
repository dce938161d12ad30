"""``verify --rebuild``: from finding out what is left to putting the new log in place.

Run by the command, which owns the state folder for as long. Invariant: the new log is durable, and what it
replaces is in ``quarantine/``, before it takes the log's name.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from collector.core.entries import ConnectionsIntent, Entry, Intent, Made, Note
from collector.core.ledger import LogState
from collector.errors import ConfigurationError, DamagedError
from collector.storage.archive import all_entries
from collector.storage.commitlog import (
    CommitLog,
    acknowledged_path,
    archives,
    packed_checkpoint,
)
from collector.storage.fs import Disk
from collector.storage.layout import Instance, StateFolder
from collector.storage.lock import StateLock
from collector.storage.rebuild.batches import Whose
from collector.storage.rebuild.evidence import Evidence, Folders, Group, gather
from collector.storage.rebuild.making import NOTE, Making
from collector.storage.rebuild.salvage import Salvaged, salvage
from collector.storage.segments import SEGMENT_HEADER_BYTES, MappedSegment, list_segments, space_of
from collector.storage.verify.chain import Chain, files_of
from collector.storage.verify.surroundings import journals_of
from collector.storage.verify.visible import look

_LIST: Final = re.compile(r"part-([0-9a-f]{16})-[0-9]+-[0-9]+-[0-9]+\.parquet")
_APPENDED_TOGETHER: Final = 1000


@dataclass(frozen=True, slots=True)
class Rebuilt:
    said: list[str] = field(default_factory=list)
    """What was done, and what could not be known; one line each."""
    faults: list[str] = field(default_factory=list)
    """What is missing for good."""


def rebuild(
    disk: Disk,
    state: StateFolder,
    output: Path,
    *,
    stream: str,
    url_segment: str,
) -> Rebuilt:
    """*Blocks* for one read of the parts that the log has forgotten.

    ``stream`` and ``url_segment`` are taken only where nothing on the disk says them.

    *Raises*: InUseError while a collector runs; ConfigurationError when nobody can tell whose folder it
    is; NewerVersionError; StorageError, NoSpaceError.
    """
    with StateLock.take(disk, state) as lock:
        lock.take_children()
        salvaged = salvage(disk, state)
        made = _made(disk, state, output, salvaged, stream=stream, url_segment=url_segment)
        whose = Whose(made.instance, made.stream)
        folders = Folders(disk, state, output)
        evidence = gather(folders, stream=made.stream, instance=made.instance)
        if _is_whole(folders, evidence):
            return Rebuilt(["the commit log is whole and names every part: nothing was changed"])
        if 1 not in salvaged.entries or not isinstance(salvaged.entries[1], Made):
            salvaged.entries[1] = made
        making = Making(
            folders=folders,
            whose=whose,
            evidence=evidence,
            journal=_journal_blocks(disk, journals_of(state, made.instance)),
            now_us=time.time_ns() // 1000,
        )
        making.run(salvaged)
        said = [*evidence.ignored, *making.said, f"{making.remade} batches were made again from their parts"]
        making.entries += [Note(NOTE, text) for text in said]
        folder = state.quarantine / f"rebuilt-{time.time_ns()}"
        for group in making.undone:
            _put_aside(folders, group, folder)
        _keep(disk, salvaged, folder)
        _replace(disk, state, making, salvaged)
    return Rebuilt(said, making.faults)


def _is_whole(folders: Folders, evidence: Evidence) -> bool:
    chain = Chain()
    unnamed = {found.final for group in evidence.groups for found in group.all_files()}
    unnamed |= {found.final for found in evidence.connections}
    try:
        for number, entry in all_entries(folders.disk, folders.state):
            chain.fold(number, entry)
            if isinstance(entry, Intent | ConnectionsIntent):
                unnamed.difference_update(file.final for file in files_of(entry))
    except DamagedError:
        return False
    return not chain.findings and not unnamed


# ---------------------------------------------------------------- whose folder it is


def _made(
    disk: Disk, state: StateFolder, output: Path, salvaged: Salvaged, *, stream: str, url_segment: str
) -> Made:
    known = next((entry for entry in salvaged.entries.values() if isinstance(entry, Made)), None)
    if known is not None:
        return known
    now_us = time.time_ns() // 1000
    if (checkpoint := salvaged.checkpoint) is not None:
        return Made(checkpoint.instance, checkpoint.stream, checkpoint.url_segment, now_us)
    instances = _instances(disk, state, output, stream)
    if len(instances) != 1 or not stream:
        raise ConfigurationError(
            f"nothing that is left of the log in {state.root} says whose it is, and the parts are of"
            f" {len(instances)} instances; give --stream, and the --output that holds its parts alone"
        )
    return Made(instances.pop(), stream, url_segment, now_us)


def _instances(disk: Disk, state: StateFolder, output: Path, stream: str) -> set[Instance]:
    """Who wrote the lists of resends here; where there are none, who wrote the parts."""
    names = disk.listdir(state.resends) if disk.exists(state.resends) else []
    found = {Instance(name[1]) for name in map(_LIST.fullmatch, names) if name}
    if found:
        return found
    others = look(disk, output, stream, instance="").others
    return {Instance(name.rpartition(" ")[2]) for name in others if name.startswith("instance ")}


def _journal_blocks(disk: Disk, journals: Sequence[Path]) -> set[int]:
    """Every block that checks out."""
    found = set()
    for journal in journals:
        for number in list_segments(disk, journal).used if disk.exists(journal) else ():
            try:
                segment = MappedSegment(disk, journal, number)
            except DamagedError:
                continue
            offset = SEGMENT_HEADER_BYTES
            while (header := segment.block_at(offset)) is not None:
                found.add(header.seq)
                offset += space_of(header.length)
            segment.close()
    return found


# ---------------------------------------------------------------- putting it in place


def _put_aside(folders: Folders, group: Group, folder: Path) -> None:
    disk = folders.disk
    disk.make_folder(folder)
    for found in group.all_files():
        path = found.path(folders)
        disk.rename_noreplace(path, folder / f"{found.kind}-{path.parent.name}-{path.name}")
        disk.fsync_folder(path.parent)
    disk.fsync_folder(folder)


def _keep(disk: Disk, salvaged: Salvaged, folder: Path) -> None:
    disk.make_folder(folder)
    for path in salvaged.files:
        disk.write_file_durably(folder / path.name, disk.read_file(path))


def _replace(disk: Disk, state: StateFolder, making: Making, salvaged: Salvaged) -> None:
    """One archive and a log that goes on from the old checkpoint, where that holds; else one log of all."""
    new, entries = state.root / "commit.log.rebuilt", making.entries
    for path in (new, acknowledged_path(new)):
        if disk.exists(path):
            disk.unlink(path)
    at = salvaged.checkpoint_at if making.goes_on and _goes_on(entries, salvaged) else 0
    if salvaged.checkpoint is not None and at:
        _write(disk, new, entries[:at])
        disk.make_folder(state.archive)
        disk.write_file_durably(state.archive / f"{1:012d}-{at:012d}.log", disk.read_file(new))
        disk.write_file_durably(new, packed_checkpoint(at, salvaged.checkpoint))
    _write(disk, new, entries[at:])
    disk.rename(new, state.commit_log)
    disk.rename(acknowledged_path(new), acknowledged_path(state.commit_log))
    disk.fsync_folder(state.root)
    for archive in archives(disk, state.archive):
        if (archive.first, archive.last) != (1, at):
            disk.unlink(archive.path)


def _goes_on(entries: list[Entry], salvaged: Salvaged) -> bool:
    """Whether what comes after the old checkpoint still follows from it."""
    if salvaged.checkpoint is None:
        return False
    ledger = LogState()
    try:
        ledger.fold(salvaged.checkpoint_at, copy.deepcopy(salvaged.checkpoint))  # the fold goes on in it
        for number, entry in enumerate(entries[salvaged.checkpoint_at :], salvaged.checkpoint_at + 1):
            ledger.fold(number, entry)
    except DamagedError:
        return False
    return True


def _write(disk: Disk, path: Path, entries: list[Entry]) -> None:
    log = CommitLog.open(disk, path)
    try:
        for at in range(0, len(entries), _APPENDED_TOGETHER):
            log.append_all(entries[at : at + _APPENDED_TOGETHER])
    finally:
        log.close()
