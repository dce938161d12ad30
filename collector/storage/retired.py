"""What is told to the log by whoever takes committed parts away: one file each in ``STATE/retired/``.

Retention, shipping and compaction write it, the coordinator takes it over into the log. Invariant: it is
durable before the first of its parts is gone, and gone itself only once the log has it; a crash between the
two leaves it to be taken over once more, which changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from collector.core.entries import Retired, RetiredFile
from collector.core.messages import FileKind
from collector.errors import ConfigurationError, DamagedError
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder, below_state

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FOLDERS: Final = frozenset(kind.value for kind in FileKind if not below_state(kind))
_SHA256_BYTES: Final = 32


class RetiredPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    """Below the output folder, as in the log: ``hits/v=1/...``."""
    sha256: str
    """Hexadecimal."""


class RetiredRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content, as JSON."""

    files: tuple[RetiredPart, ...]
    reason: str
    replaced_by: tuple[str, ...] = ()
    """Where the records are now, if anywhere."""

    def entry(self, at_us: int) -> Retired:
        """*Raises* ValueError for a path that leads elsewhere, or a hash that is none."""
        files = tuple(RetiredFile(_checked_path(part.path), _hash(part.sha256)) for part in self.files)
        return Retired(files, self.reason, self.replaced_by, at_us)


def write_retired(disk: Disk, state: StateFolder, name: str, record: RetiredRecord) -> Path:
    """Durable when this returns: now its parts may go. ``name`` is the writer's, new each time.

    *Raises*: ConfigurationError for another name than 1 to 64 of ``A-Z a-z 0-9 _ -``, or a record that
    would not be understood; NoSpaceError, StorageError.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{name[:80]!r} is no name of a retired record: A-Z a-z 0-9 _ - are allowed")
    try:
        record.entry(0)
    except ValueError as error:
        raise ConfigurationError(f"retired record {name}: {error}") from error
    path = state.retired / f"{name}.json"
    disk.write_file_durably(path, msgspec.json.encode(record))
    return path


def retired_records(disk: Disk, state: StateFolder) -> Iterator[Path]:
    """Those that the log has not taken over yet, by name."""
    if disk.exists(state.retired):
        names = disk.listdir(state.retired)
        yield from (state.retired / name for name in names if name.endswith(".json") and name[0] != ".")


def read_retired(disk: Disk, path: Path, at_us: int) -> Retired:
    """As an entry of the log. *Raises*: DamagedError with what is wrong; FileNotFoundError."""
    try:
        return msgspec.json.decode(disk.read_file(path), type=RetiredRecord).entry(at_us)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path}: {error}; expected is"
            ' {"files": [{"path": "hits/...", "sha256": "<hex>"}], "reason": "...", "replaced_by": ["..."]}'
        ) from error


def forget_retired(disk: Disk, path: Path) -> None:
    """The log has it."""
    disk.unlink(path)
    disk.fsync_folder(path.parent)


def _checked_path(text: str) -> str:
    parts = PurePosixPath(text).parts
    if not parts or parts[0] not in _FOLDERS or ".." in parts or str(PurePosixPath(text)) != text:
        raise ValueError(f"{text[:200]!r} is no path below hits/, rejects/ or connections/")
    return text


def _hash(text: str) -> bytes:
    sha256 = bytes.fromhex(text)
    if len(sha256) != _SHA256_BYTES:
        raise ValueError(f"{text[:80]!r} is no SHA-256 in hexadecimal")
    return sha256
