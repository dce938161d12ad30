"""The costs in docs/lake.md are those that the script works out."""

from __future__ import annotations

from pathlib import Path

from bench.lake_costs import costs, table

ROOT = Path(__file__).parents[2]


def test_the_documented_table_is_what_the_script_says():
    """For 1,000 and 20,000 hits a second, and for the largest customers."""
    cases = [costs(1000), costs(20_000), costs(3e9 / 86_400, hosts=8)]
    assert table(cases) in (ROOT / "docs" / "lake.md").read_text(encoding="utf-8")


def test_a_busy_hosts_batches_are_closed_by_size():
    """A GiB of journal is full before a minute is over."""
    assert costs(1000).batches == 60
    assert costs(20_000).batches > 200
    assert costs(40_000).part_bytes < 2 * costs(20_000).part_bytes
