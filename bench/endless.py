"""Memory at full rate without end: ``python -m bench.endless [--minutes N]``.

The collector runs with its defaults and reads over TLS as fast as it can what is made on the same cores.
Said is each half minute how many hits were sent and what memory all processes hold, anonymous and shared, by
process. A minute takes some 1 GB of disk in the folder for temporary files, the journal up to 8 GiB once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from bench.processes import Watched
from bench.sender import CLIENT, Sender

PATIENCE_S = 120.0


def show(elapsed_s: float, hits: int, by_role: dict[str, int]) -> None:
    parts = " ".join(f"{role} {size / 1e6:.0f}" for role, size in sorted(by_role.items()))
    print(f"{elapsed_s:6.0f} s {hits:12,} hits {sum(by_role.values()) / 1e6:6.0f} MB: {parts}", flush=True)


def run(folder: Path, seconds: float) -> None:
    with Sender(folder, endless=True) as sender:
        command = [sys.executable, "-m", "collector", "run", *sender.trust, "--output", f"{folder}/output"]
        with Watched(command, folder / "log", CLIENT) as collector:
            sender.requested_ns()
            began_s, elapsed_s = time.monotonic(), 0.0
            while elapsed_s < seconds:
                hits = sender.hits_sent()
                elapsed_s = time.monotonic() - began_s
                show(elapsed_s, hits, collector.memory_bytes())
            collector.terminate()
            usage = collector.wait(PATIENCE_S)
    peak, mapped = (size / 1e6 for size in (usage.peak_bytes, usage.mapped_bytes))
    print(f"most at any time: {peak:.0f} MB, mapped files {mapped:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="default: 10")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="livestream-bench-") as folder:
        run(Path(folder), minutes * 60)


if __name__ == "__main__":
    main()
