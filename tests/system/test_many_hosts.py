"""Collectors that share a stream: hosts join, leave and die, and between them they have every hit, once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from harness import PATIENCE_S, ROOT, Collector, wait_until

from collector.simulator.hits import indices_of
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.verify.proof import verify
from tests.unwatched import Unwatched

LEAST = 8000
"""Hits, so that some are of the next hour."""

UNCOMMITTED = 3000
"""Hits: far more than a killed host holds that are in no part yet."""

HOSTS = 3
STREAM = "demo-stream"
START_S = int(time.time()) // 3600 * 3600 - 2 * 3600 - 5
"""Of the hits: five seconds before the end of an hour that is long over, so that it can be compacted."""


@dataclass
class Host(Collector):
    """One of several with one output: its state folder makes it another collector."""

    @property
    def state(self) -> Path:
        return self.folder / "state"


@pytest.fixture
def make_host(tmp_path):
    hosts: list[Host] = []

    def make(service) -> Host:
        folder = tmp_path / f"host-{len(hosts)}"
        folder.mkdir()
        settings = {
            "stream.max_connections": HOSTS,
            "state.folder": folder / "state",
            "log.format": "json",
            "parts.max_age_s": 0.4,
            "table.format": "delta",
        }
        hosts.append(Host(service, folder, settings=settings, elsewhere=tmp_path / "output"))
        return hosts[-1]

    yield make
    for host in hosts:
        if host.process is not None and host.process.poll() is None:
            host.kill_all(stack=True)


def rows_by_host(output: Path, seed: int) -> dict[int, Counter[str]]:
    """Of each hit, by its number, how often each host has it."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    table = pq.read_table(
        output / "hits" / "v=1", columns=["hitIdHigh", "hitIdLow", "collector_instance"], partitioning=None
    )
    high, low = (
        np.array([int(value) for value in table[name].to_pylist()], np.uint64)
        for name in table.column_names[:2]
    )
    for index, host in zip(indices_of(seed, high, low).tolist(), table[2].to_pylist(), strict=True):
        found[index][host] += 1
    return found


@pytest.mark.timeout(300)
def test_hosts_join_leave_and_die_and_every_hit_is_there(make_service, make_host):
    """One too many is told why, waits, and takes the place of one that dies; one drains and comes back.

    What more than one of them was sent, across the border of an hour too, ``compact`` leaves in once.
    """
    service = make_service(hits_per_second=1000.0, start_s=START_S)
    first, second, third, heir = hosts = [make_host(service) for _ in range(4)]
    for host in (first, second):
        host.start()
    wait_until(lambda: first.rows() and second.rows(), "two hosts to have rows")
    third.start()
    wait_until(third.rows, "the third to join")

    heir.start()
    wait_until(lambda: heir.events("connection.refused"), "one too many to be refused")
    refusal = heir.events("connection.refused")[0]
    assert (refusal["status"], heir.rows()) == (409, 0)
    assert "another client is connected" in refusal["detail"]
    first.kill_all()
    wait_until(heir.rows, "another to take the dead one's place")
    assert second.drain() == 0
    second.start()
    total = service.end_after(3000, least=LEAST)  # here, so that it is there for all of the above

    def others_have_theirs() -> bool:
        """What the dead one accepted and did not commit is in its journal still."""
        found = rows_by_host(first.output, service.settings.seed)
        return service.sent >= total and len(found) + UNCOMMITTED >= total

    wait_until(others_have_theirs, "every hit to be a row, or in the dead one's journal", 100, 0.5)
    for host in (second, third, heir):
        assert host.drain() == 0
    first.start("--stop-after", "2")
    assert first.wait() == 0

    found = rows_by_host(first.output, service.settings.seed)
    assert [index for index in range(total) if index not in found] == []
    assert max(count for counts in found.values() for count in counts.values()) == 1
    assert any(len(counts) > 1 for counts in found.values()), "nothing was resent to another host"
    assert_whole(hosts)
    assert_in_table(first.output, sum(sum(counts.values()) for counts in found.values()))

    compact(hosts)
    found = rows_by_host(first.output, service.settings.seed)
    assert {index: sum(counts.values()) for index, counts in found.items()} == dict.fromkeys(range(total), 1)
    assert_whole(hosts)
    assert_in_table(first.output, total)


def compact(hosts: Sequence[Host]) -> None:
    states = [argument for host in hosts for argument in ("--state", host.state)]
    command = [sys.executable, "-m", "collector", "compact", "--output", hosts[0].output, "--stream", STREAM]
    more = ["--older-than", "0", "--set", "table.format=delta", *states]
    done = subprocess.run(
        [*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False
    )
    assert done.returncode == 0, done.stderr


def assert_whole(hosts: Sequence[Host]) -> None:
    for host in hosts:
        report = verify(DISK, StateFolder(host.state), host.output, stream=STREAM, watcher=Unwatched())
        assert report.findings == []


def assert_in_table(output: Path, rows: int) -> None:
    """All hosts' rows, once each, in the one table that each of them committed its own batches to."""
    places = DeltaTable(output / "hits").to_pyarrow_table(
        columns=["collector_instance", "collector_block", "collector_line"]
    )
    assert places.num_rows == rows
    assert places.group_by(places.column_names).aggregate([]).num_rows == rows
