"""What was sent is what is found: every field of every sample hit, through ``decode`` and through ``run``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from harness import PATIENCE_S, ROOT

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


def with_pyarrow(output: Path) -> list[dict]:
    return pq.read_table(output / "hits", partitioning=None).to_pylist()


def with_polars(output: Path) -> list[dict]:
    return pl.read_parquet(output / "hits/**/*.parquet", hive_partitioning=False).to_arrow().to_pylist()


def with_duckdb(output: Path) -> list[dict]:
    with duckdb.connect() as connection:
        sql = f"FROM read_parquet('{output}/hits/**/*.parquet', hive_partitioning = false)"
        return connection.sql(sql).arrow().read_all().to_pylist()


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


@pytest.mark.parametrize("engine", [with_pyarrow, with_polars, with_duckdb])
def test_decode_keeps_every_field_of_every_hit(by_decode, engine):
    """A saved file, read back with three engines."""
    judge(engine(by_decode))


@pytest.mark.parametrize("engine", [with_pyarrow, with_polars, with_duckdb])
def test_run_keeps_every_field_of_every_hit(by_run, engine):
    """The same records over a connection: CRLF, gzip, chunks, redirects and all."""
    judge(engine(by_run))
