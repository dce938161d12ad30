"""Raw records that nothing needs any more: removed where ``[privacy]`` hides something.

Run by the coordinator. Invariant: nothing is removed that is accepted and not committed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from collector.storage.fs import Disk
from collector.storage.journal_recovery import Recovered, recover
from collector.storage.segments import delete_free, free_segment, list_segments

_COPIES: Final = (".torn", ".damaged")
"""Of places in the journal, in quarantine."""


def forget_copies(disk: Disk, quarantine: Path) -> None:
    """What was put aside as evidence. *Blocks*."""
    for name in disk.listdir(quarantine):
        if name.endswith(_COPIES):
            disk.unlink(quarantine / name)


def forget_free(disk: Disk, journal: Path, recovered: Recovered) -> Recovered:
    """Segments that wait to be recycled hold what is committed. *Blocks*."""
    for segment in recovered.free:
        delete_free(disk, journal, segment)
    return replace(recovered, free=())


def forget_committed(disk: Disk, journal: Path, quarantine: Path, committed: int) -> None:
    """Every segment, unless there is a block behind ``committed``, reported or not.

    Call it when no reader is left. *Blocks* for a read of what is in use. *Raises* StorageError, before
    anything is removed.
    """
    recovered = recover(disk, journal, quarantine, after_seq=committed)
    forget_copies(disk, quarantine)
    if recovered.blocks:
        return
    for segment in recovered.last_block:
        free_segment(disk, journal, segment)
    for segment in list_segments(disk, journal).free:
        delete_free(disk, journal, segment)
