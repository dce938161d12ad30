from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    Entry,
    FileOpened,
    FileRead,
    GapSeen,
    Intent,
    Lost,
    Made,
    Note,
    ShareStaged,
)
from collector.core.ledger import HOUR_US, START_OF_CONNECTION_US, LogState, hour_of
from collector.core.messages import Closed, Outcome, Totals
from collector.errors import DamagedError

NONE = Totals()
TEN = Totals(10, 9, 0, 1)


def folded(*entries: Entry) -> LogState:
    state = LogState()
    for number, entry in enumerate(entries, 1):
        state.fold(number, entry)
    return state


def opened(connection: int, at_us: int = 0, after: int = 0) -> ConnectionOpened:
    return ConnectionOpened(connection, at_us, 0, {}, after)


def closed(connection: int, at_us: int, held_us: int = 0) -> ConnectionClosed:
    return ConnectionClosed(Closed(connection, Outcome.ENDED, "", at_us), held_us)


def counted(seq: int, *, connection: int = 1, resends: int = 0, at_us: int = 0) -> BlockCount:
    return BlockCount(seq, connection, 10, 9 - resends, resends, 1, at_us)


def intent(*blocks: BlockCount, before: Totals = NONE, held_us: int = 0) -> Intent:
    shares = (ShareStaged(1, 0, 0, 0, ()),)
    return Intent(blocks[0].seq, blocks[-1].seq, shares, blocks, before, (0, held_us))


def gap(after: int) -> GapSeen:
    return GapSeen(after, 0, 1, "lost", "", "no", "")


# ---------------------------------------------------------------- batches


def test_a_new_log_adds_up_to_nothing() -> None:
    """First block 1, first connection 1."""
    state = LogState()
    assert (state.last_block, state.next_connection, state.totals) == (0, 1, NONE)
    assert state.instance == ""


def test_made_says_whose_it_is() -> None:
    """Instance, stream and the URL's last segment."""
    state = folded(Made("ab", "shop", "segment", 5))
    assert (state.instance, state.stream, state.url_segment) == ("ab", "shop", "segment")


def test_a_decided_batch_counts_and_is_pending_until_committed() -> None:
    """It is redone after a crash, never undone, so its totals stand."""
    decided = intent(counted(1), counted(2), held_us=7)
    state = folded(decided)
    assert (state.pending, state.last_batch, state.last_block) == (decided, (1, 2), 2)
    assert state.totals == TEN + TEN
    assert state.next_held_us == 7
    state.fold(2, Committed(1, 2, 0))
    assert state.pending is None


def test_batches_follow_each_other() -> None:
    """Totals run on."""
    state = folded(intent(counted(1)), Committed(1, 1, 0), intent(counted(2), before=TEN), Committed(2, 2, 0))
    assert (state.last_batch, state.totals) == ((2, 2), TEN + TEN)


@pytest.mark.parametrize(
    "entries",
    [
        [intent(counted(2))],
        [intent(counted(1)), intent(counted(2), before=TEN)],
        [intent(counted(1)), Committed(1, 1, 0), intent(counted(3), before=TEN)],
        [intent(counted(1)), Committed(1, 1, 0), intent(counted(2))],
        [Committed(1, 1, 0)],
        [intent(counted(1)), Committed(2, 2, 0)],
        [ConnectionsCommitted(1, 2)],
        [FileRead(1, 5)],
    ],
    ids=["hole", "pending", "later hole", "totals", "undecided", "other", "connections", "file"],
)
def test_entries_that_contradict_each_other_are_damage(entries: list[Entry]) -> None:
    """The log is never trusted against itself."""
    with pytest.raises(DamagedError, match="entry"):
        folded(*entries)


@pytest.mark.parametrize("number", [0, 2, 3])
def test_entry_numbers_have_no_holes(number: int) -> None:
    """The first is 1."""
    with pytest.raises(DamagedError, match="from entry 0"):
        LogState().fold(number, Note("", ""))


def test_lost_blocks_are_owed_no_more() -> None:
    """The next batch begins after them."""
    state = folded(intent(counted(1)), Committed(1, 1, 0), Lost(2, 9, 80))
    assert state.last_block == 9
    state.fold(4, intent(counted(10), before=TEN))
    assert state.last_batch == (10, 10)


# ---------------------------------------------------------------- connections


def test_records_are_counted_by_connection_and_hour() -> None:
    """The hour is that in which the block was collected, UTC."""
    state = folded(
        opened(1),
        intent(counted(1, at_us=HOUR_US - 1), counted(2, at_us=HOUR_US), counted(3, connection=2, at_us=0)),
    )
    assert state.connections[1].hours == {0: TEN, HOUR_US: TEN}
    assert state.connections[1].committed == TEN + TEN
    assert state.connections[2].hours == {0: TEN}


def test_resends_of_the_first_ten_minutes_are_evidence() -> None:
    """Later ones are not."""
    edge = 5 + START_OF_CONNECTION_US
    state = folded(
        opened(1, at_us=5),
        intent(counted(1, resends=3, at_us=edge - 1), counted(2, resends=4, at_us=edge)),
    )
    assert state.connections[1].resends_at_start == 3


def test_connection_numbers_go_on() -> None:
    """After the highest one that any entry names."""
    assert folded(opened(4)).next_connection == 5
    assert folded(FileOpened(7, b"", "", 0)).next_connection == 8


def test_a_row_is_owed_for_every_hour_a_connection_spans() -> None:
    """From its opening to its close, or to now while it is open."""
    start = 5 * HOUR_US + 1
    state = folded(opened(1, at_us=start))
    assert [hour for _, hour in state.unwritten_rows(7 * HOUR_US)] == [5 * HOUR_US, 6 * HOUR_US, 7 * HOUR_US]
    state.fold(2, closed(1, 6 * HOUR_US + 9))
    assert [hour for _, hour in state.unwritten_rows(9 * HOUR_US)] == [5 * HOUR_US, 6 * HOUR_US]
    assert state.last_closed_us == 6 * HOUR_US + 9


def test_a_clock_that_went_back_still_gives_one_row() -> None:
    """A connection that seems to have ended before it began has its first hour."""
    state = folded(opened(1, at_us=9 * HOUR_US), closed(1, 2 * HOUR_US))
    assert [hour for _, hour in state.unwritten_rows(9 * HOUR_US)] == [9 * HOUR_US]


def test_committed_rows_are_owed_no_more() -> None:
    """Hours and gaps, once their parts are in place; decided ones are pending."""
    rows = ConnectionsIntent(1, 3, (), ((1, 0),), (3,))
    state = folded(opened(1), closed(1, HOUR_US), gap(1), rows)
    assert (state.pending_connections, state.connections_until) == (rows, 3)
    assert list(state.gaps) == [3]
    state.fold(5, ConnectionsCommitted(1, 3))
    assert [hour for _, hour in state.unwritten_rows(HOUR_US)] == [HOUR_US]
    assert (state.gaps, state.pending_connections) == ({}, None)
    assert state.gap_after == {1: gap(1)}


def test_held_connection_never_goes_back() -> None:
    """Not even when a close tells less than a batch did."""
    state = folded(intent(counted(1), held_us=50), closed(1, 0, held_us=40))
    assert state.next_held_us == 50
    state.fold(3, closed(1, 0, held_us=60))
    assert state.next_held_us == 60


# ---------------------------------------------------------------- saved files


def test_a_file_is_known_by_its_content() -> None:
    """Every connection it was read as, and whether all of it was."""
    state = folded(FileOpened(1, b"x", "a", 9), FileOpened(2, b"x", "b", 9), FileOpened(3, b"y", "c", 9))
    assert state.files[b"x"].connections == [1, 2]
    assert state.files[b"x"].records is None
    state.fold(4, FileRead(2, 77))
    assert (state.files[b"x"].records, state.files[b"y"].records) == (77, None)


@given(st.integers(-(2**60), 2**60))
def test_hours_begin_at_or_before_their_times(at_us: int) -> None:
    """Also before 1970."""
    assert 0 <= at_us - hour_of(at_us) < HOUR_US
    assert hour_of(at_us) % HOUR_US == 0
