"""``query`` over what a real run and a real ``decode`` left: forms, refusals, and text that means harm."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from harness import ROOT
from query_rig import HOSTILE, IDS, SENT, query

from collector.commands.query_session import Session
from collector.errors import ConfigurationError, StorageError
from collector.settings import Purpose, load_settings

FILES = "FROM hits WHERE stream = 'files'"


def session(output) -> Session:
    return Session(load_settings(Purpose.LOOK, options={"output.folder": str(output)}))


def rows(output, sql: str) -> list[dict]:
    done = query(output, "--format", "json", sql)
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def test_the_views_say_what_was_collected(collected):
    """Every hit, reject, resend and gap is in the row of its hour."""
    sql = (
        "SELECT stream, sum(hits) hits, sum(rejects) rejects, sum(resends) resends, sum(gaps) gaps FROM hours"
    )
    found = {row.pop("stream"): row for row in rows(collected, f"{sql} GROUP BY ALL")}
    assert found["files"] == {"hits": len(IDS), "rejects": 2, "resends": None, "gaps": 0}
    assert found["demo-stream"].items() >= {"hits": SENT, "rejects": 0, "gaps": 1}.items()
    assert found["demo-stream"]["resends"] > 0


def test_csv_keeps_values_and_tells_nothing_from_empty(collected):
    """In a pipe it is the form, byte for byte; NULL is empty, an empty text is quoted."""
    done = query(collected, f"SELECT hitIdHigh, pageName, NULL AS n, '' AS e {FILES} ORDER BY 1")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert text.splitlines()[0] == "hitIdHigh,pageName,n,e"
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [int(row["hitIdHigh"]) for row in read] == sorted(IDS)
    assert {row["pageName"] for row in read} == {HOSTILE}
    assert ',,""\n' in text


def test_json_keeps_numbers_texts_and_what_is_nested(collected):
    """An array, or one object a line; 64 bits exactly."""
    columns = "hitIdLow, pageName, evars, products[1].name AS product, NULL AS nothing"
    for form in ("json", "ndjson"):
        done = query(collected, "--format", form, f"SELECT {columns} {FILES} ORDER BY hitIdLow")
        assert (done.returncode, done.stderr) == (0, b"")
        read = json.loads(done.stdout) if form == "json" else [*map(json.loads, done.stdout.splitlines())]
        assert [row["hitIdLow"] for row in read] == sorted(2**64 - 1 - number for number in IDS)
        assert all(row["pageName"] == row["product"] == row["evars"]["evar1"] == HOSTILE for row in read)
        assert all(row["nothing"] is None for row in read)


def test_parquet_goes_into_a_file(collected, tmp_path):
    """With the types that the output has; the file is there whole or not at all, and nothing beside it."""
    file = tmp_path / "result.parquet"
    done = query(collected, f"SELECT hitIdHigh, evars {FILES}", "-o", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    read = pq.read_table(file).to_pylist()
    assert sorted(row["hitIdHigh"] for row in read) == [Decimal(number) for number in sorted(IDS)]
    assert {dict(row["evars"])["evar1"] for row in read} == {HOSTILE}
    assert query(collected, "SELECT error('late') FROM hits", "-o", tmp_path / "bad.csv").returncode == 2
    assert os.listdir(tmp_path) == ["result.parquet"]
    assert query(collected, "--format", "parquet", "FROM hits").returncode == 2


def test_the_result_follows_what_was_in_the_stream(collected, tmp_path):
    """A file that is appended to keeps what it has."""
    file = tmp_path / "all.csv"
    file.write_text("before\n")
    command = [sys.executable, "-m", "collector", "query", "--output", str(collected), "SELECT 1 AS one"]
    with open(file, "ab") as out:
        subprocess.run(command, cwd=ROOT, stdout=out, check=True)
    assert file.read_text() == "before\none\n1\n"


def test_whoever_has_enough_may_go(collected):
    """``| head -1``: no traceback, no waiting for rows that nobody reads."""
    command = [sys.executable, "-m", "collector", "query", "--output", str(collected)]
    command += ["SELECT range, repeat('x', 100) FROM range(1000000000)"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"range,\"repeat('x', 100)\"\n"
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_a_full_disk_is_said(collected):
    """Exit 4, not a traceback."""
    command = [sys.executable, "-m", "collector", "query", "--output", str(collected), "FROM range(100000)"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["argument", "dash", "pipe", "file"])
def test_sql_comes_from_wherever(collected, tmp_path, way):
    """Several statements, comments, text beyond ASCII; one without rows gives none."""
    sql = "SET threads = 1; SELECT 'é;' AS \"ü\"; -- done; really"
    (tmp_path / "q.sql").write_text(sql)
    arguments = {"argument": [sql], "dash": ["-"], "pipe": [], "file": ["--file", tmp_path / "q.sql"]}[way]
    done = query(collected, *arguments, stdin=sql.encode() if way in {"dash", "pipe"} else b"")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, "ü\né;\n", b"")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["SELEC 1"], "syntax error"),
        (["SELECT pagename2 FROM hits"], "pagename2"),
        (["FROM nothing"], "hits, rejects, connections, hours"),
        ([""], "no statement"),
        (["SELECT 1; SELECT 2"], "holds one result"),
        (["SELECT 1", "--format", "parquet"], "-o FILE"),
        (["SELECT 1", "-o", "x.unknown"], "--format"),
        (["SELECT 1", "-o", "/no/such/folder/x.csv"], "no folder"),
        (["COPY hits TO 'x.csv'"], "query only reads"),
        (["SELECT 1; ATTACH 'x.db'"], "query only reads"),
        (["EXPORT DATABASE 'x'"], "query only reads"),
        (["SELECT 1", "--lateness", "soon"], "query.lateness_s"),
        (["SELECT 1", "--file", "README.md"], "not both"),
    ],
)
def test_what_cannot_be_asked_is_said(collected, arguments, says):
    """Exit 2, DuckDB's own words and the views there are; nothing on stdout."""
    done = query(collected, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_only_the_collector_writes_into_the_output(collected, tmp_path):
    """By whatever way the path leads there."""
    (tmp_path / "link").symlink_to(collected / "hits")
    before = sorted(collected.rglob("*"))
    for path in (collected / "x.csv", tmp_path / "link" / "x.parquet"):
        done = query(collected, "SELECT 1", "-o", path)
        assert done.returncode == 2
        assert "only the collector writes" in done.stderr.decode()
    assert sorted(collected.rglob("*")) == before


def test_an_empty_folder_has_empty_views_and_a_missing_one_is_said(tmp_path):
    """Before the first part there are no rows, and that is no error."""
    assert rows(tmp_path, "SELECT count(*) AS n FROM hits, rejects, connections, hours") == [{"n": 0}]
    done = query(tmp_path / "missing", "SELECT 1")
    assert done.returncode == 2
    assert "there is no folder" in done.stderr.decode()


def test_neither_state_nor_credentials_are_needed(collected, tmp_path):
    """A copy of the parts is enough, and a settings file may say where they are."""
    (tmp_path / "output").symlink_to(collected)
    config = tmp_path / "c.toml"
    config.write_text(f'[output]\nfolder = "{tmp_path / "output"}"\n[query]\nmemory_bytes = "256 MiB"\n')
    command = [
        sys.executable,
        "-m",
        "collector",
        "query",
        "--config",
        str(config),
        "SELECT count(*) n FROM hits",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"n\n{SENT + len(IDS)}\n"


def test_without_duckdb_the_pip_line_is_said(tmp_path):
    """Exit 2, before anything is looked at."""
    program = "import sys; sys.modules['duckdb'] = None; from collector.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "query", "--output", str(tmp_path), "SELECT 1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'livestream-collector[query]'" in done.stderr


def test_a_table_cannot_steer_a_terminal(collected):
    """Control characters are written out; NULL is to be seen; the rows are counted."""
    done = query(
        collected,
        "--format",
        "table",
        "SELECT pageName, raw, NULL AS x FROM hits JOIN rejects USING (stream)",
    )
    text = done.stdout.decode()
    assert "\\x1b[2J\\x1b]0;owned\\x07 \\x9b31m \\u202eevil\\r\\n" in text
    assert text.replace("\n", "").isprintable()
    assert "NULL" in text
    assert text.splitlines()[-1] == "8 rows"


def test_a_table_stops_where_nobody_would_read_on(collected):
    """However many rows there would be."""
    done = query(collected, "--format", "table", "FROM range(1000000000000)")
    assert done.stdout.decode().splitlines()[-1] == "more than 10,000 rows, the first 100 shown"


def test_parts_may_come_and_go(collected):
    """A part that went is no matter; one that stays away is an error that says so; a typo is a typo."""
    gone = f"FROM '{collected}/hits/part-gone.parquet'"
    with session(collected) as open_session:
        calls = []

        def work() -> int:
            calls.append(1)
            if len(calls) < 3:
                open_session.database.execute(gone)
            return len(calls)

        assert open_session.attempt(work) == 3
        with pytest.raises(StorageError, match="taken away meanwhile"):
            open_session.attempt(lambda: open_session.database.execute(gone))
        with pytest.raises(ConfigurationError, match="No files found"):
            open_session.attempt(lambda: open_session.database.execute("FROM '/no/such/part.parquet'"))


def test_new_parts_are_seen_by_the_next_query(tmp_path, collected):
    """A prompt that was opened before the first part came."""
    with session(tmp_path) as open_session:

        def count() -> int:
            return open_session.database.execute("SELECT count(*) FROM hits").fetchone()[0]

        assert open_session.attempt(count) == 0
        (tmp_path / "hits").symlink_to(collected / "hits")
        assert open_session.attempt(count) == SENT + len(IDS)


def test_memory_and_threads_are_bounded_and_spill_has_a_place(collected):
    """Outside the output folder, gone with the session."""
    options = {"output.folder": str(collected)}
    settings = load_settings(
        Purpose.LOOK, options=options, assignments=["query.memory_bytes=256 MiB", "query.threads=1"]
    )
    with Session(settings) as open_session:
        names = ("memory_limit", "threads", "temp_directory")
        found = [
            open_session.database.execute(f"SELECT current_setting('{name}')").fetchone()[0] for name in names
        ]
        assert found[:2] == ["256.0 MiB", 1]
        assert os.path.isdir(found[2])
        big = "SELECT count(*) FROM (SELECT range, random() r FROM range(20000000) ORDER BY r)"
        assert open_session.attempt(lambda: open_session.database.execute(big).fetchone()) == (20_000_000,)
    assert not os.path.exists(found[2])


def test_python_is_no_table(collected):
    """A name that no view has is unknown, whatever variables there are."""
    with session(collected) as open_session, pytest.raises(ConfigurationError, match="does not exist"):
        open_session.attempt(lambda: open_session.database.execute("FROM open_session"))


def test_no_thread_is_left(collected):
    """The one that queries run on ends with the session."""
    before = threading.active_count()
    with session(collected) as open_session:
        open_session.attempt(lambda: open_session.database.execute("SELECT 1").fetchall())
    assert threading.active_count() == before
