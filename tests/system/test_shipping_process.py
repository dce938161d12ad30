"""Shipping beside a real collector: whatever becomes of it, intake goes on, and parts go out once."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time

import msgspec
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from faults.plan import SHIPPING, Faults
from harness import ROOT, _children_of, _command_line, wait_until
from store_rig import BUCKET, KEYS, S3, s3_server

CREDENTIALS = {"LIVESTREAM_TOKEN": "simulator-token", "LIVESTREAM_CLIENT_ID": "simulator-key", **KEYS}


@pytest.fixture(scope="module")
def s3_process():
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_process):
    s3_process.empty()
    yield s3_process
    s3_process.accept_everybody()


def make(make_collector, service, s3, **settings):
    return make_collector(service, **{"log.format": "json", **s3.settings, **settings})


def shippers(collector) -> list[int]:
    return [
        pid for pid in _children_of(collector.process.pid) if b"collector.lake.process" in _command_line(pid)
    ]


def ship(collector) -> int:
    """The command, after the collector's end."""
    command = [sys.executable, "-m", "collector", "ship", "--output", str(collector.output)]
    for key, value in collector.settings.items():
        if key.startswith(("ship.", "table.")):
            command += ["--set", f"{key}={value}"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | CREDENTIALS, check=False).returncode


def progress(collector) -> dict:
    path = collector.state / "ship" / "progress"
    return msgspec.json.decode(path.read_bytes()) if path.exists() else {"parts": 0}


def assert_all_shipped(collector, s3) -> None:
    """Every visible part is in the store, byte for byte, and nothing else is."""
    parts = [path for path in collector.output.rglob("*.parquet") if ".state" not in path.parts]
    names = {f"raw/{path.relative_to(collector.output)}": path for path in parts}
    assert set(s3.names()) == set(names)
    for name, path in names.items():
        assert s3.get(name) == path.read_bytes()


def test_the_store_has_everything_when_the_collector_is_done(make_service, make_collector, s3):
    """What the drain commits goes out within it; no secret of either side is anywhere."""
    service = make_service(total=3000)
    collector = make(make_collector, service, s3)
    collector.start("--stop-after-hits", "3000", environment=CREDENTIALS)
    assert collector.wait() == 0
    assert_all_shipped(collector, s3)
    assert collector.events("ship.shipped")
    for secret in (KEYS["AWS_SECRET_ACCESS_KEY"], CREDENTIALS["LIVESTREAM_TOKEN"]):
        assert secret not in collector.log
    assert collector.left_processes() == []


def test_a_store_that_is_away_for_long(make_service, make_collector):
    """Said once; parts wait on the disk; when it is there everything goes out, in the next run as well."""
    service = make_service(total=4000)
    away = S3()
    collector = make(make_collector, service, away)
    collector.start(environment=CREDENTIALS)
    wait_until(lambda: collector.events("ship.failed"), "the failure to be said")
    wait_until(lambda: collector.rows() == 4000, "every hit to be a row")
    assert [event["failure"] for event in collector.events("ship.failed")] == ["store-away"]
    try:
        away.start()
        wait_until(lambda: collector.events("ship.resumed"), "shipping to go on", 180)
        assert collector.drain() == 0
        assert_all_shipped(collector, away)
    finally:
        away.stop()
    collector.assert_complete(4000)


def test_wrong_keys_harm_nobody_but_shipping(make_service, make_collector, s3):
    """The log says what to do; the collector ends as ever; with good keys the next run ships what waited."""
    service = make_service(total=2000)
    s3.refuse_everybody()
    collector = make(make_collector, service, s3)
    collector.start(environment=CREDENTIALS)
    wait_until(lambda: collector.events("ship.failed"), "the failure to be said")
    wait_until(lambda: collector.rows() == 2000, "every hit to be a row")
    assert collector.drain() == 0
    failed = collector.events("ship.failed")[0]
    assert failed["failure"] == "store-denied"
    assert "InvalidAccessKeyId" in failed["reason"]
    assert "AWS_ACCESS_KEY_ID" in failed["remedy"]
    collector.assert_complete(2000)
    s3.accept_everybody()
    collector.start(environment=CREDENTIALS)
    wait_until(lambda: collector.events("ship.resumed") or progress(collector)["parts"], "it to ship")
    assert collector.drain() == 0
    assert_all_shipped(collector, s3)


def test_a_shipper_that_is_killed_holds_nobody_up(make_service, make_collector, s3):
    """Again and again: another takes its place, and each part goes out once."""
    chance = random.Random(11)
    service = make_service(total=12_000, hits_per_second=3000.0)
    collector = make(make_collector, service, s3, **{"parts.max_age_s": 0.2})
    collector.start(environment=CREDENTIALS)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        for pid in shippers(collector):
            os.kill(pid, signal.SIGKILL)
        time.sleep(chance.uniform(0.1, 0.8))
    wait_until(lambda: collector.rows() == 12_000, "every hit to be a row")
    assert collector.drain() == 0
    assert len(collector.events("child.died")) > 1
    assert ship(collector) == 0  # shipping may have been cut short by the drain's limit
    assert_all_shipped(collector, s3)
    collector.assert_complete(12_000)


def test_the_whole_collector_dies_and_nothing_is_lost_or_doubled(make_service, make_collector, s3):
    """Local copies go as soon as they are shipped: what is in the store is all there is, each hit once."""
    service = make_service(total=9000, hits_per_second=3000.0)
    collector = make(make_collector, service, s3, **{"parts.max_age_s": 0.3, "ship.keep_local_s": 0})
    for _ in range(3):
        collector.start(environment=CREDENTIALS)
        before = progress(collector)["parts"]
        wait_until(
            lambda before=before: progress(collector)["parts"] > before or collector.rows() == 9000,
            "something to be shipped",
        )
        collector.kill_all()
    collector.start("--stop-after-hits", "9000", environment=CREDENTIALS)
    assert collector.wait() == 0
    assert ship(collector) == 0
    assert rows_in(s3, collector) == collector.ledger().totals.rows
    assert list(collector.output.glob("hits/**/*.parquet")) == []


@pytest.mark.parametrize(
    "effect",
    ["kill", "kill_all", *(pytest.param(error, marks=pytest.mark.matrix) for error in ("EIO", "ENOSPC"))],
)
@pytest.mark.parametrize("point", SHIPPING, ids=lambda point: point.name)
def test_the_shipper_ends_at_a_step(make_service, make_collector, s3, tmp_path, point, effect):
    """Killed there, alone or with all others, or its disk fails: the table has every row once in the end."""
    faults = Faults(tmp_path / "faults")
    fault = faults.add(point.fault(effect, when="after" if effect.startswith("kill") else "before"))
    service = make_service(total=3000)
    settings = {"ship.keep_local_s": 0, "table.format": "delta"}
    collector = make(make_collector, service, s3, **settings)
    collector.start(environment=CREDENTIALS | faults.environment())
    wait_until(lambda: faults.fired(fault), "the fault to fire")
    if effect == "kill_all":
        collector.wait()
        collector.start(environment=CREDENTIALS)
    wait_until(lambda: collector.rows() == 3000, "every hit to be a row")
    assert collector.drain() == 0
    assert ship(collector) == 0
    assert rows_in(s3, collector) == 3000
    options = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    options |= {name.lower(): value for name, value in KEYS.items()}
    table = DeltaTable(f"s3://{BUCKET}/raw/hits", storage_options=options)
    assert table.to_pyarrow_table(columns=["collector_line"]).num_rows == 3000
    assert list(collector.output.glob("hits/v=1/**/*.parquet")) == []


def rows_in(s3, collector) -> int:
    names = [name for name in s3.names() if name.startswith("raw/hits/v=1/")]
    return sum(pq.ParquetFile(io.BytesIO(s3.get(name))).metadata.num_rows for name in names)


def test_without_the_extra_it_does_not_start(make_service, make_collector, s3, tmp_path):
    """Exit 2 with the pip line, before anything is asked of the service."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['obstore'] = None\n")
    service = make_service(total=10)
    collector = make(make_collector, service, s3)
    collector.start(environment={**CREDENTIALS, "PYTHONPATH": str(hidden)})
    assert collector.wait() == 2
    assert "pip install 'livestream-collector[lake]'" in collector.log
    assert service.requests == []
