"""Whether the collector does what it is there for, and if not, why: for people and for a status page.

Pure; asked by the coordinator. Not ready is never a reason to restart it: what can be waited out it
waits out, and what cannot ends it with its exit code.
"""

from __future__ import annotations

from typing import Final

from collector.core.connection import ConnectionState, ConnectionView
from collector.core.rejects import RejectsWatch

JOURNAL_FULL: Final = "the journal has no room for more: the transfer waits until batches are committed"

_NOT_AT_WORK: Final = frozenset(
    {
        ConnectionState.STARTING,
        ConnectionState.DRAINING,
        ConnectionState.REFUSED,
        ConnectionState.STOPPED,
    }
)


def not_ready(connection: ConnectionView | None, *, rejects: RejectsWatch, journal_full: bool) -> list[str]:
    """Every reason in words; empty: ready.

    ``connection`` is ``None`` where saved files are read. Waiting for the floor is part of the work.
    """
    reasons = []
    if connection is not None and (connection.state in _NOT_AT_WORK or not connection.ready):
        reasons.append(f"{connection.state.value}: {connection.cause}")
    if journal_full:
        reasons.append(JOURNAL_FULL)
    if rejects.alarm:
        reasons.append(f"{rejects.in_words()}; nothing of them is lost")
    return reasons
