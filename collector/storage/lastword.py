"""The last word of a run: its status when it ended, for who asks when none runs.

Written by the coordinator at its end, taken away at its start: none is there while it runs, nor after a kill.
It informs and decides nothing, so whatever is wrong with it, a start goes on.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from collector.core.messages import UNREADABLE
from collector.core.status import Status
from collector.errors import StorageError
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder

_MOST_BYTES = 4 << 20


def write_last_word(disk: Disk, state: StateFolder, status: Status) -> None:
    """The file is whole or the old one. *Raises* StorageError."""
    disk.write_file_durably(state.last_word, msgspec.json.encode(status))


def read_last_word(disk: Disk, state: StateFolder) -> Status | None:
    """``None``: there is none, or it is damaged."""
    with suppress(OSError, StorageError, *UNREADABLE):
        return msgspec.json.decode(disk.read_file(state.last_word, _MOST_BYTES), type=Status)
    return None


def note_failed_start(disk: Disk, state: StateFolder, failed: Status) -> None:
    """A start that failed knows little: what the run before it left goes on standing beside its end."""
    last = read_last_word(disk, state)
    if last is not None:
        failed = msgspec.structs.replace(
            failed,
            instance=last.instance,
            totals=last.totals,
            timeline=last.timeline,
            rejects=last.rejects,
            history=last.history,
        )
    with suppress(OSError, StorageError):
        write_last_word(disk, state, failed)


def forget_last_word(disk: Disk, state: StateFolder) -> None:
    """A run begins. Not synced: at worst an old one is there after a power failure, and its time says so."""
    with suppress(OSError, StorageError):
        disk.unlink(state.last_word)
