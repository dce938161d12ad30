"""Hits on their way to a decoder, by the product's own code: inflated, then framed into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from collector.core.framing import Frame, Framer
from collector.core.messages import Block
from collector.reader.inflate import PIECE_BYTES, Inflater

RECEIVED_BYTES: Final = 16 * 1024
"""What curl hands over at a time where the stream comes over TLS: one record of it (RFC 8446, 5.1)."""

MAX_RECORD_BYTES: Final = 16 << 20
COLLECTED_AT_US: Final = 1_795_000_060_000_000
"""A minute after the first hit of the simulator's timeline."""


class Payload(NamedTuple):
    """A block and its bytes, which stand nowhere but in memory."""

    block: Block
    payload: bytes


def inflated(raw: bytes) -> Iterator[bytes]:
    """The text of whole gzip members, piece by piece."""
    inflater = Inflater()
    for begin in range(0, len(raw), RECEIVED_BYTES):
        inflater.push(raw[begin : begin + RECEIVED_BYTES])
        while piece := inflater.pull():
            yield piece
    if not inflater.at_border:
        raise ValueError(inflater.fault or "the last gzip member was cut")


def framed(pieces: Iterable[bytes]) -> Iterator[Frame]:
    framer = Framer(MAX_RECORD_BYTES)
    for piece in pieces:
        yield from framer.feed(piece)
    yield from framer.finish(last_is_record=True).frames


def blocks_of(frames: Iterable[Frame]) -> list[Payload]:
    return [
        Payload(
            Block(seq, 1, 0, len(frame.payload), frame.records, 1, 0, COLLECTED_AT_US, seq * 1_000_000),
            frame.payload,
        )
        for seq, frame in enumerate(frames, 1)
    ]


def blocks_of_lines(lines: Sequence[bytes]) -> list[Payload]:
    text = b"\n".join([*lines, b""])
    return blocks_of(framed(text[begin : begin + PIECE_BYTES] for begin in range(0, len(text), PIECE_BYTES)))
