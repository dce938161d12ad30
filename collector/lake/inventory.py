"""What there is to compact: the files of a stream's hours, and what the state folders say of each.

Used by ``compact``, beside running collectors; reads only. Invariant: a part is taken for an input only if
the log of a state folder that was read says it is committed and not taken away.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from collector.core.compaction import HourFile
from collector.core.messages import FileKind, StagedFile
from collector.errors import ConfigurationError, DamagedError, StorageError
from collector.lake.elsewhere import Elsewhere
from collector.storage.archive import all_entries
from collector.storage.compacted import SUFFIX, CompactionFolder, KnownFile, hour_records
from collector.storage.fs import Disk
from collector.storage.layout import SCHEMA_VERSION, StateFolder
from collector.storage.retired import read_retired, retired_records
from collector.storage.shipped import ShipProgress, read_progress
from collector.storage.verify.chain import Chain, files_of

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PART: Final = re.compile(r"part-([0-9a-f]{16})-[0-9]{12,18}-[0-9]{12,18}-[0-9]{1,9}\.parquet")
_COMPACT: Final = re.compile(r"compact-[0-9a-f]+\.parquet")
_DATE: Final = re.compile(r"date=([0-9]{4}-[0-9]{2}-[0-9]{2})")
_HOUR: Final = re.compile(r"hour=([0-9]{2})")


@dataclass(slots=True)
class Collector:
    """What one state folder says of its parts of hits."""

    state: StateFolder
    instance: str
    committed: dict[str, StagedFile] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    """Decided and not committed, perhaps to be seen already."""
    retired: set[str] = field(default_factory=set)
    shipped: ShipProgress | None = None


@dataclass(slots=True)
class Inventory:
    """Taken beside collectors that go on: what came since is left to the next run."""

    files: list[HourFile] = field(default_factory=list)
    unsettled: set[int] = field(default_factory=set)
    states: dict[str, StateFolder] = field(default_factory=dict)
    """By instance."""
    left: Counter[str] = field(default_factory=Counter)
    """Files that are left alone, by why."""


def take_inventory(
    disk: Disk,
    output: Path,
    stream: str,
    *,
    states: Sequence[Path],
    compaction: CompactionFolder,
    elsewhere: Elsewhere,
) -> Inventory:
    """*Blocks* for one read of each log and one listing of each hour.

    ``states``: beside those in ``DIR/.state``.

    *Raises*: ConfigurationError for a folder in ``states`` that is no state folder of the stream;
    DamagedError for the compaction's own records; StorageError.
    """
    found = Inventory()
    collectors = {one.instance: one for one in _collectors(disk, output, stream, states, found)}
    found.states = {instance: one.state for instance, one in collectors.items()}
    found.unsettled = {_hour_of(path) for one in collectors.values() for path in one.pending}
    recorded = {file.path: file for _, record in hour_records(disk, compaction) for file in record.files}
    gone = set(_retired_now(disk, compaction))
    for hour, path in files_of_hours(disk, output, stream):
        name = path.rpartition("/")[2]
        part = _PART.fullmatch(name)
        if part is not None and part[1] in collectors:
            _sort_part(found, collectors[part[1]], hour, path, elsewhere)
        elif part is not None:
            found.left[f"instance {part[1]}, whose state folder was not found or read: give --state"] += 1
        elif path in recorded and path not in gone:
            found.files.append(_known(recorded[path], hour))
        elif _COMPACT.fullmatch(name):
            found.left["a compaction that left no record here"] += 1
    return found


def _sort_part(found: Inventory, collector: Collector, hour: int, path: str, elsewhere: Elsewhere) -> None:
    if path in collector.retired:
        found.left[f"instance {collector.instance}, retired and still there"] += 1
    elif path not in collector.committed:
        found.unsettled.add(hour)
    elif why := elsewhere.must_wait(collector.state, collector.shipped, path):
        found.left[f"instance {collector.instance}, {why}"] += 1
    else:
        part = collector.committed[path]
        made = HourFile(path, hour, part.sha256, part.size, part.rows, collector.instance)
        found.files.append(made)


def _known(file: KnownFile, hour: int) -> HourFile:
    return HourFile(file.path, hour, file.digest, file.size, file.rows, "")


# ---------------------------------------------------------------- state folders


def _collectors(
    disk: Disk, output: Path, stream: str, states: Sequence[Path], found: Inventory
) -> Iterator[Collector]:
    real = set()
    for path in states:
        real.add(os.path.realpath(path))
        if not disk.exists(StateFolder(path).commit_log):
            raise ConfigurationError(f"{path} is no state folder: it has no commit.log; give another --state")
        collector, of_stream = _read(disk, StateFolder(path))
        if of_stream != stream:
            raise ConfigurationError(
                f"{path} is of stream {of_stream!r}, not of {stream!r}; give another --state or --stream"
            )
        yield collector
    root = output / ".state"
    for name in disk.listdir(root) if disk.exists(root) else []:
        state = StateFolder(root / name)
        if name.endswith(SUFFIX) or os.path.realpath(state.root) in real:
            continue
        try:
            if not disk.exists(state.commit_log):
                continue
            collector, of_stream = _read(disk, state)
        except StorageError as error:
            found.left[f"{state.root}, which cannot be read: {error}"] += 0
            continue
        if of_stream != stream:
            continue
        if os.access(state.root, os.W_OK):
            yield collector
        else:
            found.left[f"{state.root}, which cannot be written"] += 0


def _read(disk: Disk, state: StateFolder) -> tuple[Collector, str]:
    """And the stream it is of. *Raises* DamagedError, NewerVersionError, StorageError."""
    chain, committed = Chain(), dict[str, StagedFile]()
    retired = set(_retired_now(disk, state))  # before the log, which takes them over
    for number, entry in all_entries(disk, state):
        decided = chain.fold(number, entry)
        if decided is not None:
            committed |= {file.final: file for file in decided.files if file.kind is FileKind.HITS}
    if chain.findings:
        raise DamagedError(f"{state.commit_log}: {chain.findings[0]}")
    decided_files = files_of(chain.pending) if chain.pending is not None else ()
    pending = {file.final for file in decided_files if file.kind is FileKind.HITS}
    retired |= chain.retired.keys()
    shipped = read_progress(disk, state)
    return Collector(state, chain.instance, committed, pending, retired, shipped), chain.stream


def _retired_now(disk: Disk, state: StateFolder) -> Iterator[str]:
    """*Raises* DamagedError: what cannot be read might name anything."""
    for path in retired_records(disk, state):
        try:
            yield from (file.path for file in read_retired(disk, path, 0).files)
        except FileNotFoundError:  # the log has it meanwhile
            continue


# ---------------------------------------------------------------- hours


def stream_folder(stream: str) -> str:
    return f"{FileKind.HITS}/v={SCHEMA_VERSION}/stream={stream}"


def files_of_hours(disk: Disk, output: Path, stream: str) -> Iterator[tuple[int, str]]:
    """Hour and path of each file below the stream's folder."""
    root = stream_folder(stream)
    for date in _names(disk, output / root):
        day = _DATE.fullmatch(date)
        for folder in _names(disk, output / root / date) if day is not None else ():
            hour = _HOUR.fullmatch(folder)
            if day is None or hour is None:
                continue
            for name in _names(disk, output / root / date / folder):
                path = f"{root}/{date}/{folder}/{name}"
                yield _hour_of(path), path


def _hour_of(path: str) -> int:
    """Of a path in the folder of an hour."""
    date, hour = (name.partition("=")[2] for name in path.split("/")[-3:-1])
    return int((datetime.fromisoformat(f"{date}T{hour}:00+00:00") - EPOCH) / timedelta(hours=1))


def hour_name(hour: int) -> str:
    """``2026-03-01T05``."""
    return f"{EPOCH + timedelta(hours=hour):%Y-%m-%dT%H}"


def hour_folder(stream: str, hour: int) -> str:
    """Below the output folder."""
    at = EPOCH + timedelta(hours=hour)
    return f"{stream_folder(stream)}/date={at:%Y-%m-%d}/hour={at:%H}"


def _names(disk: Disk, folder: Path) -> list[str]:
    try:
        return disk.listdir(folder)
    except (FileNotFoundError, StorageError) as error:
        if isinstance(error, StorageError) and not isinstance(error.__cause__, NotADirectoryError):
            raise
        return []
