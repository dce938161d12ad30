"""Rows of ``connections``: what every connection brought hour by hour, and what may be missing.

Runs in the coordinator. Rows are made from the ledger alone, so a restart makes the ones that a
crash left unwritten, and an intent without blocks makes each of them visible once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from collector.coordinator.clock import now_us
from collector.coordinator.committer import Committer
from collector.coordinator.pipeline import Pipeline
from collector.core.connection import suspected_gap
from collector.core.entries import Connection, ConnectionsCommitted, ConnectionsIntent, GapSeen
from collector.core.ledger import HOUR_US, START_OF_CONNECTION_US, LogState, hour_of
from collector.core.messages import Closed, ConnectionRow, StageConnections, Staged, Totals
from collector.telemetry import log

NO_ROWS: Final = Totals()


class ConnectionBook:
    """``settle`` writes whatever is final by now."""

    def __init__(self, committer: Committer, pipeline: Pipeline) -> None:
        self._committer = committer
        self._pipeline = pipeline
        self._settling = asyncio.Lock()

    async def settle(self, *, draining: bool) -> None:
        """Makes visible what is final in hours that are over; ``draining``: in this one too.

        *Blocks* its caller until it is.
        """
        async with self._settling:
            await self._settle(now_us(), draining=draining)

    async def _settle(self, now_us: int, *, draining: bool) -> None:
        for gap in list(self._gaps(now_us)):
            await self._committer.append(gap)
            log(
                "gap.recorded",
                connection=gap.connection,
                reason=gap.reason,
                duration_s=(gap.ended_us - gap.began_us) / 1e6,
                suspected=gap.suspected,
                rule=gap.rule,
            )
        await self._write_rows(now_us, before_us=now_us + HOUR_US if draining else now_us)

    # ------------------------------------------------------------ gaps

    def _gaps(self, now_us: int) -> Iterator[GapSeen]:
        """A gap is judged once the connection after it had its first ten minutes, or is over."""
        ledger = self._committer.ledger
        for connection in ledger.connections.values():
            opened = connection.opened
            if opened is None or _is_judged(ledger, opened.after):
                continue
            before = ledger.connections[opened.after].closed
            judged_us = opened.opened_us + START_OF_CONNECTION_US
            if before is not None and self._is_final(connection, judged_us, now_us):
                yield _gap(connection, before)

    # ------------------------------------------------------------ rows

    async def _write_rows(self, now_us: int, *, before_us: int) -> None:
        """Rows of hours that end before ``before_us``: one part an hour, not one for each disconnect."""
        ledger = self._committer.ledger
        due = [
            (at, hour)
            for at, hour in ledger.unwritten_rows(now_us)
            if hour + HOUR_US <= before_us
            and self._is_final(at, hour + HOUR_US, now_us)
            and (not _is_first(at, hour) or at.opened is None or _is_judged(ledger, at.opened.after))
        ]
        rows = [_connection_row(at, hour, ledger.gap_after) for at, hour in due]
        gaps = {n: gap for n, gap in ledger.gaps.items() if hour_of(gap.ended_us) + HOUR_US <= before_us}
        rows += [_gap_row(gap) for gap in gaps.values()]
        if not rows:
            return
        first, last = ledger.connections_until + 1, ledger.last_entry
        staged = await self._pipeline.stage_connections(
            StageConnections(first=first, last=last, rows=tuple(rows), before=ledger.totals)
        )
        if not isinstance(staged, Staged):
            return  # no room: said there, tried again at the next settling
        await self._committer.append(
            ConnectionsIntent(
                first=first,
                last=last,
                files=staged.files,
                covers=tuple((at.number, hour) for at, hour in due),
                gaps=tuple(gaps),
            )
        )
        await self._committer.publish(staged.files)
        await self._committer.append(ConnectionsCommitted(first=first, last=last))

    def _is_final(self, connection: Connection, until_us: int, now_us: int) -> bool:
        """Nothing more can be counted up to then: the time or the connection is over, and committed."""
        oldest = self._pipeline.batching.oldest_uncommitted()
        if connection.closed is not None:
            return oldest is None or oldest.connection > connection.number
        return until_us <= now_us and (oldest is None or oldest.collected_at_us >= until_us)


def _is_judged(ledger: LogState, connection: int) -> bool:
    """Whether the gap after it is known; there is none before the first connection."""
    return connection <= ledger.forgotten_connection or connection in ledger.gap_after


def _is_first(connection: Connection, hour: int) -> bool:
    return connection.opened is not None and connection.opened.opened_us >= hour


def _gap(connection: Connection, before: Closed) -> GapSeen:
    opened = connection.opened
    assert opened is not None  # noqa: S101 - the caller looked
    # As it was measured, where it was: the wall clock may have jumped meanwhile.
    gap_us = opened.wait_us or max(0, opened.opened_us - before.closed_at_us)
    judged = suspected_gap(
        before=before.outcome,
        gap_s=gap_us / 1e6,
        resends_at_start=connection.resends_at_start,
        cut_bytes=before.cut_bytes,
        reset=opened.reset,
    )
    return GapSeen(
        connection=opened.after,
        began_us=before.closed_at_us,
        ended_us=before.closed_at_us + gap_us,
        reason=str(before.outcome),
        detail=before.detail,
        suspected=judged.suspected,
        rule=judged.rule,
    )


def _gap_row(gap: GapSeen) -> ConnectionRow:
    return ConnectionRow(
        kind="gap",
        connection=gap.connection,
        began_us=gap.began_us,
        ended_us=gap.ended_us,
        reason=gap.reason,
        detail=gap.detail,
        suspected_gap=gap.suspected,
        suspected_gap_rule=gap.rule,
    )


def _connection_row(connection: Connection, hour: int, gap_after: dict[int, GapSeen]) -> ConnectionRow:
    opened, closed = connection.opened, connection.closed
    assert opened is not None  # noqa: S101 - only opened ones have hours
    counts = connection.hours.get(hour, NO_ROWS)
    is_first = _is_first(connection, hour)
    # A clock that went back may have closed it before it was opened.
    closed_us = 0 if closed is None else max(opened.opened_us, closed.closed_at_us)
    is_last = closed is not None and hour == hour_of(closed_us)
    gap = gap_after.get(opened.after) if is_first else None
    return ConnectionRow(
        kind="connection",
        connection=connection.number,
        began_us=max(opened.opened_us, hour),
        ended_us=closed_us if is_last else hour + HOUR_US,
        opened_us=opened.opened_us,
        first_byte_us=closed.first_byte_us if closed is not None else 0,
        closed_us=closed_us if is_last else 0,
        reason=str(closed.outcome) if closed is not None and is_last else "",
        detail=closed.detail if closed is not None and is_last else "",
        status=200,
        bytes_received=closed.bytes_received if closed is not None and is_last else 0,
        records=counts.records,
        hits=counts.rows,
        resends=counts.resends,
        rejects=counts.rejects,
        wait_us=opened.wait_us if is_first else 0,
        attempts=opened.attempts if is_first else {},
        resends_at_start=connection.resends_at_start if is_first else 0,
        suspected_gap=gap.suspected if gap is not None else "no",
        suspected_gap_rule=gap.rule if gap is not None else "",
    )
