"""``compact`` as a process: beside a collector, killed, on a disk that is full, without its extra."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import PATIENCE_S, ROOT, wait_until
from small_disk import SmallDisk

from collector.simulator.hits import Hits, Timeline

SEED = 7
START_S = int(time.time()) // 3600 * 3600 - 2 * 3600 - 2
"""Two seconds before the end of an hour that is long over."""

STREAM = "demo-stream"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "collector", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False
    )


def compact(output: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return run("compact", "--output", output, "--stream", STREAM, "--older-than", 0, *more)


def verify(output: Path, state: Path) -> subprocess.CompletedProcess[str]:
    return run("verify", "--output", output, "--stream", STREAM, "--state", state)


def hits(first: int, count: int) -> list[bytes]:
    return Hits(SEED, Timeline(start_s=START_S)).lines(first, count)


def decode(output: Path, lines: list[bytes], state: Path) -> None:
    file = output.parent / f"{state.name}-{len(lines)}.jsonl"
    file.write_bytes(b"\n".join(line.strip() for line in lines) + b"\n")
    done = run("decode", file, "--output", output, "--stream", STREAM, "--state", state)
    assert done.returncode == 0, done.stderr


def ids(output: Path) -> Counter[object]:
    table = pq.read_table(output / "hits", columns=["hitIdHigh", "hitIdLow"], partitioning=None)
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))


def contents(output: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (output / "hits").rglob("*.parquet")}


@pytest.fixture(scope="module")
def decoded(tmp_path_factory) -> Path:
    """Two collectors' parts; they have 300 hits in common."""
    output = tmp_path_factory.mktemp("decoded") / "output"
    decode(output, hits(0, 600), output / ".state" / "one")
    decode(output, hits(300, 500), output / ".state" / "two")
    return output


@pytest.fixture
def overlapping(decoded, tmp_path) -> Path:
    """A copy that may be compacted."""
    return shutil.copytree(decoded, tmp_path / "output")


def test_beside_a_running_collector_each_hit_stays_once(make_service, make_collector):
    """Its parts go from under it, late hits come to compacted hours, and verify is green throughout."""
    service = make_service(hits_per_second=300.0, seed=SEED, start_s=START_S)
    collector = make_collector(service, **{"parts.max_age_s": 0.3})
    collector.start()
    decode(collector.output, hits(0, 500), collector.output / ".state" / f"{STREAM}.files")
    rows = 0
    for _ in range(3):
        wait_until(lambda before=rows: collector.rows() > before, "another batch")
        rows = collector.rows()
        done = compact(collector.output)
        assert done.returncode == 0, done.stdout + done.stderr
        done = verify(collector.output, collector.state)
        assert done.returncode == 0, done.stdout
    assert collector.drain() == 0
    assert compact(collector.output).returncode == 0
    collector.assert_complete(max(500, collector.rows()))
    collector.assert_tidy()
    assert {path.name[:8] for path in (collector.output / "hits").rglob("*.parquet")} == {"compact-"}
    for state in (collector.state, collector.output / ".state" / f"{STREAM}.files"):
        done = verify(collector.output, state)
        assert done.returncode == 0, done.stdout


def test_its_collector_takes_over_what_was_replaced(make_service, make_collector):
    """What stands in ``retired/`` comes into the log, with what replaced the parts."""
    service = make_service(total=500, hits_per_second=2000.0, seed=SEED, start_s=START_S)
    collector = make_collector(service, **{"parts.max_age_s": 0.3, "log.format": "json"})
    collector.start()
    wait_until(lambda: collector.rows() == 500, "all hits")
    assert compact(collector.output).returncode == 0
    assert collector.drain() == 0
    collector.start()
    wait_until(lambda: list((collector.state / "retired").iterdir()) == [], "it to be taken over")
    assert collector.drain() == 0
    assert {event["reason"] for event in collector.events("parts.retired")} == {"compacted"}
    assert verify(collector.output, collector.state).returncode == 0


def test_killed_it_is_finished_by_the_next(overlapping):
    """Again and again, at whatever it does; then each hit is there once."""
    before = set(ids(overlapping))
    folder = overlapping / ".state" / f"{STREAM}.compact"
    for trace in ("scratch/places.parquet", "scratch/positions", "staging/*", "plan.json", "files/*"):
        process = subprocess.Popen(
            command("compact", "--output", overlapping, "--stream", STREAM, "--older-than", 0),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        wait_until(
            lambda trace=trace, process=process: any(folder.glob(trace)) or process.poll() is not None,
            trace,
            pause_s=0.0005,
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert set(ids(overlapping)) == before
    done = compact(overlapping)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ids(overlapping) == Counter(before)
    for name in ("one", "two"):
        assert verify(overlapping, overlapping / ".state" / name).returncode == 0


def test_a_full_disk_is_told_and_changes_nothing(overlapping, tmp_path):
    """Exit 4; with room again it goes on."""
    disk = SmallDisk(tmp_path / "small", 32 << 20)
    try:
        output = disk.folder / "output"
        shutil.copytree(overlapping, output)
        before = contents(output)
        disk.fill()
        done = compact(output)
        assert done.returncode == 4, done.stdout + done.stderr
        assert "No space" in done.stderr
        assert contents(output) == before
        disk.free()
        assert verify(output, output / ".state" / "one").returncode == 0
        assert compact(output).returncode == 0
        assert max(ids(output).values()) == 1
    finally:
        disk.close()


def test_it_says_what_it_would_do_and_what_it_did(overlapping):
    """A dry run changes nothing; a line for each hour, and the sum."""
    before = contents(overlapping)
    done = compact(overlapping, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert contents(overlapping) == before
    assert len(re.findall(r"^would compact \d{4}-\d\d-\d\dT\d\d: ", done.stdout, re.MULTILINE)) >= 1
    done = compact(overlapping)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"\d files, .* -> 1, .*; [\d,]+ rows, [\d,]+ doubles removed; [\d,]+ rows/s", done.stdout
    )
    assert "800 rows, 300 doubles removed" in done.stdout.splitlines()[-1]
    assert "\x1b" not in done.stdout
    done = run("compact", "--output", overlapping, "--stream", STREAM, "--older-than", 86_400 * 40)
    assert "not over yet" not in done.stdout  # nothing is left to be compacted


def test_without_its_extra_it_names_it(overlapping):
    """Exit 2 and the pip line; nothing is touched."""
    before = contents(overlapping)
    program = "import sys; sys.modules['ibis'] = None; from collector.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "compact", "--output", overlapping, "--stream", STREAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'livestream-collector[lake]'" in done.stderr
    assert contents(overlapping) == before


def test_a_damaged_part_ends_in_exit_7(overlapping):
    """The hour is named and left alone."""
    path = next((overlapping / "hits").rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    done = compact(overlapping)
    assert done.returncode == 7
    assert str(path) in done.stdout
    assert path.exists()
    assert os.path.getsize(path) == len(data)
