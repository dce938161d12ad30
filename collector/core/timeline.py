"""Connections and the gaps between them, for people: what the ledger knows, kept after it forgets.

Pure; the coordinator has it look at the ledger about once a second. The invariants: nothing is said of a gap
that its rule does not say; at most ``MOST_STRETCHES`` are kept, the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from collector.core.connection import suspected_gap
from collector.core.entries import Connection, GapSeen
from collector.core.ledger import LogState
from collector.core.remedies import for_closed
from collector.core.status import Stretch

MOST_STRETCHES: Final = 200

_Key = tuple[str, int, int]
"""Kind, number, and of what was lost the entry."""


class Timeline:
    """``earlier``: what the last run knew."""

    def __init__(self, earlier: Iterable[Stretch] = ()) -> None:
        self._known: dict[_Key, Stretch] = {(at.kind, at.number, 0): at for at in earlier if at.ended_us}

    def look(self, ledger: LogState, now_us: int) -> None:
        """Take over what has changed. A gap that is not over or not judged yet is as it seems now."""
        opened = [at for at in ledger.connections.values() if at.opened is not None]
        self._known |= {("connection", at.number, 0): _connection(at) for at in opened}
        self._known |= dict(_gaps(ledger, opened, now_us))
        if len(self._known) > MOST_STRETCHES:
            newest = sorted(self._known.items(), key=lambda item: item[1].began_us)
            self._known = dict(newest[-MOST_STRETCHES:])

    def stretches(self) -> tuple[Stretch, ...]:
        """Oldest first."""
        return tuple(sorted(self._known.values(), key=lambda at: (at.began_us, at.number, at.kind != "gap")))


def _connection(at: Connection) -> Stretch:
    assert at.opened is not None  # noqa: S101 - the caller looked
    closed = at.closed
    return Stretch(
        kind="connection",
        number=at.number,
        began_us=at.opened.opened_us,
        ended_us=0 if closed is None else max(at.opened.opened_us, closed.closed_at_us),
        outcome="" if closed is None else closed.outcome.value,
        words="" if closed is None else for_closed(closed).means,
        records=at.committed.records if closed is None else max(closed.records, at.committed.records),
    )


def _gaps(ledger: LogState, opened: list[Connection], now_us: int) -> Iterator[tuple[_Key, Stretch]]:
    for number, gap in ledger.gaps.items():
        if gap.lost:
            yield ("gap", gap.connection, number), _judged(gap, gap.connection)
    for at in opened:
        after = at.opened.after if at.opened is not None else 0
        if after in ledger.gap_after:
            yield ("gap", at.number, 0), _judged(ledger.gap_after[after], at.number)
        elif (before := ledger.connections.get(after)) is not None and before.closed is not None:
            yield ("gap", at.number, 0), _as_it_seems(before, at, now_us)
    newest = max(opened, key=lambda at: at.number, default=None)
    if newest is not None and newest.closed is not None:
        yield ("gap", newest.number + 1, 0), _as_it_seems(newest, None, now_us)


def _judged(gap: GapSeen, number: int) -> Stretch:
    return Stretch(
        kind="gap",
        number=number,
        began_us=gap.began_us,
        ended_us=gap.ended_us,
        outcome=gap.reason,
        words=gap.rule,
        suspected=gap.suspected,
    )


def _as_it_seems(before: Connection, after: Connection | None, now_us: int) -> Stretch:
    """By the same rules as its verdict, with what is committed so far."""
    closed = before.closed
    assert closed is not None  # noqa: S101 - the caller looked
    opened = None if after is None else after.opened
    ended_us = now_us if opened is None else opened.opened_us
    gap_us = opened.wait_us if opened is not None and opened.wait_us else ended_us - closed.closed_at_us
    seems = suspected_gap(
        before=closed.outcome,
        gap_s=max(0, gap_us) / 1e6,
        resends_at_start=0 if after is None else after.resends_at_start,
        cut_bytes=closed.cut_bytes,
        reset=opened is not None and opened.reset,
    )
    return Stretch(
        kind="gap",
        number=before.number + 1 if after is None else after.number,
        began_us=closed.closed_at_us,
        ended_us=0 if opened is None else closed.closed_at_us + max(0, gap_us),
        outcome=closed.outcome.value,
        words=seems.rule,
        suspected=seems.suspected,
    )
