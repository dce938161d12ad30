"""Rows of ``connections``: each hour of each connection once, when nothing more can be counted in it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from collector.coordinator.connections import ConnectionBook
from collector.core.entries import BlockCount, Committed, ConnectionClosed, ConnectionOpened, Intent, Made
from collector.core.ledger import HOUR_US, LogState
from collector.core.messages import Block, Closed, ConnectionRow, Outcome, Staged, Totals

HOUR = 500_000 * HOUR_US
MINUTE = HOUR_US // 60


class Book:
    """A book over a ledger that the test writes; what it stages is kept."""

    def __init__(self) -> None:
        self.ledger = LogState()
        self.rows: list[ConnectionRow] = []
        self.oldest: Block | None = None
        self.add(Made("0" * 16, "shop", "shop", HOUR))
        self._book = ConnectionBook(self, self)

    @property
    def batching(self):
        return SimpleNamespace(oldest_uncommitted=lambda: self.oldest)

    def add(self, entry) -> None:
        self.ledger.fold(self.ledger.last_entry + 1, entry)

    async def append(self, *entries) -> None:
        for entry in entries:
            self.add(entry)

    async def publish(self, files) -> None: ...

    async def stage_connections(self, order) -> Staged:
        self.rows += order.rows
        return Staged(order.first, 0, 0, (), len(order.rows), 0, 0)

    def settle(self, now_us: int, *, draining: bool = False) -> list[tuple[str, int, int]]:
        """Kind, connection and beginning of each row that became visible."""
        before = len(self.rows)
        asyncio.run(self._book._settle(now_us, draining=draining))
        return [(row.kind, row.connection, row.began_us) for row in self.rows[before:]]

    def opened(self, number: int, at_us: int, after: int = 0) -> None:
        self.add(ConnectionOpened(number, at_us, 0, {}, after))

    def closed(self, number: int, at_us: int) -> None:
        self.add(ConnectionClosed(Closed(number, Outcome.LOST, "reset", at_us), 0))

    def committed(self, seq: int, connection: int, at_us: int, *, rows: int = 10, resends: int = 0) -> None:
        records = rows + resends
        block = BlockCount(seq, connection, records, rows, resends, 0, at_us)
        self.add(Intent(seq, seq, (), (block,), self.ledger.totals, (0, 0)))
        self.add(Committed(seq, seq, at_us))


@pytest.fixture
def book() -> Book:
    return Book()


def uncommitted(connection: int, at_us: int) -> Block:
    return Block(99, 1, 0, 10, 1, connection, 0, at_us, 0)


def test_an_hour_has_its_row_when_it_is_over_and_committed(book):
    """Of an open connection: not before its blocks of that hour are committed, and then once."""
    book.opened(1, HOUR + MINUTE)
    book.committed(1, 1, HOUR + 2 * MINUTE)
    assert book.settle(HOUR + 59 * MINUTE) == []
    book.oldest = uncommitted(1, HOUR + 59 * MINUTE)
    assert book.settle(HOUR + HOUR_US + MINUTE) == []
    book.oldest = uncommitted(1, HOUR + HOUR_US)
    assert book.settle(HOUR + HOUR_US + MINUTE) == [("connection", 1, HOUR + MINUTE)]
    assert book.settle(HOUR + HOUR_US + 2 * MINUTE) == []
    assert book.rows[0].hits == 10


def test_a_disconnect_alone_writes_no_part(book):
    """Rows of an hour that is not over wait for its end, or for the drain."""
    book.opened(1, HOUR)
    book.closed(1, HOUR + MINUTE)
    assert book.settle(HOUR + 2 * MINUTE) == []
    assert book.settle(HOUR + 3 * MINUTE, draining=True) == [("connection", 1, HOUR)]


def test_a_gap_is_judged_when_the_evidence_is_counted(book):
    """Resends of the connection after it decide; they are known once its blocks are committed."""
    book.opened(1, HOUR)
    book.closed(1, HOUR + MINUTE)
    book.opened(2, HOUR + 2 * MINUTE, after=1)
    book.closed(2, HOUR + 3 * MINUTE)
    book.oldest = uncommitted(2, HOUR + 3 * MINUTE)
    book.settle(HOUR + 4 * MINUTE)
    assert book.ledger.gap_after == {}
    book.committed(1, 2, HOUR + 2 * MINUTE, resends=5)
    book.oldest = None
    book.settle(HOUR + 5 * MINUTE)
    assert book.ledger.gap_after[1].suspected == "no"
    assert book.settle(HOUR + 6 * MINUTE, draining=True) == [
        ("connection", 1, HOUR),
        ("connection", 2, HOUR + 2 * MINUTE),
        ("gap", 1, HOUR + MINUTE),
    ]


def test_every_hour_of_a_long_connection_has_a_row(book):
    """Silent hours too: they say that the connection was held."""
    book.opened(1, HOUR + 30 * MINUTE)
    now = HOUR + 3 * HOUR_US + MINUTE
    assert book.settle(now) == [
        ("connection", 1, HOUR + 30 * MINUTE),
        ("connection", 1, HOUR + HOUR_US),
        ("connection", 1, HOUR + 2 * HOUR_US),
    ]
    book.closed(1, now)
    assert book.settle(now, draining=True) == [("connection", 1, HOUR + 3 * HOUR_US)]
    assert [row.closed_us for row in book.rows] == [0, 0, 0, now]
    assert book.ledger.totals == Totals()
