"""What shipping costs the collector's own processes: python bench/ship_overhead.py [--hits N] [--rounds N].

The same hits with and without shipping and a Delta table, in turn; said is the processor time of coordinator,
reader and decoders per hit, median and least of both (the least is what a busy host disturbs least), and what
the shipping process itself takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
SHIPPER = "collector.lake.process"


def processes(parent: int) -> Iterator[tuple[str, float]]:
    """What each child, and the parent itself, is, and its processor time so far in seconds."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            line = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(name) == parent or int(fields[1]) == parent:
            module = next((part.decode() for part in line if part.startswith(b"collector.")), "coordinator")
            yield f"{module} {name}", (int(fields[11]) + int(fields[12])) / TICKS


def collected(hits: int, folder: Path, *, shipping: bool) -> tuple[float, float]:
    """*Units*: microseconds of processor per hit: of the own processes, and of the shipping one."""
    simulate = [sys.executable, "-m", "collector", "simulate", "--total", str(hits), "--hits-per-second", "0"]
    with subprocess.Popen(simulate, cwd=ROOT, stdout=subprocess.PIPE, text=True) as simulator:
        url = simulator.stdout.readline().strip() if simulator.stdout else ""
        settings = {"reconnect.wait_s": 0.5, "parts.max_age_s": 2, "status.listen": "off", "run.decoders": 1}
        if shipping:
            settings |= {"ship.url": f"file://{folder}/store", "table.format": "delta"}
        run = [sys.executable, "-m", "collector", "run", "--url", url, "--output", str(folder / "output")]
        run += ["--stop-after-hits", str(hits), "--log-format", "json"]
        run += [f"--set={key}={value}" for key, value in settings.items()]
        secrets = {"LIVESTREAM_TOKEN": "simulator-token", "LIVESTREAM_CLIENT_ID": "simulator-key"}
        collector = subprocess.Popen(run, cwd=ROOT, env=os.environ | secrets, stderr=subprocess.DEVNULL)
        seen: dict[str, float] = {}
        while collector.poll() is None:
            seen.update(processes(collector.pid))
            time.sleep(0.05)
        simulator.terminate()
    own = sum(taken for name, taken in seen.items() if not name.startswith(SHIPPER))
    ship = sum(taken for name, taken in seen.items() if name.startswith(SHIPPER))
    return own * 1e6 / hits, ship * 1e6 / hits


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hits", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    off, on, apart = list[float](), list[float](), list[float]()
    for _ in range(arguments.rounds):
        for shipping in (False, True):
            with tempfile.TemporaryDirectory(prefix="ship-overhead-") as folder:
                own, ship = collected(arguments.hits, Path(folder), shipping=shipping)
            (on if shipping else off).append(own)
            if shipping:
                apart.append(ship)
            print(f"shipping {shipping!s:5}: {own:6.2f} us a hit, shipping process {ship:5.2f}", flush=True)
    for name, of in (("median", statistics.median), ("least", min)):
        before, after, itself = of(off), of(on), of(apart)
        print(
            f"{name}: own processes {before:.2f} us a hit, {after:.2f} with it ({after / before - 1:+.1%});"
            f" the shipping process {itself:.2f}"
        )


if __name__ == "__main__":
    main()
