"""The judge can say no: what was right is damaged in one way each, and the invariant is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import oracle
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fault_rig import Rig
from harness import Collector


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Iterator[Rig]:
    """A run without a fault, judged and found right."""
    found = Rig(tmp_path_factory.mktemp("oracle") / "rig")
    found.start()
    found.until_rows(1500)
    found.finish()
    yield found
    found.close()


@pytest.fixture
def collector(rig, tmp_path) -> Collector:
    """A copy of what it left, to be damaged."""
    shutil.copytree(rig.collector.folder, tmp_path / "copy")
    return Collector(rig.service, tmp_path / "copy", settings=rig.collector.settings)


def part(collector: Collector, kind: str = "hits") -> Path:
    return max((collector.output / kind).rglob("*.parquet"), key=lambda path: path.stat().st_size)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    with pq.ParquetFile(path) as file:
        table = file.read()
    pq.write_table(change(table), path)


def replaced(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table.column(name).to_pylist()
    values[row] = value
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def filled(table: pa.Table, name: str, value: object) -> pa.Table:
    """The same value in every row: the judge compares a sample."""
    at, field = table.schema.get_field_index(name), table.schema.field(name)
    return table.set_column(at, field, pa.array([value] * len(table), field.type))


def lose_a_part(collector: Collector) -> None:
    part(collector).unlink()


def lose_a_row(collector: Collector) -> None:
    rewrite(part(collector), lambda table: table.slice(1))


def double_a_part(collector: Collector) -> None:
    shutil.copy(part(collector), part(collector).with_name("part-again-0-0-0.parquet"))


def lose_the_resends(collector: Collector) -> None:
    for path in (collector.state / "resends").iterdir():
        path.unlink()


def move_a_record(collector: Collector) -> None:
    rewrite(part(collector), lambda table: replaced(table, "collector_line", 0, 1_000_000))


def change_values(collector: Collector) -> None:
    rewrite(part(collector), lambda table: filled(table, "pageName", "another page"))


def lose_values(collector: Collector) -> None:
    rewrite(part(collector), lambda table: filled(table, "evars", None))


def change_a_reject(collector: Collector) -> None:
    rewrite(part(collector, "rejects"), lambda table: replaced(table, "raw", 0, b'{"spoiled": 7'))


def invent_a_hit(collector: Collector) -> None:
    rewrite(part(collector), lambda table: replaced(table, "hitIdLow", 0, Decimal(7)))


def cut_a_part(collector: Collector) -> None:
    path = part(collector)
    path.write_bytes(path.read_bytes()[:-100])


def spoil_a_page(collector: Collector) -> None:
    path = part(collector)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 64] = bytes(64)
    path.write_bytes(data)


def leave_a_temporary_file(collector: Collector) -> None:
    part(collector).with_suffix(".tmp").touch()


def leave_a_staged_file(collector: Collector) -> None:
    (collector.state / "staging" / "1-1-1-hits.parquet").touch()


def leave_a_segment(collector: Collector) -> None:
    (collector.output / "0000000000000001.segment").touch()


def leave_the_token(collector: Collector) -> None:
    (collector.folder / "log.txt").write_text("Bearer canary")


DAMAGES = {
    lose_a_part: "I1",
    lose_a_row: "I1",
    double_a_part: "I1",
    lose_the_resends: "I1",
    move_a_record: "I1",
    change_values: "I2",
    lose_values: "I2",
    change_a_reject: "I2",
    invent_a_hit: "I3",
    cut_a_part: "I4|Invalid|magic|footer",
    spoil_a_page: "I4|Invalid|ZSTD|Corrupt|page|Couldn't|Unexpected|Malformed",
    leave_a_temporary_file: "I4",
    leave_a_staged_file: "I6",
    leave_a_segment: "I6|I4",
    leave_the_token: "I8",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named(rig, collector, damage, monkeypatch):
    """By the judge's own eyes: ``verify`` is not asked."""
    monkeypatch.setattr(oracle, "assert_verified", lambda _: None)
    damage(collector)
    tally = oracle.Tally(rig.hits, sampled_rows=3)
    with pytest.raises((AssertionError, OSError, pa.ArrowException), match=DAMAGES[damage]):
        oracle.judge(collector, rig.service.requests, tally, canary="canary")
    tally.close()


def test_a_copy_is_right(rig, collector):
    """What the damages begin with."""
    tally = oracle.Tally(rig.hits)
    oracle.judge(collector, rig.service.requests, tally, canary=rig.canary)
    tally.close()
    assert pc.sum(pa.array(tally.records.values())).as_py() > 1500


def test_a_spoiled_line_parts_no_hole():
    """It is no hit: what is missing around it is missing in one piece, up to where a stream began again."""
    tally = oracle.Tally(oracle.SpoiledHits())
    try:
        first, spoiled = oracle.SPOILED_IN // 2, oracle.SPOILED_IN - 1
        tally._count(np.array([n for n in range(1000) if n < first or n > spoiled + 50]))
        assert tally.missing() == [(first, spoiled + 50)]
    finally:
        tally.close()
