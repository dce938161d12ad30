"""What a rate of hits asks of a host: disk, memory, processors.

Pure; used by ``check``. Rules of thumb, on the large side. *Source*: docs/performance.md, hits of 3.4 KB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

JOURNAL_BYTES_PER_HIT: Final = 3400
PART_BYTES_PER_HIT: Final = 450
"""Twice what made-up hits take: real ones repeat themselves less."""

CPU_US_PER_HIT: Final = 20.0
CPU_US_PER_HIT_PLAIN: Final = 36.0
"""Without the compiled kernel."""

_MIB: Final = 1 << 20
_IDLE_BYTES: Final = 150 * _MIB
_BYTES_PER_HIT_A_SECOND: Final = 20 * 1024
_BUSY_BYTES_PER_DECODER: Final = 380 * _MIB
ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Sizing:
    """Units: as the names say."""

    part_bytes_a_day: int
    journal_s: float
    """How long a full journal takes hits while no part can be written."""
    memory_bytes: int
    """Of all processes; with a journal in memory that as well."""
    cores: float
    ids: int
    """Of hits within ``resends.window_s``."""


def sizing(
    hits_per_s: float,
    *,
    decoders: int,
    journal_bytes: int,
    journal_in_memory: bool,
    window_s: float,
    kernel: bool,
) -> Sizing:
    """For hits of the usual size; a rate of 0 asks for nothing but the processes."""
    busy_bytes = _IDLE_BYTES + round(hits_per_s * _BYTES_PER_HIT_A_SECOND)
    memory_bytes = min(busy_bytes, _IDLE_BYTES + decoders * _BUSY_BYTES_PER_DECODER)
    return Sizing(
        part_bytes_a_day=round(hits_per_s * PART_BYTES_PER_HIT * 86_400),
        journal_s=journal_bytes / max(hits_per_s * JOURNAL_BYTES_PER_HIT, 1e-9),
        memory_bytes=memory_bytes + (journal_bytes if journal_in_memory else 0),
        cores=hits_per_s * (CPU_US_PER_HIT if kernel else CPU_US_PER_HIT_PLAIN) / 1e6,
        ids=round(hits_per_s * window_s),
    )
