"""What comes over the wire, stage by stage and all together: inflating, framing, decoding."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from pathlib import Path

from fuzzing import DISK, Target, bent, folder
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "decoder"))
from decode_rig import INSTANCE, block_of, judge, rows_of

from collector.core.framing import Framer
from collector.core.messages import Block, BlockFlag
from collector.decoder.decode import Decoded, decode_block
from collector.reader.inflate import _MAX_HEADER_BYTES, PIECE_BYTES, Inflater
from collector.storage.journal import JournalReader, JournalWriter, recover

MAX_RECORD_BYTES = 300
BLOCK_BYTES = 500

HIT = {
    "receivedTimeGMT": 1_795_000_000,
    "hitIdHigh": 2**63,
    "hitIdLow": 2**64 - 1,
    "pageName": "Sidé ☃ 😀",
    "evars": {"evars": {"eVar1": "a", "eVar2": 1.0}},
    "products": [{"name": "hat", "revenue": 5.5, "events": {"1": [{"count": 1.0}]}}],
    "props": {"prop1": "x"},
    "exclude": {"id": 3},
    "hierarchies": {"1": {"delim": 44, "values": "a,b"}},
    "geoDMA": 0,
    "javaEnabled": True,
    "unknown": [None, {"a": "\0"}],
}
HITS = {
    "plain": json.dumps(HIT, ensure_ascii=False).encode(),
    "escaped": json.dumps(HIT).encode(),
    "spaced": json.dumps(HIT, indent=1).replace("\n", " ").encode(),
    "odd-shapes": b'{"exclude":{"id":"3"},"mvvars":{"a":{"m":{"values":["x"],"delim":","}}},'
    b'"tnt":[{"actionId":null}]}',
    "numbers": b'{"hitIdHigh":9007199254740993,"visIdLow":-1,"geoDMA":5.5,'
    b'"products":[{"revenue":1e999,"units":0.1}]}',
    "no-object": b'[{"pageName":"x"}]',
    "surrogates": b'{"pageName":"\\ud800 \\ud83d\\ude00","zip":"\\udb40\\udc67",'
    b'"evars":{"evars":{"a":1,"a":"2"}}}',
    "deep": b'{"x":' + b"[" * 60 + b"]" * 60 + b"}",
}
LINES = {name: line + b"\n" for name, line in HITS.items()} | {"all": b"\r\n".join([*HITS.values(), b""])}

# ---------------------------------------------------------------- inflating


def judge_inflate(data: bytes) -> None:
    """The judge is zlib, member by member."""
    expected, fault_expected = inflated(data)
    for size in (len(data) or 1, 7):
        text, inflater = b"", Inflater()
        for at in range(0, len(data), size):
            inflater.push(data[at : at + size])
            while piece := inflater.pull():
                assert len(piece) <= PIECE_BYTES
                text += piece
            if inflater.fault:
                break
        assert inflater.waiting_bytes == 0
        if "header is longer" in inflater.fault:
            assert len(data) > _MAX_HEADER_BYTES
            return
        assert bool(inflater.fault) == fault_expected or _is_hopeless(data), inflater.fault
        whole = _ends_at_border(data)
        assert inflater.at_border == whole
        if whole:
            assert text == expected
        else:  # how much of a cut member comes out is each one's own affair
            assert expected.startswith(text) or text.startswith(expected)


def _is_hopeless(data: bytes) -> bool:
    """zlib says so later: only once it would need the code that it found not to be whole."""
    return all(inflated(data + tail)[1] for tail in (bytes(400), b"\xff" * 400))


def _members(data: bytes) -> tuple[bytes, bytes, str]:
    text = b""
    while data:
        data = (
            data[:3] + bytes([data[3] & 0x1F]) + data[4:] if len(data) > 3 else data
        )  # isal lets these pass
        member = zlib.decompressobj(31)
        try:
            text += member.decompress(data, 8 << 20)
        except zlib.error as error:
            return text, data, str(error)
        if not member.eof:
            return text, data, ""
        data = member.unused_data
    return text, b"", ""


def inflated(data: bytes) -> tuple[bytes, bool]:
    text, _, error = _members(data)
    return text, bool(error)


def _ends_at_border(data: bytes) -> bool:
    """Whole members, or none."""
    return not _members(data)[1]


def with_name(data: bytes) -> bytes:
    return (
        b"\x1f\x8b\x08\x1c"
        + bytes(6)
        + b"\x03\x00abc"
        + b"name\0comment\0"
        + gzip.compress(data, mtime=0)[10:]
    )


TEXT = LINES["all"]
GZIPS = {
    "one-member": gzip.compress(TEXT, mtime=0),
    "members": b"".join(gzip.compress(line, mtime=0) for line in LINES.values()),
    "empty-members": gzip.compress(b"", mtime=0) * 3 + gzip.compress(TEXT, mtime=0),
    "stored": gzip.compress(TEXT, 0, mtime=0),
    "with-name": with_name(TEXT),
    "zeros": gzip.compress(bytes(600_000), mtime=0),
    "gzip-in-gzip": gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0),
}

# ---------------------------------------------------------------- framing


def judge_framing(data: bytes) -> None:
    """The judge is a plain split; the first byte says how the text comes in pieces."""
    size, text = (data[0] + 1 if data else 1), data[1:]
    framer = Framer(MAX_RECORD_BYTES, BLOCK_BYTES)
    frames = []
    for at in range(0, len(text), size):
        frames += framer.feed(text[at : at + size])
        assert framer.bytes_in_hand <= BLOCK_BYTES + MAX_RECORD_BYTES + size + 1
    last = framer.finish(last_is_record=False)
    found = [record for frame in [*frames, *last.frames] for record in _records(frame)]
    *lines, cut = text.split(b"\n")
    records = [line.removesuffix(b"\r") for line in lines]
    expected = [(record[: 1 << 20], len(record)) for record in records if record]
    assert found == expected
    assert last.cut_bytes == len(cut)


def _records(frame) -> list[tuple[bytes, int]]:
    if frame.oversized is not None:
        assert frame.oversized.length > MAX_RECORD_BYTES
        return [(frame.oversized.head, frame.oversized.length)]
    lines = frame.payload.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == frame.records
    assert max(map(len, lines)) <= MAX_RECORD_BYTES
    return [(line, len(line)) for line in lines]


TEXTS = {name: b"\x40" + line for name, line in LINES.items()} | {
    "line-ends": b"\x00\n\r\n\r\r\n{}\n\n\r",
    "oversized": b"\x10" + b"x" * 700 + b"\r\n{}\n" + b"y" * 301 + b"\n" + b"z" * 300 + b"\r\n",
}

# ---------------------------------------------------------------- decoding


def judge_decode(data: bytes) -> None:
    """The judge is the reference decoder; the last line may lack its end, and empty lines are no records."""
    lines = [line for line in data.split(b"\n") if line]
    payload, block = block_of(lines)
    view = memoryview(payload)
    found = decode_block(view, block, instance=INSTANCE)
    view.release()
    judge(lines, found)


# ---------------------------------------------------------------- all together


def judge_lot(data: bytes) -> None:
    """From the bytes of the wire to rows: every whole record before the fault is one row or one reject."""
    inflater, framer = Inflater(), Framer(1 << 20, 2000)
    with folder() as root:
        writer = JournalWriter(DISK, root, next_seq=1, segment_bytes=4 << 20)
        writer.add_segment(1)
        text = b""
        inflater.push(data)
        while piece := inflater.pull():
            text += piece
            _append(writer, framer.feed(piece))
        _append(writer, framer.finish(last_is_record=False).frames)
        writer.sync()
        writer.close()
        quarantine = root / "quarantine"
        quarantine.mkdir()
        blocks = recover(DISK, root, quarantine, after_seq=0).blocks
        expected = [line.removesuffix(b"\r") for line in text.split(b"\n")[:-1]]
        _judge_blocks(root, blocks, [line for line in expected if line])


def _append(writer: JournalWriter, frames) -> None:
    for frame in frames:
        flags = BlockFlag.OVERSIZED if frame.oversized else BlockFlag.NONE
        for number in (2, 3):
            block = writer.append(
                frame.payload,
                records=frame.records,
                connection=1,
                flags=flags,
                collected_at_us=1_795_000_000_000_000,
                held_us=0,
            )
            if block is not None:
                break
            writer.add_segment(number)
        assert block is not None


def _judge_blocks(root: Path, blocks: list[Block], expected: list[bytes]) -> None:
    reader = JournalReader(root, DISK)
    for block in blocks:
        view = reader.payload(block)
        found: Decoded = decode_block(view, block, instance=INSTANCE)
        view.release()
        mine, expected = expected[: block.records], expected[block.records :]
        if block.flags & BlockFlag.OVERSIZED:
            assert found.rejects[0].raw == mine[0][: 1 << 20]
            continue
        judge(mine, found)
        assert len(rows_of(found)) + len(found.rejects) == block.records
    assert expected == []


def _members_of(lines: list[bytes]) -> bytes:
    return b"".join(gzip.compress(line, mtime=0) for line in lines)


WIRES = {name: data for name, data in GZIPS.items() if name != "zeros"} | {
    "oversized": gzip.compress(b"{}\n" + bytes(1 << 20) + b"\xff\n{}\n", mtime=0)
}
TARGETS = [
    Target("inflate", judge_inflate, GZIPS, bent(list(GZIPS.values())), everyday=300),
    Target("framing", judge_framing, TEXTS, bent(list(TEXTS.values())), everyday=400),
    Target("decode", judge_decode, LINES, bent(list(LINES.values()), 8), everyday=500),
    Target(
        "lot",
        judge_lot,
        WIRES,
        bent(list(WIRES.values()), 3) | st.lists(bent(list(LINES.values())), max_size=4).map(_members_of),
        everyday=240,
    ),
]
