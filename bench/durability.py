"""What a journal on disk costs: the same saved hits decoded with it on disk and in memory, in turns.

``python bench/durability.py`` prints the CPU time of all our processes per hit, the best of several
rounds each, and their ratio. Synced blocks, synced parts and everything else are as in ``run``.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from collector.simulator.hits import Hits

DURABILITIES = ("disk", "memory")
LINES = 1000


@dataclass(frozen=True)
class Cost:
    cpu_us: float
    """Of all processes, per hit."""
    wall_s: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hits", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--folder", help="where the output goes; default: the system's temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="livestream-bench-", dir=arguments.folder) as scratch:
        folder = Path(scratch)
        _write_hits(folder / "hits.jsonl", arguments.hits)
        costs: dict[str, list[Cost]] = {name: [] for name in DURABILITIES}
        for round_ in range(arguments.rounds):
            for name in DURABILITIES:
                costs[name].append(_decode(arguments, folder, f"{name}-{round_}", name))
    best = {name: min(cost.cpu_us for cost in costs[name]) for name in DURABILITIES}
    for name in DURABILITIES:
        walls = ", ".join(f"{cost.wall_s:.1f}" for cost in costs[name])
        print(f"{name:7} {best[name]:6.1f} us of CPU a hit, best of {arguments.rounds}; wall {walls} s")
    print(f"disk / memory: {best['disk'] / best['memory']:.3f}")
    return 0


def _write_hits(path: Path, count: int) -> None:
    hits = Hits(seed=1)
    with open(path, "wb") as file:
        file.writelines(
            b"\n".join([*hits.lines(first, min(LINES, count - first)), b""])
            for first in range(0, count, LINES)
        )


def _decode(arguments: argparse.Namespace, folder: Path, output: str, durability: str) -> Cost:
    command = [sys.executable, "-m", "collector", "decode", str(folder / "hits.jsonl")]
    command += ["--output", str(folder / output), "--decoders", str(arguments.decoders)]
    command += ["--set", f"journal.durability={durability}"]
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(cpu_s / arguments.hits * 1e6, time.monotonic() - began_s)


if __name__ == "__main__":
    sys.exit(main())
