"""The journal after a crash: which blocks are there, and what is torn or damaged.

Runs in the coordinator, while no reader does. Invariant: what a writer's ``sync`` reported durable is
found or reported as damage, never silently absent; what was not reported is a whole block or cut away.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.core.messages import Block
from collector.errors import DamagedError
from collector.storage.fs import Disk
from collector.storage.segments import (
    BLOCK_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    BlockHeader,
    MappedSegment,
    list_segments,
    space_of,
)

QUARANTINE_BYTES: Final = 16 << 20
"""Kept of one torn tail at most. Nothing in it was ever accepted: it is evidence, not data."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A torn tail that was put aside: writes that were never reported durable."""

    segment: int
    offset: int
    seq: int
    """The first block that did not check out."""
    quarantined_bytes: int

    def __str__(self) -> str:
        return (
            f"block {self.seq} in segment {self.segment} from offset {self.offset} was torn;"
            f" {self.quarantined_bytes} bytes are in quarantine"
        )


@dataclass(frozen=True, slots=True)
class Recovered:
    """What ``recover`` found."""

    blocks: list[Block]
    """After ``after_seq``, contiguous, durable."""
    next_seq: int
    next_segment: int
    """Above every number in the folder, free ones included."""
    cut: Cut | None
    last_block: dict[int, int]
    """By segment, ascending: the last block in it. Segments without a block were deleted."""
    free: tuple[int, ...]


def recover(
    disk: Disk, folder: Path, quarantine: Path, *, after_seq: int, known_durable_seq: int = 0
) -> Recovered:
    """The longest prefix of blocks that checks out; a torn tail goes to ``quarantine``. Idempotent.

    Blocks up to ``after_seq`` may be missing: they are committed. *Blocks* for as long as it takes
    to read the journal once.

    *Raises*: DamagedError when a block is missing or bad that was durable: a later block says so
    (``synced_seq``), or ``known_durable_seq`` does. NewerVersionError. Nothing is changed then.
    """
    used, free = list_segments(disk, folder)
    next_segment = max((*used, *free), default=0) + 1
    segments: list[MappedSegment] = []
    try:
        for number in used:
            with suppress(FileNotFoundError):  # freed since, by a commit beside us
                segments.append(MappedSegment(disk, folder, number))
        chain = _Chain(after_seq)
        for segment in segments:
            chain.follow(segment)
        cut = _cut(disk, quarantine, chain, segments, known_durable_seq)
        _settle(disk, folder, chain, segments, max(after_seq, known_durable_seq))
    finally:
        for segment in segments:
            segment.close()
    return Recovered(chain.blocks, chain.last_seq + 1, next_segment, cut, chain.last_block, free)


class _Chain:
    """Blocks in order, over segments, from the first that is there."""

    def __init__(self, after_seq: int) -> None:
        self._after_seq = after_seq
        self._seq = 0
        self.blocks: list[Block] = []
        self.last_block: dict[int, int] = {}
        self.tails: dict[int, int] = {}
        """By segment: where its part of the chain ends."""

    @property
    def last_seq(self) -> int:
        return max(self._seq, self._after_seq)

    def follow(self, segment: MappedSegment) -> None:
        offset = SEGMENT_HEADER_BYTES
        while (header := segment.header_at(offset)) is not None and self._joins(header.seq):
            if header.seq > self._after_seq:  # of committed blocks only the place matters
                if segment.block_at(offset) is None:
                    break
                self.blocks.append(_block(header, segment.number, offset))
            self._seq = self.last_block[segment.number] = header.seq
            offset += space_of(header.length)
        self.tails[segment.number] = offset

    def _joins(self, seq: int) -> bool:
        return seq == self._seq + 1 or self._seq < seq <= self._after_seq + 1


def _block(header: BlockHeader, segment: int, offset: int) -> Block:
    return Block(
        seq=header.seq,
        segment=segment,
        offset=offset + BLOCK_HEADER_BYTES,
        length=header.length,
        records=header.records,
        connection=header.connection,
        flags=header.flags,
        collected_at_us=header.collected_at_us,
        held_us=header.held_us,
    )


@dataclass(frozen=True, slots=True)
class _Leftover:
    """A block header that is whole, but that the chain does not reach."""

    segment: MappedSegment
    offset: int
    synced_seq: int


def _leftovers(chain: _Chain, segments: Iterable[MappedSegment]) -> Iterator[_Leftover]:
    for segment in segments:
        for offset, header in segment.headers_from(chain.tails[segment.number]):
            if header.seq > chain.last_seq:
                yield _Leftover(segment, offset, header.synced_seq)


def _cut(
    disk: Disk, quarantine: Path, chain: _Chain, segments: list[MappedSegment], known_durable_seq: int
) -> Cut | None:
    """Tells damage from a torn tail, and puts the tail aside."""
    missing = chain.last_seq + 1
    leftovers = list(_leftovers(chain, segments))
    if max((known_durable_seq, *(found.synced_seq for found in leftovers))) >= missing:
        raise _damage(missing, chain, segments, leftovers)
    last = max(chain.last_block, default=0)
    torn = {found.segment.number for found in leftovers}
    torn |= {s.number for s in segments if s.number >= last and s.began_at(chain.tails[s.number])}
    tails = [(segment, chain.tails[segment.number]) for segment in segments if segment.number in torn]
    if not tails:
        return None
    kept_bytes = sum(_put_aside(disk, quarantine, segment, tail) for segment, tail in tails)
    return Cut(tails[0][0].number, tails[0][1], missing, kept_bytes)


def _put_aside(disk: Disk, quarantine: Path, segment: MappedSegment, tail: int) -> int:
    torn = segment.bytes_from(tail, QUARANTINE_BYTES)
    disk.write_file_durably(quarantine / f"{segment.number:016d}-{tail}.torn", torn)
    fd = disk.open(segment.path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        disk.truncate(fd, tail)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    return len(torn)


def _damage(
    missing: int, chain: _Chain, segments: list[MappedSegment], leftovers: list[_Leftover]
) -> DamagedError:
    remedy = "restore it from a copy; what is in it was accepted and is nowhere else"
    if not segments:
        return DamagedError(f"the journal has lost block {missing}, which was durable: no segment is left")
    last = max(chain.last_block, default=segments[0].number)
    segment = next(segment for segment in segments if segment.number == last)
    tail = chain.tails[last]
    end = next((found.offset for found in leftovers if found.segment is segment), segment.size_bytes)
    return DamagedError(
        f"{segment.path}: block {missing}, which was durable, is damaged or missing"
        f" (bytes {tail} to {end}, or a segment after this one); {remedy}"
    )


def _settle(disk: Disk, folder: Path, chain: _Chain, segments: list[MappedSegment], durable_seq: int) -> None:
    """What is there is durable from now on, and segments without a block are gone."""
    for segment in segments:
        last = chain.last_block.get(segment.number)
        if last is None:
            disk.unlink(segment.path)
        elif last > durable_seq:  # whole, but perhaps never synced before its writer died
            _sync_file(disk, segment.path)
    disk.fsync_folder(folder)


def _sync_file(disk: Disk, path: Path) -> None:
    fd = disk.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
