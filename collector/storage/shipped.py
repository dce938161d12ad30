"""How far committed parts have gone out: ``STATE/ship/progress``, written by the shipping process alone.

Read by whoever wants to take parts away: what has not gone out yet must stay. Invariant: what it says is
durable in the store, and in the table where there is one; lost or older than the truth it costs a second
look at each object, never a part.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from collector.core.messages import UNREADABLE, FileKind
from collector.errors import DamagedError, InUseError
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder, make_private

PROGRESS_VERSION: Final = 1
_LAST: Final = re.compile(r"/part-[0-9a-f]{16}-[0-9]{12,18}-([0-9]{12,18})-[0-9]+\.parquet$")


class ShipProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Entry numbers are the commit log's."""

    version: int = PROGRESS_VERSION
    url: str = ""
    """Of the store this is about; empty: none, the table is of the output folder."""
    table: str = ""
    """The table this is about, in words; empty: none."""
    entry: int = 0
    """Every delivery up to this one is out."""
    last: int = 0
    """Its last block, or log entry: says whether it is the same log still."""
    begin: int = 1
    """Where reading begins again."""
    block: int = 0
    """Every committed block up to here is out, and in the table where there is one."""
    rows_entry: int = 0
    """Rows of ``connections`` named by log entries up to here are out."""
    table_block: int = 0
    """The last block that was committed to the table."""
    removed: int = 0
    """Local copies of every delivery up to this entry were taken away."""
    removal_begin: int = 1
    parts: int = 0
    """Shipped, for life; the others likewise."""
    bytes: int = 0
    table_commits: int = 0
    removed_parts: int = 0


def must_stay(path: str, progress: ShipProgress | None, *, url: str, table_in_place: bool) -> str:
    """Why a part at ``path`` below the output folder must not be taken away yet; empty: it may go.

    ``url``: of the store that parts are shipped to, by the settings of now; empty: none.
    """
    if table_in_place and path.startswith(f"{FileKind.HITS}/"):
        return "a table refers to it (table.format without ship.url)"
    if not url:
        return ""
    found = _LAST.search(path)
    if progress is None or progress.url != url or found is None:
        return f"it is not shipped to {url} yet"
    out = progress.rows_entry if path.startswith(f"{FileKind.CONNECTIONS}/") else progress.block
    return "" if int(found[1]) <= out else f"it is not shipped to {url} yet"


def ship_folder(state: StateFolder) -> Path:
    return state.root / "ship"


def read_progress(disk: Disk, state: StateFolder) -> ShipProgress | None:
    """``None``: nothing was ever shipped. *Raises*: DamagedError."""
    path = ship_folder(state) / "progress"
    try:
        return msgspec.json.decode(disk.read_file(path), type=ShipProgress)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise DamagedError(
            f"{path}: {error}; remove it: shipping looks at every part again, and doubles none"
        ) from error


def write_progress(disk: Disk, state: StateFolder, progress: ShipProgress) -> None:
    """Durable when this returns. *Raises*: NoSpaceError, StorageError."""
    disk.write_file_durably(ship_folder(state) / "progress", msgspec.json.encode(progress))


@contextmanager
def shipping_lock(disk: Disk, state: StateFolder) -> Iterator[None]:
    """One committer per state folder. *Raises*: InUseError at once when another process is it."""
    folder = ship_folder(state)
    make_private(disk, folder)
    fd = disk.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InUseError(
                f"{folder} is in use: another process ships this state folder's parts (`run` with ship.url or"
                " table.format does); stop it, or let it do the work"
            ) from error
        yield
    finally:
        disk.close(fd)
