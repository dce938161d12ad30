"""The rules of cutting a stream into records, under every split."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from collector.core.framing import HEAD_BYTES, Frame, Framer
from collector.core.messages import Oversized

Record = bytes | tuple[int, bytes]

TEXT = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"{}", b"0123456789", b"\x00", "é".encode(), b"\n\n\r\n"]),
    max_size=60,
).map(b"".join)


def reference(text: bytes, max_record_bytes: int, *, last_is_record: bool = False) -> list[Record]:
    """The rule, one line at a time."""
    *lines, last = text.split(b"\n")
    if last_is_record:
        lines.append(last)
    stripped = [line.removesuffix(b"\r") for line in lines]
    return [
        line if len(line) <= max_record_bytes else (len(line), hashlib.sha256(line).digest())
        for line in stripped
        if line
    ]


def records_of(frames: list[Frame]) -> list[Record]:
    found: list[Record] = []
    for frame in frames:
        if frame.oversized is not None:
            assert frame.records == 1
            assert msgspec.msgpack.decode(frame.payload, type=Oversized) == frame.oversized
            found.append((frame.oversized.length, frame.oversized.sha256))
            continue
        assert frame.payload.endswith(b"\n")
        lines = frame.payload.split(b"\n")[:-1]
        assert len(lines) == frame.records > 0
        found += lines
    return found


def pieces_of(text: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(borders)]


@given(
    text=TEXT,
    cuts=st.lists(st.integers(0, 200), max_size=20),
    seals=st.sets(st.integers(0, 20)),
    max_record_bytes=st.integers(1, 30),
    block_bytes=st.integers(1, 60),
    last_is_record=st.booleans(),
)
def test_any_split_gives_the_same_records(
    text: bytes,
    cuts: list[int],
    seals: set[int],
    max_record_bytes: int,
    block_bytes: int,
    last_is_record: bool,
) -> None:
    """Splits, seals and limits never change the records, their order, or what was cut."""
    framer = Framer(max_record_bytes, block_bytes)
    frames: list[Frame] = []
    for number, piece in enumerate(pieces_of(text, cuts)):
        frames += framer.feed(piece)
        sealed = framer.seal() if number in seals else None
        frames += [sealed] if sealed else []
    finished = framer.finish(last_is_record=last_is_record)
    frames += finished.frames
    assert records_of(frames) == reference(text, max_record_bytes, last_is_record=last_is_record)
    cut = 0 if last_is_record else len(text) - text.rfind(b"\n") - 1
    assert finished.cut_bytes == cut


def test_a_line_without_its_end_is_never_sealed() -> None:
    """A cut last record stays in hand until its line end comes."""
    framer = Framer(100)
    assert framer.feed(b'{"a":1}\r\n{"b"') == []
    assert framer.seal() == Frame(b'{"a":1}\n', 1)
    assert framer.seal() is None
    framer.feed(b":2}\n")
    assert framer.seal() == Frame(b'{"b":2}\n', 1)


def test_one_cr_is_dropped_and_no_other() -> None:
    """Only the CR that belongs to the line end goes, also when a split stands between the two."""
    framer = Framer(100)
    for piece in (b"a\r\r", b"\nb\rc\r\n\r", b"\n\r\r\n"):
        framer.feed(piece)
    assert framer.seal() == Frame(b"a\r\nb\rc\n\r\n", 3)


def test_empty_lines_are_no_records() -> None:
    """A stream of bare line ends makes no frame, however many they are."""
    framer = Framer(100, block_bytes=10)
    assert framer.feed(b"\r\n" * 1000 + b"\n" * 1000) == []
    assert framer.seal() is None
    assert framer.bytes_in_hand == 0


def test_a_frame_closes_at_its_size() -> None:
    """Frames come out when they hold the block size, and the rest starts the next one."""
    framer = Framer(1000, block_bytes=100)
    assert framer.feed(b"x" * 60 + b"\n") == []
    (frame,) = framer.feed(b"y" * 60 + b"\n" + b"cut")
    assert frame == Frame(b"x" * 60 + b"\n" + b"y" * 60 + b"\n", 2)
    assert framer.records_in_hand == 0


def test_an_oversized_record_keeps_its_head_and_its_place() -> None:
    """Of a record over the limit the first MiB is kept, all is hashed and counted, its neighbours stay."""
    framer = Framer(2 * HEAD_BYTES, block_bytes=100)
    big = bytes(range(65, 91)) * (3 * HEAD_BYTES // 26)
    text = b"before\r\n" + big + b"\r\nafter\r\n"
    frames: list[Frame] = []
    held = 0
    for begin in range(0, len(text), 100_000):
        frames += framer.feed(text[begin : begin + 100_000])
        held = max(held, framer.bytes_in_hand)
    frames += framer.finish(last_is_record=False).frames
    assert [frame.payload for frame in frames[::2]] == [b"before\n", b"after\n"]
    assert frames[1].oversized == Oversized(big[:HEAD_BYTES], len(big), hashlib.sha256(big).digest())
    assert held <= 2 * HEAD_BYTES + 100_000


def test_a_cut_oversized_record_is_no_record() -> None:
    """A record that is too long already but has no end yet is counted as cut."""
    framer = Framer(10)
    framer.feed(b"a\n" + b"x" * 50 + b"\r")
    finished = framer.finish(last_is_record=False)
    assert (records_of(finished.frames), finished.cut_bytes) == ([], 51)
