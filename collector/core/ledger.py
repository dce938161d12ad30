"""What the commit log adds up to: one pure fold, the same at replay and as entries are appended.

Runs in the coordinator. Invariant: the state is a function of the entries in order alone, and batches
follow each other without a hole, each with the totals of the ones before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

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
)
from collector.core.messages import Closed, Totals
from collector.errors import DamagedError

HOUR_US: Final = 3_600_000_000
START_OF_CONNECTION_US: Final = 600_000_000
"""Resends in a connection's first ten minutes are the evidence that the service overlapped."""


@dataclass(slots=True)
class Connection:
    """What is known of one connection. ``hours`` and ``written`` name UTC hours by their start, us."""

    number: int
    opened: ConnectionOpened | None = None
    closed: Closed | None = None
    hours: dict[int, Totals] = field(default_factory=dict)
    """Committed records by the hour their blocks were collected in."""
    resends_at_start: int = 0
    written: set[int] = field(default_factory=set)
    """Hours that have their row in ``connections``."""

    @property
    def committed(self) -> Totals:
        return sum(self.hours.values(), Totals())

    def unwritten_hours(self, until_us: int) -> list[int]:
        """Hours from its opening to its close, or to ``until_us``, that have no row yet; ascending."""
        if self.opened is None:
            return []
        ended_us = self.closed.closed_at_us if self.closed is not None else until_us
        first = hour_of(self.opened.opened_us)
        last = max(first, hour_of(ended_us))
        return [hour for hour in range(first, last + 1, HOUR_US) if hour not in self.written]

    def count(self, block: BlockCount) -> None:
        hour = hour_of(block.collected_at_us)
        counts = Totals(block.records, block.rows, block.resends, block.rejects)
        self.hours[hour] = self.hours.get(hour, Totals()) + counts
        if self.opened and block.collected_at_us < self.opened.opened_us + START_OF_CONNECTION_US:
            self.resends_at_start += block.resends


@dataclass(slots=True)
class SavedFile:
    """A saved file, known by its SHA-256."""

    connections: list[int] = field(default_factory=list)
    """Every one it was read as; what each committed adds up."""
    records: int | None = None
    """Of the whole file; ``None``: not all of them are accepted yet."""


def hour_of(at_us: int) -> int:
    """Start of the UTC hour, microseconds since the epoch."""
    return at_us - at_us % HOUR_US


class LogState:
    """Feed it every entry once, with its number, in order.

    *Raises*: DamagedError for entries that contradict each other.
    """

    def __init__(self) -> None:
        self.instance = ""
        """Empty: the log has no ``Made`` yet."""
        self.stream = ""
        self.url_segment = ""
        self.totals = Totals()
        """Of every batch that was decided, a pending one included."""
        self.last_batch = (0, 0)
        """First and last block of the newest batch that was decided; (0, 0): none."""
        self.pending: Intent | None = None
        """Decided, and perhaps not all of it in place."""
        self.pending_connections: ConnectionsIntent | None = None
        self.connections: dict[int, Connection] = {}
        self.last_connection = 0
        self.last_closed_us = 0
        """When the newest connection that ended did; 0: none has."""
        self.next_held_us = 0
        """The counter of held connection as of the last decided batch or close. It never goes back."""
        self.gaps: dict[int, GapSeen] = {}
        """By entry number: those without their row in ``connections``."""
        self.gap_after: dict[int, GapSeen] = {}
        """By the connection before it, those with their row included."""
        self.connections_until = 0
        """The last log entry that the newest rows of ``connections`` were named by."""
        self.files: dict[bytes, SavedFile] = {}
        self.lost: list[Lost] = []
        self.last_entry = 0
        self._file_of: dict[int, SavedFile] = {}
        self._folds: Final[dict[type[Entry], Callable[[int, Any], None]]] = {
            Made: self._make,
            Intent: self._intend,
            Committed: self._commit,
            ConnectionOpened: self._open,
            ConnectionClosed: self._close,
            GapSeen: self._see_gap,
            ConnectionsIntent: self._intend_connections,
            ConnectionsCommitted: self._commit_connections,
            FileOpened: self._open_file,
            FileRead: self._finish_file,
            Lost: self._lose,
            Note: self._note,
        }

    # ------------------------------------------------------------ what follows from it

    @property
    def last_block(self) -> int:
        """Decided, or written off as lost: the journal owes nothing up to here."""
        return max((self.last_batch[1], *(lost.last for lost in self.lost)))

    @property
    def next_connection(self) -> int:
        return self.last_connection + 1

    def unwritten_rows(self, until_us: int) -> Iterator[tuple[Connection, int]]:
        """Each connection and hour without a row in ``connections``, up to ``until_us``."""
        for connection in self.connections.values():
            for hour in connection.unwritten_hours(until_us):
                yield connection, hour

    # ------------------------------------------------------------ the fold

    def fold(self, number: int, entry: Entry) -> None:
        if number != self.last_entry + 1:
            raise DamagedError(f"the commit log goes from entry {self.last_entry} to {number}")
        self.last_entry = number
        self._folds[type(entry)](number, entry)

    def _make(self, _: int, entry: Made) -> None:
        self.instance, self.stream, self.url_segment = entry.instance, entry.stream, entry.url_segment

    def _intend(self, number: int, entry: Intent) -> None:
        if self.pending is not None:
            raise DamagedError(
                f"entry {number} decides batch {entry.batch} while batch {self.pending.batch} is pending"
            )
        if entry.batch != self.last_block + 1 or entry.before != self.totals:
            raise DamagedError(
                f"entry {number} decides batch {entry.batch} after {entry.before},"
                f" but block {self.last_block} came before it and the totals are {self.totals}"
            )
        self.pending = entry
        self.last_batch = (entry.batch, entry.last)
        self.next_held_us = max(self.next_held_us, entry.held_us[1])
        for block in entry.blocks:
            self._connection(block.connection).count(block)
            self.totals += Totals(block.records, block.rows, block.resends, block.rejects)

    def _commit(self, number: int, entry: Committed) -> None:
        if self.pending is None or self.pending.batch != entry.batch:
            raise DamagedError(f"entry {number} commits batch {entry.batch}, which was not decided")
        self.pending = None

    def _intend_connections(self, _: int, entry: ConnectionsIntent) -> None:
        self.pending_connections = entry
        self.connections_until = entry.last

    def _commit_connections(self, number: int, entry: ConnectionsCommitted) -> None:
        intent = self.pending_connections
        if intent is None or intent.first != entry.first:
            raise DamagedError(f"entry {number} commits connections {entry.first}, which were not decided")
        for connection, hour in intent.covers:
            self._connection(connection).written.add(hour)
        for gap in intent.gaps:
            self.gaps.pop(gap, None)
        self.pending_connections = None

    def _open(self, _: int, entry: ConnectionOpened) -> None:
        self._connection(entry.connection).opened = entry

    def _close(self, _: int, entry: ConnectionClosed) -> None:
        closed = entry.closed
        self._connection(closed.connection).closed = closed
        self.next_held_us = max(self.next_held_us, entry.held_us)
        self.last_closed_us = max(self.last_closed_us, closed.closed_at_us)

    def _see_gap(self, number: int, entry: GapSeen) -> None:
        self.gaps[number] = entry
        self.gap_after[entry.connection] = entry

    def _open_file(self, _: int, entry: FileOpened) -> None:
        self._connection(entry.connection)
        file = self.files.setdefault(entry.sha256, SavedFile())
        file.connections.append(entry.connection)
        self._file_of[entry.connection] = file

    def _finish_file(self, number: int, entry: FileRead) -> None:
        file = self._file_of.get(entry.connection)
        if file is None:
            raise DamagedError(f"entry {number} ends connection {entry.connection}, which reads no file")
        file.records = entry.records

    def _lose(self, _: int, entry: Lost) -> None:
        self.lost.append(entry)

    def _note(self, _: int, entry: Note) -> None:
        """For people alone."""

    def _connection(self, number: int) -> Connection:
        self.last_connection = max(self.last_connection, number)
        return self.connections.setdefault(number, Connection(number))
