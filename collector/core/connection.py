"""What can be said about the connection: its state for people, its silence, and the gap before it.

Runs in the coordinator as pure code; ``now_s`` is CLOCK_BOOTTIME in seconds. The invariants: quiet is not
broken until it has lasted longer than the stream's own rhythm explains, and nobody is told "no gap"
without a rule that says why.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from collector.core.messages import Outcome
from collector.core.reconnect import Policy, State
from collector.core.reconnect_table import Phase, Row

# ---------------------------------------------------------------- its state, for people


class ConnectionState(enum.StrEnum):
    """What the status page and the live view show."""

    STARTING = "starting"
    """Recovery of the last run, before anything is decided."""
    WAITING = "waiting"
    REQUESTING = "requesting"
    STREAMING = "streaming"
    PAUSED = "paused"
    DRAINING = "draining"
    REFUSED = "refused"
    STOPPED = "stopped"


_STATES: Final[Mapping[Phase, ConnectionState]] = {
    Phase.WAITING: ConnectionState.WAITING,
    Phase.TOKEN: ConnectionState.REQUESTING,
    Phase.REQUESTING: ConnectionState.REQUESTING,
    Phase.STREAMING: ConnectionState.STREAMING,
    Phase.PAUSED: ConnectionState.PAUSED,
    Phase.DRAINING: ConnectionState.DRAINING,
    Phase.REFUSED: ConnectionState.REFUSED,
    Phase.STOPPED: ConnectionState.STOPPED,
}


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """Units: ``*_s`` are seconds of CLOCK_BOOTTIME."""

    state: ConnectionState
    since_s: float
    """A pause does not make the connection younger: while it is open, this is when it opened."""
    cause: str
    """Why, in words."""
    row: Row | None = None
    """What the last wait was for."""
    next_attempt_s: float | None = None
    """When a request will be sent; ``None``: not by the clock alone."""
    ready: bool = True
    """The service is not refusing again and again."""


def starting(now_s: float) -> ConnectionView:
    """Before the policy has begun."""
    return ConnectionView(ConnectionState.STARTING, now_s, "the last run's work is taken up")


def view(policy: Policy, state: State) -> ConnectionView:
    """What the policy's state looks like from outside."""
    waiting = state.phase is Phase.WAITING
    return ConnectionView(
        state=_STATES[state.phase],
        since_s=state.since_s if state.opened_s is None else state.opened_s,
        cause=_cause(state),
        row=state.row,
        next_attempt_s=policy.earliest_s(state) if waiting and not state.full else None,
        ready=not state.refused_too_often,
    )


def _cause(state: State) -> str:
    if state.phase is Phase.PAUSED:
        return "there is no room for more; nothing that was taken is lost"
    if state.phase is Phase.WAITING and state.full:
        before = "" if state.row is None else f"; before that: {state.words}"
        return f"there is no room for more, so no request is sent{before}"
    return state.words


# ---------------------------------------------------------------- silence

RHYTHM_WINDOW_S: Final = 600.0
BUSY_HITS: Final = 600
"""In the ten minutes before the silence: a hit a second."""

BUSY_IDLE_S: Final = 300.0
QUIET_IDLE_S: Final = 3600.0
LONGEST_IDLE_S: Final = 86_400.0

_BUCKET_S: Final = 10.0
"""Arrivals are remembered in this grain: at most 61 of them."""

_LONGEST_EXPONENT: Final = 16


@dataclass(slots=True)
class Silence:
    """How long a connection may be silent, from what the connections so far have brought."""

    fixed_s: float | None = None
    """``reconnect.idle_timeout_s``; ``None``: auto."""
    empty_connections: int = 0
    """Connections in a row that brought no byte."""
    _arrivals: deque[tuple[float, int]] = field(default_factory=deque)
    """(start of the bucket, records)."""
    _last_byte_s: float = 0.0
    _bytes: int = 0
    _records: int = 0
    _paused: bool = False

    def opened(self, now_s: float) -> None:
        """A stream is open; the counts of ``progressed`` begin at 0 again."""
        self._last_byte_s = now_s
        self._bytes = self._records = 0
        self._paused = False

    def progressed(self, now_s: float, *, bytes_received: int, records: int, paused: bool) -> None:
        """The running counts of the open connection. Empty lines count: they are bytes.

        So does a pause up to its end, however long ago the last word of it came.
        """
        was_paused, self._paused = self._paused, paused
        if bytes_received == self._bytes and not (paused or was_paused):
            return
        if bytes_received > self._bytes:
            self.empty_connections = 0
            self._arrived(now_s, records - self._records)
        self._last_byte_s = now_s
        self._bytes, self._records = bytes_received, records

    def closed(self, bytes_received: int) -> None:
        """The stream that was open is over."""
        self.empty_connections = 0 if bytes_received else self.empty_connections + 1

    def limit_s(self) -> float:
        """How long the silence may last now."""
        busy = sum(records for _, records in self._arrivals) >= BUSY_HITS
        return self._doubled(BUSY_IDLE_S if busy else QUIET_IDLE_S)

    def longest_s(self) -> float:
        """The most that ``limit_s`` can be on the next connection: for a reader that knows no rhythm."""
        return self._doubled(QUIET_IDLE_S)

    def stalled(self, now_s: float) -> bool:
        return now_s - self._last_byte_s >= self.limit_s()

    def _doubled(self, idle_s: float) -> float:
        if self.fixed_s is not None:
            return self.fixed_s
        doublings = min(self.empty_connections, _LONGEST_EXPONENT)
        return min(idle_s * 2.0**doublings, LONGEST_IDLE_S)

    def _arrived(self, now_s: float, records: int) -> None:
        if self._arrivals and now_s - self._arrivals[-1][0] < _BUCKET_S:
            start_s, before = self._arrivals.pop()
            self._arrivals.append((start_s, before + records))
        else:
            self._arrivals.append((now_s, records))
        while now_s - self._arrivals[0][0] > RHYTHM_WINDOW_S:
            self._arrivals.popleft()


# ---------------------------------------------------------------- the gap before a connection

BACKFILL_S: Final = 300.0
"""How long a gap the service fills afterwards. Source: Adobe's faq says "several minutes"."""


@dataclass(frozen=True, slots=True)
class SuspectedGap:
    suspected: Literal["no", "possible", "likely"]
    rule: str
    """Why, in words."""


def suspected_gap(  # noqa: PLR0911 - one return for each rule
    *,
    before: Outcome | None,
    gap_s: float,
    resends_at_start: int,
    cut_bytes: int = 0,
    reset: bool = False,
) -> SuspectedGap:
    """Whether hits were missed between two connections; the first rule that applies decides.

    ``before`` is how the earlier connection ended (``None``: there was none), ``gap_s`` the seconds from
    its last moment to the opening of this one, ``cut_bytes`` what it left of a record, ``reset`` whether
    this one asked the service to start anew. Resends at the start are the evidence that the service
    went back to before the break.
    """
    if before is None:
        return SuspectedGap("no", "the first connection: nothing was asked for before")
    if reset:
        return SuspectedGap("likely", "a reset was sent, which can throw away what the service had kept")
    overlap = resends_at_start > 0
    if gap_s > BACKFILL_S:
        long = f"{gap_s:.0f} s without a connection, and the service fills in about {BACKFILL_S:.0f} s"
        if overlap:
            return SuspectedGap("possible", f"{long}; {resends_at_start} resends show that it went back")
        return SuspectedGap("likely", long)
    if overlap:
        return SuspectedGap("no", f"{resends_at_start} resends show that the service went back far enough")
    if before is Outcome.ENDED and not cut_bytes:
        return SuspectedGap("no", "the service ended the response itself, and goes on after its last record")
    return SuspectedGap("possible", "what was in transit at the break can be lost, and no resends were seen")
