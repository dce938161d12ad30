"""Rows of ``connections`` when the wall clock jumps: few, complete, and honest about the time that passed."""

from __future__ import annotations

import pytest
from test_connections import HOUR, MINUTE, Book

from collector.core.entries import ConnectionClosed, ConnectionOpened
from collector.core.ledger import HOUR_US
from collector.core.messages import Closed, Outcome

SECOND = MINUTE // 60


@pytest.fixture
def book() -> Book:
    return Book()


def counted(book: Book) -> int:
    return sum(row.hits for row in book.rows if row.kind == "connection")


def test_a_clock_that_was_at_1970_makes_no_row_for_every_hour_since(book):
    """A host without a clock of its own starts in 1970; half a minute later it knows the time."""
    book.opened(1, SECOND)
    book.committed(1, 1, 2 * SECOND)
    book.committed(2, 1, HOUR)
    assert len(book.settle(HOUR + MINUTE)) < 60
    book.closed(1, HOUR + 2 * MINUTE)
    assert len(book.settle(HOUR + 3 * MINUTE, draining=True)) < 10
    assert counted(book) == 20


@pytest.mark.parametrize("back_us", [MINUTE, HOUR_US, HOUR])
def test_a_clock_that_goes_back_loses_no_count(book, back_us):
    """By a minute over the border of an hour, by an hour, to 1970: every hit is in a row, once."""
    book.opened(1, HOUR)
    book.committed(1, 1, HOUR + SECOND)
    book.committed(2, 1, HOUR + 2 * SECOND - back_us)
    book.closed(1, HOUR + 3 * SECOND - back_us)
    book.settle(HOUR + 4 * SECOND - back_us, draining=True)
    book.settle(HOUR + HOUR_US + MINUTE)  # once the clock is there again
    assert counted(book) == 20
    assert all(row.began_us <= row.ended_us for row in book.rows)
    assert [row.reason for row in book.rows if row.closed_us] == ["lost"]


def test_a_jump_that_is_taken_back_loses_no_count(book):
    """An hour is over by mistake and gets its row; what comes in it afterwards is in a later one."""
    book.opened(1, HOUR + 30 * MINUTE)
    book.committed(1, 1, HOUR + 31 * MINUTE)
    assert len(book.settle(HOUR + HOUR_US + 31 * MINUTE)) == 1
    book.committed(2, 1, HOUR + 32 * MINUTE)
    book.closed(1, HOUR + 33 * MINUTE)
    book.settle(HOUR + 34 * MINUTE, draining=True)
    book.settle(HOUR + 2 * HOUR_US, draining=True)
    assert counted(book) == 20


@pytest.mark.parametrize(
    ("step_us", "wait_s", "suspected"), [(-HOUR_US, 400, "likely"), (HOUR_US, 2, "possible")]
)
def test_a_gap_is_as_long_as_it_was_measured(book, step_us, wait_s, suspected):
    """Not as long as the wall clock says that jumped meanwhile."""
    book.opened(1, HOUR)
    closed_us = HOUR + MINUTE
    book.add(ConnectionClosed(Closed(1, Outcome.LOST, "reset", closed_us), 0))
    opened_us = closed_us + wait_s * SECOND + step_us
    book.add(ConnectionOpened(2, opened_us, wait_s * 1_000_000, {}, 1))
    book.closed(2, opened_us + MINUTE)
    book.settle(HOUR + 3 * HOUR_US, draining=True)
    (gap,) = (row for row in book.rows if row.kind == "gap")
    assert gap.suspected_gap == suspected
    assert gap.ended_us - gap.began_us == wait_s * 1_000_000
