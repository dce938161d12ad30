"""``docs/cookbook.md``: every block runs, and gives what plain Python gives for the same rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cookbook
import duckdb
import pytest
from chdb import session as clickhouse
from harness import ROOT

from collector.commands.query_views import define_views

BLOCKS = cookbook.blocks()
RECIPES = list(cookbook.EXPECTED)


@pytest.fixture(scope="session")
def lake(collected, tmp_path_factory) -> Path:
    """Of a run that lived through a cut, and of two hosts that have hits in common."""
    output = tmp_path_factory.mktemp("cookbook") / "output"
    shutil.copytree(collected, output, ignore=shutil.ignore_patterns(".state"))
    cookbook.make(output)
    return output


@pytest.fixture(scope="session")
def expected(lake) -> dict[str, list]:
    rows = cookbook.Rows(lake)
    found = {heading: cookbook.plain_rows(work(rows)) for heading, work in cookbook.EXPECTED.items()}
    assert all(found.values()), "a recipe that finds nothing proves nothing"
    return found


def block(lake: Path, heading: str, engine: str) -> str:
    text = BLOCKS[heading][engine]
    return text.replace(cookbook.DATA, str(lake))


def test_every_recipe_is_there_for_every_engine():
    """And every recipe of the page is one that is checked here."""
    assert list(BLOCKS) == [cookbook.SETUP, *RECIPES]
    assert {heading: tuple(found) for heading, found in BLOCKS.items()} == dict.fromkeys(
        BLOCKS, cookbook.ENGINES
    )


@pytest.fixture(scope="session")
def in_duckdb(lake):
    """By the page's views, and by those of ``query``: the same."""
    with duckdb.connect() as by_page, duckdb.connect() as by_query:
        by_page.execute(block(lake, cookbook.SETUP, "duckdb"))
        by_query.execute("SET TimeZone = 'UTC'")
        define_views(by_query, lake)
        yield by_page, by_query


@pytest.mark.parametrize("heading", RECIPES)
def test_duckdb(lake, expected, in_duckdb, heading):
    """In any DuckDB, and in ``query``."""
    for database in in_duckdb:
        found = database.sql(block(lake, heading, "duckdb")).to_arrow_table().to_pylist()
        assert cookbook.plain_rows(row.values() for row in found) == expected[heading]


@pytest.fixture(scope="session")
def in_polars(lake) -> dict:
    scope: dict = {}
    exec(block(lake, cookbook.SETUP, "polars"), scope)
    return scope


@pytest.mark.parametrize("heading", RECIPES)
def test_polars(lake, expected, in_polars, heading):
    """Lazily, as the page has it."""
    scope = dict(in_polars)
    exec(block(lake, heading, "polars"), scope)
    assert cookbook.plain_rows(scope["result"].rows()) == expected[heading]


@pytest.fixture(scope="session")
def in_clickhouse(lake):
    with clickhouse.Session() as session:
        for statement in block(lake, cookbook.SETUP, "clickhouse").split(";\n"):
            session.query(statement)
        yield session


@pytest.mark.parametrize("heading", RECIPES)
def test_clickhouse(lake, expected, in_clickhouse, heading):
    """ClickHouse in this process (chdb)."""
    found = in_clickhouse.query(block(lake, heading, "clickhouse"), "ArrowTable").to_pylist()
    assert cookbook.plain_rows(row.values() for row in found) == expected[heading]


def without_spark(reason: str) -> None:
    """What is missing is a skip locally and a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: CI must have it")
    pytest.skip(reason)


@pytest.mark.matrix
@pytest.mark.timeout(900)
def test_spark(lake, expected):
    """In an environment of its own, which is made when it is first asked for."""
    if shutil.which("java") is None:
        without_spark("java is not installed (on Debian: apt-get install default-jre-headless)")
    subprocess.run(
        [ROOT / "scripts" / "setup", ".venv-spark", "requirements-spark.lock"], cwd=ROOT, check=True
    )
    asked = {
        "setup": block(lake, cookbook.SETUP, "spark"),
        "recipes": {heading: block(lake, heading, "spark") for heading in RECIPES},
    }
    done = subprocess.run(
        [ROOT / ".venv-spark" / "bin" / "python", ROOT / "tests" / "system" / "spark_blocks.py"],
        cwd=lake.parent,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TZ": "UTC", "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for heading in RECIPES:
        assert found[heading] == expected[heading], heading
