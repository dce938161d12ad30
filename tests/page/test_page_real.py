"""The page of real collectors in a real browser, from the first refusal to the last word."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest
from real_rig import Play, shot, until_it_says

from collector.simulator.scenario import Answer, Rule

SMALL = {"journal.max_bytes": 5 << 20, "journal.segment_bytes": 2 << 20, "journal.max_record_bytes": 1 << 20}
SAID = '<img src=x onerror=alert(1)>\x1b[31m\r\n"</h1>'
"""By the service, of its refusal."""


@pytest.fixture
def make_play(tmp_path) -> Iterator:
    plays: list[Play] = []

    def make(**more) -> Play:
        plays.append(Play(tmp_path / f"run-{len(plays)}", **more))
        return plays[-1]

    yield make
    for play in plays:
        play.close()


def refusal(status: int, said: str) -> Answer:
    return Answer(status=status, body=json.dumps({"error_description": said}))


def test_a_day_of_a_collector(look_at, make_play, tmp_path):
    """Refused twice, reading, its journal full, cut, drained: the page follows by itself, in words."""
    rules = (
        Rule(requests="1", answer=refusal(503, "Try later")),
        Rule(requests="2", answer=refusal(409, SAID)),
    )
    play = make_play(settings=SMALL, rules=rules, hits_per_second=300.0)
    with look_at(play.url) as at:
        until_it_says(at, "Waiting", "Waiting ")
        assert "the service cannot serve the stream now (503)" in at.text("#sentence")
        assert "explain 503" in at.text("#remedy")
        shot(at, "waiting-503", tmp_path)
        at.until("() => document.getElementById('sentence').textContent.includes('(409)')")
        assert "<img src=x onerror=alert(1)>" in at.text("#sentence")
        assert at.page.locator("main img").count() == 0
        shot(at, "waiting-409", tmp_path)
        until_it_says(at, "Reading", "Reading since ")
        at.until("() => /in Parquet/.test(document.getElementById('totals').textContent)")
        at.until("() => document.querySelectorAll('#processes tr').length === 2")
        shot(at, "reading", tmp_path)
        decoder = play.collector.pids("decoder")[0]
        os.kill(decoder, signal.SIGSTOP)
        until_it_says(at, "Paused, needs attention", "Paused since ")
        assert "explain journal-full" in at.text("#remedy")
        assert "Full" in at.text("#meters")
        shot(at, "paused", tmp_path)
        os.kill(decoder, signal.SIGCONT)
        until_it_says(at, "Reading", "Reading since ")
        play.service.cut("rst")
        until_it_says(at, "Waiting", "Waiting ")
        assert "Gap of " in at.text("#timeline")
        shot(at, "waiting-cut", tmp_path)
        until_it_says(at, "Reading", "Reading since ")
        assert at.faults() == []
        at.gone_is_expected = True
        assert play.collector.drain() == 0, play.collector.log
        until_it_says(at, "Stopped")
        assert "until it is started again" in at.text("#remedy")
        shot(at, "stopped", tmp_path)
        port = int(re.search(r":(\d+)/", at.page.url)[1])
        play.collector.settings["status.listen"] = f"127.0.0.1:{port}"
        play.collector.start()
        until_it_says(at, "Reading", "Reading since ")
        assert "Gap of " in at.text("#timeline")
        at.said.clear()


def test_a_start_without_room(look_at, make_play, tmp_path):
    """No request is sent, and the page says why and what to do."""
    play = make_play(settings={"journal.reserve_bytes": "16 TiB"})
    with look_at(play.url) as at:
        until_it_says(at, "Waiting, needs attention", "Waiting: there is no room for more")
        assert "Make room" in at.text("#remedy")
        assert "free of" in at.text("#meters")
        shot(at, "disk-full", tmp_path)
        assert at.faults() == []
    assert play.service.requests == []


def test_a_refusal_for_good_stays_on_the_page(look_at, make_play, tmp_path):
    """The collector has ended, and whoever looks sees why."""
    rules = (
        Rule(requests="1", answer=refusal(503, "Try later")),
        Rule(requests="2-9", answer=refusal(404, "No such stream")),
    )
    play = make_play(rules=rules, settings={}, wait_s=6.0)
    with look_at(play.url) as at:
        until_it_says(at, "Waiting", "Waiting ")
        at.gone_is_expected = True
        assert play.collector.wait() == 3, play.collector.log
        at.until("() => document.getElementById('as-of').textContent.startsWith('Last heard ')")
        until_it_says(at, "Refused", "Refused for good: ")
        assert "(404)" in at.text("#sentence")
        assert "Check stream.url" in at.text("#remedy")
        assert "It has ended" in at.text("#remedy")
        assert at.faults() == []
        shot(at, "refused", tmp_path)
