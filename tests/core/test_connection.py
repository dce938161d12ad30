"""What is said about the connection: its state, its silence, the gap before it."""

from __future__ import annotations

import pytest
from reconnect_shell import WAIT_S, Shell, closed, status

from collector.core.connection import (
    BACKFILL_S,
    LONGEST_IDLE_S,
    ConnectionState,
    Silence,
    starting,
    suspected_gap,
    view,
)
from collector.core.messages import Outcome
from collector.core.reconnect_events import DrainWanted, Full, Room, StreamOpened, Tick
from collector.core.reconnect_table import Row

# ---------------------------------------------------------------- the view


def test_view_follows_a_connection() -> None:
    """Each phase is shown with its cause; a countdown only where the clock alone decides."""
    shell = Shell()
    shell.step(Tick())
    assert view(shell.policy, shell.state).state is ConnectionState.REQUESTING
    shell.request()
    assert view(shell.policy, shell.state).state is ConnectionState.REQUESTING
    shell.now += 1
    shell.step(StreamOpened())
    opened_s = shell.now
    shell.advance(50)
    shown = view(shell.policy, shell.state)
    assert (shown.state, shown.since_s, shown.next_attempt_s) == (ConnectionState.STREAMING, opened_s, None)
    shell.step(Full())
    shown = view(shell.policy, shell.state)
    assert (shown.state, shown.since_s) == (ConnectionState.PAUSED, opened_s)
    assert "no room" in shown.cause
    shell.step(Room())
    shell.step(closed(Outcome.LOST))
    shown = view(shell.policy, shell.state)
    assert shown.state is ConnectionState.WAITING
    assert shown.next_attempt_s == shell.now + WAIT_S
    assert shown.row is Row.LOST
    assert "the connection was lost" in shown.cause


def test_view_while_full_has_no_countdown() -> None:
    """While there is no room no request is promised, and the reason is the room."""
    shell = Shell()
    shell.waits(closed(Outcome.LOST), 1)
    shell.step(Full())
    shown = view(shell.policy, shell.state)
    assert shown.next_attempt_s is None
    assert "no room" in shown.cause
    assert "the connection was lost" in shown.cause


def test_view_of_the_ends() -> None:
    """Drained and refused are told apart."""
    shell = Shell()
    shell.stream(1)
    shell.step(DrainWanted())
    assert view(shell.policy, shell.state).state is ConnectionState.DRAINING
    shell.step(closed(Outcome.DRAINED))
    assert view(shell.policy, shell.state).state is ConnectionState.STOPPED
    refused = Shell()
    refused.request()
    refused.step(status(404))
    assert view(refused.policy, refused.state).state is ConnectionState.REFUSED
    assert "(404)" in view(refused.policy, refused.state).cause
    assert starting(1.0).state is ConnectionState.STARTING


def test_view_is_not_ready_when_refused_too_often() -> None:
    """Five answers of 503 in a row."""
    shell = Shell()
    shell.waits(status(503), 5)
    assert not view(shell.policy, shell.state).ready


# ---------------------------------------------------------------- silence


def fed(silence: Silence, *, seconds: int, per_second: float, start_s: float = 0.0) -> float:
    """A connection that brings records evenly, told once a second; gives the time of its last byte."""
    silence.opened(start_s)
    for second in range(1, seconds + 1):
        records = int(second * per_second)
        silence.progressed(start_s + second, bytes_received=100 * second, records=records, paused=False)
    return start_s + seconds


def test_busy_stream_is_broken_after_five_minutes() -> None:
    """A hit a second over the ten minutes before the silence: 300 s."""
    silence = Silence()
    last_s = fed(silence, seconds=700, per_second=1.1)
    assert silence.limit_s() == 300
    assert not silence.stalled(last_s + 299)
    assert silence.stalled(last_s + 300)


def test_quiet_stream_is_broken_after_an_hour() -> None:
    """Less than a hit a second: 3600 s."""
    silence = Silence()
    last_s = fed(silence, seconds=700, per_second=0.5)
    assert not silence.stalled(last_s + 3599)
    assert silence.stalled(last_s + 3600)


def test_only_the_ten_minutes_before_the_silence_count() -> None:
    """A burst long ago does not make a quiet stream busy; silence itself does not make it quiet."""
    silence = Silence()
    silence.opened(0)
    silence.progressed(1, bytes_received=1, records=5000, paused=False)
    for minute in range(1, 20):
        silence.progressed(1 + 60 * minute, bytes_received=1 + minute, records=5000 + minute, paused=False)
        if minute == 5:
            assert silence.limit_s() == 300
    assert silence.limit_s() == 3600
    busy = Silence()
    last_s = fed(busy, seconds=700, per_second=2)
    for second in range(1, 299):
        busy.progressed(last_s + second, bytes_received=70_000, records=1400, paused=False)
    assert busy.limit_s() == 300


def test_empty_lines_are_life() -> None:
    """Bytes without records end a silence."""
    silence = Silence()
    silence.opened(0)
    silence.progressed(3599, bytes_received=2, records=0, paused=False)
    assert not silence.stalled(3600)


def test_pause_is_not_a_stall() -> None:
    """Paused by ourselves: the silence begins when the pause ends."""
    silence = Silence()
    last_s = fed(silence, seconds=700, per_second=5)
    silence.progressed(last_s + 5000, bytes_received=70_000, records=3500, paused=True)
    assert not silence.stalled(last_s + 5000)
    assert silence.stalled(last_s + 5300)


def test_silence_begins_anew_when_a_pause_ends() -> None:
    """Nobody need say anything in a pause: what counts is when it ended, and only once."""
    silence = Silence()
    last_s = fed(silence, seconds=700, per_second=5)
    silence.progressed(last_s + 1, bytes_received=70_000, records=3500, paused=True)
    silence.progressed(last_s + 900, bytes_received=70_000, records=3500, paused=False)
    assert not silence.stalled(last_s + 900)
    silence.progressed(last_s + 1200, bytes_received=70_000, records=3500, paused=False)
    assert silence.stalled(last_s + 1200)


def test_limit_doubles_for_each_connection_without_a_byte() -> None:
    """Doubled each time, to 24 h; a connection that brings one ends it."""
    silence = Silence()
    limits = []
    for _ in range(7):
        silence.opened(0)
        limits.append(silence.limit_s())
        silence.closed(0)
    assert limits == [3600, 7200, 14400, 28800, 57600, LONGEST_IDLE_S, LONGEST_IDLE_S]
    assert silence.longest_s() == LONGEST_IDLE_S
    silence.opened(0)
    silence.progressed(1, bytes_received=2, records=0, paused=False)
    assert silence.limit_s() == 3600
    silence.closed(2)
    assert silence.limit_s() == 3600


def test_busy_stream_that_falls_silent_is_asked_again_soon() -> None:
    """The rhythm outlives the connection: the next one is given 300 s, the one after it 600."""
    silence = Silence()
    last_s = fed(silence, seconds=700, per_second=5)
    silence.closed(70_000)
    silence.opened(last_s + 60)
    assert silence.limit_s() == 300
    silence.closed(0)
    silence.opened(last_s + 500)
    assert silence.limit_s() == 600


def test_fixed_limit_stays() -> None:
    """A number in the settings is the number."""
    silence = Silence(fixed_s=7.0)
    silence.closed(0)
    silence.opened(0)
    assert (silence.limit_s(), silence.longest_s()) == (7.0, 7.0)
    assert silence.stalled(7.0)


def test_memory_of_the_rhythm_is_bounded() -> None:
    """A stream that never stops keeps a bounded number of buckets."""
    silence = Silence()
    fed(silence, seconds=5000, per_second=3)
    assert len(silence._arrivals) <= 62


# ---------------------------------------------------------------- the gap


@pytest.mark.parametrize(
    ("before", "gap_s", "resends", "more", "expected"),
    [
        (None, 0, 0, {}, "no"),
        (None, 9999, 0, {}, "no"),
        (Outcome.LOST, 60, 12, {}, "no"),
        (Outcome.LOST, 60, 0, {}, "possible"),
        (Outcome.STALLED, 60, 0, {}, "possible"),
        (Outcome.READER_DIED, 60, 0, {}, "possible"),
        (Outcome.DRAINED, 60, 0, {}, "possible"),
        (Outcome.ENDED, 60, 0, {}, "no"),
        (Outcome.ENDED, 60, 0, {"cut_bytes": 5}, "possible"),
        (Outcome.ENDED, BACKFILL_S + 1, 0, {}, "likely"),
        (Outcome.LOST, BACKFILL_S + 1, 0, {}, "likely"),
        (Outcome.LOST, BACKFILL_S + 1, 3, {}, "possible"),
        (Outcome.ENDED, 60, 9, {"reset": True}, "likely"),
    ],
)
def test_suspected_gap(
    before: Outcome | None, gap_s: float, resends: int, more: dict[str, int], expected: str
) -> None:
    """The first rule that applies decides, and says why."""
    found = suspected_gap(before=before, gap_s=gap_s, resends_at_start=resends, **more)  # type: ignore[arg-type]
    assert found.suspected == expected
    assert found.rule
