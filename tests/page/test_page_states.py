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
    "shipping": "Reading",
    "shipping-fails": "Reading",
    "reading-after-a-rough-night": "Reading",
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


REMEDIES = {
    "gap": "Fill the time in from a Data Feed",
    "behind": "Look at the CPU and the disk of the host.",
    "refused": "Check stream.url",
    "waiting-409": "Another collector may be running",
    "waiting-503-often": "Check that the report suite receives hits.",
    "waiting-lost": "If it happens often, check proxies and firewalls.",
    "waiting-unreached": "Check the network, DNS, proxy and firewall",
    "waiting-untrusted": "Set tls.ca_file",
    "waiting-token": "Check the network, DNS, proxy and firewall",
    "rejects-alarm": "look at raw and reason under rejects/",
    "paused-journal-full": "raise run.decoders or journal.max_bytes",
    "paused-disk-full": "Make room on the disk",
}
"""What a person is told to do; where nothing is wrong, nothing."""


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
    if name in REMEDIES:
        assert REMEDIES[name] in at.text("#remedy")
        assert "Likely causes: " in at.text("#remedy")
        assert "livestream-collector explain " in at.text("#remedy")
    else:
        assert "Likely causes" not in at.text("main")
    assert at.faults() == []
    assert not at.overflows()
