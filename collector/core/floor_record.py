"""What survives a crash of the reconnect policy: the floor record, and what a start makes of it.

Imported by the coordinator, which writes the record durably before every request. The invariant: what
``resume`` gives never lets a request out within ``wait_s`` of the last moment at which a stream may
have been held by a run before this one. Where it cannot know that moment, it is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from collector.core.reconnect_table import CURED_BY_SETTINGS, Row
from collector.core.remedies import ROWS

NO_TIME_S: Final = 2.0**40
"""35,000 years: a record that says more was not written by a clock, and nobody is to wait for it."""


class FloorRecord(msgspec.Struct, frozen=True):
    """Units: ``*_s`` are seconds of CLOCK_BOOTTIME under ``boot_id``. At most 440 bytes as msgpack."""

    boot_id: str
    written_s: float
    held_until_s: float | None
    """Not before this was the last stream's end; ``None``: no stream was held."""
    not_before_s: float
    """The end of the wait that the table asks for, whatever the floor."""
    open: bool
    """A stream may be held from the writing on: the true end is not known."""
    cause: str
    """The ``Row`` of the wait, or empty."""
    counters: dict[str, int]
    """How often each ``Row`` was hit since the counters were cleared; no zeros."""
    settings: str
    """Fingerprint of the settings the request was made with."""
    written_us: int = 0
    """Wall time of the writing (see ``stamped``). Informs, decides nothing."""

    def __post_init__(self) -> None:
        times_s = (self.written_s, self.held_until_s or 0.0, self.not_before_s)
        if not all(abs(time_s) < NO_TIME_S for time_s in times_s):
            raise ValueError("a floor record holds a time that is none")


def stamped(record: FloorRecord, wall_us: int) -> FloorRecord:
    """The record with the wall time at which it is written."""
    return msgspec.structs.replace(record, written_us=wall_us)


def held_until_us(record: FloorRecord) -> int:
    """The record's ``held_until_s`` as wall time; 0: no stream was held. Units: microseconds since 1970."""
    if record.held_until_s is None:
        return 0
    return record.written_us + round((record.held_until_s - record.written_s) * 1_000_000)


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a start goes on. Units: seconds of CLOCK_BOOTTIME under this boot."""

    held_s: float | None
    not_before_s: float
    row: Row | None
    counters: Mapping[Row, int]
    words: str
    rewrite: bool
    """The moment was made here: written at once, so that a crash loop waits it out once and not for ever."""
    loud: bool = False


def resume(
    record: FloorRecord | None,
    *,
    existed: bool,
    boot_id: str,
    now: float,
    wait_s: float,
    settings: str,
    orphaned: bool,
) -> Resumed:
    """What a start takes over.

    ``existed``: there is a floor file; ``record`` is ``None`` although it is when no slot of it checks
    out. ``orphaned``: children of an earlier run had to be waited for or killed, so they may have held
    a stream until now, whatever the record says.
    """
    if record is None:
        return _without_record(now, wait_s, known=existed or orphaned)
    row, counters = _known_rows(record, settings)
    if record.boot_id != boot_id or record.written_s > now:
        rest_s = record.not_before_s - record.written_s if row is not None else 0.0
        words = "the machine was restarted since the last run, so when its connection ended is not known"
        return Resumed(now, now + max(wait_s, rest_s), row or Row.UNKNOWN_END, counters, words, rewrite=True)
    not_before_s = record.not_before_s if row is not None else now
    if record.open or orphaned:
        # Not just the recorded end: a coordinator that was stopped for long, then killed, left it stale.
        held_s = max(now, record.held_until_s or now)
        words = "the last run ended without closing its connection"
        not_before_s = max(not_before_s, held_s + wait_s)
        return Resumed(held_s, not_before_s, row or Row.UNKNOWN_END, counters, words, rewrite=True)
    words = (
        f"the wait of the last run goes on: {ROWS[row]}" if row else "a connection was held shortly before"
    )
    return Resumed(record.held_until_s, not_before_s, row, counters, words, rewrite=False)


def _without_record(now: float, wait_s: float, *, known: bool) -> Resumed:
    if not known:
        return Resumed(None, now, None, {}, "first start", rewrite=False)
    words = "the floor record cannot be read, so when the last connection ended is not known"
    return Resumed(now, now + wait_s, Row.UNKNOWN_END, {}, words, rewrite=True, loud=True)


def _known_rows(record: FloorRecord, settings: str) -> tuple[Row | None, dict[Row, int]]:
    """The record's cause and counters without what other settings have cured (or a newer version added)."""
    known = {row.value: row for row in Row if record.settings == settings or row not in CURED_BY_SETTINGS}
    counters = {known[name]: count for name, count in record.counters.items() if name in known}
    return known.get(record.cause), counters
