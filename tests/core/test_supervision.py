"""Restart intensity: a child that keeps dying ends the collector instead of looping."""

from __future__ import annotations

from collector.core.supervision import RESTART_LIMIT, RESTART_WINDOW_S, RestartIntensity


def test_the_first_death_is_replaced_at_once_and_later_ones_back_off():
    """Delays grow and are bounded."""
    intensity = RestartIntensity(was_ready=True)
    delays = [intensity.died(float(n)) for n in range(RESTART_LIMIT)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8]


def test_one_death_too_many_within_the_window_gives_up():
    """More than the limit within the window: ``None``."""
    intensity = RestartIntensity(was_ready=True)
    for n in range(RESTART_LIMIT):
        assert intensity.died(float(n)) is not None
    assert intensity.died(float(RESTART_LIMIT)) is None


def test_deaths_long_ago_are_forgotten():
    """A death a day never adds up."""
    intensity = RestartIntensity(was_ready=True)
    for n in range(50):
        assert intensity.died(n * (RESTART_WINDOW_S + 1)) == 0.0
