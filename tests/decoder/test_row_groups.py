"""Many blocks in one row group: each block's rows are its own, whoever comes before, behind or not at all."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from decode_rig import COLLECTED_AT_US, INSTANCE, block_of, decoded, decoder, judge, rows_of
from twin_rig import bent, simulated_lines

from collector.core.messages import FileKind, Stage, Totals
from collector.decoder import parquet
from collector.decoder.parquet import PartIdentity, Share
from collector.errors import ProtocolError
from collector.storage.fs import DISK

pytestmark = pytest.mark.usefixtures("twin")

COLLECTED_S = COLLECTED_AT_US // 1_000_000
IDENTITY = PartIdentity(INSTANCE, "shop")
ORDER = Stage(
    batch=1, last=99, share=1, attempt=1, shares=1, before=Totals(), batch_before=(0, 0), held_us=(0, 0)
)
WHOLE = b'{"hitIdHigh":1,"hitIdLow":%d,"evars":{"evars":{"evar1":"%d"}}}'


def some_blocks(seed: int, count: int = 30) -> list[list[bytes]]:
    """Hits, bent hits and junk; some blocks are empty or have no rows."""
    chance = random.Random(seed)
    hits = simulated_lines(60)

    def line():
        hit = chance.choice(hits)
        return hit if chance.random() < 0.7 else bent(chance, hit) if chance.random() < 0.8 else b"{}"

    sizes = [chance.choice([0, 1, 2, 3, 7, 8, 9, 40]) for _ in range(count)]
    return [[b"junk"] * size if chance.random() < 0.1 else [line() for _ in range(size)] for size in sizes]


@pytest.mark.parametrize(
    "closed_after", [{29}, {0, 1, 9, 10, 17}, set(range(30))], ids=["once", "some", "each"]
)
def test_a_blocks_rows_are_its_own_in_any_group(closed_after):
    """Closing a group at any time moves, drops and doubles nothing; every block is what it is alone."""
    together, blocks = decoder(), some_blocks(5)
    found = []
    for seq, lines in enumerate(blocks):
        found.append(decoded(*lines, seq=seq, by=together))
        if seq in closed_after:
            assert [len(batch) for batch in found[-1].batches] in ([], [len(found[-1].lines)])
    for seq, (lines, mine) in enumerate(zip(blocks, found, strict=True)):
        alone = decoded(*lines, seq=seq)
        assert rows_of(mine) == rows_of(alone)
        assert mine.rejects == alone.rejects
        for name in ("high", "low"):
            assert getattr(mine, name)[mine.has_id].tolist() == getattr(alone, name)[alone.has_id].tolist()
        for name in ("has_id", "lines", "hours"):
            assert getattr(mine, name).tolist() == getattr(alone, name).tolist()
    groups = {id(span.group) for mine in found for span in mine.spans}
    assert len(groups) == 1 if closed_after == {29} else len(groups) > 3


def test_a_block_that_is_not_what_it_says_leaves_no_row():
    """Nor does it harm those before and behind it."""
    by = decoder()
    before = decoded(*(WHOLE % (n, n) for n in range(13)), b'{"zip":5}', seq=1, by=by)
    for lines, records in (
        ([WHOLE % (99, 99)] * 40, 39),
        ([b'{"zip":5}', b"junk", WHOLE % (99, 99)], 9),
        ([b'{"zip":"1"}'], 0),
    ):
        payload, block = block_of(lines, seq=2)
        with pytest.raises(ProtocolError):
            by.decode(payload, msgspec.structs.replace(block, records=records))
        with pytest.raises(ProtocolError):
            by.decode(payload[:-1], block)
    behind = decoded(b"{}", WHOLE % (7, 7), seq=3, by=by)
    judge([WHOLE % (n, n) for n in range(13)] + [b'{"zip":5}'], before)
    judge([b"{}", WHOLE % (7, 7)], behind)
    assert behind.spans[0].first == 14
    assert len(behind.spans[0].group.batch()) == 16


def test_rows_of_a_share_that_was_given_up_are_in_no_other(tmp_path):
    """They stay behind in the group, which the next share goes on with."""
    by = decoder()
    given_up = Share(DISK, tmp_path, IDENTITY, batch=1, share=1, attempt=1)
    given_up.add(decoded(*(WHOLE % (n, n) for n in range(50)), by=by), np.empty(0, np.uint32), seq=1)
    given_up.discard()
    share = Share(DISK, tmp_path, IDENTITY, batch=1, share=1, attempt=2)
    for seq in (2, 3):
        share.add(decoded(WHOLE % (seq, seq), b"junk", seq=seq, by=by), np.empty(0, np.uint32), seq=seq)
    files = [file for file in share.stage(ORDER) if file.kind is FileKind.HITS]
    rows = [row for file in files for row in pq.read_table(tmp_path / file.staged).to_pylist()]
    assert [(row["collector_block"], row["evars"]) for row in rows] == [
        (2, [("evar1", "2")]),
        (3, [("evar1", "3")]),
    ]


@pytest.mark.parametrize("waiting_bytes", [150_000, 64 << 20])
def test_rows_are_filed_by_their_hours_out_of_one_group(tmp_path, monkeypatch, waiting_bytes):
    """Hours in long runs, taking turns, and one by one; resends and rejects between; in order within each."""
    monkeypatch.setattr(parquet, "WAITING_BYTES", waiting_bytes)
    by = decoder()
    share = Share(DISK, tmp_path, IDENTITY, batch=1, share=1, attempt=1)
    expected: dict[int, list[tuple[int, int]]] = {}
    hit = b'{"hitIdHigh":5,"hitIdLow":%d,"receivedTimeGMT":%d,"pageName":"%b"}'
    for seq in range(12):
        ages = [0 if seq < 5 else n % 3 if seq < 9 else (n * 7) % 8 for n in range(120)]
        lines = [hit % (n, COLLECTED_S - 3600 * age, b"p" * 50) for n, age in enumerate(ages)]
        lines[60] = b"junk"
        share.add(decoded(*lines, seq=seq, by=by), np.array([0, 5, 119 - 1], np.uint32), seq=seq)
        for line in sorted(set(range(120)) - {0, 5, 60, 119}):
            expected.setdefault(COLLECTED_S // 3600 - ages[line], []).append((seq, line))
    found: dict[int, list[tuple[int, int]]] = {}
    for file in share.stage(ORDER):
        if file.kind is FileKind.HITS:
            for row in pq.read_table(tmp_path / file.staged).to_pylist():
                hour = int(row["received_at"].timestamp()) // 3600
                assert f"hour={hour % 24:02}/" in file.final
                found.setdefault(hour, []).append((row["collector_block"], row["collector_line"]))
    assert found == expected
    assert share.rows == sum(map(len, expected.values()))
