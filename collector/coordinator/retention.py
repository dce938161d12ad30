"""Keeps committed parts within the limits of ``[retention]``, if there are any.

Runs in the coordinator beside everything else. Invariant: it can neither end the run nor make the intake
wait: it looks around in a thread of its own, and each folder's parts are taken away between two commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Final

from collector.coordinator.clock import now_us
from collector.coordinator.committer import StorageThread
from collector.coordinator.process import Coordinator
from collector.core.ledger import LogState
from collector.core.messages import FileKind
from collector.core.retention import RETAINED, Limit, Outdated, is_of_interest, outdated
from collector.errors import NoSpaceError, StorageError
from collector.settings_lake import Retention as Limits
from collector.storage.fs import DISK
from collector.storage.retention import (
    NamedUpTo,
    committed_parts,
    remove_empty_folders,
    retire_parts,
    sizes_of_parts,
)
from collector.telemetry import log

INTERVAL_S: Final = 600.0
"""How often it is looked for what is outdated."""

MayGo = Callable[[str], bool]
"""Whether nothing else still needs the part of this path below the output folder. Asked in a thread."""


def limits_of(settings: Limits) -> dict[FileKind, Limit]:
    """Of the kinds that have one."""
    found = {
        kind: Limit(getattr(settings, f"{kind}_max_age_days"), getattr(settings, f"{kind}_max_bytes"))
        for kind in RETAINED
    }
    return {kind: limit for kind, limit in found.items() if not limit.none}


class Retention:
    """``may_go`` is asked about each part beside the limits. One look at a time, each from the start."""

    def __init__(self, coordinator: Coordinator, *, may_go: MayGo = lambda _: True) -> None:
        self._coordinator = coordinator
        self._output = coordinator.settings.output.folder
        self._state = coordinator.foundation.state
        self._ledger = coordinator.ledger
        self._may_go = may_go
        self._thread = StorageThread("retention")
        self._strangers: set[str] = set()
        """Named like parts of ours, and in no commit."""
        self._said: set[str] = set()

    async def retire_outdated(self, _: Coordinator) -> None:
        """A companion of the coordinator. The limits may change meanwhile."""
        try:
            while True:
                if limits := limits_of(self._coordinator.settings.retention):
                    await self._look(limits)
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._thread.close()

    async def _look(self, limits: Mapping[FileKind, Limit]) -> None:
        try:
            await self._thread.run(partial(remove_empty_folders, DISK, self._output, self._ledger.stream))
            say_removed(await self._retire(await self._find(limits)))
        except NoSpaceError as error:
            log("storage.full", what="a record of removed parts", reason=str(error), retry_s=INTERVAL_S)
        except (StorageError, OSError) as error:
            self._say_once(f"parts beyond the limits of [retention] cannot be removed: {error}")

    async def _find(self, limits: Mapping[FileKind, Limit]) -> list[Outdated]:
        ledger, now = self._ledger, now_us()

        def of_interest(kind: FileKind, folder: str) -> bool:
            return kind in limits and is_of_interest(kind, folder, limits[kind], now)

        look = partial(sizes_of_parts, DISK, self._output, ledger.stream, ledger.instance, of_interest)
        sizes = await self._thread.run(look)
        edge = named_up_to(ledger)

        def may_go(path: str) -> bool:
            return edge.includes(path) and path not in self._strangers and self._may_go(path)

        return await self._thread.run(partial(outdated, sizes, limits, now, may_go))

    async def _retire(self, found: Sequence[Outdated]) -> list[Outdated]:
        """Those that are gone now."""
        paths = [path for each in found for path in each.paths]
        if not paths:
            return []
        committed = await self._thread.run(partial(committed_parts, DISK, self._state, paths))
        gone = []
        for each in found:
            if strangers := set(each.paths) - committed.keys():
                self._leave(strangers)
                continue
            parts = [committed[path] for path in each.paths]
            retire = partial(retire_parts, DISK, self._state, self._output, parts, each.reason)
            await self._coordinator.committer.thread.run(retire)
            gone.append(each)
        await self._coordinator.committer.take_over_retired()
        return gone

    def _leave(self, paths: set[str]) -> None:
        self._strangers |= paths
        self._say_once(
            f"{min(paths)} is beyond a limit of [retention] and no commit names it: it is left alone, and its"
            " folder with it. `verify` says more"
        )

    def _say_once(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            log("attention.needed", reason=reason)


def named_up_to(ledger: LogState) -> NamedUpTo:
    """What is committed now. Rows of ``connections`` that are pending are named like those before them."""
    rows = ledger.pending_connections
    return NamedUpTo(ledger.last_batch[1], ledger.connections_until if rows is None else rows.first - 1)


def say_removed(gone: Sequence[Outdated]) -> None:
    """One line for each kind and reason."""
    for (kind, reason), group in groupby(gone, lambda each: (each.kind, each.reason)):
        each = list(group)
        log(
            "parts.removed",
            kind=kind,
            files=sum(len(one.paths) for one in each),
            bytes=sum(one.size for one in each),
            oldest=each[0].folder,
            newest=each[-1].folder,
            reason=reason,
        )
