"""The one sentence that says how a collector is: on top of the page, of ``status``, of the live view.

Pure. Made of the same words as log and ``explain``, and says what is or may be lost, never "all is well"
without a reason.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

from collector.core.connection import ConnectionState
from collector.core.status import Status

QUIET_S: Final = 60.0
"""Without a hit for so long a stream is said to be quiet."""

BEHIND_S: Final = 300.0
"""Hits that are older than this and not in Parquet are worth a word: five times the default batch."""

RECENT_US: Final = 24 * 3600 * 1_000_000
"""A gap is spoken of for so long."""

STARTING: Final = "Starting: the work of the last run is taken up"
"""Said before there is a status, too."""


def sentence(status: Status) -> str:
    """In words, with its full stop."""
    if status.stopped is not None:
        stopped = status.stopped
        why = stopped.reason.rstrip(".")
        return f"Stopped at {clock(stopped.at_us)} with exit code {stopped.exit_code}: {why}."
    told = _TOLD[status.connection.state](status)
    return told.rstrip(".") + "." + _attention(status)


def _starting(status: Status) -> str:
    del status
    return STARTING


def _waiting(status: Status) -> str:
    at = status.connection
    if not at.next_attempt_us:
        return f"Waiting: {at.cause}"
    left_s = max(0.0, (at.next_attempt_us - status.at_us) / 1e6)
    return f"Waiting {duration(left_s)} before reconnecting: {at.cause}"


def _requesting(status: Status) -> str:
    return f"Connecting: {status.connection.cause}" if status.connection.cause else "Connecting"


def _streaming(status: Status) -> str:
    at = status.connection
    silent_s = (status.at_us - max(at.last_hit_us, at.since_us)) / 1e6
    if silent_s >= QUIET_S:
        return f"Connected since {clock(at.since_us)}, no hit for {duration(silent_s)}, {_lost(status)}"
    return f"Reading since {clock(at.since_us)}, {status.hits_per_s:,.0f} hits/s, {_lost(status)}"


def _paused(status: Status) -> str:
    return f"Paused since {clock(status.connection.since_us)}: {status.connection.cause}"


def _draining(status: Status) -> str:
    del status
    return "Stopping: what is in hand is being committed"


def _refused(status: Status) -> str:
    return f"Refused for good: {status.connection.cause}"


def _stopped(status: Status) -> str:
    return f"Stopped: {status.connection.cause}" if status.connection.cause else "Stopped"


_TOLD: Final[Mapping[ConnectionState, Callable[[Status], str]]] = {
    ConnectionState.STARTING: _starting,
    ConnectionState.WAITING: _waiting,
    ConnectionState.REQUESTING: _requesting,
    ConnectionState.STREAMING: _streaming,
    ConnectionState.PAUSED: _paused,
    ConnectionState.DRAINING: _draining,
    ConnectionState.REFUSED: _refused,
    ConnectionState.STOPPED: _stopped,
}


def _lost(status: Status) -> str:
    """What may be missing from the last day."""
    since_us = status.at_us - RECENT_US
    gaps = [at for at in status.timeline if at.kind == "gap" and (at.ended_us or status.at_us) >= since_us]
    likely = sum(gap.suspected == "likely" for gap in gaps)
    possible = sum(gap.suspected == "possible" for gap in gaps)
    if likely:
        return f"hits of {_counted(likely, 'gap')} in the last 24 h are likely lost"
    if possible:
        return f"{_counted(possible, 'gap')} in the last 24 h may have lost hits"
    return "nothing lost"


def _attention(status: Status) -> str:
    """What else a person wants to know at once."""
    said = [reason for reason in status.reasons if not reason.startswith(f"{status.connection.state.value}:")]
    if status.lag_s >= BEHIND_S and status.connection.state is not ConnectionState.STARTING:
        said.append(f"Parquet is {duration(status.lag_s)} behind")
    return "".join(f" {reason[:1].upper()}{reason[1:].rstrip('.')}." for reason in said)


def clock(at_us: int) -> str:
    """``14:02 UTC``."""
    return f"{dt.datetime.fromtimestamp(at_us / 1e6, dt.UTC):%H:%M} UTC"


def duration(seconds: float) -> str:
    """Two units at most: ``8 s``, ``4 min 10 s``, ``3 h 2 min``, ``2 d 4 h``."""
    whole = int(seconds)
    for size, name, below, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
