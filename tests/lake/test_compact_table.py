"""``compact`` where a table lists the parts: they are replaced in one commit of the table, and once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from compact_rig import Lake, by_place, hit, make_lake, stays
from deltalake import DeltaTable
from pyiceberg.catalog.sql import SqlCatalog

from collector.core.shipping import ShipPlan
from collector.errors import ConfigurationError
from collector.lake.shipper import Shipper
from collector.lake.store import open_store
from collector.lake.tables import open_table
from collector.storage.fs import DISK
from collector.storage.shipped import shipping_lock
from tests.storage.collected_rig import COLLECTED_AT_US, STREAM, Collected
from tests.storage.faulty_disk import Crashed, FaultyDisk

PLACE = ["collector_instance", "collector_block", "collector_line"]
FORMATS = ("delta", "iceberg")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Lake:
    return make_lake(tmp_path_factory.mktemp("whole") / "c")


@pytest.fixture
def lake(whole, tmp_path) -> Lake:
    return whole.copy_to(tmp_path / "c")


def plan_for(lake: Lake, form: str, url: str = "") -> ShipPlan:
    named = {"table_name": "livestream.hits", "table_catalog": f"sqlite:///{lake.root}/catalog.db"}
    return ShipPlan(
        output=str(lake.output),
        state=str(lake.first.state.root),
        stream=STREAM,
        url=url,
        table_format=form,
        **(named if form == "iceberg" else {}),
    )


def ship(plan: ShipPlan, collected: Collected) -> None:
    """What its collector does beside it."""
    store = open_store(plan.url) if plan.url else None
    with shipping_lock(DISK, collected.state):
        shipper = Shipper(
            DISK,
            plan_of(plan, collected),
            collected.instance,
            store=store,
            table=open_table(plan),
            now_us=lambda: COLLECTED_AT_US + 10**9,
            say=lambda event, /, **fields: None,
            beat=lambda: None,
        )
        try:
            while shipper.step():
                pass
        finally:
            shipper.close()


def plan_of(plan: ShipPlan, collected: Collected) -> ShipPlan:
    return ShipPlan(
        output=plan.output,
        state=str(collected.state.root),
        stream=plan.stream,
        url=plan.url,
        table_format=plan.table_format,
        table_name=plan.table_name,
        table_catalog=plan.table_catalog,
    )


def in_table(plan: ShipPlan) -> Counter[Any]:
    """Rows that the format's own library finds, by what names them."""
    if plan.table_format == "delta":
        table = DeltaTable(f"{plan.url or plan.output}/hits").to_pyarrow_table(columns=PLACE)
    else:
        catalog = SqlCatalog("livestream", uri=plan.table_catalog)
        table = catalog.load_table(plan.table_name).scan(selected_fields=tuple(PLACE)).to_arrow()
    return Counter(tuple(row[name] for name in PLACE) for row in table.to_pylist())


def places(rows: list[dict[str, Any]]) -> Counter[Any]:
    return Counter(tuple(row[name] for name in PLACE) for row in rows)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("where", ["in place", "store"])
def test_the_table_has_each_hit_once(lake, tmp_path, form, where):
    """Of the output folder itself, or of a store, to which the new files are brought."""
    plan = plan_for(lake, form, "" if where == "in place" else f"file://{tmp_path}/store")
    for collected in (lake.first, lake.second):
        ship(plan, collected)
    before = lake.rows()
    assert in_table(plan) == places(before)
    lake.compact(shipping=plan)
    assert by_place(lake.rows()) == stays(before)
    assert in_table(plan) == places(stays(before))
    lake.second.commit([hit(300), hit(0, 1)])
    ship(plan, lake.second)
    before = lake.rows()
    lake.compact(shipping=plan)
    assert in_table(plan) == places(stays(before)) == places(lake.rows())
    lake.assert_green()


@pytest.mark.parametrize("form", FORMATS)
def test_parts_that_are_not_listed_yet_wait(lake, form):
    """Whoever ships them would bring their rows back."""
    plan = plan_for(lake, form)
    ship(plan, lake.first)
    theirs = {path for path in lake.files() if lake.second.instance in path.name}
    compaction = lake.compaction(shipping=plan)
    compaction.survey()
    assert any("not in the table yet" in why for why in compaction.inventory.left)
    lake.compact(shipping=plan)
    assert all(path.exists() for path in theirs)
    ship(plan, lake.second)
    before = lake.rows()
    lake.compact(shipping=plan)
    assert in_table(plan) == places(stays(before)) == places(lake.rows())


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", FORMATS)
def test_killed_around_the_commit_it_is_finished_once(lake, form):
    """Before the table's commit, after it, and before each file that goes."""
    plan = plan_for(lake, form)
    for collected in (lake.first, lake.second):
        ship(plan, collected)
    before = lake.rows()
    for call in range(1, 30):
        killed = killed_once_decided(lake, plan, call)
        after = in_table(plan)
        assert {place for place in places(stays(before)) if place not in after} == set()
        if not killed:
            break
    lake.compact(shipping=plan)
    assert in_table(plan) == places(stays(before)) == places(lake.rows())
    lake.assert_green()


def killed_once_decided(lake: Lake, plan: ShipPlan, call: int) -> bool:
    disk = FaultyDisk(call, only=frozenset({"unlink", "rename", "rename_noreplace"}))
    try:
        lake.compact(disk, shipping=plan)
    except Crashed:
        return True
    return False


def test_settings_that_do_not_say_what_becomes_of_parts_are_refused(lake, tmp_path):
    """A store without a table keeps what was shipped; a table must be told."""
    with pytest.raises(ConfigurationError, match=r"table\.format"):
        lake.compaction(shipping=ShipPlan(output="o", state="s", stream="x", url=f"file://{tmp_path}/store"))
    ship(plan_for(lake, "delta"), lake.first)
    with pytest.raises(ConfigurationError, match="--config"):
        lake.compaction().survey()
    assert Path(lake.output).exists()
