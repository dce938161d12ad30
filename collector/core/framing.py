"""Cuts the inflated text of a stream into whole records and collects them into frames.

Pure; used by the reader. The invariant: whatever the splits of the text, the frames hold exactly
its non-empty lines, in order, each ended by one LF, and never a line whose end has not been seen.
A record is copied once, into its frame, but for one that a split cuts.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Final

import msgspec

from collector.core.messages import Oversized

BLOCK_BYTES: Final = 2 * 1024 * 1024
"""A frame is closed when it holds this much.

Source: half of it costs all processes together 1.0 us a hit more, twice of it nothing less.
"""

HEAD_BYTES: Final = 1024 * 1024
"""What is kept of an oversized record."""

_CR: Final = ord("\r")


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """The payload of one block."""

    payload: bytes
    """Shape: ``records`` lines, each ended by one LF; of an oversized record ``oversized`` as msgpack."""
    records: int
    oversized: Oversized | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """What was left when the text ended."""

    frames: list[Frame]
    cut_bytes: int
    """Of the line whose end never came."""


class _OversizedRecord:
    """A record too long to keep: its head, and the length and hash of all of it."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._hash = hashlib.sha256()
        self._length = 0
        self._held_cr = False

    def add(self, data: bytes) -> None:
        """A CR that comes last is held back: it may belong to the line end."""
        if not data:
            return
        if self._held_cr:
            self._take(b"\r")
        self._held_cr = data.endswith(b"\r")
        self._take(data[:-1] if self._held_cr else data)

    def _take(self, data: bytes) -> None:
        self._head += data[: HEAD_BYTES - len(self._head)]
        self._hash.update(data)
        self._length += len(data)

    @property
    def bytes_seen(self) -> int:
        return self._length + self._held_cr

    def frame(self) -> Frame:
        kept = Oversized(bytes(self._head), self._length, self._hash.digest())
        return Frame(msgspec.msgpack.encode(kept), 1, kept)


class Framer:
    """Text in, frames out.

    Lines end at LF, one CR before it is dropped, empty lines are signs of life and no records. A
    record longer than ``max_record_bytes`` (without its line end) becomes a frame of its own.
    """

    def __init__(self, max_record_bytes: int, block_bytes: int = BLOCK_BYTES) -> None:
        self._max_record_bytes = max_record_bytes
        self._block_bytes = block_bytes
        self._tail = bytearray()
        self._oversized: _OversizedRecord | None = None
        self._whole: list[bytes | memoryview] = []
        self._whole_bytes = 0
        self._done: list[Frame] = []

    @property
    def records_in_hand(self) -> int:
        """Whole records that no frame holds yet."""
        return len(self._whole)

    @property
    def bytes_in_hand(self) -> int:
        """Of these records and of the cut line; the texts that hold the records may be larger."""
        return self._whole_bytes + len(self._tail)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes.

        *Shape*: each holds at least ``block_bytes``, or an oversized record comes next, or is in it;
        at most ``block_bytes`` and the lines that end in one ``data``.

        *Source*: of a 3 KB record this takes 0.9 us, the copy included; with lines that are copies of
        their own 1.2, and one search for a two-byte line end alone 2.4.
        """
        view, find = memoryview(data), data.find
        begin, end = 0, find(b"\n")
        records: list[bytes | memoryview] = []
        if end >= 0 and (self._tail or self._oversized is not None):
            records = self._end_tail(data[:end])
            begin, end = end + 1, find(b"\n", end + 1)
        while end >= 0:
            stop = end - 1 if data[end - 1] == _CR else end
            if stop > begin:
                records.append(view[begin:stop])
            begin, end = end + 1, find(b"\n", end + 1)
        self._add_records(records)
        self._add_tail(data[begin:])
        return self._take_done()

    def seal(self) -> Frame | None:
        """All whole records in hand, so that they need not wait for more."""
        self._close_frame()
        return self._done.pop() if self._done else None

    def finish(self, *, last_is_record: bool) -> Finished:
        """The text has ended. A last line without line end is a record of a file, never of a stream."""
        cut_bytes = self._oversized.bytes_seen if self._oversized else len(self._tail)
        frames: list[Frame] = []
        if last_is_record and cut_bytes:
            frames = self.feed(b"\n")
            cut_bytes = 0
        self._close_frame()
        return Finished(frames + self._take_done(), cut_bytes)

    def _end_tail(self, data: bytes) -> list[bytes | memoryview]:
        """``data`` ends the line in hand, which is a record or none."""
        if self._oversized is not None:
            self._oversized.add(data)
            self._done.append(self._oversized.frame())
            self._oversized = None
            return []
        record = b"".join((self._tail, data)).removesuffix(b"\r")
        self._tail.clear()
        return [record] if record else []

    def _add_tail(self, data: bytes) -> None:
        if self._oversized is not None:
            self._oversized.add(data)
            return
        self._tail += data
        # One more: the last byte may be the CR of the line end.
        if len(self._tail) > self._max_record_bytes + 1:
            self._close_frame()
            self._oversized = _OversizedRecord()
            self._oversized.add(bytes(self._tail))
            self._tail.clear()

    def _add_records(self, records: list[bytes | memoryview]) -> None:
        lengths = [*map(len, records)]
        if records and max(lengths) > self._max_record_bytes:
            self._add_around_oversized(records)
            return
        self._whole += records
        self._whole_bytes += sum(lengths) + len(records)
        if self._whole_bytes >= self._block_bytes:
            self._close_frame()

    def _add_around_oversized(self, records: list[bytes | memoryview]) -> None:
        """Rare, so it may take them one by one."""
        for record in records:
            if len(record) <= self._max_record_bytes:
                self._add_records([record])
                continue
            self._close_frame()
            oversized = _OversizedRecord()
            oversized.add(bytes(record) + b"\r")  # which is held back, and the record's own last CR is not
            self._done.append(oversized.frame())

    def _close_frame(self) -> None:
        if not self._whole:
            return
        records = len(self._whole)
        self._whole.append(b"")
        self._done.append(Frame(b"\n".join(self._whole), records))
        self._whole.clear()
        self._whole_bytes = 0

    def _take_done(self) -> list[Frame]:
        done, self._done = self._done, []
        return done
