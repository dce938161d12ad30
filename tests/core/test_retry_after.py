"""What a ``Retry-After`` asks for."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.core.retry_after import retry_after_s

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1.5", 1.5),
        ("9" * 5000, 1e9),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sunday, 01-Mar-26 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 13:01:30 +0100", 90.0),
        ("Sun, 01 Mar 2020 12:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("٣", None),
        ("²", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 1e9),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("nan", None),
        ("Sun, 99 Mar 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Seconds or a date, past and negative ones are 0, nonsense is none."""
    assert retry_after_s(value, NOW) == seconds


WORDS = ["Mon,", "Sun", "01", "31", "99", "Jan", "Mar", "2026", "0001", "9999", "12:01:30", "25:61:61"]
MARKS = ["GMT", "+0100", "-9999", "Z", "-", ",", ":", "(", ")", "1e9"]


@given(st.text() | st.lists(st.sampled_from(WORDS + MARKS)).map(" ".join))
@example("0" * 5000)
def test_any_text_gives_a_finite_wait_or_none(value: str) -> None:
    """Nothing that a header can hold raises, or gives a wait that is negative or without end."""
    seconds = retry_after_s(value, NOW)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
