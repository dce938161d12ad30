"""The kernel's columns: lent to Arrow, used again once it lets go of them, and never before."""

from __future__ import annotations

import gc
import random

import pyarrow as pa
import pytest
from decode_rig import block_of, need_kernel
from twin_rig import simulated_lines

from collector.decoder.kernel.rows import KernelRows
from collector.decoder.strict import Degree

PAGE_BYTES = 4096
GROUP = block_of([b'{"zip":"%d","evars":{"evars":{"evar1":"%b"}}}' % (n, b"v" * 1000) for n in range(1000)])


@pytest.fixture(scope="module", autouse=True)
def _kernel():
    need_kernel()


def group(rows: KernelRows, text: bytes = b"first", count: int = 20) -> pa.RecordBatch:
    payload, block = block_of([b'{"zip":"%b %d","props":{"%b":"x"}}' % (text, n, text) for n in range(count)])
    rows.append(payload, block, Degree.USUAL)
    return rows.take()


def places(batch: pa.RecordBatch) -> set[int]:
    """Where the texts and offsets of a column are."""
    return {buffer.address for buffer in batch.column("zip").buffers()[1:]}


def expected(text: str, count: int = 20) -> list[str]:
    return [f"{text} {n}" for n in range(count)]


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_BYTES


def several(rows: KernelRows, count: int) -> None:
    for _ in range(count):
        rows.append(*GROUP, Degree.USUAL)
        assert rows.take().num_rows == 1000


def test_columns_are_used_again_when_arrow_has_let_go_of_them():
    """One set is enough for any number of groups, one after another: the next one takes it back."""
    rows = KernelRows()
    seen = [places(group(rows)) for _ in range(20)]
    assert len(set(map(frozenset, seen))) == 1


def test_of_many_columns_that_came_back_one_set_stays():
    """However many were lent at a time, a batch at the border of two shares; the others are freed."""
    rows = KernelRows()
    before = [group(rows) for _ in range(6)]
    seen = set().union(*map(places, before))
    del before
    assert places(group(rows)) < seen
    text = b"v" * 10_000
    empty = resident_bytes()
    large = [group(rows, text, 1000) for _ in range(6)]
    assert resident_bytes() - empty > 100 << 20
    del large
    assert resident_bytes() - empty < 50 << 20


def test_columns_that_arrow_holds_are_not_touched():
    """As many sets as there are batches; each batch stays what it was."""
    rows = KernelRows()
    batches = [group(rows, b"text %d" % n) for n in range(10)]
    assert len(set().union(*map(places, batches))) == 20
    kept = batches[3]
    del batches
    for n in range(20):
        assert group(rows, b"later %d" % n).column("zip").to_pylist() == expected(f"later {n}")
    assert kept.column("zip").to_pylist() == expected("text 3")
    assert kept.column("props").to_pylist() == [[("text 3", "x")]] * 20


@pytest.mark.parametrize(
    "part",
    [lambda batch: batch.column("zip"), lambda batch: batch.slice(5, 3).column("zip")],
    ids=["all", "some"],
)
def test_a_part_of_a_batch_keeps_it(part):
    """A column, or a slice of one, is all that is left; then nothing is, and the columns come back."""
    rows = KernelRows()
    batch = group(rows)
    where, kept = places(batch), part(batch)
    content = kept.to_pylist()
    del batch
    gc.collect()
    assert not any(places(group(rows, b"other")) & where for _ in range(10))
    assert kept.to_pylist() == content
    held = group(rows, b"other")
    del kept
    assert places(group(rows, b"other")) == where != places(held)


def test_the_kernel_may_go_before_its_batches():
    """What it lent outlives it, one after another, in any order."""
    rows = KernelRows()
    batches = [group(rows, b"text %d" % n) for n in range(6)]
    rows.append(*block_of([b"{}"]), Degree.USUAL)  # and an open group
    del rows
    gc.collect()
    random.Random(1).shuffle(batches)
    while batches:
        text = batches[-1].column("zip")[0].as_py().removesuffix(" 0")
        assert batches.pop().column("zip").to_pylist() == expected(text)


def test_many_groups_need_no_more_memory_than_few():
    """300 groups of more than a megabyte each."""
    rows = KernelRows()
    several(rows, 20)
    before = resident_bytes()
    several(rows, 300)
    assert resident_bytes() - before < 30 << 20


def test_what_a_group_holds_is_counted():
    """Bytes of the open group: what Arrow says of its batch, and none when it is taken."""
    rows = KernelRows()
    payload, block = block_of(simulated_lines(500))
    rows.append(payload, block, Degree.USUAL)
    counted, count = rows.nbytes, rows.rows
    batch = rows.take()
    assert (count, rows.rows, rows.nbytes) == (500, 0, 0)
    assert abs(counted - batch.nbytes) < batch.nbytes / 50


def test_numbers_are_copies():
    """They stay what they are when the columns move, and when the group is taken."""
    rows = KernelRows()
    for seq in range(300):
        first = rows.rows
        lines = [b'{"hitIdLow":%d,"timeGMT":%d}' % (2**63 + seq, -seq), b"{}", b'{"hitIdLow":7}']
        rows.append(*block_of(lines, seq=seq), Degree.USUAL)
        ids, times = rows.numbers("hitIdLow", first), rows.numbers("timeGMT", first)
        assert [flags.tolist() for _, flags in (ids, times)] == [[True, False, True], [True, False, False]]
        if seq == 0:
            kept = ids, times
        assert (ids[0].tolist()[0], times[0].tolist()[0]) == (2**63 + seq, -seq)
    rows.take()
    assert (kept[0][0][0], kept[0][0][2], kept[1][0][0]) == (2**63, 7, 0)
