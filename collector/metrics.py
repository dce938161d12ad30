"""The catalogue of metrics, and how each is read from a status.

Runs in the coordinator, when somebody asks. The invariants: a metric is in this table or does not exist; all
of them come from one ``Status``; counters of records are for life, as the commit log counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from collector.core.connection import ConnectionState
from collector.core.status import Ship, Status

Reading = tuple[Mapping[str, str], float]
"""The values of its own labels, and the number."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One metric. Its name says its unit; that of a counter ends in ``_total``."""

    type: Literal["counter", "gauge"]
    meaning: str
    read: Callable[[Status], Iterable[Reading]]
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its own, with their meaning; all have ``stream``."""


def _one(value: Callable[[Status], float]) -> Callable[[Status], Iterable[Reading]]:
    return lambda status: [({}, float(value(status)))]


def _when(at_us: Callable[[Status], int]) -> Callable[[Status], Iterable[Reading]]:
    """In seconds; nothing where there is no such time, for 0 would be 1970."""
    return lambda status: [({}, at_us(status) / 1e6)] if at_us(status) else []


def _states(status: Status) -> Iterator[Reading]:
    for state in ConnectionState:
        yield {"state": state.value}, float(state is status.connection.state)


def _restarts(status: Status) -> Iterator[Reading]:
    for child in status.children:
        yield {"child": child.name}, float(child.restarts)


def _token_end(status: Status) -> Iterator[Reading]:
    if status.token.expires_us:
        yield {"kind": status.token.kind}, status.token.expires_us / 1e6


def _gap_ends(status: Status) -> Iterator[Reading]:
    ends = {at.suspected: at.ended_us for at in status.timeline if at.kind == "gap" and at.ended_us}
    for suspected, ended_us in ends.items():
        if suspected:  # else it is not judged yet
            yield {"suspected": suspected}, ended_us / 1e6


def _busy(status: Status) -> float:
    """The reader is a child, too, and always at work."""
    return sum(child.state == "busy" and child.name.startswith("decoder") for child in status.children)


def _shipping(value: Callable[[Ship], float]) -> Callable[[Status], Iterable[Reading]]:
    """Absent where nothing is to be shipped."""
    return lambda status: [] if status.ship is None else [({}, float(value(status.ship)))]


def _build(status: Status) -> Iterator[Reading]:
    yield {"version": status.version, "decoder": status.decoder}, 1.0


METRICS: Final[Mapping[str, Kind]] = {
    "livestream_build_info": Kind(
        "gauge",
        "Always 1: which collector this is.",
        _build,
        {"version": "of the collector", "decoder": "`kernel` or `plain`: which of the twins decodes"},
    ),
    "livestream_start_time_seconds": Kind(
        "gauge", "When this run began, since 1970.", _when(lambda at: at.started_us)
    ),
    "livestream_ready": Kind("gauge", "1: it does what it is there for.", _one(lambda at: at.ready)),
    "livestream_not_ready_reasons": Kind(
        "gauge", "How many reasons `/readyz` gives for not being ready.", _one(lambda at: len(at.reasons))
    ),
    "livestream_connection_state": Kind(
        "gauge",
        "1 for the state the connection is in, 0 for the others.",
        _states,
        {"state": "as `explain` knows it"},
    ),
    "livestream_next_attempt_time_seconds": Kind(
        "gauge",
        "When the next request will be sent, since 1970; absent when none is due.",
        _when(lambda at: at.connection.next_attempt_us),
    ),
    "livestream_last_hit_time_seconds": Kind(
        "gauge",
        "When the newest hit was accepted, since 1970; absent before the first of this run.",
        _when(lambda at: at.connection.last_hit_us),
    ),
    "livestream_hits_per_second": Kind(
        "gauge", "Hits accepted, over the last few seconds.", _one(lambda at: at.hits_per_s)
    ),
    "livestream_lag_seconds": Kind(
        "gauge", "Age of the oldest hit that is not in Parquet yet.", _one(lambda at: at.lag_s)
    ),
    "livestream_records_total": Kind(
        "counter", "Records committed: rows, resends and rejects.", _one(lambda at: at.totals.records)
    ),
    "livestream_rows_total": Kind("counter", "Rows committed to Parquet.", _one(lambda at: at.totals.rows)),
    "livestream_resends_total": Kind(
        "counter", "Records left out because they were there already.", _one(lambda at: at.totals.resends)
    ),
    "livestream_rejects_total": Kind(
        "counter", "Records that are no hits, kept among the rejects.", _one(lambda at: at.totals.rejects)
    ),
    "livestream_batches_total": Kind(
        "counter", "Batches committed, in this run.", _one(lambda at: at.totals.batches)
    ),
    "livestream_retired_parts_total": Kind(
        "counter",
        "Committed parts that were taken away on purpose, in this run: too old, shipped or compacted.",
        _one(lambda at: at.retired_parts),
    ),
    "livestream_journal_used_bytes": Kind(
        "gauge", "What the journal holds.", _one(lambda at: at.journal.used_bytes)
    ),
    "livestream_journal_max_bytes": Kind(
        "gauge", "What the journal may hold.", _one(lambda at: at.journal.max_bytes)
    ),
    "livestream_journal_full": Kind(
        "gauge", "1: the transfer waits for room in the journal.", _one(lambda at: at.journal.full)
    ),
    "livestream_disk_free_bytes": Kind("gauge", "Free for the output.", _one(lambda at: at.disk.free_bytes)),
    "livestream_disk_total_bytes": Kind(
        "gauge", "Size of the output's file system.", _one(lambda at: at.disk.total_bytes)
    ),
    "livestream_disk_reserve_bytes": Kind(
        "gauge",
        "With less than this free the transfer is paused.",
        _one(lambda at: at.disk.reserve_bytes),
    ),
    "livestream_decoders_busy": Kind(
        "gauge",
        "Decoders that are at work on a batch.",
        _one(_busy),
    ),
    "livestream_child_restarts_total": Kind(
        "counter",
        "Restarts of a child process, in this run.",
        _restarts,
        {"child": "the process, as the log names it"},
    ),
    "livestream_ship_behind_parts": Kind(
        "gauge",
        "Committed parts that are not shipped, or not in the table, yet.",
        _shipping(lambda ship: ship.behind_parts),
    ),
    "livestream_ship_behind_bytes": Kind(
        "gauge", "Bytes of them.", _shipping(lambda ship: ship.behind_bytes)
    ),
    "livestream_ship_lag_seconds": Kind(
        "gauge", "Since the oldest of them was committed.", _shipping(lambda ship: ship.lag_s)
    ),
    "livestream_ship_failing": Kind(
        "gauge",
        "1: nothing can go out at the moment; the log says why.",
        _shipping(lambda ship: bool(ship.failure)),
    ),
    "livestream_shipped_parts_total": Kind("counter", "Parts shipped.", _shipping(lambda ship: ship.parts)),
    "livestream_shipped_bytes_total": Kind("counter", "Bytes shipped.", _shipping(lambda ship: ship.bytes)),
    "livestream_table_commits_total": Kind(
        "counter", "Batches committed to the table.", _shipping(lambda ship: ship.table_commits)
    ),
    "livestream_token_expiry_time_seconds": Kind(
        "gauge",
        "When the token ends, since 1970; absent where that is not known.",
        _token_end,
        {"kind": "`static`, `file` or `oauth`: the last is renewed long before"},
    ),
    "livestream_gap_end_time_seconds": Kind(
        "gauge",
        "When the newest gap ended, since 1970; absent where there was none.",
        _gap_ends,
        {"suspected": "`no`, `possible` or `likely`: whether hits were missed in it"},
    ),
}


class StatusCollector(Collector):
    """For a registry of ``prometheus_client``: all metrics of one status at each scrape."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """Nothing: or registering would ask for a status before there is one."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric of the catalogue that has a reading now."""
        status = self._status()
        for name, kind in METRICS.items():
            labels = ["stream", *kind.labels]
            families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
            family = families[kind.type](name, kind.meaning, labels=labels)
            for own, value in kind.read(status):
                family.add_metric([status.stream, *(own[label] for label in kind.labels)], value)
            yield family
