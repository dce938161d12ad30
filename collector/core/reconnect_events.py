"""What the reconnect policy is told, and what it tells the shell to do.

Imported by the coordinator. Every value is frozen. ``Closed`` of ``collector.core.messages`` is an event too:
as the reader says it, or as the coordinator says it of a reader that died and is reaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from collector.core.floor_record import FloorRecord
from collector.core.messages import Closed
from collector.core.reconnect_table import Row
from collector.core.remedies import TokenFailure
from collector.errors import ExitCode

# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Wanted at ``Policy.next_tick_s`` at the latest; more often does no harm."""


@dataclass(frozen=True, slots=True)
class TokenReady:
    """The answer to ``GetToken``."""

    reset: str | None = None
    """The operator's one-shot request, if one is stored. It goes into the ``SendRequest`` that follows."""


@dataclass(frozen=True, slots=True)
class TokenFailed:
    """The other answer to ``GetToken``."""

    failure: TokenFailure
    detail: str
    """In words, without secrets, foreign text escaped."""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The answer to ``SendRequest``, when it is a 200 with a stream behind it."""


@dataclass(frozen=True, slots=True)
class Full:
    """There is no room for more of the stream."""


@dataclass(frozen=True, slots=True)
class Room:
    """There is room again."""


@dataclass(frozen=True, slots=True)
class DrainWanted:
    """Take no more."""


Event = Tick | TokenReady | TokenFailed | StreamOpened | Closed | Full | Room | DrainWanted

# ---------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class SyncRecord:
    """Make the record durable before the next action. If that fails: none of them, exit 4."""

    record: FloorRecord


@dataclass(frozen=True, slots=True)
class GetToken:
    """Get the token, then report ``TokenReady`` or ``TokenFailed``. ``renew``: the last one was refused."""

    renew: bool


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send the one request. ``reset``: durably forget the stored one-shot request first."""

    reset: str | None


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection; ``Closed`` follows."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing is sent before ``at_s`` (CLOCK_BOOTTIME). For people: the ``Tick`` comes anyway."""

    at_s: float
    cause: Row
    words: str


@dataclass(frozen=True, slots=True)
class Loud:
    """A person is needed, although the collector goes on."""

    words: str


@dataclass(frozen=True, slots=True)
class Exit:
    """No request will be sent any more: drain, then end with this code."""

    code: ExitCode
    words: str


Action = SyncRecord | GetToken | SendRequest | Disconnect | WaitUntil | Loud | Exit
