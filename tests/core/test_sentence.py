"""The one sentence: every state of a collector in words."""

from __future__ import annotations

import pytest

from collector.core.connection import ConnectionState
from collector.core.readiness import JOURNAL_FULL
from collector.core.sentence import duration, sentence
from collector.core.status import Connection, Status, Stopped, Stretch

S = 1_000_000
NOW = 1_700_000_000 * S  # 22:13:20 UTC
MINUTE_AGO = NOW - 70 * S


def said(state, cause="", *, since=MINUTE_AGO, attempt=0, last_hit=0, **more):
    connection = Connection(
        state=state, since_us=since, cause=cause, next_attempt_us=attempt, last_hit_us=last_hit
    )
    names = {"version": "1", "pid": 1, "stream": "s", "instance": "i", "output": "o", "state_folder": "f"}
    return sentence(Status(at_us=NOW, started_us=since, connection=connection, **names, **more))


def gap(suspected, ended=NOW - S):
    return Stretch(kind="gap", began_us=ended - S, ended_us=ended, suspected=suspected)


def reading(**more):
    return said(ConnectionState.STREAMING, last_hit=NOW - S, hits_per_s=1240.0, **more)


@pytest.mark.parametrize(
    ("state", "cause", "words"),
    [
        (ConnectionState.STARTING, "", "Starting: the work of the last run is taken up."),
        (ConnectionState.WAITING, "a lock is held", "Waiting: a lock is held."),
        (ConnectionState.REQUESTING, "", "Connecting."),
        (ConnectionState.REQUESTING, "a token is asked for", "Connecting: a token is asked for."),
        (ConnectionState.PAUSED, "the disk is full", "Paused since 22:12 UTC: the disk is full."),
        (ConnectionState.DRAINING, "SIGTERM", "Stopping: what is in hand is being committed."),
        (ConnectionState.REFUSED, "no such stream (404)", "Refused for good: no such stream (404)."),
        (ConnectionState.STOPPED, "", "Stopped."),
        (ConnectionState.STOPPED, "SIGTERM.", "Stopped: SIGTERM."),
    ],
)
def test_each_state_has_its_words(state, cause, words):
    """With the cause where there is one, and one full stop."""
    assert said(state, cause) == words


def test_every_state_is_told():
    """A new state cannot be forgotten."""
    assert all(said(state, "cause").endswith(".") for state in ConnectionState)


@pytest.mark.parametrize("cause", ["another client is connected (409)", "too many requests (429)", "closed"])
def test_a_wait_says_how_long_and_why(cause):
    """The time left, not the time of day."""
    words = said(ConnectionState.WAITING, cause, attempt=NOW + 38 * S)
    assert words == f"Waiting 38 s before reconnecting: {cause}."
    assert said(ConnectionState.WAITING, cause, attempt=NOW - S).startswith("Waiting 0 s before")


def test_a_silent_stream_is_quiet_and_not_reading():
    """From the last hit, or from the opening if there was none."""
    assert (
        said(ConnectionState.STREAMING) == "Connected since 22:12 UTC, no hit for 1 min 10 s, nothing lost."
    )
    assert reading() == "Reading since 22:12 UTC, 1,240 hits/s, nothing lost."


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        (["no"], "nothing lost"),
        (["possible", "no"], "1 gap in the last 24 h may have lost hits"),
        (["likely", "likely", "possible"], "hits of 2 gaps in the last 24 h are likely lost"),
    ],
)
def test_gaps_are_not_passed_over(gaps, words):
    """The worst there is, of the last day."""
    assert reading(timeline=tuple(map(gap, gaps))) == f"Reading since 22:12 UTC, 1,240 hits/s, {words}."


def test_a_gap_is_spoken_of_for_a_day():
    """Older ones are history."""
    assert reading(timeline=(gap("likely", NOW - 25 * 3600 * S),)).endswith("nothing lost.")


def test_what_needs_a_person_is_added():
    """A full journal, the alarm of rejects, Parquet far behind; a state's own reason is not said twice."""
    alarm = "12 of the last 100 records are rejects; nothing of them is lost"
    words = reading(reasons=(JOURNAL_FULL, alarm), lag_s=400.0)
    assert words.endswith(f" T{JOURNAL_FULL[1:]}. {alarm}. Parquet is 6 min 40 s behind.")
    assert said(ConnectionState.REFUSED, "no (404)", reasons=("refused: no (404)",)).count("404") == 1


def test_the_last_word_is_how_it_ended():
    """Whatever the connection was doing."""
    stopped = Stopped(at_us=NOW, exit_code=3, reason="the token is refused")
    words = said(ConnectionState.STREAMING, stopped=stopped)
    assert words == "Stopped at 22:13 UTC with exit code 3: the token is refused."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.9, "0 s"), (60, "1 min"), (250, "4 min 10 s"), (10_920, "3 h 2 min"), (187_200, "2 d 4 h")],
)
def test_durations_have_two_units_at_most(seconds, words):
    """As people say them."""
    assert duration(seconds) == words
