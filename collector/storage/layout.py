"""Where everything is: names below the output folder and below the state folder.

Runs in every process. Invariant: a name says which state folder made the file, of which blocks, and
no text from outside reaches a path without ``stream_name``.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NewType

from collector.core.messages import FileKind
from collector.errors import ConfigurationError, DamagedError, NewerVersionError, StorageError
from collector.storage.fs import Disk

SCHEMA_VERSION: Final = 1

MEMORY_ROOT: Final = Path("/dev/shm")  # noqa: S108 - tmpfs is what journal.durability = "memory" means

StreamName = NewType("StreamName", str)
Instance = NewType("Instance", str)
"""The random id made with a state folder: 16 hexadecimal digits."""

_STREAM_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INSTANCE: Final = re.compile(r"[0-9a-f]{16}")
_VERSION: Final = re.compile(r"[0-9]{1,9}")
_OTHERS: Final = 0o077
_NO_FOLDER: Final = frozenset({errno.ELOOP, errno.ENOTDIR})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PART_NAME: Final = re.compile(r"part-([0-9a-f]{16})-([0-9]{12,18})-([0-9]{12,18})-[0-9]{1,9}\.parquet")
_RUN_NAME: Final = re.compile(r"([0-9]{12,18})-([0-9]{12,18})-([0-9]{1,18})\.run")


def memory_journal(instance: str) -> Path:
    """Of ``journal.durability = "memory"``."""
    return MEMORY_ROOT / f"livestream-collector-{instance}"


def in_memory(journal: Path) -> bool:
    """Whether this folder is a ``memory_journal``."""
    return journal.parent == MEMORY_ROOT


def make_private(disk: Disk, folder: Path, *, follow: bool = False) -> None:
    """A folder of ours that nobody else can enter, made or set right.

    *Raises* ConfigurationError for another user's folder, and for a symbolic link unless ``follow``.
    """
    disk.make_folder(folder)
    try:
        fd = disk.open(folder, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW))
    except (StorageError, FileNotFoundError) as error:
        if isinstance(error, StorageError) and getattr(error.__cause__, "errno", 0) not in _NO_FOLDER:
            raise  # the disk failed: that is no setting's fault
        raise ConfigurationError(f"{folder} must be a folder, no symbolic link: {error}") from error
    try:
        owner, mode = disk.owner_and_mode(fd)
        if owner != os.geteuid():
            raise ConfigurationError(
                f"{folder} belongs to user {owner}, and this is user {os.geteuid()}: run as that one, or give"
                " another --state"
            )
        if mode & _OTHERS:
            disk.set_mode(fd, 0o700)
    finally:
        disk.close(fd)


def _is_state_folder(names: list[str]) -> bool:
    return not names or "lock" in names or "commit.log" in names


def stream_name(text: str) -> StreamName:
    """*Raises* ConfigurationError for anything but 1 to 64 of ``A-Z a-z 0-9 _ -``."""
    if _STREAM_NAME.fullmatch(text) is None:
        raise ConfigurationError(
            f"{text[:80]!r} is no stream name: 1 to 64 of A-Z a-z 0-9 _ - are allowed;"
            " choose one with --stream"
        )
    return StreamName(text)


def instance_id(text: str) -> Instance:
    """As a commit log says it. *Raises* DamagedError for anything but 16 hexadecimal digits."""
    if _INSTANCE.fullmatch(text) is None:
        raise DamagedError(
            f"the commit log's instance is {text[:80]!r}, expected 16 hexadecimal digits;"
            " restore it from a copy"
        )
    return Instance(text)


def new_instance() -> Instance:
    return Instance(secrets.token_hex(8))


def part_path(
    kind: FileKind, stream: str, instance: str, *, first: int, last: int, share: int, hour: int = 0
) -> str:
    """Where a staged file goes, below the output folder (ids and resends: below the state folder).

    *Units*: ``hour`` is hours since the Unix epoch; only kinds with a date in their path need it.
    ``first`` and ``last`` are blocks; for connections they are log entries.
    """
    blocks = f"{first:012d}-{last:012d}-{share}"
    at = _EPOCH + timedelta(hours=hour)
    root = f"{kind}/v={SCHEMA_VERSION}/stream={stream}/date={at.date().isoformat()}"
    match kind:
        case FileKind.HITS:
            return f"{root}/hour={at:%H}/part-{instance}-{blocks}.parquet"
        case FileKind.REJECTS | FileKind.CONNECTIONS:
            return f"{root}/part-{instance}-{blocks}.parquet"
        case FileKind.IDS:
            return f"ids/{blocks}.run"
        case FileKind.RESENDS:
            return f"resends/part-{instance}-{blocks}.parquet"


def part_range(name: str) -> tuple[str, int, int] | None:
    """Whose part a name is, and of which blocks (connections: log entries); ``None``: no part's."""
    found = _PART_NAME.fullmatch(name)
    return None if found is None else (found[1], int(found[2]), int(found[3]))


def check_schema_version(path: Path, version: str) -> None:
    """``version``: as a part's footer or a folder ``v=...`` says it. *Raises* NewerVersionError."""
    if _VERSION.fullmatch(version) and int(version) > SCHEMA_VERSION:
        raise NewerVersionError(
            f"{path} has schema version {version}, this one knows {SCHEMA_VERSION}; use a newer one"
        )


def below_state(kind: FileKind) -> bool:
    """Whether files of this kind belong to the state folder, not to the output."""
    return kind in {FileKind.IDS, FileKind.RESENDS}


def run_range(name: str) -> tuple[int, int, int] | None:
    """First block, last block and share of a resend index run by its file name; ``None``: it is none."""
    found = _RUN_NAME.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


@dataclass(frozen=True, slots=True)
class StateFolder:
    """What one stream's state folder holds. Folders are 0700, files 0600."""

    root: Path

    @property
    def journal(self) -> Path:
        """Of ``journal.durability = "disk"``."""
        return self.root / "journal"

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    @property
    def ids(self) -> Path:
        return self.root / "ids"

    @property
    def resends(self) -> Path:
        return self.root / "resends"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def retired(self) -> Path:
        return self.root / "retired"

    @property
    def commit_log(self) -> Path:
        return self.root / "commit.log"

    @property
    def archive(self) -> Path:
        """Sealed logs: the entries before those in ``commit_log``."""
        return self.root / "archive"

    @property
    def floor(self) -> Path:
        return self.root / "floor"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def children(self) -> Path:
        return self.root / "children"

    @property
    def socket(self) -> Path:
        """Where the running collector answers what it is doing."""
        return self.root / "status.sock"

    @property
    def last_word(self) -> Path:
        """What the last run left behind, of itself."""
        return self.root / "last-word.json"

    @property
    def reset_request(self) -> Path:
        return self.root / "reset-request"

    def make(self, disk: Disk) -> None:
        """*Raises* ConfigurationError where others may enter what is not ours, or it leads elsewhere."""
        disk.make_folder(self.root)
        if self.root.stat().st_mode & _OTHERS and not _is_state_folder(disk.listdir(self.root)):
            raise ConfigurationError(
                f"{self.root} may be entered by other users and holds other things than a collector's state:"
                " give --state a folder of its own"
            )
        make_private(disk, self.root, follow=True)  # where it is, is the operator's choice
        for folder in (self.journal, self.staging, self.ids, self.resends, self.quarantine, self.retired):
            make_private(disk, folder)
        if disk.exists(self.archive):
            make_private(disk, self.archive)
        disk.settle_folder(self.journal)
