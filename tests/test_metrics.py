"""Metrics: one catalogue, read from one status."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from collector.core.connection import ConnectionState
from collector.core.status import Child, Connection, Ship, Status, Stretch, Token, Totals
from collector.metrics import METRICS, StatusCollector

STATUS = Status(
    at_us=2_000_000,
    version="1.2",
    pid=1,
    stream='s"\n\\x',
    instance="i",
    output="o",
    state_folder="f",
    started_us=1_000_000,
    ready=True,
    connection=Connection(state=ConnectionState.STREAMING, since_us=1, cause="", last_hit_us=1_500_000),
    retired_parts=5,
    totals=Totals(records=6, rows=3, resends=2, rejects=1, batches=4),
    token=Token(kind="oauth", expires_us=9_000_000),
    ship=Ship(url="s3://b", behind_parts=3, lag_s=1.5, parts=9, failure="store-away"),
    children=(
        Child(name="reader", pid=3, state="busy"),
        Child(name="decoder 0", pid=2, state="busy", restarts=7),
    ),
    timeline=(
        Stretch(kind="gap", began_us=1, ended_us=2_000_000, suspected="possible"),
        Stretch(kind="connection", began_us=2_000_000, ended_us=3_000_000),
        Stretch(kind="gap", began_us=3_000_000, ended_us=4_000_000, suspected="possible"),
        Stretch(kind="gap", began_us=4_000_000, ended_us=5_000_000),
        Stretch(kind="gap", began_us=6_000_000),
    ),
)


def scraped(status, render=openmetrics):
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: status))
    return render(registry).decode()


def samples(status):
    """By name and own labels' values."""
    found = {}
    for family in text_string_to_metric_families(scraped(status)):
        for sample in family.samples:
            assert sample.labels["stream"] == status.stream
            own = tuple(value for label, value in sample.labels.items() if label != "stream")
            found[(sample.name, *own)] = sample.value
    return found


def test_numbers_are_those_of_the_status():
    """Times in seconds, flags as 0 and 1, a counter for each kind of record."""
    found = samples(STATUS)
    assert found[("livestream_ready",)] == 1
    assert found[("livestream_last_hit_time_seconds",)] == 1.5
    assert found[("livestream_token_expiry_time_seconds", "oauth")] == 9
    assert [found[(f"livestream_{kind}_total",)] for kind in ("records", "rows", "resends", "rejects")] == [
        6, 3, 2, 1,
    ]  # fmt: skip
    assert found[("livestream_child_restarts_total", "decoder 0")] == 7
    assert found[("livestream_retired_parts_total",)] == 5
    assert found[("livestream_decoders_busy",)] == 1
    assert found[("livestream_connection_state", "streaming")] == 1
    assert found[("livestream_connection_state", "waiting")] == 0


def test_a_time_that_is_not_known_is_absent():
    """0 would be 1970, and the alarm of an expired token."""
    unknown = msgspec.structs.replace(STATUS, token=Token())
    assert not [name for name in samples(unknown) if name[0] == "livestream_token_expiry_time_seconds"]


def test_the_newest_gap_of_each_kind():
    """Those that are not judged yet, or not over, are none."""
    found = samples(STATUS)
    assert {key: value for key, value in found.items() if key[0] == "livestream_gap_end_time_seconds"} == {
        ("livestream_gap_end_time_seconds", "possible"): 4.0
    }


def test_shipping_is_there_where_parts_are_shipped():
    """Else an alarm on its lag would never be quiet, or never be true."""
    found = samples(STATUS)
    assert found[("livestream_ship_behind_parts",)] == 3
    assert found[("livestream_ship_lag_seconds",)] == 1.5
    assert found[("livestream_ship_failing",)] == 1
    assert found[("livestream_shipped_parts_total",)] == 9
    without = samples(msgspec.structs.replace(STATUS, ship=None))
    assert not [name for name, *_ in without if "ship" in name or "table" in name]


def test_the_catalogue_is_what_is_scraped():
    """In both forms, and in no other name."""
    names = {name for name, *_ in samples(STATUS)}
    assert names <= set(METRICS)
    assert set(METRICS) - names == {"livestream_next_attempt_time_seconds"}
    plain = scraped(STATUS, generate_latest)
    assert all(f"# HELP {name} " in plain for name in METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_counters_are_named_as_such(name):
    """``_total`` for counters alone."""
    assert name.endswith("_total") == (METRICS[name].type == "counter")
