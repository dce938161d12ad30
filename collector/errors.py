"""Everything that can go wrong, as one tree, and the exit code each branch ends in.

A message says what happened, what was expected and what to do. Foreign exceptions are
translated at the edge (``raise ... from``). A bad record is data, never an exception.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the process tells whoever started it. A service manager must not restart on 2, 3 and 5."""

    DONE = 0
    DEFECT = 1
    CONFIGURATION = 2
    REFUSED = 3
    STORAGE = 4
    IN_USE = 5
    CHILD_FAILED = 6
    FOUND = 7


class CollectorError(Exception):
    """Raised when a command cannot go on. ``exit_code`` is what the command ends with."""

    exit_code: ExitCode = ExitCode.DEFECT


class ConfigurationError(CollectorError):
    """Raised when settings, arguments or the environment ask for something that cannot be done."""

    exit_code = ExitCode.CONFIGURATION


class RefusedError(CollectorError):
    """Raised when the service said no in a way that waiting does not cure."""

    exit_code = ExitCode.REFUSED


class StorageError(CollectorError):
    """Raised when a disk call failed in a way that must not be retried on the same descriptor."""

    exit_code = ExitCode.STORAGE


class DamagedError(StorageError):
    """Raised when bytes that were once durable no longer check out. Names file, offset and range."""


class NewerVersionError(StorageError):
    """Raised when a file was written by a newer version than this one understands."""


class NoSpaceError(StorageError):
    """Raised when a write met ENOSPC or EDQUOT. The one storage error that is waited out."""


class SyncFailedError(StorageError):
    """Raised when a sync failed: what was written before may be lost, whatever a second sync says."""


class InUseError(CollectorError):
    """Raised when another collector holds the state folder."""

    exit_code = ExitCode.IN_USE


class ChildFailedError(CollectorError):
    """Raised when a child process cannot start, or kept dying faster than the restart limit allows."""

    exit_code = ExitCode.CHILD_FAILED


class ChildReportedError(CollectorError):
    """Raised on behalf of a child that said why it cannot go on; the exit code is the child's."""

    def __init__(self, name: str, message: str, exit_code: int) -> None:
        super().__init__(f"{name}: {message}")
        self.exit_code = ExitCode(exit_code)


class VerificationError(CollectorError):
    """Raised when a proof found something missing, doubled or damaged."""

    exit_code = ExitCode.FOUND


class ProtocolError(CollectorError):
    """Raised when our own processes break the protocol between them: a defect of ours."""
