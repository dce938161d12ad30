"""Blocks made by hand, and their rows as the reference writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from collector.core.messages import Block, BlockFlag
from collector.decoder.decode import BlockDecoder, Decoded
from collector.decoder.kernel.library import absence
from collector.decoder.kernel.rows import KernelRows
from collector.decoder.plain import PlainRows
from collector.decoder.rows import OpenRows
from collector.decoder.strict import Degree
from tests import reference

INSTANCE = "00112233445566ff"
COLLECTED_AT_US = 1_795_000_060_123_456

TWINS: dict[str, Callable[[], OpenRows]] = {"plain": PlainRows, "kernel": KernelRows}
_at_work = ["plain"]


@contextmanager
def decoding_by(twin: str) -> Iterator[None]:
    """``decoder`` and ``decoded`` are of this twin."""
    _at_work.append(twin)
    yield
    _at_work.pop()


def decoder(twin: str | None = None) -> BlockDecoder:
    return BlockDecoder(INSTANCE, TWINS[twin or _at_work[-1]]())


def need_kernel() -> None:
    """Where there is no compiler, tests of the kernel are skipped; in CI there is one."""
    if why := absence():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no kernel: {why}")


def block_of(
    lines: Sequence[bytes],
    seq: int = 7,
    flags: BlockFlag = BlockFlag.NONE,
    collected_at_us: int = COLLECTED_AT_US,
) -> tuple[bytes, Block]:
    payload = b"".join(line + b"\n" for line in lines)
    return payload, Block(seq, 1, 4160, len(payload), len(lines), 1, flags, collected_at_us, 0)


def decoded(
    *lines: bytes,
    seq: int = 7,
    flags: BlockFlag = BlockFlag.NONE,
    degree: Degree = Degree.USUAL,
    collected_at_us: int = COLLECTED_AT_US,
    by: BlockDecoder | None = None,
) -> Decoded:
    payload, block = block_of(lines, seq, flags, collected_at_us)
    view = memoryview(payload)
    found = (by or decoder()).decode(view, block, degree=degree)
    view.release()  # raises if anything still holds the payload
    return found


def rows_of(found: Decoded) -> list[dict]:
    return [row for batch in found.batches for row in batch.to_pylist()]


def judge(lines: Sequence[bytes], found: Decoded) -> None:
    """Every record is the row the reference makes of it, or a reject where the reference makes none."""
    expected = [reference.decode(line) for line in lines]
    assert found.records == len(lines)
    assert [reject.line for reject in found.rejects] == [n for n, row in enumerate(expected) if row is None]
    assert [reject.raw for reject in found.rejects] == [lines[reject.line] for reject in found.rejects]
    assert found.lines.tolist() == [n for n, row in enumerate(expected) if row is not None]
    for number, row in zip(found.lines.tolist(), rows_of(found), strict=True):
        judge_row(lines[number], expected[number], row)
        assert row["collector_line"] == number


def judge_row(line: bytes, expected: reference.Expected, row: dict) -> None:
    columns = reference.columns_of(row)
    extra = dict(map(reference.entry_of, row["extra"] or ()))
    assert columns == {name: value for name, value in expected.columns.items() if value is not None}, line
    assert {place: reference.parse(text) for place, text in extra.items()} == expected.extra, line
    assert reference.same(reference.rebuild(columns, extra), reference.parse(line.decode())), line
