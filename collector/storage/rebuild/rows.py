"""What rows of ``connections`` tell about connections and gaps that the log has forgotten.

Runs in ``verify --rebuild``; pure but for reading a part. Invariant: a connection's number that was used
is known to be used, and a gap that has its row gets no second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from collector.core.entries import ConnectionClosed, ConnectionOpened, Entry, GapSeen, Intent
from collector.core.ledger import LogState, hour_of
from collector.core.messages import Closed, Outcome
from collector.storage.fs import Disk
from collector.storage.verify.parts import OpenFile, Part

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_UNKNOWN_END: Final = "its end is not known: the commit log was made again from the parts"

Row = dict[str, Any]


def rows_of(disk: Disk, path: Path) -> list[Row]:
    """Of one part of ``connections``."""
    opened = OpenFile(disk, path)
    try:
        return Part(opened).rows_as_dicts()
    finally:
        opened.close()


def covered(rows: Iterable[Row]) -> tuple[tuple[int, int], ...]:
    """Connection and hour of each row of a connection."""
    own = (row for row in rows if row["kind"] == "connection")
    return tuple((row["connection"], hour_of(_us(row["began_at"]))) for row in own)


def gaps_in(rows: Iterable[Row]) -> Iterator[GapSeen]:
    for row in rows:
        if row["kind"] == "gap":
            yield GapSeen(
                connection=row["connection"],
                began_us=_us(row["began_at"]),
                ended_us=_us(row["ended_at"]),
                reason=row["reason"] or "",
                detail=row["detail"] or "",
                suspected=row["suspected_gap"],
                rule=row["suspected_gap_rule"] or "",
            )


def written_connections(ledger: LogState, rows: Iterable[Row]) -> Iterator[Entry]:
    """Connections that have rows and that the log does not know."""
    for row in rows:
        number = row["connection"]
        if row["kind"] != "connection" or number <= ledger.forgotten_connection:
            continue
        known = ledger.connections.get(number)
        if known is None or known.opened is None:
            wait_us, attempts = round((row["wait_s"] or 0) * 1e6), dict(row["attempts"] or ())
            opened_us = _us(row["opened_at"] or row["began_at"])
            yield ConnectionOpened(number, opened_us, wait_us, attempts, _before(ledger, number))
        if row["closed_at"] is not None and (known is None or known.closed is None):
            yield ConnectionClosed(_closed(row), ledger.next_held_us)


def _closed(row: Row) -> Closed:
    known = row["reason"] in set(Outcome)
    return Closed(
        connection=row["connection"],
        outcome=Outcome(row["reason"]) if known else Outcome.LOST,
        detail=row["detail"] or "",
        closed_at_us=_us(row["closed_at"]),
        status=row["status"] or 0,
        opened_at_us=_us(row["opened_at"]),
        first_byte_us=_us(row["first_byte_at"]),
        bytes_received=row["bytes_received"] or 0,
    )


def unwritten_connections(ledger: LogState, entries: Sequence[Entry], *, after: int) -> Iterator[Entry]:
    """Connections beyond ``after`` that blocks are of, and that neither the log nor a row tells about."""
    if not ledger.url_segment:
        return  # saved files: their connections have no rows
    unknown = {number for number, at in ledger.connections.items() if number > after and at.opened is None}
    times: dict[int, list[int]] = {}
    for entry in entries:
        for block in entry.blocks if isinstance(entry, Intent) else ():
            if block.connection in unknown:
                times.setdefault(block.connection, []).append(block.collected_at_us)
    for number in sorted(times):
        began_us, ended_us = min(times[number]), max(times[number])
        yield ConnectionOpened(number, began_us, 0, {}, _before(ledger, number))
        if number < ledger.last_connection:
            closed = Closed(number, Outcome.LOST, _UNKNOWN_END, ended_us, opened_at_us=began_us)
            yield ConnectionClosed(closed, ledger.next_held_us)


def _before(ledger: LogState, number: int) -> int:
    opened = (at.number for at in ledger.connections.values() if at.opened is not None)
    return max((other for other in opened if other < number), default=0)


def _us(at: datetime | None) -> int:
    return 0 if at is None else (at - _EPOCH) // _US
