"""When a request may be sent, and what every ending of one leads to.

Runs in the coordinator as pure code: ``now`` is CLOCK_BOOTTIME in seconds, ``random`` is in [0, 1), and
the shell carries out the actions in their order, each only after the one before it succeeded. The
invariant is the floor: no ``SendRequest`` within ``wait_s`` of the last moment at which a stream was, or
may have been, held - whatever crashes in between, because each request is preceded by a ``SyncRecord``
that says a stream may be held from now on. The one exception belongs to the same attempt: after a 401 or
403, which holds no stream, one retry with a new token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, assert_never

from collector.core import remedies
from collector.core.floor_record import FloorRecord, resume
from collector.core.messages import Closed
from collector.core.reconnect_events import (
    Action,
    Disconnect,
    DrainWanted,
    Event,
    Exit,
    Full,
    GetToken,
    Loud,
    Room,
    SendRequest,
    StreamOpened,
    SyncRecord,
    Tick,
    TokenFailed,
    TokenReady,
    WaitUntil,
)
from collector.core.reconnect_table import (
    HEALTHY_MULTIPLE,
    HOLDING,
    NEVER_HELD,
    TOO_MANY_BUSY,
    TRANSITIONS,
    Phase,
    Row,
    Signal,
    row_of,
    wait_for,
)
from collector.core.remedies import TokenFailure
from collector.errors import ExitCode, ProtocolError

HOLD_INTERVAL: Final = 1 / 6
"""How often the record is renewed while a stream may be held. Units: ``wait_s``."""

HOLD_AHEAD: Final = 1 / 3
"""How far ahead of now the record says it will be held. Units: ``wait_s``."""


@dataclass(frozen=True, slots=True)
class ReconnectSettings:
    wait_s: float
    on_refusal: Literal["exit", "retry"] = "exit"
    static_token: bool = False
    """The token cannot be renewed."""
    fingerprint: str = ""
    """Of every setting that a refusal may be about; at most 64 characters, no secret in it."""


@dataclass(frozen=True, slots=True)
class State:
    """Units: ``*_s`` are seconds of CLOCK_BOOTTIME, except ``flowed_s``."""

    phase: Phase
    since_s: float
    """When the phase began."""
    boot_id: str
    held_s: float | None
    """The last moment a stream was, or may have been, held; ``None``: never. While holding: one before."""
    not_before_s: float
    """The end of the table's wait; the floor comes on top."""
    row: Row | None
    """What the last wait was for."""
    words: str
    """Why the phase is what it is."""
    counters: Mapping[Row, int] = field(default_factory=dict)
    full: bool = False
    token_refused: bool = False
    """The last token used was refused, so the next request needs a new one."""
    retried: bool = False
    """The retry at once is used up: every answer since it was 401 or 403."""
    opened_s: float | None = None
    """When the stream that is held now opened."""
    flowed_s: float = 0.0
    """Seconds the stream has been streaming before this phase, pauses not counted."""
    next_hold_s: float = math.inf
    """When the record must be renewed."""

    @property
    def holding(self) -> bool:
        """A stream is, or may be, held."""
        return self.phase in HOLDING

    @property
    def refused_too_often(self) -> bool:
        """The service has been busy so often in a row that the collector is not ready."""
        return (
            self.row is Row.BUSY and self.opened_s is None and self.counters.get(Row.BUSY, 0) >= TOO_MANY_BUSY
        )


class Policy:
    """All decisions about requests. It keeps nothing: every method gives a new state and the actions."""

    def __init__(self, settings: ReconnectSettings) -> None:
        self._settings = settings

    # ------------------------------------------------------------ in

    def start(
        self,
        record: FloorRecord | None,
        *,
        existed: bool,
        boot_id: str,
        now: float,
        orphaned: bool = False,
        full: bool = False,
    ) -> tuple[State, tuple[Action, ...]]:
        """The state to begin with. ``existed`` and ``orphaned``: see ``floor_record.resume``.

        ``full``: there is no room yet; as after ``Full``, nothing is sent before ``Room``.
        """
        resumed = resume(
            record,
            existed=existed,
            boot_id=boot_id,
            now=now,
            wait_s=self._settings.wait_s,
            settings=self._settings.fingerprint,
            orphaned=orphaned,
        )
        state = State(
            phase=Phase.WAITING,
            since_s=now,
            boot_id=boot_id,
            held_s=resumed.held_s,
            not_before_s=resumed.not_before_s,
            row=resumed.row,
            words=resumed.words,
            counters=resumed.counters,
            full=full,
        )
        actions: list[Action] = [SyncRecord(self._record(state, now))] if resumed.rewrite else []
        if resumed.loud:
            actions.append(Loud(resumed.words))
        if self.earliest_s(state) > now:
            actions.append(self._wait_until(state))
        return state, tuple(actions)

    def step(  # noqa: PLR0911 - one return for each event
        self, state: State, event: Event, now: float, random: float
    ) -> tuple[State, tuple[Action, ...]]:
        """What the event leads to.

        Raises: ``ProtocolError`` when the event cannot come in this phase.
        """
        match event:
            case Tick():
                return self._tick(state, now)
            case TokenReady(reset):
                return self._token_ready(state, reset, now)
            case TokenFailed():
                return self._token_failed(state, event, now, random)
            case StreamOpened():
                return self._opened(state, now), ()
            case Closed():
                return self._closed(state, event, now, random)
            case Full():
                return replace(_moved(state, Signal.FULL, now), full=True), ()
            case Room():
                return replace(_moved(state, Signal.ROOM, now), full=False), ()
            case DrainWanted():
                return self._drain(state, now)
            case _:
                assert_never(event)

    # ------------------------------------------------------------ what is known

    def earliest_s(self, state: State) -> float:
        """When the next request may be sent: the table's wait or the floor, whichever ends later."""
        if state.held_s is None:
            return state.not_before_s
        return max(state.not_before_s, state.held_s + self._settings.wait_s)

    def next_tick_s(self, state: State) -> float:
        """When the next ``Tick`` is due; infinite: only another event can change anything."""
        if state.phase is Phase.WAITING:
            return math.inf if state.full else self.earliest_s(state)
        return state.next_hold_s

    # ------------------------------------------------------------ one method per event

    def _tick(self, state: State, now: float) -> tuple[State, tuple[Action, ...]]:
        if state.holding:
            return self._hold(self._clear_if_healthy(state, now), now)
        if state.phase is not Phase.WAITING or now < self.next_tick_s(state):
            return state, ()
        return _moved(state, Signal.DUE, now), (GetToken(renew=state.token_refused),)

    def _hold(self, state: State, now: float) -> tuple[State, tuple[Action, ...]]:
        if now < state.next_hold_s:
            return state, ()
        state = replace(state, next_hold_s=now + HOLD_INTERVAL * self._settings.wait_s)
        return state, (SyncRecord(self._record(state, now)),)

    def _token_ready(self, state: State, reset: str | None, now: float) -> tuple[State, tuple[Action, ...]]:
        fits = not state.full and now >= self.earliest_s(state)
        state = _moved(state, Signal.SEND if fits else Signal.HOLD_BACK, now)
        state = replace(state, token_refused=False)
        if state.phase is not Phase.REQUESTING:
            return state, ()
        state = replace(
            state, next_hold_s=now + HOLD_INTERVAL * self._settings.wait_s, words="a request is sent"
        )
        return state, (SyncRecord(self._record(state, now)), SendRequest(reset))

    def _token_failed(
        self, state: State, event: TokenFailed, now: float, random: float
    ) -> tuple[State, tuple[Action, ...]]:
        refused = _TOKEN_ROWS[event.failure] is Row.REFUSED
        was_over = state.phase is not Phase.TOKEN
        state = _moved(state, Signal.CLIENT_REFUSED if refused else Signal.NO_TOKEN, now)
        if was_over:
            return state, ()
        state = replace(state, words=remedies.token_in_words(event.failure, event.detail))
        row = _TOKEN_ROWS[event.failure]
        state = self._counted(state, row, now, random, event.retry_after_s)
        return state, self._after(state, now)

    def _opened(self, state: State, now: float) -> State:
        state = _moved(state, Signal.OPEN_FULL if state.full else Signal.OPEN, now)
        return replace(state, opened_s=now, flowed_s=0.0, retried=False, words="the stream is open")

    def _closed(
        self, state: State, closed: Closed, now: float, random: float
    ) -> tuple[State, tuple[Action, ...]]:
        row = row_of(closed)
        signal = self._meaning(state, row, closed)
        state = self._clear_if_healthy(state, now)
        may_have_held = state.opened_s is not None or closed.outcome not in NEVER_HELD
        state = replace(
            _moved(state, signal, now),
            held_s=now if may_have_held else state.held_s,
            opened_s=None,
            flowed_s=0.0,
            next_hold_s=math.inf,
            token_refused=row is Row.TOKEN_REFUSED,
            retried=row is Row.TOKEN_REFUSED and (state.retried or signal is Signal.RETRY),
            words=remedies.closed_in_words(closed),
        )
        if signal is Signal.RETRY:
            return state, (GetToken(renew=True),)
        state = self._counted(state, self._row_to_wait(row, signal), now, random, closed.retry_after_s)
        return state, self._after(state, now)

    def _drain(self, state: State, now: float) -> tuple[State, tuple[Action, ...]]:
        before = state.phase
        state = _moved(self._clear_if_healthy(state, now), Signal.DRAIN, now)
        if state.phase is before:
            return state, ()
        state = replace(state, words="it was told to stop")
        if state.phase is Phase.DRAINING:
            return state, (Disconnect(),)
        return state, (SyncRecord(self._record(state, now)), Exit(ExitCode.DONE, state.words))

    # ------------------------------------------------------------ how it is decided

    def _meaning(self, state: State, row: Row, closed: Closed) -> Signal:
        if state.phase is Phase.DRAINING:
            return Signal.CLOSE
        if row is Row.REFUSED:
            return Signal.REFUSE if self._settings.on_refusal == "exit" else Signal.WAIT
        if row is not Row.TOKEN_REFUSED:
            return Signal.WAIT
        if self._settings.static_token:
            return Signal.REFUSE
        return Signal.WAIT if state.retried or closed.retry_after_s else Signal.RETRY

    def _row_to_wait(self, row: Row, signal: Signal) -> Row:
        if signal is Signal.REFUSE:
            return Row.REFUSED
        if row is Row.REFUSED and self._settings.on_refusal == "retry":
            return Row.RETRIED
        return row

    def _counted(
        self, state: State, row: Row, now: float, random: float, retry_after_s: float | None
    ) -> State:
        """The row is hit once more, and its wait begins."""
        count = state.counters.get(row, 0)
        wait_s = wait_for(row, count, self._settings.wait_s, random, retry_after_s)
        counters = {**state.counters, row: count + 1}
        return replace(state, row=row, counters=counters, not_before_s=now + wait_s)

    def _after(self, state: State, now: float) -> tuple[Action, ...]:
        """What is to be done after a wait has begun: it is made durable first."""
        sync = SyncRecord(self._record(state, now))
        if state.phase is Phase.REFUSED:
            return sync, Exit(ExitCode.REFUSED, state.words)
        if state.phase is Phase.STOPPED:
            return sync, Exit(ExitCode.DONE, state.words)
        wait = self._wait_until(state)
        loud = state.row in _LOUD or state.refused_too_often
        return (sync, wait, Loud(state.words)) if loud else (sync, wait)

    def _wait_until(self, state: State) -> WaitUntil:
        return WaitUntil(self.earliest_s(state), state.row or Row.UNKNOWN_END, state.words)

    def _clear_if_healthy(self, state: State, now: float) -> State:
        """Long enough of a stream, pauses not counted, and every counter begins anew."""
        flowing_s = now - state.since_s if state.phase is Phase.STREAMING else 0.0
        if state.flowed_s + flowing_s < HEALTHY_MULTIPLE * self._settings.wait_s:
            return state
        return replace(state, counters={})

    def _record(self, state: State, now: float) -> FloorRecord:
        held_s = now + HOLD_AHEAD * self._settings.wait_s if state.holding else state.held_s
        return FloorRecord(
            boot_id=state.boot_id,
            written_s=now,
            held_until_s=held_s,
            not_before_s=state.not_before_s,
            open=state.holding,
            cause="" if state.row is None else state.row.value,
            counters={row.value: count for row, count in state.counters.items()},
            settings=self._settings.fingerprint,
        )


_TOKEN_ROWS: Final[Mapping[TokenFailure, Row]] = {
    TokenFailure.NETWORK: Row.TOKEN_UNREACHED,
    TokenFailure.UNTRUSTED: Row.UNTRUSTED,
    TokenFailure.INVALID_CLIENT: Row.REFUSED,
    TokenFailure.FILE: Row.TOKEN_UNREACHED,
    TokenFailure.UNCHANGED: Row.REFUSED,
}

_LOUD: Final = frozenset({Row.UNTRUSTED, Row.RETRIED})


def _moved(state: State, signal: Signal, now: float) -> State:
    """The state in the phase that the table gives; streaming time up to here is kept."""
    phase = TRANSITIONS[state.phase].get(signal)
    if phase is None:
        raise ProtocolError(f"the reconnect policy got {signal} while {state.phase}")
    if phase is state.phase:
        return state
    flowed_s = state.flowed_s + (now - state.since_s if state.phase is Phase.STREAMING else 0.0)
    return replace(state, phase=phase, since_s=now, flowed_s=flowed_s)
