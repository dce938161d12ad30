"""Blocks decoded by both twins, and hits bent so that somebody has to refuse them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from decode_rig import decoded, decoder

from collector.decoder.decode import Decoded
from collector.simulator.hits import Hits

SAMPLE = Path(__file__).parents[1] / "data" / "hits-sample.jsonl"


def sample_lines() -> list[bytes]:
    return [line for line in SAMPLE.read_bytes().split(b"\r\n") if line]


def simulated_lines(count: int, seed: int = 3) -> list[bytes]:
    return Hits(seed).lines(0, count)


def agree(lines: Sequence[bytes]) -> Decoded:
    """Both twins give the same of a block, to the bit. Gives what the kernel makes of it."""
    plain, kernel = (decoded(*lines, by=decoder(twin)) for twin in ("plain", "kernel"))
    assert kernel.rejects == plain.rejects
    for name in ("lines", "high", "low", "has_id", "hours"):
        ours, theirs = getattr(kernel, name), getattr(plain, name)
        if name in {"high", "low"}:
            ours, theirs = ours[kernel.has_id], theirs[plain.has_id]
        assert ours.tolist() == theirs.tolist(), name
        assert not len(ours) or ours.dtype == theirs.dtype, name
    for ours, theirs in zip(kernel.batches, plain.batches, strict=True):
        ours.validate(full=True)
        agree_rows(ours, theirs, [lines[number] for number in kernel.lines])
    return kernel


def agree_rows(ours: pa.RecordBatch, theirs: pa.RecordBatch, lines: Sequence[bytes]) -> None:
    assert ours.schema == theirs.schema
    for name in ours.schema.names:
        mine, other = (bits(batch.column(name)) for batch in (ours, theirs))
        if not mine.equals(other):
            row = next(n for n in range(len(mine)) if not mine[n].equals(other[n]))
            raise AssertionError(f"{name}: kernel {mine[row]}, plain {other[row]}, line {lines[row]!r}")


def bits(column: pa.Array) -> pa.Array:
    """Floating-point numbers as what they are made of: to Arrow 0.0 and -0.0 are equal."""
    return column.view(_as_integers(column.type))


def _as_integers(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_float64(kind):
        return pa.int64()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_integers(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_as_integers(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, kind.item_field.with_type(_as_integers(kind.item_type)))
    return kind


# ---------------------------------------------------------------- bending

NUMBER = re.compile(rb"(?<=[:\[,])-?\d+(?:\.\d+)?(?=[,}\]])")
NUMBERS = b"""0 -0 -0.0 1.0 1e3 1E+2 0e5 0.1 5e-324 1e400 01 1. .1 1e22 1e23 12345678901234567890123
    18446744073709551615 18446744073709551616 9223372036854775807 9223372036854775808 -9223372036854775808
    -9223372036854775809 9007199254740993 9007199254740993.0 0.30000000000000004 7.174648137343064e-43
    0.1000000000000000055511151231257827 2.2250738585072014e-308 -1 null "5" true [] {} 1e3x""".split()
PIECES = rb"""\u0041 \ud83d\ude00 \udb40\udc67 \ud800 \udc00\ud800 \u0000 \/ \b \x \u12 " \ { } [ ] , :
    null true nul 1 - 0 .5 e3 "a":1, "extra":{"a":"1"}, "zip":"1", "zip": ,"zip":"1"
    "zip":null [[[[[ {"a":{"a": "", {},
    """.split()
BYTES = [b"\xff", b"\xc3\xa9", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xf4\x90\x80\x80"]
BYTES += [b"\t", b"\r", b" ", b"\x00", b"\x1f", b"\x7f", b"\xef\xbb\xbf"]


def flip(chance: random.Random, line: bytes, at: int) -> bytes:
    return line[:at] + bytes([line[at] ^ 1 << chance.randrange(8)]) + line[at + 1 :]


def delete(chance: random.Random, line: bytes, at: int) -> bytes:
    return line[:at] + line[at + chance.choice([1, 1, 1, 2, 5, 30]) :]


def insert(chance: random.Random, line: bytes, at: int) -> bytes:
    return line[:at] + chance.choice(PIECES + BYTES) + line[at:]


def swap(_chance: random.Random, line: bytes, at: int) -> bytes:
    return line[:at] + line[at : at + 2][::-1] + line[at + 2 :]


def repeat(chance: random.Random, line: bytes, at: int) -> bytes:
    return line[:at] + line[at : at + chance.randrange(60)] + line[at:]


def renumber(chance: random.Random, line: bytes, at: int) -> bytes:
    found = NUMBER.search(line, at) or NUMBER.search(line)
    return line[: found.start()] + chance.choice(NUMBERS) + line[found.end() :] if found else line


def cut(_chance: random.Random, line: bytes, at: int) -> bytes:
    return line[:at]


BENDS: tuple[Callable[[random.Random, bytes, int], bytes], ...] = (
    *(flip, delete, insert, insert, swap, repeat, renumber, renumber),
)


def bent(chance: random.Random, line: bytes) -> bytes:
    """One record still: no line end gets into it."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        bend = cut if chance.random() < 0.02 else chance.choice(BENDS)
        line = bend(chance, line, chance.randrange(len(line))) if line else line
    return line.replace(b"\n", b" ")
