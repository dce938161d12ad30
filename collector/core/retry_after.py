"""What a ``Retry-After`` asks for, whoever sends it: the service or the token endpoint.

Pure; used by the reader and the coordinator. The invariant: foreign text gives a finite number of
seconds, not below 0, or nothing.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from typing import Final

_LONGEST_WAIT_S: Final = 1e9
"""Some thirty years: the header has no limit, a number in a message has."""

_SECONDS: Final = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)


def retry_after_s(value: str, now: dt.datetime) -> float | None:
    """Seconds from ``now``; none if it is missing or unreadable.

    *Source*: RFC 9110, 10.2.3: seconds or a date.
    """
    if _SECONDS.fullmatch(value):
        return min(max(float(value), 0.0), _LONGEST_WAIT_S)
    try:
        then = email.utils.parsedate_to_datetime(value)
        if then.tzinfo is None:
            then = then.replace(tzinfo=dt.UTC)
        wait_s = (then - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), _LONGEST_WAIT_S)
