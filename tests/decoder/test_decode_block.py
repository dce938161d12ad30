"""What a block becomes: filing times, ids, lines, oversized records, and what must never be lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from decode_rig import COLLECTED_AT_US, INSTANCE, block_of, decoded, decoder, judge, rows_of

from collector.core.messages import BlockFlag, Oversized
from collector.decoder import plain
from collector.errors import ProtocolError

pytestmark = pytest.mark.usefixtures("twin")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COLLECTED_AT = EPOCH + timedelta(microseconds=COLLECTED_AT_US)
COLLECTED_S = COLLECTED_AT_US // 1_000_000
DAY_S = 86_400
YEAR_9999_S = 253_402_300_799


def at(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("received", "flags", "filed_s"),
    [
        (COLLECTED_S - 20, BlockFlag.NONE, COLLECTED_S - 20),
        (COLLECTED_S - 31 * DAY_S + 1, BlockFlag.NONE, COLLECTED_S - 31 * DAY_S + 1),
        (COLLECTED_S - 31 * DAY_S, BlockFlag.NONE, None),  # a part of a second too old
        (COLLECTED_S + DAY_S, BlockFlag.NONE, COLLECTED_S + DAY_S),
        (COLLECTED_S + DAY_S + 1, BlockFlag.NONE, None),
        (0, BlockFlag.NONE, None),
        (-(2**63), BlockFlag.NONE, None),
        (2**63 - 1, BlockFlag.NONE, None),
        (0, BlockFlag.UNBOUNDED, 0),
        (COLLECTED_S - 400 * DAY_S, BlockFlag.UNBOUNDED, COLLECTED_S - 400 * DAY_S),
        (-62_135_596_800, BlockFlag.UNBOUNDED, -62_135_596_800),
        (-62_135_596_801, BlockFlag.UNBOUNDED, None),
        (-(2**63), BlockFlag.UNBOUNDED, None),
        (COLLECTED_S + DAY_S + 1, BlockFlag.UNBOUNDED, None),
        (None, BlockFlag.NONE, None),
        ('"1795000000"', BlockFlag.NONE, None),
        ("1795000000.5", BlockFlag.UNBOUNDED, None),
    ],
)
def test_a_hit_is_filed_by_a_plausible_received_time_else_by_its_blocks_time(received, flags, filed_s):
    """31 days back (in saved files any time) and one day ahead; its own value stays in its column."""
    value = b"null" if received is None else str(received).encode()
    found = decoded(b'{"receivedTimeGMT":' + value + b"}", flags=flags)
    row = rows_of(found)[0]
    assert row["collected_at"] == COLLECTED_AT
    assert row["received_at"] == (COLLECTED_AT if filed_s is None else at(filed_s))
    assert found.hours.tolist() == [(COLLECTED_S if filed_s is None else filed_s) // 3600]
    assert row["receivedTimeGMT"] == (received if isinstance(received, int) else None)


@pytest.mark.parametrize(
    ("sent", "hit_at"),
    [
        ("1794999998", at(1_794_999_998)),
        ("0", EPOCH),
        ("-1", at(-1)),
        ("-62135596800", datetime(1, 1, 1, tzinfo=UTC)),
        (str(YEAR_9999_S), at(YEAR_9999_S)),
        (str(YEAR_9999_S + 1), None),
        ("-62135596801", None),
        (str(2**63 - 1), None),
        (str(2**63), None),
        ("null", None),
        ('"1"', None),
    ],
)
def test_hit_at_is_time_gmt_or_null(sent, hit_at):
    """Years 1 to 9999; anything else is no timestamp."""
    assert rows_of(decoded(b'{"timeGMT":%b}' % sent.encode()))[0]["hit_at"] == hit_at


def test_ids_are_claimed_exactly():
    """Both halves or none; every bit of 64."""
    ids = [0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
    whole = [b'{"hitIdHigh":%d,"hitIdLow":%d}' % (high, low) for high in ids for low in ids]
    partial = [b'{"hitIdHigh":5}', b'{"hitIdLow":5}', b"{}", b'{"hitIdHigh":5,"hitIdLow":null}']
    partial += [b'{"hitIdHigh":5,"hitIdLow":-1}', b'{"hitIdHigh":18446744073709551616,"hitIdLow":5}']
    found = decoded(*whole, b"no hit", *partial)
    assert found.has_id.tolist() == [True] * 36 + [False] * 6
    assert found.high.tolist()[:36] == [high for high in ids for _ in ids]
    assert found.low.tolist()[:36] == ids * 6
    assert found.lines.tolist() == [*range(36), *range(37, 43)]
    assert [row["hitIdLow"] for row in rows_of(found)][:6] == list(map(Decimal, ids))


def test_rows_say_where_they_are_from():
    """Instance, block and line name a record; a reject keeps its line and its bytes."""
    found = decoded(b"{}", b"garbage", b'{"zip":"1"}', seq=2**40)
    columns = ("collector_instance", "collector_block", "collector_line")
    names = [tuple(map(row.get, columns)) for row in rows_of(found)]
    assert names == [(INSTANCE, 2**40, 0), (INSTANCE, 2**40, 2)]
    assert [(reject.line, reject.raw) for reject in found.rejects] == [(1, b"garbage")]


def test_an_oversized_record_is_one_reject():
    """What was kept of it, with its length and hash."""
    payload = msgspec.msgpack.encode(Oversized(b"{" * 1000, 70_000_000, b"\x01" * 32))
    _, block = block_of([b"x"], flags=BlockFlag.OVERSIZED)
    found = decoder().decode(memoryview(payload), block)
    assert (found.batches, len(found.lines), found.records) == ([], 0, 1)
    assert found.rejects[0].raw == b"{" * 1000
    assert found.rejects[0].reason.startswith("oversized: record of 70000000 bytes is over")
    assert "01" * 32 in found.rejects[0].reason


@pytest.mark.parametrize("lines", [[], [b"garbage"], [b"", b"[]"]])
def test_a_block_without_hits_is_no_rows(lines):
    """Nothing at all, or nothing but rejects."""
    found = decoded(*lines)
    assert (found.batches, len(found.high), len(found.hours), len(found.lines)) == ([], 0, 0, 0)
    assert len(found.rejects) == found.records == len(lines)


@pytest.mark.parametrize(
    ("payload", "records"),
    [(b"{}\n{}\n", 1), (b"{}\n", 2), (b"{}", 1), (b"{}\n{}", 1), (b"", 1), (b"\n", 0)],
)
def test_a_payload_that_is_not_what_its_header_says_is_refused(payload, records):
    """A count that is wrong would give records the wrong names."""
    _, block = block_of([b"{}"] * records)
    with pytest.raises(ProtocolError, match=f"its header says {records} records"):
        decoder().decode(payload, block)


def test_more_rows_than_a_batch_holds():
    """5,000 small records with rejects and odd ones in between keep their order and their lines."""
    odd = {7: b"x", 999: b'{"zip":5}', 1000: b'{"props":{"a":"1","a":"2"}}', 2001: b"", 4999: b'{"evars":5}'}
    hit = b'{"hitIdHigh":1,"hitIdLow":%d,"receivedTimeGMT":%d}'
    lines = [odd.get(n, hit % (n, COLLECTED_S - n)) for n in range(5000)]
    found = decoded(*lines)
    judge(lines, found)
    assert found.hours.tolist()[-2] == (COLLECTED_S - 4998) // 3600


def test_records_that_are_not_as_documented_are_counted():
    """Each once, whatever is odd about it and whoever mends it; rejects are counted elsewhere."""
    odd = [b'{"new":1,"newer":[2]}', b'{"mobileAudioSupport":true,"new":1}', b'{"zip":5}', b'{"extra":{}}']
    assert decoded(*odd, b'{"zip":"5"}', b"junk", b"{}").repaired == len(odd)


def test_the_same_block_gives_the_same_rows():
    """Whenever and wherever it is run again."""
    odd = b'{"zip":5,"new":1,"props":{"a":"1","b":"2","a":"3"}}'
    lines = [odd, b"x", b'{"evars":{"evars":{"e":1.0}}}'] * 20
    once, again = decoded(*lines), decoded(*lines)
    assert [batch.to_pylist() for batch in once.batches] == [batch.to_pylist() for batch in again.batches]
    assert once.rejects == again.rejects
    assert once.repaired == again.repaired == 40


PLAIN_ALONE = pytest.mark.parametrize("twin", ["plain"], indirect=True)
"""Of the libraries that the plain way calls."""


def refusing(text: bytes, real=plain.read_lines):
    """A columnariser that refuses a block with this text anywhere."""
    return lambda lines: None if text in bytes(lines) else real(lines)


@PLAIN_ALONE
def test_a_record_the_columnariser_refuses_after_repair_is_moved_to_extra_whole(monkeypatch):
    """Every field of it is in ``extra``; its neighbours are as ever."""
    monkeypatch.setattr(plain, "read_lines", refusing(b'"zip":"poison"'))
    found = decoded(b'{"zip":"1"}', b'{"zip":"poison","ip":"2","n.m":[1.50]}', b'{"zip":"3"}', b"x")
    rows = rows_of(found)
    assert [row["zip"] for row in rows] == ["1", None, "3"]
    assert dict(rows[1]["extra"]) == {"zip": '"poison"', "ip": '"2"', '["n.m"]': "[1.50]"}
    assert [reject.line for reject in found.rejects] == [3]


@PLAIN_ALONE
def test_a_record_the_columnariser_refuses_even_so_is_a_reject(monkeypatch):
    """With its bytes; its neighbours are as ever."""
    monkeypatch.setattr(plain, "read_lines", refusing(b"poison"))
    found = decoded(b'{"zip":"1"}', b'{"zip":"poison"}', b'{"zip":"3"}')
    assert [row["zip"] for row in rows_of(found)] == ["1", "3"]
    assert [(reject.line, reject.raw) for reject in found.rejects] == [(1, b'{"zip":"poison"}')]
    assert found.rejects[0].reason.startswith("unreadable")


@PLAIN_ALONE
def test_a_columnariser_that_takes_lines_alone_but_not_together_is_a_defect(monkeypatch):
    """Nothing can be said about such a block, so nothing of it may be committed."""
    real = plain.read_lines

    def alone(lines):
        return None if bytes(lines).count(b"\n") > 1 else real(lines)

    monkeypatch.setattr(plain, "read_lines", alone)
    with pytest.raises(ProtocolError, match="one by one"):
        decoded(b"{}", b"{}")
