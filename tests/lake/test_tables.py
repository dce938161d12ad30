"""Tables: each batch is one commit, once, whatever dies or races; every engine reads the same."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import datafusion
import duckdb
import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from collected_rig import INSTANCE, STREAM, Collected, hit, make_collected
from deltalake import DeltaTable
from faulty_disk import Crashed
from lake_rig import Dying, Shipped, places_of
from pyiceberg.catalog.sql import SqlCatalog, SqlCatalogBaseTable
from sqlalchemy import event
from store_rig import BUCKET

from collector.core.messages import FileKind
from collector.core.shipping import ShipFailure
from collector.lake.store import ShipError
from collector.lake.tables import Commit, TablePart, open_table
from collector.storage.fs import DISK

FORMATS = ("delta", "iceberg")
IDS = ["hitIdHigh", "hitIdLow"]
logging.getLogger("pyiceberg").setLevel(logging.ERROR)  # it warns of each column without statistics
EXTREMES = [2**63, 2**64 - 1, 7]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Collected:
    collected = make_collected(tmp_path_factory.mktemp("collected"))
    lines = [
        f'{{"hitIdHigh":{value},"hitIdLow":{2**64 - 1},"evars":{{"evar1":"x"}}}}'.encode()
        for value in EXTREMES
    ]
    collected.commit(lines, shares=1, connection=3)
    return collected


def with_table(collected: Collected, root: Path, form: str, url: str, **more) -> Shipped:
    named = {"table_name": "livestream.hits", "table_catalog": f"sqlite:///{root}/catalog.db"}
    return Shipped.of(collected, url, table_format=form, **(named if form == "iceberg" else {}), **more)


@pytest.fixture(params=FORMATS)
def shipped(request, made, tmp_path) -> Shipped:
    return with_table(
        made.copy_to(tmp_path / "collected"), tmp_path, request.param, f"file://{tmp_path}/store"
    )


def scanned(shipped: Shipped, columns: list[str] | None = None) -> pa.Table:
    """By the format's own library, knowing nothing of ours."""
    plan = shipped.plan
    if plan.table_format == "delta":
        location = f"{plan.url}/hits" if plan.url else f"{plan.output}/hits"
        return DeltaTable(location).to_pyarrow_table(columns=columns)
    scan = iceberg(shipped).scan(selected_fields=tuple(columns) if columns else ("*",))
    return scan.to_arrow()


def iceberg(shipped: Shipped):
    catalog = SqlCatalog("livestream", uri=shipped.plan.table_catalog)
    return catalog.load_table(shipped.plan.table_name)


def commits(shipped: Shipped) -> list[tuple[str, str, str, str]]:
    """What each commit that added a batch says of itself, in order."""
    names = [f"livestream.{name}" for name in ("stream", "instance", "first-block", "last-block")]
    if shipped.plan.table_format == "delta":
        table = DeltaTable(f"{shipped.plan.url}/hits")
        said = [entry for entry in reversed(table.history()) if names[0] in entry]
    else:
        said = [snapshot.summary.additional_properties for snapshot in iceberg(shipped).snapshots()]
    return [tuple(entry[name] for name in names) for entry in said]


def batches_with_hits(shipped: Shipped) -> list[tuple[str, str, str, str]]:
    ranges = {}
    for file in shipped.collected.files(FileKind.HITS):
        first, last = file.final.rpartition("/")[2].split("-")[2:4]
        ranges[str(int(first)), str(int(last))] = None
    return [(STREAM, INSTANCE, first, last) for first, last in ranges]


def assert_whole(shipped: Shipped) -> None:
    table = scanned(shipped, ["collector_block", "collector_line"])
    assert places_of(table) == shipped.places()
    assert commits(shipped) == batches_with_hits(shipped)


# ---------------------------------------------------------------- exactly once


def test_each_batch_is_one_commit_that_names_it(shipped):
    """In the order of the commit log; a batch of rejects alone needs none."""
    shipper = shipped.ship()
    assert_whole(shipped)
    assert shipper.report().table_commits == len(batches_with_hits(shipped))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Collected:
    """Two batches of one part each, one of rejects between them."""
    collected = Collected(tmp_path_factory.mktemp("small"))
    collected.make()
    collected.commit([hit(1), hit(2)], shares=1)
    collected.commit([b"no hit"], shares=1)
    collected.commit([hit(3)], shares=1)
    return collected


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_crash_at_any_step_leaves_each_batch_once(small, tmp_path, form, after):
    """Before a step, or behind it with its answer lost: the next run ends with the same table."""
    at, done = 0, False
    while not done:
        at += 1
        root = tmp_path / f"{at}"
        each = with_table(small.copy_to(root), root, form, f"file://{root}/store")
        try:
            each.ship(Dying(at, after=after))
            done = True
        except Crashed:
            each.ship()
        assert_whole(each)
    assert at > len(each.committed_files()) + len(batches_with_hits(each))


def test_without_its_note_it_relies_on_the_table(shipped):
    """The progress file is gone: nothing is committed a second time."""
    shipped.ship()
    (shipped.collected.state.root / "ship" / "progress").unlink()
    shipped.ship()
    assert_whole(shipped)


def test_it_knows_after_its_snapshots_have_expired(made, tmp_path):
    """How far it is stands in the table itself, not only in snapshots."""
    shipped = with_table(
        made.copy_to(tmp_path / "collected"), tmp_path, "iceberg", f"file://{tmp_path}/store"
    )
    shipped.ship()
    table = iceberg(shipped)
    old = [snapshot.snapshot_id for snapshot in table.snapshots()][:-1]
    assert "commit.retry.num-retries" not in table.properties  # ours alone, never the table's
    table.maintenance.expire_snapshots().by_ids(old).commit()
    (shipped.collected.state.root / "ship" / "progress").unlink()
    shipped.ship()
    assert places_of(scanned(shipped, ["collector_block", "collector_line"])) == shipped.places()


def test_a_table_that_was_dropped_is_not_silently_begun_again(shipped, tmp_path):
    """The note knows more than the table says: a person decides."""
    shipped.ship()
    if shipped.plan.table_format == "delta":
        (shipped.root / "hits" / "_delta_log").rename(tmp_path / "taken")
    else:
        SqlCatalog("livestream", uri=shipped.plan.table_catalog).drop_table(shipped.plan.table_name)
    with pytest.raises(ShipError, match="was dropped or put back") as caught:
        shipped.ship()
    assert caught.value.failure is ShipFailure.TABLE
    (shipped.collected.state.root / "ship" / "progress").unlink()
    shipped.ship()
    assert_whole(shipped)


RACER = """
import sys
sys.path[:0] = {paths!r}
from lake_rig import Shipped
from collected_rig import Collected
from pathlib import Path
import msgspec
from collector.core.shipping import ShipPlan
from collector.storage.fs import DISK
from collector.storage.layout import make_private
from collector.storage.shipped import ship_folder
shipped = Shipped(Collected(Path({root!r})), msgspec.json.decode({plan!r}, type=ShipPlan))
make_private(DISK, ship_folder(shipped.collected.state))  # what the lock would have made
shipper = shipped.shipper()
print("ready", flush=True)
sys.stdin.readline()
while True:
    try:
        if not shipper.step():
            break
    except Exception as error:
        assert type(error).__name__ == "ShipError", error
        shipper.close()
        shipper = shipped.shipper()
"""


def racer_of(shipped: Shipped) -> subprocess.Popen[bytes]:
    tests = Path(__file__).parents[1]
    paths = [str(tests.parent), str(tests / "lake"), str(tests / "storage")]
    plan = msgspec.json.encode(shipped.plan)
    text = RACER.format(paths=paths, root=str(shipped.collected.root), plan=plan)
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def raced(shipped: list[Shipped]) -> None:
    with ExitStack() as running:
        racers = [running.enter_context(racer_of(each)) for each in shipped]
        for racer in racers:
            assert racer.stdout.readline() == b"ready\n"
        for racer in racers:
            racer.stdin.write(b"go\n")
            racer.stdin.flush()
        for racer in racers:
            racer.communicate(timeout=100)
            assert racer.returncode == 0


def test_two_committers_of_the_same_batches(shipped, made, tmp_path):
    """A state folder that was copied, past every lock: the table refuses what it has."""
    twin = Shipped(made.copy_to(tmp_path / "twin"), shipped.plan)
    twin = twin.with_plan(output=str(twin.collected.output), state=str(twin.collected.state.root))
    raced([shipped, twin])
    assert places_of(scanned(shipped, ["collector_block", "collector_line"])) == shipped.places()
    assert commits(shipped) == batches_with_hits(shipped)


def test_a_catalog_that_another_makes_at_the_same_time(small, tmp_path):
    """Two collectors begin at once: the second finds no tables in the catalog, then cannot make them."""
    shipped = with_table(small.copy_to(tmp_path / "one"), tmp_path, "iceberg", f"file://{tmp_path}/store")
    others = []

    def made_by_another(*_: object, **__: object) -> None:
        if not others:
            others.append("first")
            SqlCatalog("livestream", uri=shipped.plan.table_catalog)

    event.listen(SqlCatalogBaseTable.metadata, "before_create", made_by_another)
    try:
        shipped.ship()
    finally:
        event.remove(SqlCatalogBaseTable.metadata, "before_create", made_by_another)
    assert others
    assert_whole(shipped)


def test_several_hosts_commit_to_one_table(shipped, tmp_path):
    """Each adds its own files; none is lost, none is there twice."""
    others = []
    for number in range(2):
        other = Collected(tmp_path / f"host-{number}")
        other.make()
        for batch in range(4):
            other.commit([hit(10_000 * (number + 1) + batch)], shares=1)
        plan = {"output": str(other.output), "state": str(other.state.root)}
        others.append(Shipped(other, shipped.plan).with_plan(**plan))
    # all made by this process are of one instance: give each the name it would have had
    instances = [f"{number:016x}" for number in range(2)]
    for other, instance in zip(others, instances, strict=True):
        table = open_table(other.plan)
        for file in other.collected.files(FileKind.HITS):
            (shipped.root / file.final).parent.mkdir(parents=True, exist_ok=True)
            renamed = file.final.replace(INSTANCE, instance)
            (shipped.root / renamed).write_bytes((other.collected.output / file.final).read_bytes())
            first, last = (int(number) for number in renamed.split("-")[-3:-1])
            schema = pq.read_schema(shipped.root / renamed)
            table.add(
                Commit(STREAM, instance, first, last), [TablePart(renamed, file.size, file.rows, schema)]
            )
    assert scanned(shipped, IDS).num_rows == 8
    assert [open_table(shipped.plan).committed(instance) for instance in instances] == [4, 4]


def test_an_iceberg_table_is_of_one_stream(small, tmp_path):
    """Rows do not say which they are of: a second one is told to take another name."""
    shipped = with_table(small.copy_to(tmp_path / "one"), tmp_path, "iceberg", f"file://{tmp_path}/store")
    shipped.ship()
    other = Shipped(small.copy_to(tmp_path / "two"), shipped.plan).with_plan(
        stream="other",
        output=str(tmp_path / "two" / "output"),
        state=str(tmp_path / "two" / "output/.state/shop"),
    )
    with pytest.raises(ShipError, match="is of stream 'shop', not of 'other': give another"):
        other.ship()
    assert_whole(shipped)


# ---------------------------------------------------------------- what is in it


def test_a_new_version_of_the_schema_widens_the_table(shipped):
    """Its new column is null for the rows before."""
    shipped.ship()
    source = next((shipped.root / "hits").rglob("part-*.parquet"))
    wider = (
        pq.ParquetFile(source)
        .read()
        .append_column("newColumn", pa.array(["new"] * pq.read_metadata(source).num_rows))
    )
    path = str(source.relative_to(shipped.root)).replace("v=1", "v=2")
    (shipped.root / path).parent.mkdir(parents=True)
    pq.write_table(wider, shipped.root / path, store_schema=False)
    size = (shipped.root / path).stat().st_size
    part = TablePart(path, size, wider.num_rows, pq.read_schema(shipped.root / path))
    before = scanned(shipped, IDS).num_rows
    open_table(shipped.plan).add(Commit(STREAM, INSTANCE, 900, 901), [part])
    column = scanned(shipped, ["newColumn"]).column(0)
    assert (len(column), column.null_count) == (before + wider.num_rows, before)


def test_parts_are_replaced_in_one_commit_and_once(shipped):
    """What ``compact`` does: the old ones out, the new one in; asked again it knows."""
    shipped.ship()
    hours = {}
    for file in shipped.collected.files(FileKind.HITS):
        hours.setdefault(file.final.rpartition("/")[0], []).append(file)
    folder, files = max(hours.items(), key=lambda item: len(item[1]))
    merged = pa.concat_tables([pq.ParquetFile(shipped.root / file.final).read() for file in files])
    path = f"{folder}/compact-0123abcd.parquet"
    pq.write_table(merged, shipped.root / path, store_schema=False)
    new = TablePart(
        path, (shipped.root / path).stat().st_size, merged.num_rows, pq.read_schema(shipped.root / path)
    )
    before = places_of(scanned(shipped, ["collector_block", "collector_line"]))
    old = [file.final for file in files]
    assert open_table(shipped.plan).replace("compact-0123abcd", old, [new]) is True
    assert open_table(shipped.plan).replace("compact-0123abcd", old, [new]) is False
    for file in files:
        (shipped.root / file.final).unlink()
    assert places_of(scanned(shipped, ["collector_block", "collector_line"])) == before


def test_every_engine_reads_the_same_rows_and_types(shipped):
    """Of the files and of the table; ids at 2^63 and 2^64-1 are exact, hours are told apart."""
    shipped.ship()
    files = f"{shipped.root}/hits/v=1/**/*.parquet"
    session = datafusion.SessionContext()
    session.register_parquet("hits", f"{shipped.root}/hits/v=1/")
    found = {
        "duckdb": duckdb.sql(
            f"SELECT hitIdHigh, hitIdLow FROM read_parquet('{files}', hive_partitioning = false)"
        ).to_arrow_table(),
        "polars": pl.scan_parquet(files, hive_partitioning=False).select(IDS).collect().to_arrow(),
        "datafusion": session.sql('SELECT "hitIdHigh", "hitIdLow" FROM hits').to_arrow_table(),
        "table": scanned(shipped, IDS),
    }
    if shipped.plan.table_format == "delta":
        found["polars delta"] = pl.scan_delta(f"{shipped.root}/hits").select(IDS).collect().to_arrow()
    else:
        found["duckdb iceberg"] = (
            iceberg(shipped)
            .scan(selected_fields=tuple(IDS))
            .to_duckdb("hits")
            .sql("SELECT hitIdHigh, hitIdLow FROM hits")
            .to_arrow_table()
        )
    rows = {
        engine: sorted(
            table.select(IDS).to_pylist(),
            key=lambda row: (row["hitIdHigh"] is None, row["hitIdHigh"] or 0, row["hitIdLow"] or 0),
        )
        for engine, table in found.items()
    }
    assert {engine: table.schema.field("hitIdHigh").type for engine, table in found.items()} == dict.fromkeys(
        found, pa.decimal128(20, 0)
    )
    assert all(each == rows["table"] for each in rows.values())
    exact = [row["hitIdHigh"] for row in rows["table"] if row["hitIdLow"] == Decimal(2**64 - 1)]
    assert sorted(map(int, exact)) == sorted(EXTREMES)


def test_a_query_of_an_hour_finds_its_rows(shipped):
    """Partitions come from the path or the statistics: filed wrongly a row would be skipped."""
    shipped.ship()
    whole = scanned(shipped, ["received_at"])
    times = pc.floor_temporal(whole["received_at"], unit="hour")
    counted = {row["values"]: row["counts"] for row in pc.value_counts(times.combine_chunks()).to_pylist()}
    assert len(counted) > 2
    for hour, count in counted.items():
        if shipped.plan.table_format == "delta":
            where = [("date", "=", hour.date()), ("hour", "=", f"{hour:%H}")]
            found = DeltaTable(f"{shipped.plan.url}/hits").to_pyarrow_table(filters=where, columns=IDS)
        else:
            upper = hour.replace(minute=59, second=59, microsecond=999_999)
            text = f"received_at >= '{hour.isoformat()}' and received_at <= '{upper.isoformat()}'"
            found = iceberg(shipped).scan(row_filter=text, selected_fields=tuple(IDS)).to_arrow()
        assert found.num_rows == count


# ---------------------------------------------------------------- where it lies


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_over_the_output_folder(made, tmp_path, form):
    """Without a store: its files are the parts themselves, which stay, and ``verify`` finds no fault."""
    shipped = with_table(made.copy_to(tmp_path / "collected"), tmp_path, form, "", keep_local_s=0.0)
    shipped.ship()
    assert places_of(scanned(shipped, ["collector_block", "collector_line"])) == shipped.collected.rows()
    assert shipped.collected.found() == []
    assert shipped.ship().report().parts == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_in_an_object_store(made, tmp_path, s3, form):
    """Parts, log and metadata there; local copies are gone when the table has them."""
    shipped = with_table(
        made.copy_to(tmp_path / "collected"),
        tmp_path,
        form,
        f"s3://{BUCKET}/raw",
        endpoint=s3.endpoint,
        region="us-east-1",
        keep_local_s=0.0,
    )
    rows = shipped.collected.rows()
    shipped.ship()
    assert list(shipped.collected.output.glob("hits/**/*.parquet")) == []
    if form == "delta":
        options = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        table = DeltaTable(f"s3://{BUCKET}/raw/hits", storage_options=options).to_pyarrow_table()
    else:
        catalog = SqlCatalog("livestream", uri=shipped.plan.table_catalog, **{"s3.endpoint": s3.endpoint})
        table = catalog.load_table(shipped.plan.table_name).scan().to_arrow()
    assert places_of(table) == rows
    assert DISK.exists(shipped.collected.state.root / "ship" / "progress")
