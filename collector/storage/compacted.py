"""What a stream's compaction keeps: its lock, its plan, and which compacted files there have to be.

``compact`` writes it, ``verify`` reads it. One folder for each stream of an output folder, beside the
state folders of its collectors: compacted files hold rows of several of them and belong to none. The
invariant: a compacted file that is to be seen is named by the record of its hour, or by the plan of a
replacement that was decided and is not finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from collector.errors import DamagedError
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder, make_private

SUFFIX: Final = ".compact"
_SHA256_BYTES: Final = 32


class KnownFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file below the output folder, as it was when this was written."""

    path: str
    sha256: str
    """Hexadecimal."""
    size: int
    rows: int

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.sha256)


class HourRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The compacted files of an hour. One file in ``files/``, replaced at once when they are."""

    files: tuple[KnownFile, ...]
    inputs: tuple[KnownFile, ...]
    """What they were made of."""
    doubles: int
    """Rows of the inputs that are not in the files: resends."""


class InputFile(KnownFile, frozen=True, forbid_unknown_fields=True):
    state: str = ""
    """State folder of whose part it is; empty: a compaction made it."""
    instance: str = ""


class OutputFile(KnownFile, frozen=True, forbid_unknown_fields=True):
    staged: str
    """Its name in ``staging/``."""


class PlanRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The decision to replace an hour's files. From here on it is finished, never undone."""

    key: str
    """Of the inputs: ``compaction_id``."""
    hour: str
    outputs: tuple[OutputFile, ...]
    inputs: tuple[InputFile, ...]
    doubles: int


@dataclass(frozen=True, slots=True)
class CompactionFolder(StateFolder):
    """``DIR/.state/NAME.compact``."""

    @classmethod
    def of(cls, output: Path, stream: str) -> CompactionFolder:
        return cls(output / ".state" / f"{stream}{SUFFIX}")

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def scratch(self) -> Path:
        """What an unfinished hour needs and nobody else: emptied at each start."""
        return self.root / "scratch"

    def make(self, disk: Disk) -> None:
        """*Raises* ConfigurationError for a folder of somebody else's."""
        for folder in (self.root, self.staging, self.files, self.scratch, self.retired):
            make_private(disk, folder)

    def hour_record(self, hour: str) -> Path:
        return self.files / f"{hour}.json"


def read_plan(disk: Disk, folder: CompactionFolder) -> PlanRecord | None:
    """*Raises* DamagedError."""
    try:
        return _decoded(disk, folder.plan, PlanRecord)
    except FileNotFoundError:
        return None


def read_hour(disk: Disk, folder: CompactionFolder, hour: str) -> HourRecord | None:
    """*Raises* DamagedError."""
    try:
        return _decoded(disk, folder.hour_record(hour), HourRecord)
    except FileNotFoundError:
        return None


def hour_records(disk: Disk, folder: CompactionFolder) -> Iterator[tuple[str, HourRecord]]:
    """Each hour's name and record. *Raises* DamagedError."""
    for name in disk.listdir(folder.files) if disk.exists(folder.files) else []:
        hour, _, end = name.rpartition(".")
        if end == "json" and not name.startswith("."):
            record = read_hour(disk, folder, hour)
            if record is not None:  # it is replaced by nothing only when its hour is emptied
                yield hour, record


def write_record(disk: Disk, path: Path, record: PlanRecord | HourRecord) -> None:
    """Durable when this returns. *Raises* NoSpaceError, StorageError."""
    disk.write_file_durably(path, msgspec.json.encode(record))


_Record = TypeVar("_Record", PlanRecord, HourRecord)


def _decoded(disk: Disk, path: Path, kind: type[_Record]) -> _Record:
    try:
        record = msgspec.json.decode(disk.read_file(path), type=kind)
        known = (
            record.files + record.inputs if isinstance(record, HourRecord) else record.outputs + record.inputs
        )
        for file in known:
            if len(file.digest) != _SHA256_BYTES:
                raise ValueError(f"{file.sha256[:80]!r} is no SHA-256 in hexadecimal")  # noqa: TRY301
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: {error}; put it back from a copy") from error
    return record
