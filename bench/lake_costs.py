"""What a stream costs in files, requests and commits: python bench/lake_costs.py [HITS_PER_SECOND ...].

Arithmetic over what the collector does by default, and list prices of one region: put yours in. Writes the
table that stands in docs/lake.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from collector.core.sizing import JOURNAL_BYTES_PER_HIT, PART_BYTES_PER_HIT

PARTS_MAX_AGE_S = 60
PARTS_MAX_BYTES = 1 << 30
CHUNK_BYTES = 16 << 20
"""A larger part is put in pieces of this size: a request each, and two more."""

BUSY_HITS_PER_S = 2000
"""From here on both decoders get blocks of every batch, so it has two parts."""

HOURS_A_MONTH = 730
USD_PER_1000_PUTS = 0.005
USD_PER_GB_MONTH = 0.023

DELTA_REQUESTS = 3
"""Per commit: list the log, put the entry, and a hundredth of a checkpoint with its pointer."""
ICEBERG_REQUESTS = 5
"""Per commit: two manifests, the list of manifests, the table's metadata, and the old one deleted."""


@dataclass(frozen=True)
class Costs:
    """Per hour, of one stream, by all of its hosts together."""

    hits_per_s: float
    hosts: int
    batches: float
    parts: float
    part_bytes: float
    gigabytes: float
    puts: float

    @property
    def usd_a_month(self) -> float:
        """Requests of parts and of a Delta table; storage of one month's hits comes on top."""
        requests = self.puts + self.batches * DELTA_REQUESTS
        return requests * HOURS_A_MONTH / 1000 * USD_PER_1000_PUTS


def costs(hits_per_s: float, hosts: int = 1) -> Costs:
    each = hits_per_s / hosts
    batch_s = min(PARTS_MAX_AGE_S, PARTS_MAX_BYTES / (each * JOURNAL_BYTES_PER_HIT))
    batches = 3600 / batch_s * hosts
    parts = batches * (2 if each >= BUSY_HITS_PER_S else 1)
    size = hits_per_s * 3600 * PART_BYTES_PER_HIT
    part_bytes = size / parts
    pieces = part_bytes / CHUNK_BYTES + 2 if part_bytes > CHUNK_BYTES else 1
    return Costs(hits_per_s, hosts, batches, parts, part_bytes, size / 1e9, parts * pieces)


def table(cases: list[Costs]) -> str:
    rows = [
        ("hits a second", [f"{case.hits_per_s:,.0f}" for case in cases]),
        ("hosts", [str(case.hosts) for case in cases]),
        ("batches an hour = commits an hour", [f"{case.batches:,.0f}" for case in cases]),
        ("parts of hits an hour", [f"{case.parts:,.0f}" for case in cases]),
        ("size of a part", [f"{case.part_bytes / 1e6:,.1f} MB" for case in cases]),
        ("gigabytes an hour", [f"{case.gigabytes:,.2f}" for case in cases]),
        ("requests an hour to put the parts", [f"{case.puts:,.0f}" for case in cases]),
        ("requests an hour for a Delta table", [f"{case.batches * DELTA_REQUESTS:,.0f}" for case in cases]),
        (
            "requests an hour for an Iceberg table",
            [f"{case.batches * ICEBERG_REQUESTS:,.0f}" for case in cases],
        ),
        ("parts a day", [f"{case.parts * 24:,.0f}" for case in cases]),
        ("USD a month for requests (Delta)", [f"{case.usd_a_month:,.2f}" for case in cases]),
        (
            "USD a month to keep one month",
            [f"{case.gigabytes * HOURS_A_MONTH * USD_PER_GB_MONTH:,.0f}" for case in cases],
        ),
    ]
    lines = ["| " + " | ".join([name, *values]) + " |" for name, values in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * len(cases), *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("hits_per_s", type=float, nargs="*")
    rates = parser.parse_args().hits_per_s
    print(
        table([costs(rate) for rate in rates] or [costs(1000), costs(20_000), costs(3e9 / 86_400, hosts=8)])
    )


if __name__ == "__main__":
    main()
