"""Clocks that jump and machines that restart, under whole collectors: no wait follows them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import Collector, wait_until
from reconnect_rig import assert_waited, await_requests, gaps_s

HOUR_S = 3600
CREDENTIALS = {"LIVESTREAM_TOKEN": "simulator-token", "LIVESTREAM_CLIENT_ID": "simulator-key"}


class WallClock:
    """Of the collectors that were started in ``environment``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.environment = CREDENTIALS | {
            "PYTHONPATH": str(Path(__file__).parent / "clock"),
            "LIVESTREAM_TEST_CLOCK": str(path),
        }
        self.jump(0)

    def jump(self, wrong_s: int) -> None:
        replacement = self._path.with_suffix(".new")
        replacement.write_text(str(wrong_s))
        replacement.replace(self._path)


def await_batches(collector: Collector, more: int, total: int) -> None:
    """Of what still comes: none, once every hit is a row."""
    wanted = len(collector.events("batch.committed")) + more
    wait_until(
        lambda: len(collector.events("batch.committed")) >= wanted or collector.rows() == total,
        f"{more} more batches",
    )


def test_a_wall_clock_that_jumps_moves_no_wait(tmp_path, make_service, make_collector):
    """An hour on, an hour back, to 1970 and home again, in the middle of streams: floors and waits are
    kept, batches close at their age, no child is taken for dead, every hit is a row, and ``connections``
    neither misses a hit nor says that an hour went by."""
    wait_s, total = 0.6, 6000
    service = make_service(total=total, hits_per_second=1000, ghost_s=0.2, overlap_s=0.3)
    collector = make_collector(service, wait_s=wait_s, **{"log.format": "json"})
    clock = WallClock(tmp_path / "clock")
    collector.start(environment=clock.environment)
    jumps = (HOUR_S, -HOUR_S, -int(time.time()), 0)
    for number, wrong_s in enumerate(jumps, 1):
        await_requests(collector, number)
        clock.jump(wrong_s)
        await_batches(collector, 2, total)
        if wrong_s:
            service.cut("rst")
    wait_until(lambda: collector.rows() == total, "every hit")
    assert collector.drain() == 0, collector.log
    requests = service.requests
    assert_waited(gaps_s(requests), (1, 1.5, 2.25), wait_s, collector.log)
    collector.assert_complete(total)
    collector.assert_tidy()
    assert collector.events("child.died") == []
    assert all(event["lag_s"] >= 0 for event in collector.events("batch.committed"))
    gaps = collector.events("gap.recorded")
    assert len(gaps) == len(requests) - 1
    assert all(wait_s <= gap["duration_s"] < 60 for gap in gaps), gaps
    assert "hour" not in str([gap["rule"] for gap in gaps])
    rows = collector.table("connections").to_pylist()
    assert len(rows) < 500
    assert all(row["began_at"] <= row["ended_at"] for row in rows)


# ---------------------------------------------------------------- another boot


def restarted_machine(tmp_path: Path) -> str:
    """A Python in a machine that started five seconds ago: another boot id, CLOCK_BOOTTIME from anew."""
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("00000000-1111-2222-3333-444444444444\n")
    since_boot_s = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    script = f"""#!/bin/sh
exec unshare -rmT --boottime -{since_boot_s - 5} --fork --kill-child \\
    sh -c 'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"' sh {sys.executable} "$@"
"""
    python = tmp_path / "python"
    python.write_text(script)
    python.chmod(0o755)
    look = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME))"
    can = shutil.which("unshare") and subprocess.run(
        [python, "-c", look], check=False, capture_output=True, text=True
    )
    if not can or can.returncode or float(can.stdout) > 60:
        pytest.skip("needs a time and mount namespace of its own")
    return str(python)


@pytest.mark.parametrize("end", ["drained", pytest.param("killed", marks=pytest.mark.matrix)])
def test_a_restart_of_the_machine_waits_the_full_floor(
    end, tmp_path, monkeypatch, make_service, make_collector
):
    """Its clock says less than the record, which may be of any time ago: nothing of it counts but that a
    stream was held. The floor is waited in full from the start, however long the machine was away."""
    wait_s = 1.5
    service = make_service(hits_per_second=300, ghost_s=0.2)
    collector = make_collector(service, wait_s=wait_s)
    python = restarted_machine(tmp_path)
    collector.start()
    wait_until(lambda: collector.rows() > 50, "some rows")
    if end == "drained":
        assert collector.drain() == 0, collector.log
    else:
        collector.kill_all()
    time.sleep(wait_s)  # the machine is away: without a restart a clean stop would be over by now
    monkeypatch.setattr(sys, "executable", python)
    before_s = time.monotonic()
    assert collector.run("--stop-after-hits", str(collector.rows() + 300)) == 0, collector.log
    assert "the machine was restarted since the last run" in collector.log
    assert service.requests[1].at_s - before_s >= wait_s
    assert len(service.requests) == 2
    assert collector.doubled() == {}
    assert collector.invented(service.sent) == []
    collector.assert_tidy()
