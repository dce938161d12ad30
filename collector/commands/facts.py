"""The facts of a status in words, line by line: for ``status`` and the live view of ``run``.

Pure. The invariant: what came from outside is escaped again here, whatever made the status, so a line is one
line and steers no terminal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final

from collector.commands.terminal import size_text
from collector.core.connection import ConnectionState
from collector.core.sentence import RECENT_US, duration
from collector.core.status import Child, RejectSeen, Ship, Status, Stretch
from collector.escaping import printable

Fact = tuple[str, str]
"""A label and what is said of it."""

_OPEN: Final = frozenset({ConnectionState.STREAMING, ConnectionState.PAUSED, ConnectionState.DRAINING})
_TOKENS: Final = {
    "static": "given once",
    "file": "from a file",
    "oauth": "by OAuth, renewed by itself",
    "none": "none yet",
}
_MISSING: Final = {
    "no": "nothing missed",
    "possible": "hits may be missing",
    "likely": "hits are likely missing",
}


def facts(status: Status) -> Iterator[Fact]:
    """What an operator needs, the most important first; none is empty."""
    up = duration((status.at_us - status.started_us) / 1e6)
    yield (
        "Stream",
        f"{printable(status.stream)}; up {up}, pid {status.pid}, version {printable(status.version)}",
    )
    yield "Connection", connection(status)
    if status.connection.next_attempt_us:
        yield "Next request", moment(status.connection.next_attempt_us, status.at_us)
    if status.connection.code:
        yield "More", f"livestream-collector explain {printable(status.connection.code)}"
    yield "Hits", hits(status)
    yield "Committed", committed(status)
    yield "Journal", journal(status)
    yield "Disk", disk(status)
    yield "Processes", processes(status)
    if status.ship is not None:
        yield "Shipping", shipping(status.ship)
    yield "Token", token(status)
    yield "Gaps", gaps(status)
    if status.rejects:
        yield "Last reject", reject(status.rejects[0], status.at_us)
    if status.page:
        yield "Page", printable(status.page)
    yield "Output", printable(status.output)


def connection(status: Status) -> str:
    """The open one, or what is instead."""
    at = status.connection
    if at.state not in _OPEN or not at.number:
        return "none is open"
    held = duration((status.at_us - at.since_us) / 1e6)
    return (
        f"{at.number} to {printable(at.host)}, open for {held}:"
        f" {at.records:,} records, {size_text(at.bytes_received)} of gzip"
    )


def hits(status: Status) -> str:
    newest_us = status.connection.last_hit_us
    if not newest_us:
        return "none in this run yet"
    ago = duration(max(0.0, (status.at_us - newest_us) / 1e6))
    return (
        f"{status.hits_per_s:,.1f} a second, the newest {ago} ago; Parquet is {duration(status.lag_s)} behind"
    )


def committed(status: Status) -> str:
    """Every record is accounted for."""
    at = status.totals
    return f"{at.records:,} records = {at.rows:,} rows + {at.resends:,} resends + {at.rejects:,} rejects"


def journal(status: Status) -> str:
    at = status.journal
    full = "; FULL: reading waits for room" if at.full else ""
    where = "memory" if at.durability == "memory" else "disk"
    return f"{share(journal_part(status))} of {size_text(at.max_bytes)} on {where}, {waiting(status)}{full}"


def waiting(status: Status) -> str:
    records = status.journal.waiting_records
    return f"{records:,} record{'' if records == 1 else 's'} waiting for Parquet"


def journal_part(status: Status) -> float:
    """0 to 1."""
    return status.journal.used_bytes / max(1, status.journal.max_bytes)


def disk_part(status: Status) -> float:
    """0 to 1: what is taken."""
    at = status.disk
    return 1 - at.free_bytes / at.total_bytes if at.total_bytes else 0.0


def disk(status: Status) -> str:
    at = status.disk
    low = "; TOO LITTLE: reading waits for room" if at.free_bytes < at.reserve_bytes else ""
    return (
        f"{size_text(at.free_bytes)} free of {size_text(at.total_bytes)};"
        f" reading pauses below {size_text(at.reserve_bytes)}{low}"
    )


def share(part: float) -> str:
    return f"{100 * part:.0f} %"


def processes(status: Status) -> str:
    told = ", ".join(map(_process, status.children)) or "none yet"
    return f"{told}; {'the compiled kernel decodes' if status.decoder == 'kernel' else 'decoding is plain'}"


def _process(child: Child) -> str:
    again = f" (restarted {child.restarts}x)" if child.restarts else ""
    return f"{printable(child.name)} {child.state}{again}"


def shipping(at: Ship) -> str:
    """Where parts go, and how far that is."""
    where = [at.url and f"to {printable(at.url)}", at.table and f"into the table ({at.table})"]
    done = f"{' and '.join(filter(None, where))}: {at.parts:,} parts shipped, "
    behind = f"{at.behind_parts:,} behind for {duration(at.lag_s)}" if at.behind_parts else "none behind"
    if not at.failure:
        return done + behind
    return f"FAILING ({printable(at.reason)}; explain {printable(at.failure)}); {done}{behind}"


def token(status: Status) -> str:
    at = status.token
    until = f", valid until {moment(at.expires_us, status.at_us)}" if at.expires_us else ""
    return _TOKENS[at.kind] + until


def gaps(status: Status) -> str:
    """Of the last day, and the newest of them."""
    since_us = status.at_us - RECENT_US
    found = [at for at in status.timeline if at.kind == "gap" and (at.ended_us or status.at_us) >= since_us]
    if not found:
        return "none in the last 24 h"
    return f"{len(found)} in the last 24 h; {gap(found[-1], status.at_us)}"


def gap(at: Stretch, now_us: int) -> str:
    lasted = duration(((at.ended_us or now_us) - at.began_us) / 1e6)
    missing = _MISSING.get(at.suspected, "not judged yet")
    return f"{moment(at.began_us, now_us)}, {lasted}: {missing} ({printable(at.words)})"


def reject(at: RejectSeen, now_us: int) -> str:
    text = f": {printable(at.text)}" if at.text else ""
    return f"{moment(at.at_us, now_us)}, {printable(at.reason)}{text}"


def moment(at_us: int, now_us: int) -> str:
    """``14:02:31 UTC``, with the day where it is not today's, and with how long that is if it is to come."""
    at, now = (dt.datetime.fromtimestamp(us / 1e6, dt.UTC) for us in (at_us, now_us))
    day = "" if at.date() == now.date() else f"{at:%Y-%m-%d} "
    to_come = f" (in {duration((at_us - now_us) / 1e6)})" if at_us > now_us else ""
    return f"{day}{at:%H:%M:%S} UTC{to_come}"
