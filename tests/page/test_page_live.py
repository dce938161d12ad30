"""The page over time: foreign text, a collector that comes and goes, readers without pointer or screen."""

from __future__ import annotations

import pytest
from page_rig import PageServer, screenshot_folder
from states import HOSTILE, STATES, STATUSES, said, waiting

from collector.core.connection import ConnectionState
from collector.escaping import printable

BEFORE_MS, SILENCE_MS = 10_000, 14_000
"""The page waits for a word for more than the one and less than the other."""

pytestmark = pytest.mark.usefixtures("quiet")
"""It is looked at in the last file of the folder, after a minute that may as well begin here."""


def test_foreign_text_is_text(look_at, server):
    """Markup and scripts in a record, in the service's words or in a name are shown as they are."""
    moment = server.say(
        said(
            "rejects-alarm",
            stream=HOSTILE[0],
            output=f"/srv/{HOSTILE[0]}",
            reasons=(HOSTILE[0],),
            connection=waiting(HOSTILE[0], HOSTILE[0]),
        )
    )
    with look_at(server.url) as at:
        at.until_shown(moment)
        shown = at.texts("#rejects code")
        assert shown == [printable(text, 200) for text in (*HOSTILE, '{"hitIdHigh":"3420')]
        for place in ("#sentence", "#remedy", "#where", "#about"):
            assert HOSTILE[0] in at.text(place)
        assert HOSTILE[0] in at.page.title()
        assert at.page.locator("img, main script, main h1 + h1").count() == 0
        assert not at.overflows()


def test_the_browser_itself_refuses_markup_from_strings(look_at, server):
    """Should the page ever do it, the rules it is served with stop it."""
    with look_at(server.url) as at:
        refused = at.page.evaluate(
            """() => { try { document.body.innerHTML = '<b>'; } catch (error) { return error.name; } }"""
        )
        assert refused == "TypeError"
        assert at.said.pop().startswith("error: This document requires 'TrustedHTML'")


def test_a_collector_that_goes_and_comes_back(look_at, server, tmp_path):
    """The page says since when nothing is heard and what that means, and recovers by itself."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["reading"]))
        at.page.evaluate("window.kept = true")
        at.gone_is_expected = True
        server.leave()
        at.until("() => document.getElementById('state').textContent === 'No answer'")
        assert at.text("#sentence") == "The collector has not answered since 06:31 UTC."
        assert "While it does not run nothing is collected." in at.text("#remedy")
        assert "livestream-collector status --output /srv/livestream --stream prod-suite" in at.text(
            "#remedy"
        )
        assert at.text("#stale").startswith("As of 06:31:07 UTC")
        assert at.text("#announcement").startswith("No answer.")
        assert at.faults() == []
        at.page.screenshot(path=screenshot_folder(tmp_path) / "desk-light-gone.png", full_page=True)
        server.return_()
        at.until_shown(server.say(STATES["waiting-restart"]))
        assert at.text("#state") == "Waiting"
        assert at.page.locator("#stale").is_hidden()
        assert at.page.evaluate("window.kept")


def test_a_collector_that_was_stopped(look_at, server):
    """That it does not answer any more is no alarm then."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["stopping"]))
        at.gone_is_expected = True
        server.leave()
        at.until("() => document.getElementById('state').textContent === 'Stopped'")
        assert "until it is started again" in at.text("#remedy")


def test_a_connection_that_died_without_a_word(look_at, server):
    """A laptop that slept, a tunnel that hangs: the page notices, and asks anew."""
    with look_at(server.url) as at:
        at.page.clock.install()
        at.page.reload()
        at.until_shown(server.say(STATES["reading"]))
        at.page.clock.run_for(BEFORE_MS)
        assert at.text("#state") == "Reading"
        at.page.clock.run_for(SILENCE_MS - BEFORE_MS)
        assert at.text("#state") == "No answer"
        before = server.connections
        at.page.clock.run_for(SILENCE_MS - BEFORE_MS)
        at.until("() => document.getElementById('state').textContent === 'Reading'")
        assert server.connections == before + 1


def test_another_version_brings_its_own_page(look_at, server):
    """After an upgrade the page is loaded anew."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["reading"]))
        at.page.evaluate("window.kept = true")
        moment = server.say(said("reading", version="0.8.0"))
        at.until("() => window.kept === undefined")
        at.until_shown(moment)


def test_a_screen_reader_is_told_what_changed_and_no_more(look_at, server):
    """The state, not every new number."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["reading"]))
        assert at.text("#announcement").startswith("Reading. Reading since 06:02 UTC, 1,240 hits/s")
        at.page.evaluate(
            """() => {
                window.told = 0;
                const observer = new MutationObserver(() => { window.told += 1; });
                observer.observe(document.getElementById('announcement'), { childList: true });
            }"""
        )
        for seconds in range(1, 4):
            at.until_shown(server.say(said("reading", after_s=seconds, hits_per_s=1000.0 + seconds)))
        assert "1,003 hits/s" in at.text("#sentence")
        assert at.page.evaluate("window.told") == 0
        at.until_shown(server.say(STATES["waiting-409"]))
        assert at.text("#announcement").startswith("Waiting. Waiting 38 s before reconnecting")
        assert at.page.evaluate("window.told") == 1
        live = at.page.locator("[aria-live]")
        assert live.count() == 1
        assert live.get_attribute("aria-live") == "polite"


def test_the_keyboard_reaches_everything_and_updates_disturb_nothing(look_at, server):
    """Tab goes through it in order; what was unfolded stays so, and the focus stays where it is."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["rejects-alarm"]))
        reached = []
        for _ in range(6):
            at.page.keyboard.press("Tab")
            reached.append(at.page.evaluate("document.activeElement.textContent"))
        assert reached == [
            "Hits per second as a table",
            "Lag to Parquet as a table",
            "status.json",
            "metrics",
            "healthz",
            "readyz",
        ]
        at.page.locator("#hits summary").focus()
        at.page.keyboard.press("Enter")
        rows = at.page.locator("#hits tbody tr").count()
        assert rows > 10
        at.until_shown(server.say(said("rejects-alarm", after_s=1)))
        assert at.page.locator("#hits details").get_attribute("open") is not None
        assert at.page.evaluate("document.activeElement.textContent") == "Hits per second as a table"
        assert at.faults() == []


def test_long_lists_are_folded(look_at, server):
    """The newest are shown, the others a key press away."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["reading-after-a-rough-night"]))
        assert at.page.locator("#timeline > li").count() == 6
        assert at.text("#timeline-more summary") == "75 earlier"
        at.page.locator("#timeline-more summary").press("Enter")
        assert at.page.locator("#timeline-more li:visible").count() == 75
        assert at.page.locator("#rejects > li").count() == 6
        assert at.text("#rejects-more summary") == "14 earlier"
        assert at.faults() == []


def test_times_are_in_utc_and_in_the_readers_own(look_at, server):
    """Both, wherever they differ."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["reading"]))
        assert at.text("#as-of") == "As of 06:31:07 UTC, 07:31:07 local (Europe/Berlin)"
        assert at.texts("#timeline .when >> nth=-1") == ["23 Nov 20:20:07 UTC\n23 Nov 21:20:07 local"]


def test_the_curves_have_a_text_alternative(look_at, server):
    """A name that says what is to be seen, and a table."""
    with look_at(server.url) as at:
        at.until_shown(server.say(STATES["reading"]))
        name = at.page.locator("#hits svg").get_attribute("aria-label")
        assert name == "Hits per second: now 1,240; over the last 1 h between 0 and 1,412"


def test_a_page_whose_collector_never_says_a_word(look_at):
    """It says so instead of staying empty."""
    server = PageServer(b"")
    try:
        with look_at(server.url) as at:
            at.gone_is_expected = True
            server.leave()
            at.until("() => document.getElementById('state').textContent === 'No answer'")
            assert at.text("#sentence") == "The collector has not answered."
            assert at.page.locator("#figures").is_hidden()
    finally:
        server.return_()
        server.close()


def test_no_state_of_the_core_is_left_out():
    """Each is looked at, at least once."""
    assert {status.connection.state for status in STATUSES.values()} == set(ConnectionState)
