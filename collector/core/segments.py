"""Which journal segments exist, which are free, and whether the reader may have another.

The reader makes a segment only when granted one, so the journal's bound is kept in one place: a
reader without a spare segment pauses the transfer by itself when its last one is full.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from collector.core.messages import Block

FREE_SEGMENTS_KEPT: Final = 2
"""Recycled rather than made anew: a cold write into a fresh segment costs page faults."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A segment the reader may make, from a free one where there is one."""

    segment: int
    recycled: int | None


@dataclass(frozen=True, slots=True)
class Freed:
    """Segments without an uncommitted block: some are kept to be recycled, the rest is deleted."""

    keep: tuple[int, ...]
    delete: tuple[int, ...]
    surplus: tuple[int, ...] = ()
    """Free ones that are to be deleted as well."""


@dataclass(slots=True)
class Segments:
    """The journal's segments by number, and the last block of each."""

    segment_bytes: int
    max_bytes: int
    next_segment: int
    wanted: bool = False
    last_block: dict[int, int] = field(default_factory=dict)
    """By segment, ascending; a granted segment without a block yet has 0."""
    free: list[int] = field(default_factory=list)
    free_kept: int = FREE_SEGMENTS_KEPT

    @property
    def used_bytes(self) -> int:
        return (len(self.last_block) + len(self.free)) * self.segment_bytes

    @property
    def filled(self) -> float:
        """The part of ``max_bytes`` that holds uncommitted blocks, 0 to 1."""
        return len(self.last_block) * self.segment_bytes / self.max_bytes

    def accepted(self, block: Block) -> None:
        self.last_block[block.segment] = block.seq

    def committed(self, last: int, *, all_read: bool = False) -> Freed:
        """Frees what lies wholly at or below the block ``last``.

        Never the newest segment with a block, which may get more, unless ``all_read``: no reader
        writes any.
        """
        filled = [segment for segment, seq in self.last_block.items() if seq]
        newest = max(filled, default=0)
        done = [s for s in filled if self.last_block[s] <= last and (s != newest or all_read)]
        for segment in done:
            del self.last_block[segment]
        surplus, self.free = self.free[self.free_kept :], self.free[: self.free_kept]
        room = self.free_kept - len(self.free)
        keep, delete = done[:room], done[room:]
        self.free += keep
        return Freed(tuple(keep), tuple(delete), tuple(surplus))

    def grant(self, disk_free_bytes: int, reserve_bytes: int) -> Grant | None:
        """The segment the reader asked for, if the journal's bound and the disk's reserve allow it."""
        if not self.wanted:
            return None
        recycled = self.free[0] if self.free else None
        new_bytes = 0 if recycled is not None else self.segment_bytes
        if self.used_bytes + new_bytes > self.max_bytes or disk_free_bytes - new_bytes < reserve_bytes:
            return None
        self.free = self.free[1:]
        segment = self.next_segment
        self.next_segment += 1
        self.last_block[segment] = 0
        self.wanted = False
        return Grant(segment, recycled)

    def refused(self, segment: int) -> None:
        """The reader found no room for it after all; it wants another."""
        self.last_block.pop(segment, None)
        self.wanted = True

    def reader_died(self, next_segment: int) -> None:
        """Granted segments without a block are gone with it."""
        self.last_block = {segment: seq for segment, seq in self.last_block.items() if seq}
        self.next_segment = max(self.next_segment, next_segment)
        self.wanted = False
