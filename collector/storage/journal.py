"""The journal: blocks written once, made durable, read in place.

``JournalWriter`` runs in the reader, ``JournalReader`` in the decoders. Invariant: blocks are durable
in the order of their seq, so that what ``sync`` reported is always a prefix of what was appended.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from collector.core.messages import Block
from collector.errors import StorageError
from collector.storage.fs import DISK, Bytes, Disk
from collector.storage.journal_recovery import Cut, Recovered, recover
from collector.storage.segments import (
    BLOCK_HEADER_BYTES,
    END_OF_BLOCKS,
    SEGMENT_HEADER_BYTES,
    BlockHeader,
    MappedSegment,
    OpenSegment,
    delete_free,
    free_name,
    free_segment,
    make_segment,
    pack_block,
    segment_name,
    space_of,
)

__all__ = [
    "SEGMENT_BYTES",
    "Cut",
    "JournalReader",
    "JournalWriter",
    "Recovered",
    "delete_free",
    "free_name",
    "free_segment",
    "recover",
]

SEGMENT_BYTES: Final = 64 << 20


class JournalWriter:
    """Appends blocks to the segments it is given.

    ``append`` and ``add_segment`` belong to one thread; ``sync`` may run in a second one meanwhile.
    """

    def __init__(
        self, disk: Disk, folder: Path, *, next_seq: int, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._spare: OpenSegment | None = None
        self._lock = threading.Lock()  # over what follows; never held during a disk call
        self._open: list[OpenSegment] = []
        self._written_seq = next_seq - 1
        self._durable_seq = next_seq - 1
        self._failed = False

    @property
    def wants_segment(self) -> bool:
        """There is no spare segment."""
        return self._spare is None

    def add_segment(self, number: int, recycled: str = "") -> None:
        """Make the spare segment. *Blocks* for two syncs. *Raises* NoSpaceError: it was not made."""
        if self._spare is not None:
            raise StorageError(f"segment {number} was added while segment {self._spare.number} is spare")
        self._spare = make_segment(self._disk, self._folder, number, self._segment_bytes, recycled)

    def append(
        self,
        payload: Bytes,
        *,
        records: int,
        connection: int,
        flags: int,
        collected_at_us: int,
        held_us: int,
    ) -> Block | None:
        """Write one block; durable once ``sync`` says so. ``None``: no room until a segment is added.

        A block larger than a segment turns the spare one into one of its size.

        *Raises*: NoSpaceError: nothing was appended, try again later.
        """
        self._check()
        length = memoryview(payload).nbytes
        segment = self._segment_with_room(length)
        if segment is None:
            return None
        with self._lock:
            seq, durable_seq = self._written_seq + 1, self._durable_seq
        header = BlockHeader(seq, connection, flags, length, records, collected_at_us, held_us, durable_seq)
        start, end = segment.tail, segment.tail + space_of(length)
        after = bytes(-length % 8) + END_OF_BLOCKS[: segment.size_bytes - end]
        self._disk.pwritev_all(segment.fd, [pack_block(header, payload, segment.seed), payload, after], start)
        with self._lock:
            segment.tail = end
            segment.dirty = True
            self._written_seq = seq
        return Block(
            seq=seq,
            segment=segment.number,
            offset=start + BLOCK_HEADER_BYTES,
            length=length,
            records=records,
            connection=connection,
            flags=flags,
            collected_at_us=collected_at_us,
            held_us=held_us,
        )

    def _segment_with_room(self, length: int) -> OpenSegment | None:
        if self._open and self._open[-1].has_room(length):
            return self._open[-1]
        if self._spare is None:
            return None
        if not self._spare.has_room(length):
            self._widen_spare(length)
        with self._lock:
            self._open.append(self._spare)
        self._spare = None
        return self._open[-1]

    def _widen_spare(self, length: int) -> None:
        """A segment's header never changes, so the spare one is made again, under its own number."""
        small = self._spare
        assert small is not None  # noqa: S101 - the caller looked
        size_bytes = SEGMENT_HEADER_BYTES + space_of(length)
        path = self._folder / segment_name(small.number)
        self._disk.rename(path, self._folder / free_name(small.number))
        self._disk.close(small.fd)
        self._spare = None
        self._spare = make_segment(
            self._disk, self._folder, small.number, size_bytes, free_name(small.number)
        )

    def sync(self) -> int:
        """Make everything appended before this call durable; gives the last durable seq.

        *Blocks* for one fdatasync per segment written to. *Raises* StorageError: the journal is
        unusable from now on, since a second sync of the same descriptor would prove nothing.
        """
        self._check()
        with self._lock:
            target = self._written_seq
            dirty = [segment for segment in self._open if segment.dirty]
            for segment in dirty:
                segment.dirty = False
        try:
            for segment in dirty:  # oldest first: a block counts only when all before it are durable
                self._disk.fdatasync(segment.fd)
        except BaseException:
            self._failed = True
            raise
        with self._lock:
            self._durable_seq = target
            full = [segment for segment in self._open[:-1] if not segment.dirty]
            self._open = [segment for segment in self._open if segment not in full]
        for segment in full:
            self._disk.close(segment.fd)
        return target

    def _check(self) -> None:
        if self._failed:
            raise StorageError(f"the journal in {self._folder} failed to sync before; restart the collector")

    def close(self) -> None:
        """Without a sync."""
        for segment in [*self._open, *filter(None, [self._spare])]:
            self._disk.close(segment.fd)
        self._open, self._spare = [], None


class JournalReader:
    """Payloads of durable blocks in place, also while their segment is still being written."""

    def __init__(self, folder: Path, disk: Disk = DISK) -> None:
        self._folder = folder
        self._disk = disk
        self._segments: dict[int, MappedSegment] = {}

    def payload(self, block: Block) -> memoryview:
        """Read-only, valid until released whatever becomes of the segment; never a copy.

        *Blocks* for the disk, if it is not in memory.
        """
        segment = self._segments.get(block.segment)
        if segment is None:
            segment = MappedSegment(self._disk, self._folder, block.segment)
            self._segments[block.segment] = segment
        segment.load(block.offset, block.length)
        return segment.view(block.offset, block.length)

    def release(self, segment: int) -> None:
        """Drop the mapping; it goes once its last payload is released."""
        self._segments.pop(segment, None)
