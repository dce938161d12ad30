"""The coordinator's two clocks."""

from __future__ import annotations

import time


def boottime_s() -> float:
    """Seconds since boot, suspended time included: floors pass and tokens age while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def now_us() -> int:
    """Microseconds since the Unix epoch: what people and parts are told, never what is waited by."""
    return time.time_ns() // 1000
