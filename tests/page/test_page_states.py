"""Every state of the collector on its page: in both themes, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from page_rig import PageServer, Watched, screenshot_folder
from states import STATES, STATUSES

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
"""Of each state; every other is "Waiting"."""


@pytest.fixture(scope="module", params=[(1200, False), (360, True)], ids=["desk, light", "phone, dark"])
def view(request, look_at) -> Iterator[tuple[PageServer, Watched]]:
    """One page that is told one state after the other."""
    width, dark = request.param
    server = PageServer(STATES["starting"])
    with look_at(server.url, width=width, dark=dark) as at:
        yield server, at
    server.close()


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_shown_to_everyone(view, request, tmp_path, name):
    """In words, in readable colours, without a fault that axe-core knows, and without scrolling sideways."""
    server, at = view
    at.until_shown(server.say(STATES[name]))
    shown = request.node.callspec.id.replace(", ", "-")
    at.page.screenshot(path=screenshot_folder(tmp_path) / f"{shown}.png", full_page=True)
    assert at.text("#state") == WORDS.get(name, "Waiting")
    assert at.page.title() == f"{at.text('#state')} · {STATUSES[name].stream}"
    assert at.faults() == []
    assert not at.overflows()
