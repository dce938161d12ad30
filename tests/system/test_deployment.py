"""The steps of docs/deployment.md that a test can take: side by side, moved to another host, begun anew."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import msgspec
from harness import wait_until

from collector.core.floor_record import FloorRecord
from collector.simulator.requestlog import floor_violations
from collector.storage.floor import FloorFile
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder

TOTAL = 1500


def to_another_host(state: StateFolder) -> None:
    """What a copied state folder looks like there: made before a boot that this one is not."""
    floor = FloorFile(DISK, state.floor, FloorRecord)
    record, _ = floor.read()
    assert record is not None
    floor.write(msgspec.structs.replace(record, boot_id="of another host"))


def test_two_streams_side_by_side(make_service, make_collector):
    """One host, one program, folders of their own: each has all of its stream, and nothing of the other's."""
    collectors = [
        make_collector(make_service(stream=name, seed=seed, total=TOTAL))
        for name, seed in (("web", 7), ("shop", 8))
    ]
    for collector in collectors:
        collector.start("--stop-after-hits", str(TOTAL))
    for collector in collectors:
        assert collector.wait() == 0, collector.log
        collector.assert_complete(TOTAL)
        collector.assert_tidy()
    assert len({collector.ledger().instance for collector in collectors}) == 2


def test_a_moved_folder_goes_on(make_service, make_collector):
    """In another place: the whole floor is waited for, resends are known, and the proof goes on."""
    service = make_service(hits_per_second=400.0, total=TOTAL)
    collector = make_collector(service, wait_s=1.0, **{"log.format": "json"})
    collector.start()
    wait_until(lambda: collector.rows() > TOTAL // 3, "a third of the hits")
    assert collector.drain() == 0, collector.log
    assert collector.events("drain.ended")[-1]["left_blocks"] == 0
    before = collector.ledger()
    new = collector.folder / "new-host"
    shutil.move(collector.output, new)
    collector.elsewhere = new
    to_another_host(StateFolder(collector.state))
    assert collector.run("--stop-after-hits", str(TOTAL)) == 0, collector.log
    collector.assert_complete(TOTAL)
    collector.assert_tidy()
    assert collector.ledger().instance == before.instance
    waited = [event["wait_s"] for event in collector.events("connection.waited")]
    assert waited[-1] > 0.95  # of 1 s, from the start: what another host's clock says counts for nothing
    verify = [sys.executable, "-m", "collector", "verify", "--output", str(new)]
    verified = subprocess.run(verify, stdout=subprocess.PIPE, text=True, check=False)
    assert verified.returncode == 0, verified.stdout


def test_a_fresh_state_folder_doubles_what_is_sent_again(make_service, make_collector):
    """What the documentation says that it costs: rows twice, told apart by their instance, none missing."""
    service = make_service(hits_per_second=400.0, total=TOTAL)
    collector = make_collector(service)
    collector.start()
    wait_until(lambda: collector.rows() > TOTAL // 3, "a third of the hits")
    assert collector.drain() == 0, collector.log
    aside = collector.state.with_name("put-aside")
    collector.state.rename(aside)
    time.sleep(collector.wait_s)  # the floor is in the folder that was put aside
    collector.start()
    wait_until(lambda: collector.missing(TOTAL) == [], "the rest of the hits", pause_s=0.5)
    assert collector.drain() == 0, collector.log
    assert collector.invented(TOTAL) == []
    assert len(collector.doubled()) > 0
    rows = collector.table(columns=["hitIdHigh", "hitIdLow", "collector_instance"])
    assert len(set(zip(*(column.to_pylist() for column in rows.columns), strict=True))) == rows.num_rows
    assert floor_violations(service.requests, collector.wait_s) == []
