"""When a token ends, as it says itself, and when people hear of it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.token_life import DAY_US, Announcements, expires_us

HOUR_US = DAY_US // 24


def jwt(claims: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("claims", "ends_us"),
    [
        ({"exp": 1_800_000_000}, 1_800_000_000_000_000),
        ({"created_at": "1700000000000", "expires_in": "86400000"}, 1_700_086_400_000_000),
        ({"created_at": 1700000000000, "expires_in": 86400000}, 1_700_086_400_000_000),
        ({"created_at": "1700000000000"}, None),
        ({"exp": "soon", "name": "h\u00f6h\u00ffe?>"}, None),
        ({"exp": -5}, None),
        ({"exp": 1e300}, None),
        ({}, None),
        ([], None),
    ],
)
def test_the_claims_say_when_it_ends(claims, ends_us):
    """``exp`` in seconds, or Adobe's own two in milliseconds, as numbers or as text."""
    assert expires_us(jwt(claims)) == ends_us


@given(st.text() | st.builds("{}.{}.{}".format, st.text(), st.text(), st.text()))
def test_what_is_no_jwt_says_nothing(token):
    """Any text is a token."""
    found = expires_us(token)
    assert found is None or found > 0


def test_each_step_is_told_of_once():
    """7 days, 3 days, a day, 6 hours, an hour, the end; looked at every minute."""
    announcements = Announcements()
    ends_us = 10 * DAY_US
    told = [now for now in range(0, ends_us + HOUR_US, HOUR_US // 60) if announcements.due(ends_us, now)]
    assert [ends_us - now for now in told] == [7 * DAY_US, 3 * DAY_US, DAY_US, 6 * HOUR_US, HOUR_US, 0]


def test_steps_slept_through_are_told_of_together():
    """A start two days before the end says so once; a new token begins anew."""
    announcements = Announcements()
    assert announcements.due(2 * DAY_US, 0)
    assert not announcements.due(2 * DAY_US, HOUR_US)
    assert not announcements.due(None, HOUR_US)
    assert announcements.due(2 * DAY_US, 3 * DAY_US)
    assert not announcements.due(30 * DAY_US, 3 * DAY_US)
