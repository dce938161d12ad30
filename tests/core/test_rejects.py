"""When rejects are so many that a person must look, and when they no longer are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.messages import BlockDone
from collector.core.rejects import (
    CLEAR_RATIO,
    LEAST_RECORDS,
    RATIO_LIMIT,
    RUN_LIMIT,
    WINDOW_S,
    RejectsWatch,
    Transition,
)


def done(rows: int = 0, rejects: int = 0, *, resends: int = 0, **reasons: int) -> BlockDone:
    return BlockDone(1, rows, resends, rejects, 0, 0, (), 0, reasons)


def fed(*blocks: BlockDone, every_s: float = 1.0) -> tuple[RejectsWatch, list[Transition | None]]:
    watch = RejectsWatch()
    return watch, [watch.block_done(n * every_s, block) for n, block in enumerate(blocks)]


@pytest.mark.parametrize(("rejects", "alarm"), [(5, False), (6, True)])
def test_more_than_the_ratio_is_an_alarm(rejects, alarm):
    """5 % of a hundred records is none, more is one."""
    watch, _ = fed(done(LEAST_RECORDS - rejects, rejects))
    assert watch.alarm is alarm


def test_a_few_records_say_nothing():
    """One reject among the first three hits is no alarm; the hundredth record decides."""
    watch, transitions = fed(done(46, 50), done(3), done(1))
    assert transitions == [None, None, Transition.RAISED]
    assert (watch.records, watch.rejects) == (100, 50)


def test_a_run_of_rejects_is_an_alarm_whatever_came_before():
    """A hundred in a row over several blocks, however small a part of the window they are."""
    watch, transitions = fed(done(1_000_000), *[done(0, 25)] * 4)
    assert transitions == [None, None, None, None, Transition.RAISED]
    assert watch.run == RUN_LIMIT


@pytest.mark.parametrize("end", [done(1, 80), done(0, 80, resends=1)])
def test_any_row_or_resend_in_a_block_ends_the_run(end):
    """A run is made of whole blocks: what stands among hits is the ratio's business."""
    watch, _ = fed(done(1_000_000), done(0, 99), end, done(0, 99))
    assert (watch.alarm, watch.run) == (False, 99)


def test_the_alarm_is_over_below_half_of_the_limit():
    """Not at the limit: a ratio that hovers there would ring all night."""
    watch, transitions = fed(done(90, 10), done(200), done(99), done(1), done(1))
    assert transitions[0] is Transition.RAISED
    assert transitions[1:] == [None, None, None, Transition.CLEARED]
    assert watch.ratio < CLEAR_RATIO


def test_a_run_that_goes_on_keeps_the_alarm():
    """However many hits the window still holds from before it."""
    watch, transitions = fed(done(1_000_000), done(0, 100), done(0, 1), done(1))
    assert transitions == [None, Transition.RAISED, None, Transition.CLEARED]
    assert not watch.alarm


def test_what_is_older_than_the_window_counts_no_more():
    """Ten minutes after the last reject it is forgotten; silence alone clears nothing."""
    watch = RejectsWatch()
    watch.block_done(0.0, done(0, 500))
    watch.block_done(1.0, done(5))
    assert watch.alarm
    assert watch.block_done(WINDOW_S + 20, done(1)) is Transition.CLEARED
    assert (watch.records, watch.rejects) == (1, 0)


def test_the_most_frequent_reasons_are_named():
    """Three kinds, the most frequent first, of the window alone."""
    watch, _ = fed(
        done(0, 10, **{"not json": 7, "too deep": 1, "oversized": 2}), done(0, 3, **{"not utf-8": 3})
    )
    assert list(watch.reasons().items()) == [("not json", 7), ("not utf-8", 3), ("oversized", 2)]
    assert "not json (7), not utf-8 (3), oversized (2)" in watch.in_words()
    watch.block_done(WINDOW_S + 20, done(0, 1, **{"too deep": 1}))
    assert watch.reasons() == {"too deep": 1}


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100),
            st.integers(0, 300),
            st.integers(0, 2),
            st.one_of(st.just(0), st.integers(0, 300)),
        ),
        max_size=60,
    )
)
def test_any_stream_raises_and_clears_in_turns_as_the_counts_say(blocks):
    """Against the counts kept plainly: the rule holds after every block, whatever the blocks and pauses."""
    watch = RejectsWatch()
    now_s, run, kept = 0.0, 0, []
    alarm = False
    for pause_s, rows, resends, rejects in blocks:
        now_s += pause_s
        run = 0 if rows or resends else run + rejects
        kept.append((now_s, rows + resends + rejects, rejects))
        transition = watch.block_done(now_s, done(rows, rejects, resends=resends))
        # A bucket goes as a whole: what is at most its grain older than the window may or may not count.
        assert sum(n for at, n, _ in kept if now_s - at <= WINDOW_S - 10) <= watch.records
        assert watch.records <= sum(n for at, n, _ in kept if now_s - at <= WINDOW_S)
        past = watch.records >= LEAST_RECORDS and watch.ratio > RATIO_LIMIT
        expected = None
        if not alarm and (run >= RUN_LIMIT or past):
            expected = Transition.RAISED
        elif alarm and run == 0 and watch.ratio < CLEAR_RATIO:
            expected = Transition.CLEARED
        assert transition is expected
        alarm = watch.alarm
