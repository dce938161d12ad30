"""The reconnect policy as data: what each ending of a request is, how long it makes us wait, and
every transition there is.

Imported by the coordinator alone (``collector.core.reconnect`` runs it). The invariant: a wait is a
multiple of ``reconnect.wait_s`` out of one table, jitter only lengthens it, and a pair of phase and
signal that is not in ``TRANSITIONS`` is a defect of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from collector.core.messages import Closed, Outcome

JITTER: Final = 0.1
"""Added to a wait at most, as a part of it; never taken off."""

HEALTHY_MULTIPLE: Final = 5.0
"""Streaming for this many ``wait_s`` clears the counters. A 200 alone does not:
connect-then-drop backs off."""

LONGEST_RETRY_AFTER_S: Final = 3600.0
"""A ``Retry-After`` beyond this is cut to it."""

TOO_MANY_BUSY: Final = 5
"""Answers of 409 or 503 in a row after which the collector is no longer ready."""

_LONGEST_EXPONENT: Final = 64
"""Every row has reached its cap long before; keeps the power finite however long the trouble lasts."""


class Row(enum.StrEnum):
    """A row of the reconnect table; each has its own counter."""

    LOST = "lost"
    """A stream ended, or a request was sent and no status came."""
    BUSY = "busy"
    """409, 503."""
    FAILED = "failed"
    """500 and every status that has no row."""
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - the name of a row
    """401, 403, the retry with a new token included."""
    TOKEN_UNREACHED = "token_unreached"  # noqa: S105 - the name of a row
    """The token endpoint gave no usable answer."""
    UNREACHED = "unreached"
    """Nothing was reached, so nothing was asked."""
    UNTRUSTED = "untrusted"
    THROTTLED = "throttled"
    """429."""
    REDIRECT = "redirect"
    REFUSED = "refused"
    """400, 404, 405, 406, 424, 505, a static token or a client that is not valid: waiting cures nothing."""
    RETRIED = "retried"
    """The same statuses under ``on_refusal = "retry"``."""
    DRAINED = "drained"
    """We closed it."""
    UNKNOWN_END = "unknown_end"
    """Read at a start: the last run left no true end (crash, reboot, unreadable record)."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The n-th wait of a row is ``first * growth ** n``, at most ``cap``. Units: multiples of ``wait_s``."""

    first: float
    growth: float
    cap: float

    def multiple(self, count: int) -> float:
        """``count``: how often the row was hit before, since the counters were cleared."""
        return min(self.first * self.growth ** min(count, _LONGEST_EXPONENT), self.cap)


_ONCE: Final = Wait(1, 1, 1)
_WITHIN_BACKFILL: Final = Wait(1, 1.5, 3)
_DOUBLING: Final = Wait(1, 2, 15)
_NOTHING_REACHED: Final = Wait(1 / 12, 2, 1)

WAITS: Final[Mapping[Row, Wait]] = {
    Row.LOST: _WITHIN_BACKFILL,
    Row.BUSY: _WITHIN_BACKFILL,
    Row.FAILED: _DOUBLING,
    Row.TOKEN_REFUSED: _DOUBLING,
    Row.TOKEN_UNREACHED: _NOTHING_REACHED,
    Row.UNREACHED: _NOTHING_REACHED,
    Row.UNTRUSTED: Wait(15, 1, 15),
    Row.THROTTLED: _DOUBLING,
    Row.REDIRECT: _DOUBLING,
    Row.REFUSED: Wait(1, 15, 15),
    Row.RETRIED: Wait(15, 1, 15),
    Row.DRAINED: _ONCE,
    Row.UNKNOWN_END: _ONCE,
}

STATUS_ROWS: Final[Mapping[int, Row]] = {
    400: Row.REFUSED,
    401: Row.TOKEN_REFUSED,
    403: Row.TOKEN_REFUSED,
    404: Row.REFUSED,
    405: Row.REFUSED,
    406: Row.REFUSED,
    409: Row.BUSY,
    424: Row.REFUSED,
    429: Row.THROTTLED,
    503: Row.BUSY,
    505: Row.REFUSED,
}
"""Every status not named here is ``Row.FAILED``."""

_OUTCOME_ROWS: Final[Mapping[Outcome, Row]] = {
    Outcome.DRAINED: Row.DRAINED,
    Outcome.ENDED: Row.LOST,
    Outcome.LOST: Row.LOST,
    Outcome.STALLED: Row.LOST,
    Outcome.NO_STATUS: Row.LOST,
    Outcome.READER_DIED: Row.LOST,
    Outcome.UNREACHED: Row.UNREACHED,
    Outcome.UNTRUSTED: Row.UNTRUSTED,
    Outcome.REDIRECT: Row.REDIRECT,
}

NEVER_HELD: Final = frozenset({Outcome.STATUS, Outcome.UNREACHED, Outcome.UNTRUSTED})
"""Outcomes of a request that cannot have held a stream: a status said no, or it was never sent."""

CURED_BY_SETTINGS: Final = frozenset({Row.REFUSED, Row.RETRIED, Row.UNTRUSTED})
"""A start with other settings does not wait these out (the floor after a held stream it does)."""


def row_of(closed: Closed) -> Row:
    """The row a closed request belongs to."""
    if closed.outcome is Outcome.STATUS:
        return STATUS_ROWS.get(closed.status, Row.FAILED)
    return _OUTCOME_ROWS[closed.outcome]


def wait_for(row: Row, count: int, wait_s: float, random: float, retry_after_s: float | None = None) -> float:
    """Seconds to wait the ``count + 1``-th time in a row.

    The larger of the row's rule and what the service asked for; the latter counts up to
    ``LONGEST_RETRY_AFTER_S`` and never shortens the rule. ``random`` is in [0, 1).
    """
    stretch = 1.0 + JITTER * random
    rule_s = WAITS[row].multiple(count) * wait_s * stretch
    if retry_after_s is None or not retry_after_s > 0:  # "not >" also refuses NaN
        return rule_s
    return max(rule_s, min(retry_after_s * stretch, LONGEST_RETRY_AFTER_S))


class Phase(enum.StrEnum):
    """Where the policy is. ``HOLDING`` says in which of them a stream may be held."""

    WAITING = "waiting"
    TOKEN = "token"  # noqa: S105 - the name of a phase
    """A request is due; the shell gets the token for it."""
    REQUESTING = "requesting"
    STREAMING = "streaming"
    PAUSED = "paused"
    """Streaming, but the journal is full."""
    DRAINING = "draining"
    REFUSED = "refused"
    STOPPED = "stopped"


HOLDING: Final = frozenset({Phase.REQUESTING, Phase.STREAMING, Phase.PAUSED, Phase.DRAINING})


class Signal(enum.StrEnum):
    """What an event means to the policy; one event may mean several, depending on its content."""

    DUE = "due"
    SEND = "send"
    """The token is there, and so is the moment."""
    HOLD_BACK = "hold_back"
    """The token is there, but there is no room for a stream."""
    NO_TOKEN = "no_token"  # noqa: S105 - the name of a signal
    CLIENT_REFUSED = "client_refused"
    OPEN = "open"
    OPEN_FULL = "open_full"
    WAIT = "wait"
    RETRY = "retry"
    """The token was refused: a new one, and once more at once."""
    REFUSE = "refuse"
    CLOSE = "close"
    """Closed while draining."""
    FULL = "full"
    ROOM = "room"
    DRAIN = "drain"


_OVER: Final = (
    Signal.SEND,
    Signal.HOLD_BACK,
    Signal.NO_TOKEN,
    Signal.CLIENT_REFUSED,
    Signal.FULL,
    Signal.ROOM,
    Signal.DRAIN,
)
"""What may still come in late once it is all over: an answer about the token, and the outside."""

TRANSITIONS: Final[Mapping[Phase, Mapping[Signal, Phase]]] = {
    Phase.WAITING: {
        Signal.DUE: Phase.TOKEN,
        Signal.FULL: Phase.WAITING,
        Signal.ROOM: Phase.WAITING,
        Signal.DRAIN: Phase.STOPPED,
    },
    Phase.TOKEN: {
        Signal.SEND: Phase.REQUESTING,
        Signal.HOLD_BACK: Phase.WAITING,
        Signal.NO_TOKEN: Phase.WAITING,
        Signal.CLIENT_REFUSED: Phase.REFUSED,
        Signal.FULL: Phase.TOKEN,
        Signal.ROOM: Phase.TOKEN,
        Signal.DRAIN: Phase.STOPPED,
    },
    Phase.REQUESTING: {
        Signal.OPEN: Phase.STREAMING,
        Signal.OPEN_FULL: Phase.PAUSED,
        Signal.WAIT: Phase.WAITING,
        Signal.RETRY: Phase.TOKEN,
        Signal.REFUSE: Phase.REFUSED,
        Signal.FULL: Phase.REQUESTING,
        Signal.ROOM: Phase.REQUESTING,
        Signal.DRAIN: Phase.DRAINING,
    },
    Phase.STREAMING: {
        Signal.WAIT: Phase.WAITING,
        Signal.FULL: Phase.PAUSED,
        Signal.ROOM: Phase.STREAMING,
        Signal.DRAIN: Phase.DRAINING,
    },
    Phase.PAUSED: {
        Signal.WAIT: Phase.WAITING,
        Signal.FULL: Phase.PAUSED,
        Signal.ROOM: Phase.STREAMING,
        Signal.DRAIN: Phase.DRAINING,
    },
    Phase.DRAINING: {
        Signal.OPEN: Phase.DRAINING,
        Signal.OPEN_FULL: Phase.DRAINING,
        Signal.CLOSE: Phase.STOPPED,
        Signal.FULL: Phase.DRAINING,
        Signal.ROOM: Phase.DRAINING,
        Signal.DRAIN: Phase.DRAINING,
    },
    Phase.REFUSED: dict.fromkeys(_OVER, Phase.REFUSED),
    Phase.STOPPED: dict.fromkeys(_OVER, Phase.STOPPED),
}
"""``{phase: {signal: phase}}``; a pair that is not here raises ``ProtocolError``."""
