"""What one explanation is.

Pure data, imported by the tables beside it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Kind(enum.StrEnum):
    """What a code is a code of, in the order in which they are listed."""

    EXIT = "exit code"
    STATUS = "HTTP status"
    PROXY = "answer of a proxy"
    OUTCOME = "end of a connection"
    TOKEN = "token failure"  # noqa: S105 - the name of a kind
    SHIPPING = "failure of shipping"
    STATE = "state of the connection"
    NOT_READY = "not ready"
    GAP = "suspected gap"
    REJECT = "reason of a reject"
    ALERT = "alert"
    EVENT = "log event"


class Advice(NamedTuple):
    """What a catalogue with meanings of its own does not say."""

    causes: tuple[str, ...]
    do: str
    see: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    kind: Kind
    code: str
    """As it is shown; it is found however it is written."""
    means: str
    """One sentence or more, each with its full stop."""
    causes: tuple[str, ...] = ()
    """Likely ones, the likeliest first; empty: nothing is wrong."""
    do: str = ""
    """Sentences; empty: nothing need be done."""
    see: tuple[str, ...] = ()
    """Codes that say more."""
    names: tuple[str, ...] = ()
    """What else it may be asked for by."""
