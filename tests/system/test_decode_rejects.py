"""``decode --rejects``: what was no hit is run again after an upgrade, each record once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from harness import PATIENCE_S, ROOT, wait_until

from collector import __version__
from collector.core.messages import Stage, Totals
from collector.decoder import parquet
from collector.decoder.decode import Decoded
from collector.decoder.parquet import PartIdentity, Share
from collector.decoder.rows import Reject
from collector.simulator.hits import Hits, Timeline
from collector.storage.fs import DISK

STREAM = "shop"
OLDER = "0.0.1"
HITS = [line.strip() for line in Hits(11, Timeline(start_s=1_790_000_000)).lines(0, 4000)]
JUNK = [
    b"no hit at all",
    b'{"broken": ',
    b"ends in a CR\r",
    b"ends in two\r\r",
    b"\r",
    b"\xff\xfe\x00 bytes",
    b"\x1f\x8b\x08 begins like gzip",
]


def make_part(
    output: Path, raws: list[bytes], *, block: int = 1, instance: str = "a" * 16, reason: str = "not json: x",
    version: str = OLDER,
) -> Path:  # fmt: skip
    """A rejects part as an older version would have left it."""
    staging = output.parent / "made"
    staging.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "__version__", version)
        share = Share(DISK, staging, PartIdentity(instance, STREAM), batch=block, share=1, attempt=1)
        share.add(decoded([Reject(line, reason, raw) for line, raw in enumerate(raws)]), nothing(), seq=block)
        order = Stage(block, block, 1, 1, 1, Totals(), (0, 0), (0, 0))
        (staged,) = share.stage(order)
    part = output / staged.final
    part.parent.mkdir(parents=True, exist_ok=True)
    return (staging / staged.staged).rename(part)


def decoded(rejects: list[Reject]) -> Decoded:
    none = np.empty(0, np.uint64)
    flags, lines, hours = np.empty(0, np.bool_), np.empty(0, np.int32), np.empty(0, np.int64)
    return Decoded(
        [], none, none, flags, lines, hours, rejects, 0, False, len(rejects), 1_790_000_000_000_000
    )


def nothing() -> np.ndarray:
    return np.empty(0, np.uint32)


def command(output: Path, *arguments: object) -> list[str]:
    flags = ["--rejects", "--stream", STREAM, "--output", output, "--log-format", "json", *arguments]
    return [sys.executable, "-m", "collector", "decode", *map(str, flags)]


def run_again(output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(output, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    print(done.stdout, done.stderr)
    return done


def rows(output: Path, kind: str = "hits") -> list[dict]:
    folder = output / kind
    return pq.read_table(folder, partitioning=None).to_pylist() if folder.exists() else []


def instance_of(output: Path) -> str:
    (row, *_) = rows(output)
    return row["collector_instance"]


def rejected_by(output: Path, instance: str) -> list[bytes]:
    return [row["raw"] for row in rows(output, "rejects") if row["collector_instance"] == instance]


def ids_in(lines: list[bytes]) -> Counter[str]:
    return Counter(str(json.loads(line)["hitIdHigh"]) for line in lines)


def ids(output: Path) -> Counter[str]:
    return Counter(str(row["hitIdHigh"]) for row in rows(output))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def test_rejects_that_are_hits_now_become_rows_and_the_rest_stays(output):
    """Of all instances: hits are rows filed by their time, junk comes back to the byte, old parts stay.

    What two of them hold is a row once; records that are not whole are left out, poison is not.
    """
    old = b'{"receivedTimeGMT":946684800,"hitIdHigh":1,"hitIdLow":2}'
    parts = [
        make_part(output, [*JUNK, *HITS[:50]]),
        make_part(output, [old, HITS[0]], block=2, instance="b" * 16, reason="poison: decoders died of it"),
        make_part(output, HITS[50:53], block=3, reason="oversized: raw is not all of it"),
    ]
    before = [part.read_bytes() for part in parts]
    done = run_again(output)
    assert done.returncode == 0
    assert ids(output) == ids_in([old, *HITS[:50]])
    assert Counter(rejected_by(output, instance_of(output))) == Counter(JUNK)
    assert (output / f"hits/v=1/stream={STREAM}/date=2000-01-01/hour=00").is_dir()
    assert [part.read_bytes() for part in parts] == before
    assert (
        f"3 of 3 rejects parts of stream {STREAM} run again: 59 records, 51 of them became hits,"
        " 1 were resends of those, 7 stayed rejects; 3 that were cut at the size limit were skipped"
    ) in done.stdout
    assert instance_of(output) not in {"a" * 16, "b" * 16}
    assert list((output / ".state" / f"{STREAM}.rejects" / "staging").iterdir()) == []


def test_each_part_is_run_once_and_own_leftovers_wait_for_another_version(output):
    """A second call adds nothing but what another version of this command left as rejects."""
    make_part(output, [*JUNK, *HITS[:10]])
    assert run_again(output).returncode == 0
    ours = instance_of(output)
    make_part(output, HITS[10:15], block=900, instance=ours)
    make_part(output, HITS[15:20], block=901, instance=ours, version=__version__)
    assert "1 of 4 rejects parts" in run_again(output).stdout
    assert ids(output) == ids_in(HITS[:15])
    assert Counter(rejected_by(output, ours)) == Counter([*JUNK, *HITS[10:20]]), "old parts stay"


def test_without_rejects_parts_it_says_so_and_makes_nothing(output):
    """Exit 0, and no state folder for a mistyped name."""
    done = run_again(output)
    assert done.returncode == 0
    assert "no rejects parts" in done.stdout
    assert not output.exists()


def test_a_damaged_part_is_named_and_the_others_are_run(output):
    """Exit 2, the part's path; whatever is whole is taken."""
    damaged = make_part(output, HITS[:10])
    damaged.write_bytes(damaged.read_bytes()[:-20])
    make_part(output, HITS[10:20], block=2)
    empty = make_part(output, HITS[20:22], block=3)
    empty.write_bytes(b"")
    done = run_again(output)
    assert done.returncode == 2
    assert str(damaged) in done.stderr
    assert str(empty) in done.stderr
    assert ids(output) == ids_in(HITS[10:20])


SLOWLY = (
    *("--decoders", 1, "--set", "parts.max_age_s=0.1", "--set", "journal.segment_bytes=1MiB"),
    *("--set", "journal.max_record_bytes=64KiB", "--set", "journal.max_bytes=3MiB"),
)
"""A journal that is full at once: what is read waits for what is committed."""


def test_interrupted_and_started_again_each_record_is_taken_once(output, tmp_path):
    """Drained in the middle of a part, killed in the middle of one: each call goes on where it stood."""
    junk = [b"junk of %d" % block for block in range(1, 5)]
    for block in range(1, 5):
        make_part(output, [*HITS[block * 1000 - 1000 : block * 1000], junk[block - 1]], block=block)
    seen: set[Path] = set()
    for name, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        with open(tmp_path / "log", "ab") as text:
            process = subprocess.Popen(command(output, *SLOWLY), cwd=ROOT, stdout=text, stderr=text)
        wait_until(lambda: parts_of(output) > seen, "a batch of this run")  # noqa: B023
        process.send_signal(name)
        assert process.wait(PATIENCE_S) == code, (tmp_path / "log").read_text()
        seen = parts_of(output)
        assert 0 < len(rows(output)) < len(HITS), "it was in the middle"
    assert run_again(output).returncode == 0
    assert ids(output) == ids_in(HITS)
    assert sorted(rejected_by(output, instance_of(output))) == junk
    assert list((output / ".state" / f"{STREAM}.rejects" / "staging").iterdir()) == []


def parts_of(output: Path) -> set[Path]:
    return {*(output / "hits").rglob("*.parquet")}
