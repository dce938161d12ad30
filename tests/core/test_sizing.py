"""What a rate asks of a host."""

from __future__ import annotations

import pytest

from collector.core.sizing import Sizing, sizing


def sized(hits_per_s: float, **more: object) -> Sizing:
    given = {
        "decoders": 2,
        "journal_bytes": 8 << 30,
        "journal_in_memory": False,
        "window_s": 1800.0,
        "kernel": True,
    }
    return sizing(hits_per_s, **(given | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hits_per_s", "measured_mb"), [(0, 129), (1000, 170), (10_000, 348), (122_919, 886)]
)
def test_memory_is_enough_for_what_was_measured(hits_per_s, measured_mb):
    """On the large side of docs/performance.md, within a quarter."""
    memory_mb = sized(hits_per_s).memory_bytes / 1e6
    assert measured_mb <= memory_mb <= 1.25 * measured_mb


def test_a_journal_in_memory_counts():
    """All of it."""
    assert sized(100, journal_in_memory=True).memory_bytes - sized(100).memory_bytes == 8 << 30


def test_everything_grows_with_the_rate():
    """Disk, cores and ids with it; a full journal comes the sooner."""
    small, large = sized(100), sized(1000)
    assert large.part_bytes_a_day == 10 * small.part_bytes_a_day
    assert large.cores == pytest.approx(10 * small.cores)
    assert (small.ids, large.ids) == (180_000, 1_800_000)
    assert large.journal_s == pytest.approx(small.journal_s / 10)
    assert sized(1000, kernel=False).cores > large.cores
