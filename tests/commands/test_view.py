"""What a person sees in the live view: the connection, the figures, and why it is not ready."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rich.console import Console

from collector.commands.view import Rate, _screen, duration
from collector.coordinator.clock import boottime_s
from collector.core.connection import ConnectionState, ConnectionView
from collector.core.messages import BlockDone, Totals
from collector.core.readiness import not_ready
from collector.core.rejects import RejectsWatch


def seen(watch: RejectsWatch, *, full: bool = False) -> str:
    view = ConnectionView(ConnectionState.STREAMING, boottime_s() - 65, "", ready=True)
    coordinator = SimpleNamespace(
        stream=SimpleNamespace(view=lambda: view),
        intake=SimpleNamespace(accepted_total=1234, starved=full),
        ledger=SimpleNamespace(totals=Totals(1200, 1000, 50, 150)),
        pipeline=SimpleNamespace(batching=SimpleNamespace(oldest_uncommitted=lambda: None)),
        not_ready=lambda: not_ready(view, rejects=watch, journal_full=full),
    )
    console = Console(width=300, force_terminal=False)
    with console.capture() as captured:
        console.print(_screen(coordinator, Rate()))
    return captured.get()


def test_a_healthy_stream_shows_its_figures_and_no_complaint():
    """State with its age, and the counts."""
    text = seen(RejectsWatch())
    assert text.startswith("streaming for 1 min 5 s")
    assert "1,234" in text
    assert "not ready" not in text


def test_the_rejects_alarm_is_shown_in_words_beside_every_other_reason():
    """How many, of how many, and why most of them; one line each."""
    watch = RejectsWatch()
    watch.block_done(0.0, BlockDone(1, 0, 0, 150, 0, 0, (), 0, {"not json": 149, "too deep": 1}))
    lines = [line for line in seen(watch, full=True).splitlines() if line.startswith("not ready: ")]
    assert len(lines) == 2
    assert "150 of 150" in lines[1]
    assert "not json (149), too deep (1)" in lines[1]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.9, "59 s"), (250, "4 min 10 s"), (10_920, "3 h 2 min")]
)
def test_a_time_has_two_units_at_most(seconds, words):
    """What a glance takes in."""
    assert duration(seconds) == words
