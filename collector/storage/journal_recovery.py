"""The journal after a crash: which blocks are there, and what is torn or damaged.

Runs in the coordinator, while no reader does. Invariant: what a writer's ``sync`` reported durable is
found or reported as damage, never silently absent; what was not reported is a whole block or cut away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.core.entries import Lost
from collector.core.messages import Block
from collector.errors import DamagedError
from collector.storage.fs import Disk
from collector.storage.journal_survey import Loss, Seen, Survey, surveyed
from collector.storage.segments import (
    BLOCK_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    MappedSegment,
    rewrite_header,
)

QUARANTINE_BYTES: Final = 16 << 20
"""Kept of one torn or damaged place at most."""
TORN_KEPT: Final = 16
"""Newest torn tails that stay in quarantine. Nothing in them was ever accepted: evidence, not data."""

Accept = Callable[[Sequence[Loss], Sequence[str]], None]
"""The operator goes on without what is lost: makes that durable, before anything is changed.

Given the losses and the other faults; there may be faults alone, and then nothing is lost by them.
"""


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
    """After ``after_seq``, durable, contiguous but for those written off."""
    next_seq: int
    """Never one that was lost."""
    next_segment: int
    """Above every number in the folder, free ones included."""
    cut: Cut | None
    last_block: dict[int, int]
    """By segment, ascending: the last block in it. Segments without a block were deleted."""
    free: tuple[int, ...]


def recover(
    disk: Disk,
    folder: Path,
    quarantine: Path,
    *,
    after_seq: int,
    known_durable_seq: int = 0,
    written_off: Sequence[Lost] = (),
    prefix_only: bool = False,
    accept: Accept | None = None,
) -> Recovered:
    """The longest prefix of blocks that checks out; a torn tail goes to ``quarantine``. Idempotent.

    Blocks up to ``after_seq`` may be missing: they are committed. So may those in ``written_off``. With
    ``accept`` all that checks out is kept, behind damage too unless ``prefix_only``. *Blocks* for as long as
    it takes to read the journal once.

    *Raises*: without ``accept``, DamagedError when a block is missing or bad that was durable: a later block
    says so (``synced_seq``), or ``known_durable_seq`` does; or when a segment's header is bad.
    NewerVersionError. Nothing is changed then.
    """
    with surveyed(
        disk,
        folder,
        after_seq=after_seq,
        known_durable_seq=known_durable_seq,
        written_off=written_off,
        prefix_only=prefix_only,
    ) as survey:
        if survey.losses or survey.faults:
            if accept is None:
                raise _damage(survey)
            _put_damage_aside(disk, quarantine, survey)
            accept(survey.losses, survey.faults)
            _repair(disk, survey)
        cut = _cut(disk, quarantine, survey)
        _settle(disk, folder, survey, max(after_seq, known_durable_seq))
        numbers = sorted(number for number, blocks in survey.placed.items() if blocks)
        return Recovered(
            blocks=[_block(at) for at in survey.kept],
            next_seq=survey.last_seq + 1,
            next_segment=max((*survey.listed.used, *survey.listed.free), default=0) + 1,
            cut=cut,
            last_block={number: survey.last_block(number) for number in numbers},
            free=survey.listed.free,
        )


def _block(at: Seen) -> Block:
    return Block(
        seq=at.header.seq,
        segment=at.segment.number,
        offset=at.offset + BLOCK_HEADER_BYTES,
        length=at.header.length,
        records=at.header.records,
        connection=at.header.connection,
        flags=at.header.flags,
        collected_at_us=at.header.collected_at_us,
        held_us=at.header.held_us,
    )


# ---------------------------------------------------------------- torn


def _cut(disk: Disk, quarantine: Path, survey: Survey) -> Cut | None:
    """What was never reported durable is put aside."""
    tails = [
        (segment, survey.tail(segment.number)) for segment in survey.segments if _is_torn(survey, segment)
    ]
    if not tails:
        return None
    kept_bytes = sum(_put_aside(disk, quarantine, segment, tail) for segment, tail in tails)
    old = [name for name in disk.listdir(quarantine) if name.endswith(".torn")][:-TORN_KEPT]
    for name in old:
        disk.unlink(quarantine / name)
    return Cut(tails[0][0].number, tails[0][1], survey.last_seq + 1, kept_bytes)


def _is_torn(survey: Survey, segment: MappedSegment) -> bool:
    if any(at.segment is segment for at in survey.beyond):
        return True
    return segment.number >= survey.newest and segment.began_at(survey.tail(segment.number))


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


def _settle(disk: Disk, folder: Path, survey: Survey, durable_seq: int) -> None:
    """What is there is durable from now on, and segments without a block are gone."""
    for segment in survey.segments:
        last = survey.last_block(segment.number)
        if not last:
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


# ---------------------------------------------------------------- damaged


def _damage(survey: Survey) -> DamagedError:
    what = "; ".join([*survey.faults, *(loss.text for loss in survey.losses)])
    return DamagedError(
        f"{what}. Restore it from a copy: what was in it was accepted and is nowhere else. To go on without"
        " what does not check out, and have that written down: run --accept-journal-loss"
    )


def _put_damage_aside(disk: Disk, quarantine: Path, survey: Survey) -> None:
    """A copy of every place that no block accounts for, before it is recycled or overwritten."""
    for path in survey.unreadable:
        disk.write_file_durably(quarantine / f"{path.stem}-0.damaged", disk.read_file(path))
    for segment in survey.segments:
        for start, end in _unaccounted(survey, segment):
            damaged = segment.bytes_from(start, min(end - start, QUARANTINE_BYTES))
            if damaged:
                disk.write_file_durably(quarantine / f"{segment.number:016d}-{start}.damaged", damaged)


def _unaccounted(survey: Survey, segment: MappedSegment) -> Iterator[tuple[int, int]]:
    if segment.fault:
        yield 0, SEGMENT_HEADER_BYTES
    start = SEGMENT_HEADER_BYTES
    for at in survey.placed[segment.number]:
        if at.offset > start:
            yield start, at.offset
        start = at.end
    if segment.began_at(start) and not _is_torn(survey, segment):  # what is torn has its own way there
        yield start, segment.size_bytes


def _repair(disk: Disk, survey: Survey) -> None:
    """Blocks are judged by the salt alone, so a header is made good where they check out by it."""
    for segment in survey.segments:
        if segment.fault and survey.placed[segment.number]:
            rewrite_header(disk, segment)
    for path in survey.unreadable:
        disk.unlink(path)
