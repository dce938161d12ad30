"""The status: what the coordinator knows, as one value for page, terminal, ``status``, metrics and bundle.

Runs in the coordinator, beside the intake, and only looks. The invariants: making one takes no disk call and
no copy of what is in hand, so it may be made at any time; and everything in it is bounded.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from collector import __version__
from collector.coordinator.children import READER
from collector.coordinator.clock import boottime_s, now_us
from collector.core.connection import ConnectionState, ConnectionView, starting
from collector.core.history import History
from collector.core.sentence import sentence
from collector.core.status import (
    Child,
    Connection,
    Disk,
    Journal,
    RejectSeen,
    Status,
    Stopped,
    Stretch,
    Token,
    Totals,
)
from collector.core.supervision import Phase
from collector.core.timeline import Timeline
from collector.errors import StorageError
from collector.settings import Settings
from collector.storage.fs import DISK
from collector.storage.lastword import forget_last_word, read_last_word
from collector.telemetry import log

if TYPE_CHECKING:
    from collector.coordinator.process import Companion, Coordinator

LOOK_S: Final = 1.0
ROOM_LOOK_S: Final = 10.0
"""At the disk, and the token's end: these cost a call and a decoding."""

_OPEN: Final = frozenset({ConnectionState.STREAMING, ConnectionState.PAUSED, ConnectionState.DRAINING})
_CODED: Final = frozenset({ConnectionState.WAITING, ConnectionState.REFUSED})
"""States that are about how the last request ended."""


class StatusBook:
    """Looks at the coordinator again and again; ``now`` gives the status as of this moment."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._history = History()
        self._disk = Disk(reserve_bytes=coordinator.settings.journal.reserve_bytes)
        self._sees_room = True
        self._token = Token()
        self._started_us = now_us()
        self.page = ""
        """Its address, once it is there."""
        state = coordinator.foundation.state
        last = read_last_word(DISK, state)
        forget_last_word(DISK, state)
        known = last is not None and last.instance == coordinator.ledger.instance
        self._timeline = Timeline(last.timeline if last is not None and known else ())
        if last is not None and known:
            coordinator.rejects.newest.extend(last.rejects)

    @property
    def looks(self) -> tuple[Companion, ...]:
        """What is to run beside the collector for it."""
        return (self.look_again, self.look_at_room)

    async def look_again(self, _: Coordinator) -> None:
        """Until cancelled, once a second."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    async def look_at_room(self, coordinator: Coordinator) -> None:
        """Until cancelled. By itself, for a file system that hangs must hold up nothing else."""
        while True:
            await self._see_room()
            if coordinator.stream is not None:
                self._token = coordinator.stream.token
            await asyncio.sleep(ROOM_LOOK_S)

    def look(self) -> None:
        """At what changes from second to second."""
        at = self._coordinator
        self._timeline.look(at.ledger, now_us())
        self._history.look(
            time.monotonic(),
            at.intake.accepted_total,
            at_us=now_us(),
            lag_s=self._lag_s(),
            state=self._view().state,
        )

    async def _see_room(self) -> None:
        at = self._coordinator
        folder, reserve_bytes = at.settings.output.folder, at.settings.journal.reserve_bytes
        try:
            free, total = await asyncio.to_thread(
                lambda: (min(map(DISK.free_bytes, at.foundation.watched)), DISK.total_bytes(folder))
            )
            self._disk = Disk(free_bytes=free, total_bytes=total, reserve_bytes=reserve_bytes)
            self._sees_room = True
        except (OSError, StorageError) as error:
            if self._sees_room:
                log("attention.needed", reason=f"how much room there is cannot be seen: {error}")
            self._sees_room = False

    # ------------------------------------------------------------ the value

    def now(self) -> Status:
        """All of it, sentence included."""
        at = self._coordinator
        view, reasons = self._view(), tuple(at.not_ready())
        made = Status(
            at_us=now_us(),
            version=__version__,
            pid=os.getpid(),
            stream=at.ledger.stream,
            instance=at.ledger.instance,
            output=str(at.settings.output.folder),
            state_folder=str(at.foundation.state.root),
            started_us=self._started_us,
            connection=self._connection(view),
            ready=not reasons,
            reasons=reasons,
            hits_per_s=round(self._history.hits_per_s, 2),
            lag_s=round(self._lag_s(), 2),
            totals=self._totals(),
            journal=self._journal(),
            disk=self._disk,
            token=self._token,
            ship=None if at.shipping is None else at.shipping.view(now_us()),
            decoder="plain" if at.pipeline.plain else "kernel",
            page=self.page,
            children=tuple(self._children()),
            timeline=self._stretches(),
            rejects=tuple(self._rejects()),
            history=tuple(self._history.samples),
            retired_parts=at.committer.retired_parts,
        )
        return msgspec.structs.replace(made, sentence=sentence(made))

    def last(self, exit_code: int, reason: str) -> Status:
        """What is left behind."""
        self.look()
        stopped = Stopped(at_us=now_us(), exit_code=exit_code, reason=reason)
        made = msgspec.structs.replace(self.now(), stopped=stopped, ready=False, hits_per_s=0.0)
        return msgspec.structs.replace(made, sentence=sentence(made))

    def _view(self) -> ConnectionView:
        stream = self._coordinator.stream
        return starting(boottime_s()) if stream is None else stream.view()

    def _connection(self, view: ConnectionView) -> Connection:
        stream, intake = self._coordinator.stream, self._coordinator.intake
        offset_us = now_us() - round(boottime_s() * 1e6)
        held = stream.open if stream is not None and view.state in _OPEN else None
        return Connection(
            state=view.state,
            since_us=offset_us + round(view.since_s * 1e6),
            cause=view.cause,
            code=stream.code if stream is not None and view.state in _CODED else "",
            number=0 if held is None else held.number,
            host="" if held is None else held.host,
            next_attempt_us=0
            if view.next_attempt_s is None
            else offset_us + round(view.next_attempt_s * 1e6),
            bytes_received=0 if held is None else held.bytes_received,
            records=0 if held is None else held.records,
            last_hit_us=intake.accepted_us,
        )

    def _totals(self) -> Totals:
        at, committed = self._coordinator, self._coordinator.ledger.totals
        return Totals(
            records=committed.records,
            rows=committed.rows,
            resends=committed.resends,
            rejects=committed.rejects,
            batches=at.batches,
            accepted=at.intake.accepted_total,
        )

    def _journal(self) -> Journal:
        at = self._coordinator
        segments, oldest = at.intake.segments, at.pipeline.batching.oldest_uncommitted()
        waiting = at.intake.accepted_total - at.ledger.totals.records if oldest is not None else 0
        return Journal(
            durability=at.settings.journal.durability,
            used_bytes=round(segments.filled * segments.max_bytes),
            max_bytes=segments.max_bytes,
            waiting_blocks=at.pipeline.batching.uncommitted_blocks,
            waiting_records=max(0, waiting),
            full=at.intake.starved,
        )

    def _lag_s(self) -> float:
        oldest = self._coordinator.pipeline.batching.oldest_uncommitted()
        return 0.0 if oldest is None else self._coordinator.age_s(oldest)

    def _children(self) -> Iterator[Child]:
        children = self._coordinator.children
        for name, child in sorted(children.newest.items(), key=lambda item: _in_order(item[0])):
            state = _doing(child.phase)
            if name == READER and state == "idle" and self._coordinator.intake.connection:
                state = "busy"  # it holds a connection, however little comes
            yield Child(name=name, pid=child.pid, state=state, restarts=children.starts[name] - 1)

    def _rejects(self) -> Iterator[RejectSeen]:
        """Of those from before privacy was wanted nothing is quoted any more."""
        hides = self._coordinator.children.privacy.hides
        for reject in self._coordinator.rejects.newest:
            if hides and reject.text:
                yield msgspec.structs.replace(reject, text="", reason=reject.reason.partition(":")[0])
            else:
                yield reject

    def _stretches(self) -> tuple[Stretch, ...]:
        """What the open connection has brought is known to the stream, not yet to the ledger."""
        stream = self._coordinator.stream
        held = None if stream is None else stream.open
        return tuple(
            msgspec.structs.replace(at, records=max(at.records, held.records))
            if held is not None and at.kind == "connection" and at.number == held.number
            else at
            for at in self._timeline.stretches()
        )


def failed_start(settings: Settings, exit_code: int, reason: str) -> Status:
    """Of a run that did not come to reading."""
    at_us = now_us()
    made = Status(
        at_us=at_us,
        version=__version__,
        pid=os.getpid(),
        stream=settings.stream.name,
        instance="",
        output=str(settings.output.folder),
        state_folder=str(settings.state.folder),
        started_us=at_us,
        connection=Connection(state=ConnectionState.STOPPED, since_us=at_us, cause=reason),
        stopped=Stopped(at_us=at_us, exit_code=exit_code, reason=reason),
    )
    return msgspec.structs.replace(made, sentence=sentence(made))


def _doing(phase: Phase | None) -> Literal["starting", "idle", "busy", "gone"]:
    if phase is None:
        return "gone"
    if phase is Phase.STARTING:
        return "starting"
    return "idle" if phase is Phase.WAITING else "busy"


def _in_order(name: str) -> tuple[bool, int, str]:
    """The reader first, decoder 2 before decoder 10."""
    return name != READER, len(name), name
