"""``decode``: saved files through the same pipeline, and ``demo``: the whole job in one command."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import PATIENCE_S, ROOT

from collector.simulator.hits import Hits, Timeline

LINES = [line.strip() for line in Hits(5, Timeline(start_s=1_790_000_000)).lines(0, 400)]


def collector(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def rows(output: Path, kind: str = "hits") -> list[dict]:
    folder = output / kind
    return pq.read_table(folder, partitioning=None).to_pylist() if folder.exists() else []


def pages(output: Path) -> list[str]:
    return sorted(row["pageName"] or "" for row in rows(output))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_whole_whatever_its_line_ends(tmp_path, output, ending, packed):
    """LF, CRLF, or none behind the last record; plain or gzip, by content and not by name."""
    text = (ending or b"\n").join(LINES) + ending
    path = tmp_path / "hits.jsonl"
    path.write_bytes(gzip.compress(text) if packed else text)
    done = collector("decode", path, "--output", output)
    assert done.returncode == 0, done.stderr
    assert len(rows(output)) == len(LINES)


def test_a_file_known_by_its_content_adds_nothing(tmp_path, output):
    """The same bytes under another name are the same file; other bytes are another one."""
    first, copy, other = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    first.write_bytes(b"\n".join(LINES[:100]) + b"\n")
    copy.write_bytes(first.read_bytes())
    other.write_bytes(b"\n".join(LINES[100:150]) + b"\n")
    assert collector("decode", first, copy, "--output", output).returncode == 0
    assert len(rows(output)) == 100
    assert collector("decode", copy, other, "--output", output).returncode == 0
    assert len(rows(output)) == 150


def test_an_empty_file_is_fine(tmp_path, output):
    """Nothing in, nothing out, exit 0."""
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert collector("decode", path, "--output", output).returncode == 0
    assert rows(output) == []


def test_a_damaged_file_is_named_and_what_was_whole_is_taken(tmp_path, output):
    """Exit 2, the file and how far it was read; the file behind it is read all the same."""
    damaged, whole = tmp_path / "damaged.jsonl.gz", tmp_path / "whole.jsonl"
    packed = gzip.compress(b"\n".join(LINES[:200]) + b"\n")
    damaged.write_bytes(packed[: len(packed) // 2])
    whole.write_bytes(b"\n".join(LINES[200:]) + b"\n")
    done = collector("decode", damaged, whole, "--output", output)
    assert done.returncode == 2
    assert "damaged.jsonl.gz" in done.stderr.splitlines()[-1]
    assert len(LINES) - 200 < len(rows(output)) < len(LINES)
    assert f"{len(rows(output)):,} hits" in done.stdout, "what was taken is said all the same"
    again = collector("decode", damaged, whole, "--output", output)
    assert again.returncode == 2, "as long as the file is damaged"
    assert "0 hits" in again.stdout


def test_old_hits_keep_their_time_and_odd_lines_are_rejects(tmp_path, output):
    """No lower bound for times in saved files; what is no hit is kept with its reason."""
    path = tmp_path / "hits.jsonl"
    path.write_bytes(b'{"receivedTimeGMT":946684800,"pageName":"y2k"}\nno hit\n')
    assert collector("decode", path, "--output", output).returncode == 0
    (row,) = rows(output)
    assert row["received_at"].isoformat() == "2000-01-01T00:00:00+00:00"
    assert (output / "hits/v=1/stream=files/date=2000-01-01/hour=00").is_dir()
    (reject,) = rows(output, "rejects")
    assert (reject["raw"], reject["collector_line"]) == (b"no hit", 1)


def test_resends_across_files_are_dropped(tmp_path, output):
    """A hit that is in two files is a row once."""
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(b"\n".join(LINES[:200]) + b"\n")
    second.write_bytes(b"\n".join(LINES[100:300]) + b"\n")
    assert collector("decode", first, "--output", output).returncode == 0
    assert collector("decode", second, "--output", output).returncode == 0
    assert len(rows(output)) == 300


def test_no_journal_is_left_in_memory(tmp_path, output):
    """The journal of ``decode`` is in memory, and given back."""
    path = tmp_path / "hits.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    assert collector("decode", path, "--output", output).returncode == 0
    (instance,) = {row["collector_instance"] for row in rows(output)}
    assert not [name for name in os.listdir("/dev/shm") if instance in name]


def test_a_file_larger_than_the_journal_makes_few_parts(tmp_path, output):
    """Reading is faster than decoding, so the journal is always full; a batch is half of it all the same."""
    path, journal_bytes = tmp_path / "hits.jsonl", 96 << 20
    text = b"\n".join(LINES) + b"\n"
    with path.open("wb") as file:
        file.writelines(text for _ in range(3 * journal_bytes // len(text)))
    settings = (f"journal.max_bytes={journal_bytes}", "journal.segment_bytes=4MiB", "run.decoders=1")
    done = collector("decode", path, "--output", output, *(word for at in settings for word in ("--set", at)))
    assert done.returncode == 0, done.stderr
    assert "connection.paused" in done.stderr, "there was room all the time"
    assert len(rows(output)) == len(LINES)
    assert done.stderr.count("batch.committed") < 10


def test_the_demo_misses_and_doubles_nothing(output):
    """One forced disconnect waited out, then the summary from the Parquet."""
    done = collector("demo", "--seconds", "4", "--output", output)
    assert done.returncode == 0, done.stderr
    assert "missing 0, doubled 0" in done.stdout
    assert "lost" in done.stdout
    assert "shortens the floor" in done.stdout


def test_the_demo_wants_an_empty_folder(output):
    """Nothing of somebody else's is touched: exit 2."""
    output.mkdir()
    (output / "file").touch()
    assert collector("demo", "--output", output).returncode == 2
