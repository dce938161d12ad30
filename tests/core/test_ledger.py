from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.entries import (
    BlockCount,
    Checkpoint,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    ConnectionsVoid,
    Entry,
    FileOpened,
    FileRead,
    GapSeen,
    Intent,
    Lost,
    Made,
    Note,
    SavedFile,
    ShareStaged,
    Void,
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


def test_a_batch_counts_once_it_is_committed() -> None:
    """While it is pending only its decision is known, and that its blocks were durable."""
    decided = intent(counted(1), counted(2), held_us=7)
    state = folded(decided)
    assert (state.pending, state.last_batch, state.last_block) == (decided, (0, 0), 0)
    assert (state.totals, state.connections, state.durable_block) == (NONE, {}, 2)
    state.fold(2, Committed(1, 2, 0))
    assert (state.pending, state.last_batch, state.last_block) == (None, (1, 2), 2)
    assert (state.totals, state.next_held_us) == (TEN + TEN, 7)


def test_a_voided_batch_never_was() -> None:
    """Its blocks are decided on again, perhaps with others; that they were durable is still known."""
    state = folded(intent(counted(1), counted(2)), Void(1, 2, "asked", 5))
    assert (state.pending, state.totals, state.last_block) == (None, NONE, 0)
    assert (state.voided, state.durable_block) == (1, 2)
    for number, entry in enumerate([intent(counted(1)), Committed(1, 1, 0)], 3):
        state.fold(number, entry)
    assert (state.voided, state.last_batch, state.totals) == (0, (1, 1), TEN)


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
        [intent(counted(1)), Committed(1, 2, 0)],
        [Void(1, 1, "", 0)],
        [intent(counted(1)), Void(1, 2, "", 0)],
        [intent(counted(1)), Committed(1, 1, 0), Lost(1, 3, 0)],
        [Lost(5, 6, 0), Lost(6, 7, 0)],
        [Lost(2, 3, 0), intent(counted(1), counted(2))],
        [ConnectionsCommitted(1, 2)],
        [ConnectionsVoid(1, 2, "", 0)],
        [ConnectionsIntent(1, 2, (), (), ()), ConnectionsIntent(3, 4, (), (), ())],
        [FileRead(1, 5)],
    ],
    ids=[
        "hole",
        "pending",
        "later hole",
        "totals",
        "undecided",
        "other",
        "other end",
        "void",
        "other void",
        "lost twice",
        "lost over lost",
        "over lost",
        "connections",
        "void connections",
        "connections pending",
        "file",
    ],
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
    assert (state.last_block, state.durable_block, state.lost) == (9, 9, ())
    assert (state.lost_blocks, state.lost_records) == (8, 80)
    state.fold(4, intent(counted(10), before=TEN))
    state.fold(5, Committed(10, 10, 0))
    assert state.last_batch == (10, 10)


def test_lost_blocks_behind_others_are_skipped_when_their_turn_comes() -> None:
    """Whatever the order they were written off in; what is skipped is no longer kept."""
    state = folded(Lost(7, 8, 0), Lost(3, 4, 5), Lost(5, 5, 0))
    assert (state.last_block, state.durable_block) == (0, 8)
    assert [state.is_lost(block) for block in range(2, 10)] == [False] + [True] * 3 + [False] + [True] * 2 + [
        False
    ]
    state.fold(4, intent(counted(1), counted(2)))
    state.fold(5, Committed(1, 2, 0))
    assert (state.last_block, state.lost) == (5, (Lost(7, 8, 0),))
    state.fold(6, intent(counted(6), before=TEN + TEN))
    state.fold(7, Committed(6, 6, 0))
    assert (state.last_block, state.lost, state.lost_blocks) == (8, (), 5)


def test_an_unknown_loss_moves_nothing() -> None:
    """Blocks that nobody can count have no numbers to skip."""
    state = folded(intent(counted(1)), Committed(1, 1, 0), Lost(2, 1, 0))
    assert (state.last_block, state.lost, state.lost_blocks) == (1, (), 0)


# ---------------------------------------------------------------- connections


def test_records_are_counted_by_connection_and_hour() -> None:
    """The hour is that in which the block was collected, UTC."""
    state = folded(
        opened(1),
        intent(counted(1, at_us=HOUR_US - 1), counted(2, at_us=HOUR_US), counted(3, connection=2, at_us=0)),
        Committed(1, 3, 0),
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
        Committed(1, 2, 0),
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


def test_voided_rows_are_owed_again() -> None:
    """Under new names: those that were decided are not used again."""
    rows = ConnectionsIntent(1, 2, (), ((1, 0),), ())
    state = folded(opened(1), closed(1, 5), rows, ConnectionsVoid(1, 2, "gone", 0))
    assert (state.pending_connections, state.connections_until) == (None, 2)
    assert [hour for _, hour in state.unwritten_rows(9)] == [0]


def test_held_connection_never_goes_back() -> None:
    """Not even when a close tells less than a batch did."""
    state = folded(intent(counted(1), held_us=50), Committed(1, 1, 0), closed(1, 0, held_us=40))
    assert state.next_held_us == 50
    state.fold(4, closed(1, 0, held_us=60))
    assert state.next_held_us == 60


# ---------------------------------------------------------------- saved files


def test_a_file_is_known_by_its_content() -> None:
    """What of it is committed, over all connections it was read as, and whether all of it was read."""
    state = folded(
        FileOpened(1, b"x", "a", 9),
        intent(counted(1)),
        FileOpened(2, b"x", "b", 9),
        FileRead(2, 20),
        FileOpened(3, b"y", "c", 9),
        Committed(1, 1, 0),
    )
    assert state.files == {b"x": SavedFile(10, 20), b"y": SavedFile(0, None)}
    assert state.reading == {1: b"x", 2: b"x", 3: b"y"}
    state.fold(7, intent(counted(2, connection=2), before=TEN))
    state.fold(8, Committed(2, 2, 0))
    assert state.files[b"x"] == SavedFile(20, 20)
    assert state.reading == {3: b"y"}
    assert state.connections == {}


def test_a_connection_behind_which_blocks_are_committed_reads_no_more() -> None:
    """Also when its file was never read to the end."""
    state = folded(
        FileOpened(1, b"x", "a", 9),
        FileOpened(2, b"y", "b", 9),
        intent(counted(1, connection=2)),
        Committed(1, 1, 0),
    )
    assert state.reading == {2: b"y"}


@given(st.integers(-(2**60), 2**60))
def test_hours_begin_at_or_before_their_times(at_us: int) -> None:
    """Also before 1970."""
    assert 0 <= at_us - hour_of(at_us) < HOUR_US
    assert hour_of(at_us) % HOUR_US == 0


# ---------------------------------------------------------------- what it keeps


class Life:
    """A log that goes on and on; the state that it adds up to, and its entries."""

    def __init__(self) -> None:
        self.state = LogState()
        self.entries: list[Entry] = []
        self.seq = 0
        self.now_us = 500_000 * HOUR_US

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.state.fold(self.state.last_entry + 1, entry)

    def connect(self, hours: int, lost: int = 0) -> None:
        """One connection of so many hours, each with a batch, everything about it written."""
        state, number = self.state, self.state.next_connection
        self.add(opened(number, self.now_us, number - 1))
        if number > 1:
            self.add(gap(number - 1))
        for _ in range(hours):
            self.seq += 1
            self.add(intent(counted(self.seq, connection=number, at_us=self.now_us), before=state.totals))
            self.add(Committed(self.seq, self.seq, self.now_us))
            self.now_us += HOUR_US
            self.write()
        if lost:
            self.add(Lost(self.seq + 1, self.seq + lost, lost))
            self.seq += lost
        self.add(closed(number, self.now_us - 1))
        self.write()

    def write(self) -> None:
        rows = [(at.number, hour) for at, hour in self.state.unwritten_rows(self.now_us - 1)]
        number = self.state.last_entry
        self.add(ConnectionsIntent(number, number, (), tuple(rows), tuple(self.state.gaps)))
        self.add(ConnectionsCommitted(number, number))

    @property
    def size_bytes(self) -> int:
        return len(msgspec.msgpack.encode(self.state.checkpoint()))


def test_it_does_not_grow_with_age() -> None:
    """Connections short and long, losses: only what something is still to be written about is kept."""
    life, sizes = Life(), []
    for _ in range(6):
        for hours, lost in ((1, 0), (30, 2), (1, 1)):
            life.connect(hours, lost)
        sizes.append(life.size_bytes)
    assert list(life.state.connections) == [18]
    assert list(life.state.gap_after) == []
    assert life.state.connections[18].hours == {}
    assert sizes[-1] <= sizes[0] + 40  # larger numbers, no more of them


def test_a_connection_is_kept_until_what_follows_it_is_written() -> None:
    """Its rows, the gap after it, and the row that says how the next one began."""
    at_us = 10 * HOUR_US
    state = folded(opened(1, at_us), closed(1, at_us + 1), ConnectionsIntent(1, 2, (), ((1, at_us),), ()))
    steps: list[Entry] = [
        ConnectionsCommitted(1, 2),
        opened(2, at_us + 2, after=1),
        gap(1),
        ConnectionsIntent(3, 6, (), (), (6,)),
        ConnectionsCommitted(3, 6),
        ConnectionsIntent(7, 8, (), ((2, at_us),), ()),
    ]
    for number, entry in enumerate(steps, 4):
        state.fold(number, entry)
        assert next(iter(state.connections)) == 1
    state.fold(10, ConnectionsCommitted(7, 8))
    assert (list(state.connections), state.gap_after, state.forgotten_connection) == ([2], {}, 1)


def test_a_connection_of_1970_does_not_grow() -> None:
    """Its hours before the clock was set never get a row; those that do are not kept one by one for ever."""
    life = Life()
    life.add(opened(1, 5))
    life.add(ConnectionsIntent(1, 1, (), ((1, 0),), ()))
    life.add(ConnectionsCommitted(1, 1))
    for _ in range(100):
        life.now_us += HOUR_US
        life.write()
    (connection,) = life.state.connections.values()
    assert len(connection.written) < 50
    assert list(life.state.unwritten_rows(life.now_us - 1)) == []


def test_a_forgotten_connection_does_not_come_back() -> None:
    """A late batch counts in the totals alone; a clock that went back can make one late."""
    life = Life()
    for _ in range(3):
        life.connect(1)
    life.add(intent(counted(4, connection=1, at_us=0), before=life.state.totals))
    life.add(Committed(4, 4, 0))
    assert list(life.state.connections) == [3]
    assert life.state.totals.records == 40


@given(st.data())
def test_a_checkpoint_stands_for_the_entries_before_it(data: st.DataObject) -> None:
    """Wherever it is made: folding it and the rest ends where folding everything does."""
    life = Life()
    life.add(Made("0" * 16, "shop", "shop", 1))
    for hours in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)):
        life.connect(hours, lost=hours % 2)
    life.add(FileOpened(99, b"x", "a", 9))
    life.add(intent(counted(life.seq + 1, connection=99), before=life.state.totals))
    cut = data.draw(st.integers(1, len(life.entries)))
    before = folded(*life.entries[:cut])
    resumed = LogState()
    resumed.fold(cut, msgspec.msgpack.decode(msgspec.msgpack.encode(before.checkpoint()), type=Checkpoint))
    for number, entry in enumerate(life.entries[cut:], cut + 1):
        resumed.fold(number, entry)
    assert resumed.checkpoint() == life.state.checkpoint()
    assert resumed.last_entry == life.state.last_entry


def test_a_checkpoint_that_does_not_match_is_damage() -> None:
    """Behind the entries that it claims to add up it is compared, not trusted."""
    state = folded(opened(1))
    state.fold(1, state.checkpoint())
    with pytest.raises(DamagedError, match="checkpoint of entry 2"):
        state.fold(2, state.checkpoint())
    with pytest.raises(DamagedError, match="checkpoint of entry 1"):
        state.fold(1, folded(opened(2)).checkpoint())
