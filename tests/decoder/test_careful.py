"""A block line by line: what the usual way gives, but for the lines that decoding fails on."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pyarrow as pa
import pytest
from decode_rig import block_of, decoded, decoder, judge, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode_property import LINES

from collector.core.messages import BlockFlag, Oversized
from collector.decoder import careful
from collector.decoder.careful import UNBLAMED, WHOLE, decode_carefully
from collector.decoder.decode import BlockDecoder, Decoded
from collector.decoder.rows import Reject
from collector.errors import StorageError

pytestmark = pytest.mark.usefixtures("twin")

GOOD = [b'{"hitIdHigh":1,"hitIdLow":%d,"pageName":"p%d"}' % (n, n) for n in range(6)]


def carefully(
    *lines: bytes,
    flags: BlockFlag = BlockFlag.NONE,
    poison: Mapping[int, str] | None = None,
    payload=None,
    line_by_line: bool = True,
) -> tuple[Decoded, dict[int, str], list[int]]:
    """The block, what failed, and the lines in the order they were begun."""
    text, block = block_of(lines, flags=flags)
    if payload is not None:
        text, block = payload, msgspec.structs.replace(block, length=len(payload), records=1)
    view = memoryview(text)
    begun: list[int] = []
    found, failed = decode_carefully(
        decoder(),
        view,
        block,
        line_by_line=line_by_line,
        poison=poison or {},
        begins=begun.append,
    )
    view.release()  # raises if anything still holds the payload
    return found, failed, begun


@given(LINES)
@settings(max_examples=100, deadline=None)
def test_care_changes_no_result(lines):
    """Any block: the same rows, rejects, ids and hours as the usual way gives."""
    usual, (found, failed, begun) = decoded(*lines), carefully(*lines)
    judge(lines, found)
    assert rows_of(found) == rows_of(usual)
    assert found.rejects == usual.rejects
    for name in ("high", "low", "has_id", "lines", "hours"):
        assert getattr(found, name).tolist() == getattr(usual, name).tolist(), name
        assert getattr(found, name).dtype == getattr(usual, name).dtype, name
    assert (found.records, failed, begun) == (len(lines), {}, list(range(len(lines))))


@given(LINES, st.sets(st.integers(0, 4)))
@settings(max_examples=50, deadline=None)
def test_poisoned_lines_are_rejects_that_nobody_looks_at(lines, numbers):
    """Each with its raw bytes and the reason given; the others are what they are."""
    poison = {number: f"it died of {number}" for number in numbers if number < len(lines)}
    usual, (found, failed, begun) = decoded(*lines), carefully(*lines, poison=poison)
    assert rows_of(found) == [row for row in rows_of(usual) if row["collector_line"] not in poison]
    expected = {reject.line: reject for reject in usual.rejects} | {
        line: Reject(line, f"poison: {reason}", lines[line]) for line, reason in poison.items()
    }
    assert found.rejects == [expected[line] for line in sorted(expected)]
    assert not set(begun) & set(poison)
    assert failed == {}


@pytest.mark.parametrize("error", [ValueError, RecursionError, KeyError("secret of line 3")])
@pytest.mark.parametrize("line_by_line", [True, False])
def test_a_line_that_decoding_fails_on_is_a_reject(monkeypatch, capsys, error, line_by_line):
    """Its neighbours are rows; the reason names the exception, and nowhere is the record quoted."""
    careful._say.cache_clear()

    def failing(decoder, payload, block, **more):
        if b"p3" in bytes(payload):
            raise error
        return usual(decoder, payload, block, **more)

    usual = BlockDecoder.decode
    monkeypatch.setattr(BlockDecoder, "decode", failing)
    found, failed, begun = carefully(*GOOD, line_by_line=line_by_line)
    assert (WHOLE in begun) is not line_by_line
    name = error.__name__ if isinstance(error, type) else type(error).__name__
    assert failed == {3: f"decoding it failed ({name})"}
    assert [(reject.line, reject.reason, reject.raw) for reject in found.rejects] == [
        (3, f"poison: decoding it failed ({name})", GOOD[3])
    ]
    assert found.lines.tolist() == [0, 1, 2, 4, 5]
    said = capsys.readouterr().err
    assert name in said
    assert "test_careful.py" in said, "where it happened"
    assert "secret" not in said


def test_what_fails_is_found_by_halves(monkeypatch):
    """A few bad records cost little; and what fails only in company costs no record."""
    bad, calls = {17, 200, 201}, []

    def failing(decoder, payload, block, **more):
        calls.append(block.records)
        if block.records > 250 or any(b'"p%d"' % n in bytes(payload) for n in bad):
            raise RecursionError
        return usual(decoder, payload, block, **more)

    usual = BlockDecoder.decode
    monkeypatch.setattr(BlockDecoder, "decode", failing)
    found, failed, _ = carefully(
        *(b'{"hitIdHigh":1,"hitIdLow":%d,"pageName":"p%d"}' % (n, n) for n in range(300)), line_by_line=False
    )
    assert set(failed) == bad == {reject.line for reject in found.rejects}
    assert found.lines.tolist() == [n for n in range(300) if n not in bad]
    assert len(calls) < 60


@pytest.mark.parametrize(
    "error",
    [StorageError("the disk is gone"), MemoryError, pa.ArrowMemoryError("no"), OSError(24, "too many files")],
)
def test_what_is_no_records_fault_makes_no_rejects(monkeypatch, error):
    """A disk that fails; want of memory, which a new process may not have."""

    def failing(*_args, **_more):
        raise error

    monkeypatch.setattr(BlockDecoder, "decode", failing)
    with pytest.raises(UNBLAMED):
        carefully(*GOOD)


@pytest.mark.parametrize("poison", [{}, {0: "it died"}])
def test_what_is_kept_of_an_oversized_record_is_one_line(poison):
    """It is a reject either way."""
    head = b'{"a":"\n'  # whatever is in it
    payload = msgspec.msgpack.encode(Oversized(head, 2**30, b"\n" * 32))
    found, _, begun = carefully(payload=payload, flags=BlockFlag.OVERSIZED, poison=poison)
    (reject,) = found.rejects
    assert (reject.line, reject.raw) == (0, payload if poison else head)
    assert begun == ([] if poison else [0])
    assert rows_of(found) == []
