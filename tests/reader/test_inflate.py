"""The rules of inflating, under every split and member border."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.framing import Framer
from collector.reader.inflate import PIECE_BYTES, Inflater, header_bytes
from collector.reader.intake import Intake

TEXTS = st.lists(st.binary(max_size=300), max_size=6)


def member(
    text: bytes, *, extra: bool = False, name: bool = False, comment: bool = False, crc: bool = False
) -> bytes:
    """A gzip member with any of the header fields there are."""
    flags = 4 * extra | 8 * name | 16 * comment | 2 * crc
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\3"
    header += b"\4\0abcd" * extra + b"name\0" * name + b"comment\0" * comment
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") * crc
    return header + gzip.compress(text)[10:]


def inflate(pieces: list[bytes]) -> tuple[bytes, Inflater]:
    inflater = Inflater()
    text = b""
    for raw in pieces:
        inflater.push(raw)
        while piece := inflater.pull():
            assert len(piece) <= PIECE_BYTES
            text += piece
        assert not inflater.pending
    return text, inflater


def split(raw: bytes, size: int) -> list[bytes]:
    return [raw[begin : begin + size] for begin in range(0, len(raw), size)]


@given(
    texts=TEXTS, fields=st.lists(st.booleans(), min_size=24, max_size=24), cuts=st.lists(st.integers(0, 3000))
)
def test_any_split_of_any_members_gives_the_same_text(
    texts: list[bytes], fields: list[bool], cuts: list[int]
) -> None:
    """Members of every header shape, empty ones too, come out as one text however the bytes are split."""
    raw = b"".join(
        member(text, extra=a, name=b, comment=c, crc=d)
        for text, a, b, c, d in zip(
            texts, fields[::4], fields[1::4], fields[2::4], fields[3::4], strict=False
        )
    )
    borders = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    text, inflater = inflate([raw[a:b] for a, b in pairwise(borders)])
    assert (text, inflater.fault, inflater.at_border) == (b"".join(texts), "", True)


def test_a_cut_at_any_byte_is_no_border() -> None:
    """Only the end of a member counts as a clean end; a cut inside one is never mistaken for it."""
    first, second = member(b"a" * 100), member(b"b" * 100, name=True)
    raw = first + second
    clean = {0, len(first), len(raw)}
    for cut in range(len(raw) + 1):
        _, inflater = inflate([raw[:cut]])
        assert (inflater.fault, inflater.at_border) == ("", cut in clean), cut


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"<html>busy</html>", "not gzip"),
        (b"\x1f\x8bx", "not gzip"),
        (gzip.compress(b"x" * 500, mtime=0)[:-8] + bytes(8), "checksum"),
        (gzip.compress(b"x" * 500, mtime=0)[:-4] + bytes(4), "checksum"),
        (gzip.compress(b"x" * 500, mtime=0)[:10] + b"\xff" * 100, "damaged"),
        (gzip.compress(b"x" * 500, mtime=0) + b"trailing", "after gzip member 1"),
        (gzip.compress(b"x" * 500, mtime=0) + bytes(20), "after gzip member 1"),
        (b"\x1f\x8b\x08\x08\0\0\0\0\0\3" + b"n" * 100_000, "header is longer"),
    ],
)
def test_bad_gzip_is_a_reason_in_words(raw: bytes, reason: str, size: int) -> None:
    """A bad checksum, a damaged block, no gzip at all, bytes after the end: said, not raised."""
    _, inflater = inflate(split(raw, size))
    assert reason in inflater.fault
    assert not inflater.at_border


def test_text_before_the_damage_is_given() -> None:
    """What could be inflated before the fault is not lost."""
    text, inflater = inflate([gzip.compress(b"whole") + b"junk"])
    assert text == b"whole"
    assert inflater.fault


def test_nothing_is_inflated_before_it_is_asked_for() -> None:
    """100 MiB behind 100 KB come piece by piece; the taker may stop anywhere and go on later."""
    inflater = Inflater()
    inflater.push(gzip.compress(bytes(100 * 1024 * 1024), 9))
    sizes = []
    while piece := inflater.pull():
        sizes.append(len(piece))
    assert sum(sizes) == 100 * 1024 * 1024
    assert max(sizes) <= PIECE_BYTES
    assert inflater.at_border


def test_gzip_in_gzip_is_inflated_once() -> None:
    """The inner gzip is text like any other."""
    inner = gzip.compress(b"inner")
    assert inflate([gzip.compress(inner)])[0] == inner


def test_header_length() -> None:
    """A header is whole only with its last byte."""
    whole = member(b"", extra=True, name=True, comment=True, crc=True)[: 10 + 6 + 5 + 8 + 2]
    assert header_bytes(whole) == len(whole)
    assert all(header_bytes(whole[:n]) == 0 for n in range(len(whole)))


def test_one_turn_takes_a_bounded_amount_of_text() -> None:
    """However much a few bytes become: between two looks at the clock it is at most 4 MiB."""
    taken = []

    class Counting(Inflater):
        def pull(self) -> bytes:
            piece = super().pull()
            taken.append(len(piece))
            return piece

    text = Counting()
    intake = Intake(text, Framer(1 << 20), _never, _never, seal_interval_s=1.0)
    text.push(gzip.compress(b"\n" * (64 << 20)))
    intake.pump(0.0, lambda: True)
    assert 0 < sum(taken) <= 4 << 20
    assert intake.deadline == 0.0, "the rest is next"


def _never(*_: object) -> Any:
    raise AssertionError
