"""When a token ends, as far as it says so itself, and when people are told of it.

Used by the coordinator and ``check``; pure. The claims are read without verification: they only say when
to speak up, never whether a token is used.
"""

from __future__ import annotations

import binascii
from typing import Any, Final

import msgspec

DAY_US: Final = 86_400_000_000

ANNOUNCED_AHEAD_US: Final = (7 * DAY_US, 3 * DAY_US, DAY_US, DAY_US // 4, DAY_US // 24)
"""A token that nobody renews is announced this long before its end: once each."""

_LONGEST_US: Final = 1 << 62


def expires_us(token: str) -> int | None:
    """When the token ends; ``None``: it does not say.

    A JWT has ``exp`` (seconds, RFC 7519), or Adobe's ``created_at`` and ``expires_in`` (milliseconds).
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        text = binascii.a2b_base64(parts[1].translate(_URL_SAFE) + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(text)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None
    if not isinstance(claims, dict):
        return None
    ends_us = _number(claims.get("exp")) * 1_000_000
    begins_ms, life_ms = _number(claims.get("created_at")), _number(claims.get("expires_in"))
    if not ends_us and begins_ms and life_ms:
        ends_us = (begins_ms + life_ms) * 1000
    return int(ends_us) if 0 < ends_us < _LONGEST_US else None


_URL_SAFE: Final = str.maketrans("-_", "+/")


def _number(claim: Any) -> float:
    """0 for what is none."""
    try:
        number = float(claim) if isinstance(claim, int | float | str) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return number if 0 < number < _LONGEST_US else 0.0


class Announcements:
    """Which of the steps towards a token's end were told of."""

    def __init__(self) -> None:
        self._ends_us: int | None = None
        self._step = 0

    def due(self, ends_us: int | None, now_us: int) -> bool:
        """Whether it is time to speak up: once for each step that was reached, and at the end itself.

        Several steps at once, at a start or after a sleep, are told of once.
        """
        if ends_us != self._ends_us:
            self._ends_us, self._step = ends_us, 0
        if ends_us is None:
            return False
        left_us = ends_us - now_us
        step = sum(left_us <= ahead_us for ahead_us in (*ANNOUNCED_AHEAD_US, 0))
        is_due = step > self._step
        self._step = step
        return is_due
