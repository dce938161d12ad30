"""Why committed parts are not on this disk any more, as whoever took them away has said.

Run by the shipping process and by ``verify --remote``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from collector.core.entries import Retired
from collector.errors import DamagedError
from collector.storage.archive import all_entries
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder
from collector.storage.retired import read_retired, retired_records

SHIPPED: Final = "shipped"
"""The reason that shipping itself gives."""


class Gone:
    """By the log and by ``retired/``; read once it is asked, and again for a part that it did not know."""

    def __init__(self, disk: Disk, state: StateFolder) -> None:
        self._disk = disk
        self._state = state
        self._reasons: dict[str, str] = {}

    def reason(self, path: str) -> str | None:
        """``None``: nobody said that it would be taken away. *Blocks* for the whole log, if it must."""
        if path not in self._reasons:
            self._reasons.update(self._read())
        return self._reasons.get(path)

    def _read(self) -> Iterator[tuple[str, str]]:
        for path in retired_records(self._disk, self._state):
            with suppress(DamagedError, FileNotFoundError):
                entry = read_retired(self._disk, path, 0)
                yield from ((file.path, entry.reason) for file in entry.files)
        for _, logged in all_entries(self._disk, self._state):
            if isinstance(logged, Retired):
                yield from ((file.path, logged.reason) for file in logged.files)
