"""Supervision: a silent child is hung only if its judge was awake; one that keeps dying ends it all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.supervision import (
    AT_LIMIT,
    LONGEST_LOOK_S,
    RESTART_LIMIT,
    RESTART_WINDOW_S,
    START_LIMIT_S,
    Health,
    Heartbeat,
    Phase,
    ProgressSnapshot,
    RestartIntensity,
)

LIMIT_S = 10.0


def looks(phase: Phase, *, times: int, every_s: float = 1.0, limit_s: float = LIMIT_S) -> list[Health]:
    """At a child whose last beat is seen by the first look."""
    heartbeat = Heartbeat(limit_s)
    return [heartbeat.look(ProgressSnapshot(7, phase), n * every_s) for n in range(times)]


@pytest.mark.parametrize("phase", [phase for phase in Phase if AT_LIMIT[phase] is Health.HUNG])
def test_a_child_that_is_silent_for_the_limit_is_hung(phase):
    """At the limit, not before; a start is given more time than the rest."""
    limit_s = START_LIMIT_S if phase is Phase.STARTING else LIMIT_S
    found = looks(phase, times=round(limit_s) + 1)
    assert found == [Health.WELL] * round(limit_s) + [Health.HUNG]


def test_a_child_that_waits_for_the_disk_is_never_hung():
    """It is said once, however long it takes."""
    found = looks(Phase.DISK, times=1000)
    assert found.count(Health.SLOW) == 1
    assert found.index(Health.SLOW) == LIMIT_S
    assert Health.HUNG not in found


def test_the_next_silence_on_the_disk_is_said_again():
    """Once per silence."""
    heartbeat = Heartbeat(LIMIT_S)
    found = [heartbeat.look(ProgressSnapshot(n // 20, Phase.DISK), float(n)) for n in range(60)]
    assert found.count(Health.SLOW) == 3


def test_a_child_that_left_the_disk_and_hangs_is_hung():
    """The phase counts that it is in now."""
    heartbeat = Heartbeat(LIMIT_S)
    for n in range(20):
        heartbeat.look(ProgressSnapshot(1, Phase.DISK), float(n))
    found = [heartbeat.look(ProgressSnapshot(2, Phase.DECODING), 20.0 + n) for n in range(11)]
    assert found == [Health.WELL] * 10 + [Health.HUNG]


def test_a_judge_that_slept_for_an_hour_finds_nobody_hung():
    """A stopped coordinator, or everything thawed at once: one look adds two seconds at most."""
    heartbeat = Heartbeat(3.0)
    heartbeat.look(ProgressSnapshot(1, Phase.WAITING), 0.0)
    assert heartbeat.look(ProgressSnapshot(1, Phase.WAITING), 3600.0) is Health.WELL
    assert heartbeat.silent_s == LONGEST_LOOK_S
    assert heartbeat.look(ProgressSnapshot(2, Phase.WAITING), 3601.0) is Health.WELL
    assert heartbeat.silent_s == 0


@given(st.lists(st.floats(0, 1000), max_size=50), st.floats(3, 60))
def test_hung_takes_as_many_looks_as_the_limit_needs(pauses_s, limit_s):
    """However long the pauses between looks are, silence is at most two seconds for each of them."""
    heartbeat = Heartbeat(limit_s)
    now_s, looked = 0.0, 0
    heartbeat.look(ProgressSnapshot(1, Phase.DECODING), now_s)
    for pause_s in pauses_s:
        now_s += pause_s
        looked += 1
        if heartbeat.look(ProgressSnapshot(1, Phase.DECODING), now_s) is Health.HUNG:
            break
    else:
        return
    assert looked * LONGEST_LOOK_S >= limit_s
    assert now_s >= limit_s - 1e-6


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


def test_a_child_that_never_came_up_is_not_tried_again():
    """What cannot start the first time will not the second; later starts go by the limit."""
    intensity = RestartIntensity()
    assert intensity.died(0.0) is None
    intensity.was_ready = True
    assert intensity.died(1.0) == 0.0
