"""The history: a rate over seconds, and hours in a bounded number of samples."""

from __future__ import annotations

import itertools

import pytest

from collector.core.connection import ConnectionState
from collector.core.history import LONGEST_STEP_S, MOST_SAMPLES, History

STREAMING, WAITING = ConnectionState.STREAMING, ConnectionState.WAITING


def looked(seconds: int, rate: int = 100, away: range = range(0)) -> History:
    history = History()
    accepted = 0
    for second in range(seconds):
        accepted += 0 if second in away else rate
        state = WAITING if second in away else STREAMING
        history.look(second, accepted, at_us=second * 1_000_000, lag_s=second % 7, state=state)
    return history


@pytest.mark.parametrize("seconds", [10, 400, 1000, 6000, 20_000])
def test_however_long_it_runs_the_samples_are_bounded_and_even(seconds):
    """And reach back to the beginning, up to an hour and a half."""
    samples = looked(seconds).samples
    assert len(samples) <= MOST_SAMPLES
    assert samples[0].at_us / 1e6 <= max(2 * LONGEST_STEP_S, seconds - MOST_SAMPLES * LONGEST_STEP_S + 32)
    steps = {b.at_us - a.at_us for a, b in itertools.pairwise(samples)}
    assert max(steps) <= 2 * min(steps)
    assert all(sample.hits_per_s == 100 for sample in samples)


def test_the_rate_is_that_of_the_last_seconds():
    """Not of the whole run."""
    assert looked(100).hits_per_s == 100
    assert looked(100, away=range(94, 100)).hits_per_s == 0
    assert History().hits_per_s == 0


def test_a_short_time_without_a_stream_is_not_averaged_away():
    """Nor is a peak of the lag."""
    samples = looked(3000, away=range(2000, 2001)).samples
    assert [sample.state for sample in samples].count(WAITING) == 1
    assert max(sample.lag_s for sample in samples) == 6


def test_a_counter_that_goes_back_is_no_negative_rate():
    """Whatever was counted."""
    history = History()
    for second, accepted in enumerate((1000, 1000, 10)):
        history.look(second, accepted, at_us=second, lag_s=0, state=STREAMING)
    assert history.hits_per_s == 0
    assert min(sample.hits_per_s for sample in history.samples) == 0
