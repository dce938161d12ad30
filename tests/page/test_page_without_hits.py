"""The page of a real collector to which no hit comes any more.

By its name this is the last file of the folder: the minute without a hit goes by while the others run.
"""

from __future__ import annotations

from real_rig import shot, until_it_says
from states import HOSTILE

from collector.escaping import printable


def test_hostile_records_and_silence(look_at, quiet, tmp_path):
    """Rejects are shown as text; after a minute without a hit the stream is said to be quiet."""
    with look_at(quiet.url) as at:
        at.until("() => document.querySelectorAll('#rejects code').length === 3")
        shown = at.texts("#rejects code")
        assert any(text.startswith("<script>document.title") for text in shown)
        assert all(text.isprintable() and len(text) <= 200 for text in shown)
        assert printable(HOSTILE[0], 200) in shown
        assert at.page.locator("main script, main img").count() == 0
        at.page.set_default_timeout(90_000)
        until_it_says(at, "Quiet", "Connected since ")
        assert "no hit for 1 min" in at.text("#sentence")
        assert at.faults() == []
        shot(at, "quiet", tmp_path)
    assert quiet.collector.drain() == 0, quiet.collector.log
