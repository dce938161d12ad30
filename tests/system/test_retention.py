"""A collector with limits on how much it keeps: old hours go, nothing else, and the proof still holds."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import Collector, wait_until

from collector.commands.asking import ask
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.verify.proof import verify
from tests.unwatched import Unwatched

TOTAL = 4000
HOURS = 60
SETTINGS = {"log.format": "json", "parts.max_bytes": 1 << 20}


@pytest.fixture
def collector(make_service, make_collector) -> Collector:
    """It has collected hits of the last sixty hours and drained."""
    collector = make_collector(make_service(total=TOTAL, hours=HOURS, hits_per_second=4000), **SETTINGS)
    assert collector.run("--stop-after-hits", str(TOTAL)) == 0, collector.log
    assert len(hours(collector)) >= HOURS
    return collector


def hours(collector: Collector) -> dict[datetime, list[Path]]:
    """Parts of hits by the hour of their folder, oldest first."""
    found = {}
    for folder, _, names in os.walk(collector.output / "hits"):  # which does not mind what goes meanwhile
        date, _, hour = folder.rpartition("/date=")[2].partition("/hour=")
        if names:
            at = datetime.fromisoformat(f"{date}T{hour}:00:00+00:00")
            found[at] = sorted(Path(folder, name) for name in names)
    return dict(sorted(found.items()))


def removed(collector: Collector, kind: str = "hits") -> list[dict]:
    return [event for event in collector.events("parts.removed") if event["kind"] == kind]


def assert_proven(collector: Collector) -> None:
    report = verify(DISK, StateFolder(collector.state), collector.output, watcher=Unwatched())
    assert report.findings == []


def test_hours_beyond_the_age_go_and_the_proof_holds(collector):
    """A day is kept, to the hour; what no commit names stays, and its hour; other kinds have limits of their
    own. Until somebody sets a limit nothing goes at all."""
    before = hours(collector)
    oldest = next(iter(before))
    stranger = before[oldest][0].with_name(before[oldest][0].name.replace(".parquet", "9.parquet"))
    stranger.write_bytes(b"put here by hand")
    collector.start("--set", "retention.hits_max_age_days=1")
    wait_until(lambda: removed(collector), "old hours to be removed")
    after = hours(collector)
    assert set(after.pop(oldest)) == {*before[oldest], stranger}
    (said,) = collector.events("attention.needed")
    assert stranger.name in said["reason"]
    assert min(after) >= datetime.now(UTC) - timedelta(days=1, hours=2)
    assert after == {hour: parts for hour, parts in before.items() if hour in after}
    assert len(after) <= 26
    stranger.unlink()
    assert_proven(collector)
    wait_until(lambda: not os.listdir(collector.state / "retired"), "the log to take it over")
    wait_until(lambda: ask(collector.state, "/status.json"), "the status to be served")
    assert json.loads(ask(collector.state, "/status.json"))["retired_parts"] > 30
    assert collector.drain() == 0
    (event,) = removed(collector)
    gone = {hour: parts for hour, parts in before.items() if hour not in after and hour != oldest}
    assert event["files"] == sum(map(len, gone.values()))
    assert event["reason"] == "retention.hits_max_age_days = 1"
    assert not removed(collector, "rejects")
    assert_proven(collector)
    assert collector.ledger().totals.rows == TOTAL


def test_the_oldest_hours_go_until_the_rest_fits(collector):
    """By size: no more than is needed, and it is still so when the collector is killed on the way."""
    sizes = {hour: sum(p.stat().st_size for p in parts) for hour, parts in hours(collector).items()}
    limit = max(sum(sizes.values()) // 2, 1 << 20)
    assert limit < sum(sizes.values())
    collector.start("--set", f"retention.hits_max_bytes={limit}")
    wait_until(lambda: len(hours(collector)) < len(sizes), "the first hour to go")
    collector.kill_all()
    assert_proven(collector)
    collector.start("--set", f"retention.hits_max_bytes={limit}")
    wait_until(lambda: removed(collector) or sum_of(collector) <= limit, "the rest to go")
    assert collector.drain() == 0, collector.log
    left = hours(collector)
    assert list(left) == list(sizes)[-len(left) :]
    assert sum_of(collector) <= limit < sum_of(collector) + sizes[list(sizes)[-len(left) - 1]]
    assert_proven(collector)


def sum_of(collector: Collector) -> int:
    left = 0
    for path in [path for parts in hours(collector).values() for path in parts]:
        with suppress(FileNotFoundError):
            left += path.stat().st_size
    return left
