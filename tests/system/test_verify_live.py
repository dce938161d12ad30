"""``verify`` with real processes: beside a collector under load, and a log made again between two runs."""

from __future__ import annotations

import subprocess
import sys

from harness import PATIENCE_S, ROOT, Collector, wait_until

from collector.storage.commitlog import acknowledged_path


def verify(collector: Collector, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector", "verify", "--output", str(collector.output)]
    command += ["--state", str(collector.state), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_beside_a_collector_under_load_all_adds_up(make_service, make_collector):
    """Batches, rows of connections and the index change under it, and nothing of that is a finding."""
    service = make_service(hits_per_second=4000.0)
    collector = make_collector(service, **{"parts.max_age_s": 0.2, "journal.segment_bytes": "1MiB"})
    collector.start()
    rows = 0
    for _ in range(2):
        wait_until(lambda before=rows: collector.rows() > before, "another batch")
        done = verify(collector)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        rows = collector.rows()
    service.cut()
    done = verify(collector)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert collector.drain() == 0
    done = verify(collector)
    assert done.returncode == 0, done.stdout
    assert "in flight" not in done.stdout
    assert f"= {collector.rows():,} rows" in done.stdout


def test_after_the_log_was_lost_a_run_goes_on_with_nothing_lost_or_doubled(make_service, make_collector):
    """Killed under load, its log gone: the parts and the journal are enough."""
    service = make_service(total=6_000, hits_per_second=4000.0)
    collector = make_collector(service, **{"parts.max_age_s": 0.3})
    collector.start()
    wait_until(lambda: collector.rows() > 1_000, "some rows")
    collector.kill_all()
    collector.state.joinpath("commit.log").unlink()
    acknowledged_path(collector.state / "commit.log").unlink(missing_ok=True)
    assert verify(collector).returncode == 7
    done = verify(collector, "--rebuild", "--set", f"stream.url={service.url}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert collector.run("--stop-after-hits", "6000") == 0
    collector.assert_complete(6_000)
    collector.assert_tidy()
    done = verify(collector)
    assert done.returncode == 0, done.stdout
