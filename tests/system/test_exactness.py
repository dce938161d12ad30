"""What was sent is what is found: every field of every sample hit, through ``decode`` and through ``run``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chdb import session as clickhouse
from datafusion import SessionContext
from harness import PATIENCE_S, ROOT
from query_rig import HOSTILE, IDS

from collector.decoder.schema import HITS_SCHEMA
from tests import reference

SAMPLE = ROOT / "tests" / "data" / "hits-sample.jsonl"
RECORDS = [line for line in SAMPLE.read_bytes().split(b"\r\n") if line]


def distinct() -> list[bytes]:
    """The sample's records without those whose id was there before: these are resends."""
    seen, lines = set(), []
    for line in RECORDS:
        record = reference.parse(line.decode())
        name = (record.get("hitIdHigh"), record.get("hitIdLow"))
        if None in name or name not in seen:
            lines.append(line)
        seen.add(name)
    return lines


def with_pyarrow(output: Path) -> pa.Table:
    return pq.read_table(output / "hits", partitioning=None)


def with_polars(output: Path) -> pa.Table:
    return pl.read_parquet(output / "hits/**/*.parquet", hive_partitioning=False).to_arrow()


def with_duckdb(output: Path) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sql = f"FROM read_parquet('{output}/hits/**/*.parquet', hive_partitioning = false)"
        return connection.sql(sql).to_arrow_table()


def with_datafusion(output: Path) -> pa.Table:
    return SessionContext().read_parquet(f"{output}/hits/").to_arrow_table()


def with_clickhouse(output: Path) -> pa.Table:
    settings = "use_hive_partitioning = 0, output_format_arrow_string_as_string = 1"
    with clickhouse.Session() as session:
        sql = f"SELECT * FROM file('{output}/hits/**/*.parquet', Parquet) SETTINGS {settings}"
        return session.query(sql, "ArrowTable")


ENGINES = [with_pyarrow, with_polars, with_duckdb, with_datafusion, with_clickhouse]
"""Spark takes its time: it is asked with the recipes of the cookbook."""


@pytest.fixture(scope="module")
def by_decode(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("decode") / "output"
    command = [sys.executable, "-m", "collector", "decode", str(SAMPLE), "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE_S)
    return output


@pytest.fixture
def by_run(make_service, make_collector) -> Path:
    lines = distinct()
    service = make_service(file=SAMPLE, total=len(RECORDS))
    collector = make_collector(service)
    assert collector.run("--stop-after-hits", str(len(lines))) == 0, collector.log
    return collector.output


def judge(rows: list[dict]) -> None:
    """Each distinct record is one row, which says all that the record says and nothing else."""
    lines = distinct()
    assert len(rows) == len(lines)
    rows.sort(key=lambda row: (row["collector_block"], row["collector_line"]))
    for line, row in zip(lines, rows, strict=True):
        columns = reference.columns_of(row)
        extra = reference.plain(("map", "text"), row["extra"] or {})
        rebuilt = reference.rebuild(columns, extra)
        assert reference.same(rebuilt, reference.parse(line.decode())), json.loads(line)


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine is not with_clickhouse])
def test_decode_keeps_every_field_of_every_hit(by_decode, engine):
    """A saved file, read back with each engine."""
    judge(engine(by_decode).to_pylist())


def test_clickhouse_has_no_null_for_what_is_nested(by_decode):
    """It shows an empty one, which means the same; all else is as pyarrow has it."""
    found, expected = (
        [emptied(row) for row in engine(by_decode).sort_by(ORDER).to_pylist()]
        for engine in (with_clickhouse, with_pyarrow)
    )
    assert found == expected


ORDER = [("collector_block", "ascending"), ("collector_line", "ascending")]


def emptied(value):
    """``None`` for whatever is empty, members of objects that are so left out."""
    if isinstance(value, dict):
        return {key: kept for key, item in value.items() if (kept := emptied(item)) is not None} or None
    return (list(map(emptied, value)) or None) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("engine", [with_pyarrow, with_duckdb])
def test_run_keeps_every_field_of_every_hit(by_run, engine):
    """The same records over a connection: CRLF, gzip, chunks, redirects and all."""
    judge(engine(by_run).to_pylist())


def kind(of: pa.DataType) -> object:
    """What a type can hold, whichever of Arrow's forms an engine gives it."""
    if pa.types.is_map(of):
        return ("map", kind(of.key_type), kind(of.item_type))
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return ("list", kind(of.value_type))
    if pa.types.is_struct(of):
        return ("struct", tuple((field.name, kind(field.type)) for field in of))
    if pa.types.is_large_string(of) or pa.types.is_string_view(of):
        return kind(pa.string())
    return str(of)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_sees_the_same_types(by_decode, engine):
    """Those of the schema, ids, times and what is nested included."""
    found = {field.name: kind(field.type) for field in engine(by_decode).schema}
    assert found == {field.name: kind(field.type) for field in HITS_SCHEMA}


@pytest.mark.parametrize("engine", ENGINES)
def test_ids_and_texts_are_exact_at_their_edges(collected, engine):
    """2^63 and 2^64 - 1 in both halves; each character of a hostile text, also in maps and lists."""
    rows = [row for row in engine(collected).to_pylist() if row["pageName"] == HOSTILE]
    assert sorted((int(row["hitIdHigh"]), int(row["hitIdLow"])) for row in rows) == sorted(
        (number, 2**64 - 1 - number) for number in IDS
    )
    for row in rows:
        assert dict(row["evars"]) == {"evar1": HOSTILE, "evar2": f"plain {row['hitIdHigh']}"}
        (product,) = row["products"]
        assert (product["name"], dict(product["evars"])) == (HOSTILE, {"evar3": "x"})
