"""The status page in a real browser: every state, both themes, a phone, and a collector that goes and comes back."""

from __future__ import annotations

import msgspec
import pytest
from page_rig import screenshot_folder
from states import HOSTILE, STATES, STATUSES, later

from collector.escaping import printable

PHONE = 360
WORDS = {
    "starting": "Starting",
    "connecting": "Connecting",
    "reading": "Reading",
    "quiet": "Quiet",
    "behind": "Reading, behind",
    "gap": "Reading, after a gap",
    "refused": "Refused",
    "stopping": "Stopping",
    "stopped": "Stopped",
    "waiting-503-often": "Waiting, needs attention",
    "rejects-alarm": "Reading, needs attention",
    "paused-journal-full": "Paused, needs attention",
    "paused-disk-full": "Paused, needs attention",
}
"""Of each state; a wait is "Waiting"."""


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_shown_to_everyone(look_at, server, tmp_path, name):
    """In words, in both themes, on a desk and on a phone, without a fault that axe-core knows."""
    server.say(STATES[name])
    folder = screenshot_folder(tmp_path)
    for theme, width in (("light", 1200), ("dark", PHONE)):
        with look_at(server.url, width=width, dark=theme == "dark") as at:
            at.until_shown(STATES[name])
            assert at.text("#state") == WORDS.get(name, "Waiting")
            assert at.page.title() == f"{at.text('#state')} · prod-suite"
            assert STATUSES[name].stream in at.text("header")
            assert at.faults() == []
            assert not at.overflows()
            at.page.screenshot(path=folder / f"{name}-{theme}-{width}.png", full_page=True)
