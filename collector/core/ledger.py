"""What the commit log adds up to: one pure fold, the same at replay and as entries are appended.

Runs in the coordinator. Invariants: the state is a function of the entries in order alone; batches follow
each other without a hole but for blocks that were written off, each with the totals of the ones before;
and what is kept does not grow with age, saved files excepted (some 60 bytes for each, so that it is known
again): a connection is forgotten once its rows and the gap after it are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from collector.core.entries import (
    BlockCount,
    Checkpoint,
    Committed,
    Connection,
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
    Retired,
    SavedFile,
    Void,
)
from collector.core.messages import Totals
from collector.errors import DamagedError

HOUR_US: Final = 3_600_000_000
START_OF_CONNECTION_US: Final = 600_000_000
"""Resends in a connection's first ten minutes are the evidence that the service overlapped."""

LONGEST_SILENCE_US: Final = 48 * HOUR_US
"""Hours without a record that lie further back have no row: it was the clock that went there, from 1970."""


def hour_of(at_us: int) -> int:
    """Start of the UTC hour, microseconds since the epoch."""
    return at_us - at_us % HOUR_US


def unwritten_hours(connection: Connection, until_us: int) -> list[int]:
    """Hours from its opening to its close, or to ``until_us``, that have no row yet; ascending."""
    if connection.opened is None:
        return []
    ended_us = connection.closed.closed_at_us if connection.closed is not None else until_us
    first = hour_of(connection.opened.opened_us)
    last = max(first, hour_of(ended_us))
    silent = range(max(first, connection.written_before, last - LONGEST_SILENCE_US), last + 1, HOUR_US)
    return sorted(hour for hour in {first, *silent, *connection.hours} if not has_row(connection, hour))


def has_row(connection: Connection, hour: int) -> bool:
    """Whether this hour of it is in ``connections``."""
    return hour < connection.written_before or hour in connection.written


class LogState:
    """Feed it every entry once, with its number, in order; its attributes are ``Checkpoint``'s fields.

    *Raises*: DamagedError for entries that contradict each other.
    """

    def __init__(self) -> None:
        self.instance = ""
        """Empty: the log has no ``Made`` yet."""
        self.stream = ""
        self.url_segment = ""
        self.totals = Totals()
        """Of every committed batch."""
        self.last_batch = (0, 0)
        """First and last block of the newest committed batch; (0, 0): none."""
        self.last_block = 0
        """Committed, or written off as lost: the journal owes nothing up to here."""
        self.durable_block = 0
        """The highest that the log knows to have been durable."""
        self.voided = 0
        """The batch that was undone and is not committed since; 0: none."""
        self.pending: Intent | None = None
        """Decided, not counted yet, and perhaps not all of it in place."""
        self.pending_connections: ConnectionsIntent | None = None
        self.connections: dict[int, Connection] = {}
        """The newest, and those before it that something is still to be written about."""
        self.last_connection = 0
        self.forgotten_connection = 0
        """Everything about connections up to here is written."""
        self.last_closed_us = 0
        """When the newest connection that ended did; 0: none has."""
        self.next_held_us = 0
        """The counter of held connection as of the last committed batch or close. It never goes back."""
        self.gaps: dict[int, GapSeen] = {}
        """By entry number: those without their row in ``connections``."""
        self.gap_after: dict[int, GapSeen] = {}
        """By the connection before it, those with their row included."""
        self.connections_until = 0
        """The last log entry that the newest rows of ``connections`` were named by."""
        self.files: dict[bytes, SavedFile] = {}
        self.reading: dict[int, bytes] = {}
        """SHA-256 of the file that a connection reads, while blocks of it may be uncommitted."""
        self.lost: tuple[Lost, ...] = ()
        """Written off, behind blocks that are not; ascending."""
        self.lost_blocks = 0
        """Written off in all, as far as is known; ``lost_records`` likewise."""
        self.lost_records = 0
        self.collected_us = 0
        """When the newest committed block was collected; 0: there is none."""
        self.last_entry = 0
        self._folds: Final[dict[type[Entry], Callable[[int, Any], None]]] = {
            Made: self._make,
            Intent: self._intend,
            Committed: self._commit,
            Void: self._void,
            ConnectionOpened: self._open,
            ConnectionClosed: self._close,
            GapSeen: self._see_gap,
            ConnectionsIntent: self._intend_connections,
            ConnectionsCommitted: self._commit_connections,
            ConnectionsVoid: self._void_connections,
            FileOpened: self._open_file,
            FileRead: self._finish_file,
            Lost: self._lose,
            Retired: self._note,
            Note: self._note,
        }

    # ------------------------------------------------------------ what follows from it

    @property
    def next_connection(self) -> int:
        return self.last_connection + 1

    def unwritten_rows(self, until_us: int) -> Iterator[tuple[Connection, int]]:
        """Each connection and hour without a row in ``connections``, up to ``until_us``."""
        for connection in self.connections.values():
            for hour in unwritten_hours(connection, until_us):
                yield connection, hour

    def is_lost(self, block: int) -> bool:
        """Written off, and above ``last_block``."""
        return any(lost.first <= block <= lost.last for lost in self.lost)

    def checkpoint(self) -> Checkpoint:
        """All of it, not copied: encode it before the next fold."""
        return Checkpoint(**{name: getattr(self, name) for name in Checkpoint.__struct_fields__})

    # ------------------------------------------------------------ the fold

    def fold(self, number: int, entry: Entry) -> None:
        if isinstance(entry, Checkpoint):
            self._resume(number, entry)
            return
        if number != self.last_entry + 1:
            raise DamagedError(f"the commit log goes from entry {self.last_entry} to {number}")
        self.last_entry = number
        self._folds[type(entry)](number, entry)

    def _resume(self, number: int, entry: Checkpoint) -> None:
        if self.last_entry == 0:
            for name in Checkpoint.__struct_fields__:
                setattr(self, name, getattr(entry, name))
            self.last_entry = number
        elif (number, entry) != (self.last_entry, self.checkpoint()):
            raise DamagedError(
                f"the checkpoint of entry {number} is not what the entries up to {self.last_entry} add up to"
            )

    def _make(self, _: int, entry: Made) -> None:
        self.instance, self.stream, self.url_segment = entry.instance, entry.stream, entry.url_segment

    def _note(self, _: int, entry: Note | Retired) -> None:
        """For people and for the proof alone."""

    # ------------------------------------------------------------ batches

    def _intend(self, number: int, entry: Intent) -> None:
        if self.pending is not None:
            raise DamagedError(
                f"entry {number} decides batch {entry.batch} while batch {self.pending.batch} is pending"
            )
        spans_lost = any(lost.first <= entry.last for lost in self.lost)
        if entry.batch != self.last_block + 1 or entry.before != self.totals or spans_lost:
            raise DamagedError(
                f"entry {number} decides batch {entry.batch} to {entry.last} after {entry.before},"
                f" but block {self.last_block} came before it and the totals are {self.totals}"
                + (f", and {self.lost[0]} is within it" if spans_lost else "")
            )
        self.pending = entry
        self.durable_block = max(self.durable_block, entry.last)

    def _commit(self, number: int, entry: Committed) -> None:
        batch = self.pending
        if batch is None or (batch.batch, batch.last) != (entry.batch, entry.last):
            raise DamagedError(f"entry {number} commits batch {entry.batch}, which was not decided")
        self.pending, self.voided = None, 0
        self.last_batch = (batch.batch, batch.last)
        self.last_block = batch.last
        self._skip_lost()
        self.next_held_us = max(self.next_held_us, batch.held_us[1])
        for block in batch.blocks:
            self._count(block)
        if batch.blocks:
            self.collected_us = batch.blocks[-1].collected_at_us
            self._settle_files(batch.blocks[-1].connection)

    def _void(self, number: int, entry: Void) -> None:
        batch = self.pending
        if batch is None or (batch.batch, batch.last) != (entry.batch, entry.last):
            raise DamagedError(f"entry {number} voids batch {entry.batch}, which is not pending")
        self.pending, self.voided = None, batch.batch

    def _lose(self, number: int, entry: Lost) -> None:
        self.lost_blocks += max(0, entry.last - entry.first + 1)
        self.lost_records += entry.records
        if entry.last < entry.first:
            return
        if entry.first <= self.last_block or any(
            lost.first <= entry.last and entry.first <= lost.last for lost in self.lost
        ):
            raise DamagedError(
                f"entry {number} writes off blocks {entry.first} to {entry.last},"
                f" of which some up to {self.last_block} are committed or were written off before"
            )
        self.durable_block = max(self.durable_block, entry.last)
        self.lost = tuple(sorted((*self.lost, entry), key=lambda lost: lost.first))
        self._skip_lost()

    def _skip_lost(self) -> None:
        while self.lost and self.lost[0].first == self.last_block + 1:
            self.last_block, self.lost = self.lost[0].last, self.lost[1:]

    def _count(self, block: BlockCount) -> None:
        counts = Totals(block.records, block.rows, block.resends, block.rejects)
        self.totals += counts
        sha256 = self.reading.get(block.connection)
        if sha256 is not None:
            self.files[sha256].committed += block.records
        elif block.connection > self.forgotten_connection:
            _count_in(self._connection(block.connection), block, counts)

    # ------------------------------------------------------------ connections

    def _connection(self, number: int) -> Connection:
        self.last_connection = max(self.last_connection, number)
        return self.connections.setdefault(number, Connection(number))

    def _open(self, _: int, entry: ConnectionOpened) -> None:
        self._connection(entry.connection).opened = entry

    def _close(self, _: int, entry: ConnectionClosed) -> None:
        closed = entry.closed
        self._connection(closed.connection).closed = closed
        self.next_held_us = max(self.next_held_us, entry.held_us)
        self.last_closed_us = max(self.last_closed_us, closed.closed_at_us)

    def _see_gap(self, number: int, entry: GapSeen) -> None:
        self.gaps[number] = entry
        if not entry.lost:
            self.gap_after[entry.connection] = entry

    def _intend_connections(self, number: int, entry: ConnectionsIntent) -> None:
        if self.pending_connections is not None:
            raise DamagedError(
                f"entry {number} decides connections {entry.first} while those of"
                f" {self.pending_connections.first} are pending"
            )
        self.pending_connections = entry
        self.connections_until = entry.last

    def _commit_connections(self, number: int, entry: ConnectionsCommitted) -> None:
        intent = self._pending_connections(number, entry.first)
        for connection, hour in intent.covers:
            if connection in self.connections:
                _write(self.connections[connection], hour)
        for gap in intent.gaps:
            self.gaps.pop(gap, None)
        self._forget()

    def _void_connections(self, number: int, entry: ConnectionsVoid) -> None:
        self._pending_connections(number, entry.first)

    def _pending_connections(self, number: int, first: int) -> ConnectionsIntent:
        intent = self.pending_connections
        if intent is None or intent.first != first:
            raise DamagedError(f"entry {number} is about connections {first}, which were not decided")
        self.pending_connections = None
        return intent

    def _forget(self) -> None:
        """From the oldest on: what is behind one that something is to be written about is kept too."""
        for number in sorted(self.connections):
            if not self._is_over(self.connections[number]):
                return
            del self.connections[number]
            self.gap_after.pop(number, None)
            self.forgotten_connection = number

    def _is_over(self, connection: Connection) -> bool:
        """All its hours are written, the gap after it, and how the next one began."""
        if connection.opened is not None and (connection.closed is None or unwritten_hours(connection, 0)):
            return False
        later = [at.opened for at in self.connections.values() if at.number > connection.number and at.opened]
        following = [opened for opened in later if opened.after == connection.number]
        unwritten = {gap.connection for gap in self.gaps.values() if not gap.lost}
        return bool(later) and all(
            connection.number in self.gap_after
            and connection.number not in unwritten
            and has_row(self.connections[opened.connection], hour_of(opened.opened_us))
            for opened in following
        )

    # ------------------------------------------------------------ saved files

    def _open_file(self, _: int, entry: FileOpened) -> None:
        self.last_connection = max(self.last_connection, entry.connection)
        self.files.setdefault(entry.sha256, SavedFile())
        self.reading[entry.connection] = entry.sha256

    def _finish_file(self, number: int, entry: FileRead) -> None:
        sha256 = self.reading.get(entry.connection)
        if sha256 is None:
            raise DamagedError(f"entry {number} ends connection {entry.connection}, which reads no file")
        self.files[sha256].records = entry.records
        self._settle_files(0)

    def _settle_files(self, committed: int) -> None:
        """Blocks of a connection come after all of the ones before it."""
        self.reading = {
            connection: sha256
            for connection, sha256 in self.reading.items()
            if connection >= committed and not _is_committed(self.files[sha256])
        }


def _is_committed(file: SavedFile) -> bool:
    return file.records is not None and file.committed >= file.records


def _count_in(connection: Connection, block: BlockCount, counts: Totals) -> None:
    opened = connection.opened
    connection.committed += counts
    hour = _hour_to_count_in(connection, block.collected_at_us)
    connection.hours[hour] = connection.hours.get(hour, Totals()) + counts
    if opened is not None and block.collected_at_us < opened.opened_us + START_OF_CONNECTION_US:
        connection.resends_at_start += block.resends


def _hour_to_count_in(connection: Connection, at_us: int) -> int:
    """Its hour, or the next one without a row: where a clock went back, the row may be written."""
    first = hour_of(connection.opened.opened_us) if connection.opened is not None else 0
    hour = max(hour_of(at_us), first, connection.written_before)
    while hour in connection.written:
        hour += HOUR_US
    return hour


def _write(connection: Connection, hour: int) -> None:
    connection.hours.pop(hour, None)
    connection.written.add(hour)
    first = hour_of(connection.opened.opened_us) if connection.opened is not None else 0
    following = max(first, connection.written_before)
    while following in connection.written:
        connection.written.discard(following)
        following += HOUR_US
        connection.written_before = following
    if connection.written:
        _close_up(connection, first)


def _close_up(connection: Connection, first: int) -> None:
    """Behind a jump of the clock are hours that never get a row: they are not waited for."""
    awaited = [hour for hour in (first, *connection.hours) if not has_row(connection, hour)]
    edge = min([max(connection.written) - LONGEST_SILENCE_US, *awaited])
    connection.written_before = max(connection.written_before, edge)
    connection.written = {hour for hour in connection.written if hour >= connection.written_before}
