"""Who holds the stream, whose ghost still does, and where each slot goes on: pure, the clock is an argument.

The simulator's process runs it. Invariant: a slot is held by one connection at most; a broken
connection's slot stays taken for ``ghost_s`` after the break and after every refusal since.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from typing import Protocol

import numpy as np

from collector.simulator.hits import I64
from collector.simulator.settings import GhostStatus, Resume, SimulatorSettings


class Reset(enum.StrEnum):
    """The service's own words for where to start; both pages' pairs mean the same."""

    SMALLEST = "smallest"
    EARLIEST = "earliest"
    LARGEST = "largest"
    LATEST = "latest"

    @property
    def drops_backfill(self) -> bool:
        """Whether to start at the present."""
        return self in (Reset.LARGEST, Reset.LATEST)


class Source(Protocol):
    """Where lines come from."""

    @property
    def total(self) -> int | None: ...
    def lines(self, first: int, count: int) -> list[bytes]: ...
    def lines_of_share(self, first: int, count: int, share: int, shares: int) -> list[bytes]: ...
    def shares(self, first: int, count: int, shares: int) -> I64: ...


@dataclasses.dataclass(slots=True)
class Production:
    """How many hits exist by now: they come at their own pace, whether anyone listens or not."""

    hits_per_second: float
    total: int | None
    started_s: float | None = None

    @property
    def end(self) -> int:
        """The number no hit reaches."""
        return 2**48 if self.total is None else self.total

    def by(self, now_s: float) -> int | None:
        """Hits made by then; ``None``: they are made as the socket takes them."""
        if not self.hits_per_second:
            return None
        if self.started_s is None:
            return 0
        return min(max(int((now_s - self.started_s) * self.hits_per_second), 0), self.end)

    def next_s(self, now_s: float) -> float:
        """When the next hit after ``now_s`` is made."""
        made = self.by(now_s)
        if made is None or self.started_s is None:
            return now_s
        return self.started_s + (made + 1) / self.hits_per_second


@dataclasses.dataclass(slots=True)
class Sent:
    """One write: hits ``[first, end)`` ended at byte ``wire_end`` of their connection."""

    at_s: float
    first: int
    end: int
    wire_end: float


@dataclasses.dataclass(slots=True)
class Slot:
    """One of ``maxConnections`` places and the position its share of the hits has reached."""

    number: int
    cursor: int = 0
    """The next hit to hand over."""
    furthest: int = 0
    """No hit from here on was ever handed over."""
    resume_at: int = 0
    held: bool = False
    ghost_until_s: float = float("-inf")
    lost_at_s: float | None = None
    sent: collections.deque[Sent] = dataclasses.field(default_factory=collections.deque)


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """No slot: the status and why."""

    status: int
    description: str


class Slots:
    """All places of one stream."""

    def __init__(self, settings: SimulatorSettings, production: Production, source: Source) -> None:
        self._settings = settings
        self._production = production
        self._source = source
        self._slots: list[Slot] = []
        self._before: list[tuple[int, list[int]]] = []
        self._refusals = 0
        self.distinct = 0
        """Hits handed to a socket for the first time."""

    @property
    def size(self) -> int:
        """``maxConnections`` of the clients."""
        return len(self._slots)

    def ask(self, now_s: float, connections: int, reset: Reset | None = None) -> Slot | Refused:
        """A slot for a client that says ``maxConnections`` is ``connections``, or why not."""
        taken = [slot for slot in self._slots if slot.held or slot.ghost_until_s > now_s]
        if taken and connections != self.size:
            why = f"clients disagree on maxConnections: {self.size} is in use, {connections} was asked for"
            return self._refuse(now_s, taken, why)
        if len(taken) == connections:
            return self._refuse(now_s, taken, f"too many connections: all {connections} are in use")
        if connections != self.size:
            self._deal(now_s, connections)
        if reset is not None and not any(slot.held for slot in self._slots):
            self._reset(now_s, reset)
        slot = next(slot for slot in self._slots if slot not in taken)
        self._open(slot, now_s)
        return slot

    def record(self, slot: Slot, sent: Sent) -> None:
        """Hits ``[first, end)`` are about to be written."""
        self.distinct += self._fresh(slot, sent.first, sent.end)
        slot.furthest = max(slot.furthest, sent.end)
        slot.sent.append(sent)
        keep_s = max(self._settings.overlap_s, self._settings.backfill_window_s)
        while slot.sent[0].at_s < sent.at_s - keep_s:
            slot.sent.popleft()

    def end(self, slot: Slot, now_s: float, *, abrupt: bool, acknowledged: float) -> None:
        """The slot's connection ended; ``acknowledged`` of its bytes reached the client's kernel."""
        in_flight = [sent.first for sent in slot.sent if sent.wire_end > acknowledged]
        whole = min(in_flight, default=slot.cursor) if abrupt else slot.cursor
        slot.resume_at = {
            Resume.LOSSY: slot.furthest,
            Resume.EXACT: whole,
            Resume.OVERLAP: min(whole, self._since(slot, now_s - self._settings.overlap_s)),
        }[self._settings.resume]
        for sent in slot.sent:
            sent.wire_end = -1.0
        slot.held = False
        slot.lost_at_s = now_s
        if abrupt:
            slot.ghost_until_s = now_s + self._settings.ghost_s

    def _refuse(self, now_s: float, taken: list[Slot], why: str) -> Refused:
        ghosts = [slot for slot in taken if not slot.held]
        for slot in ghosts:
            slot.ghost_until_s = now_s + self._settings.ghost_s
        if not ghosts:
            return Refused(409, why)
        self._refusals += 1
        status = self._settings.ghost_status
        alternates = status is GhostStatus.ALTERNATE and self._refusals % 2 == 0
        if alternates or status is GhostStatus.UNAVAILABLE:
            return Refused(503, "service unavailable: no hits are available for this stream, try again later")
        return Refused(409, why)

    def _deal(self, now_s: float, connections: int) -> None:
        """New shares for another ``maxConnections``: what any old slot lacked is sent again to all."""
        if not self._slots:
            self._slots = [Slot(number, lost_at_s=now_s) for number in range(connections)]
            return
        self._before.append((self.size, [slot.furthest for slot in self._slots]))
        resume_at = min(self._position(slot, now_s) for slot in self._slots)
        furthest = min(slot.furthest for slot in self._slots)
        self._slots = [
            Slot(number, cursor=resume_at, furthest=furthest, resume_at=resume_at, lost_at_s=now_s)
            for number in range(connections)
        ]

    def _reset(self, now_s: float, reset: Reset) -> None:
        for slot in self._slots:
            newest = self._production.by(now_s)
            oldest = self._production.by(now_s - self._settings.backfill_window_s)
            if reset.drops_backfill:
                slot.resume_at = slot.furthest if newest is None else newest
            else:
                sent = self._since(slot, now_s - self._settings.backfill_window_s)
                slot.resume_at = sent if oldest is None else min(sent, max(oldest, 0))
            slot.lost_at_s = now_s

    def _open(self, slot: Slot, now_s: float) -> None:
        if self._production.started_s is None:
            self._production.started_s = now_s
        slot.cursor = self._position(slot, now_s)
        slot.furthest = max(slot.furthest, slot.cursor)
        slot.held = True

    def _position(self, slot: Slot, now_s: float) -> int:
        """Where the slot goes on: after the backfill window, at the present."""
        late = slot.lost_at_s is not None and now_s - slot.lost_at_s > self._settings.backfill_window_s
        if not late:
            return slot.resume_at
        made = self._production.by(now_s)
        return slot.furthest if made is None else max(made, slot.furthest)

    @staticmethod
    def _since(slot: Slot, at_s: float) -> int:
        """The first hit sent since then; none: the cursor."""
        return min((sent.first for sent in slot.sent if sent.at_s >= at_s), default=slot.cursor)

    def _fresh(self, slot: Slot, first: int, end: int) -> int:
        """How many hits of ``[first, end)`` are this slot's and were never handed over before."""
        first = max(first, slot.furthest)
        if self.size == 1 and not self._before:
            return max(end - first, 0)
        if first >= end:
            return 0
        fresh = self._source.shares(first, end - first, self.size) == slot.number
        for size, furthest in self._before:
            shares = self._source.shares(first, end - first, size)
            fresh &= np.arange(first, end) >= np.asarray(furthest)[shares]
        return int(fresh.sum())
