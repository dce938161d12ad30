"""The collector as a whole, from its first process to its last: what it costs, carries and keeps waiting.

``python -m pytest bench/test_wholes.py --quick`` runs it. Hits come from a file, or over TLS from a process
that sends prepared bytes only (``bench/sender.py``); everything is on: synced journal, exact decoding,
resends dropped. Each test checks that every hit is a row before it records anything.

What a record says, beyond what ``bench/processes.py`` counts:

``cpu_us_per_hit``, also by process
    All CPU time of all processes, start and exit included. What has no hits counts as one: of a start its
    CPU time in all, of a silent stream that of a second.
``cpu_us_per_hit_steady``, ``start_cpu_s``
    The same without the start, and the start: what was spent until shortly before the first hit was sent
    (it is held back until everything is up), or by decoding a file of one hit, its exit included.
``hits_per_s``
    Of a file from start to exit; of a stream from the first hit sent until the last is visible. The sender
    works on the same cores.
``hits_per_s_reader``
    What the reader takes while the decoders run behind it: the time is that of the sender. Errs high by what
    the sockets hold in the end, some MB of 480 bytes a hit.
``durable_p50_s``, ``durable_p99_s``
    From the moment before a hit's chunk was handed to the sender's socket until the sync of its block in the
    journal had returned in the reader, by notes that ``bench/probe`` takes there. Errs late, by microseconds.
``visible_p50_s``, ``visible_p99_s``
    From the same moment to the ctime of the part, which its rename under the final name sets. Errs early,
    by at most one tick of the kernel's clock (4 ms). It contains the wait for ``parts.max_age_s``, which is
    1/30 of the default here.
``recovered_s``, ``committed_s``
    After SIGKILL of everything at full rate, with most of a batch in the journal and nothing committed, which
    is the most that a crash can leave: from the next exec until the collector has taken it up and begins, and
    until all of it is in Parquet and the process has ended.
``late_p99_s``
    How far the sender was behind the rate, since it had no processor or the collector did not read.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data import gzip_file
from bench.processes import ROOT, Usage, Watched
from bench.sender import CLIENT, I64, Sender, Stock, prepare

pytestmark = pytest.mark.timeout(600)

COLLECTOR = (sys.executable, "-m", "collector")
SOCKET_HITS = {True: 60_000, False: 320_000}
"""By whether it is to be quick, like what follows. 1 GB of text: a batch is no larger by default."""
PACED_S = {True: 8, False: 30}
SILENT_S = {True: 5.0, False: 20.0}
LONG_ROUNDS = {True: 1, False: 2}
"""Of what takes long for its time alone."""

TWINS = {"kernel": "auto", "plain": "off"}
"""Of decoding, with the setting ``decode.kernel``."""

RATES = (1_000, 10_000)
CHUNKS_PER_S = 100
FULL_RATE_CHUNK_HITS = 100
HOLD_S = 1.0
"""From the request to the first hit: the decoders are up by then."""
PATIENCE_S = 120.0
PERCENTILES = (50, 99)
KILLED_AT = 0.8
"""Of what is sent."""

POLL_S = 0.01
STARTED = re.compile(r"(\S+) +INFO +run\.started ")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="livestream-bench-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def stocks(quick: bool) -> Iterator[dict[int, Stock]]:
    """By hits per chunk: what is sent at full rate or 10,000 hits/s, and what at 1,000."""
    fast = max(SOCKET_HITS[quick], RATES[1] * PACED_S[quick])
    with tempfile.TemporaryDirectory(prefix="livestream-bench-") as folder:
        counts = {FULL_RATE_CHUNK_HITS: fast, RATES[0] // CHUNKS_PER_S: RATES[0] * PACED_S[quick]}
        yield {chunk_hits: prepare(Path(folder), hits, chunk_hits) for chunk_hits, hits in counts.items()}


@pytest.fixture
def seldom(round_: int, quick: bool) -> None:
    if round_ >= LONG_ROUNDS[quick]:
        pytest.skip("long: it has had its rounds")


Record = Callable[[Callable[[], dict[str, float]]], None]


@pytest.fixture
def record(benchmark: BenchmarkFixture) -> Record:
    """Runs something once and records the numbers it gives."""

    def run(work: Callable[[], dict[str, float]]) -> None:
        benchmark.extra_info.update(benchmark.pedantic(work, rounds=1, iterations=1))

    return run


# ---------------------------------------------------------------- files


@pytest.mark.benchmark(group="whole: decode of a file")
@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.usefixtures("round_")
def test_decode(record: Record, folder: Path, hits_file: Path, hits: int, twin: str) -> None:
    """One decoder, the journal in memory, as it is by default."""

    def work() -> dict[str, float]:
        options = ("--decoders", "1", "--set", f"decode.kernel={TWINS[twin]}")
        start = _decoded(folder / "one", gzip_file(folder, 1), 1, *options)
        usage = _decoded(folder / "all", hits_file, hits, *options)
        return usage.numbers(hits) | {
            "rows": hits,
            "hits_per_s": hits / usage.wall_s,
            "start_cpu_s": start.all_cpu_s,
            "cpu_us_per_hit_steady": (usage.all_cpu_s - start.all_cpu_s) / (hits - 1) * 1e6,
        }

    record(work)


@pytest.mark.benchmark(group="whole: journal on disk against memory")
@pytest.mark.parametrize("durability", ["disk", "memory"])
@pytest.mark.usefixtures("round_")
def test_durability(record: Record, folder: Path, hits_file: Path, hits: int, durability: str) -> None:
    """Two decoders; only where the journal is differs."""

    def work() -> dict[str, float]:
        options = ("--decoders", "2", "--set", f"journal.durability={durability}")
        return _decoded(folder / "all", hits_file, hits, *options).numbers(hits) | {"rows": hits}

    record(work)


def _decoded(output: Path, file: Path, hits: int, *options: str) -> Usage:
    command = [*COLLECTOR, "decode", str(file), "--output", str(output), *options]
    with Watched(command, output.with_suffix(".log")) as collector:
        usage = collector.wait(PATIENCE_S)
    assert _rows(output) == hits
    return usage


# ---------------------------------------------------------------- streams


@dataclass(frozen=True)
class Collected:
    """What came of a stream that was collected to its last hit."""

    output: Path
    usage: Usage
    start_cpu_s: float
    sent_ns: I64

    def numbers(self, hits: int) -> dict[str, float]:
        visible_ns = max(part.stat().st_ctime_ns for part in _parts(self.output))
        return self.usage.numbers(hits) | {
            "rows": hits,
            "hits_per_s": hits / (visible_ns - int(self.sent_ns[0])) * 1e9,
            "hits_per_s_reader": hits / int(self.sent_ns[-1] - self.sent_ns[0]) * 1e9,
            "start_cpu_s": self.start_cpu_s,
            "cpu_us_per_hit_steady": (self.usage.all_cpu_s - self.start_cpu_s) / hits * 1e6,
        }


@pytest.mark.benchmark(group="whole: socket to Parquet")
@pytest.mark.parametrize("decoders", [1, 2])
@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.usefixtures("round_")
def test_socket_to_parquet(
    record: Record, folder: Path, stocks: dict[int, Stock], quick: bool, twin: str, decoders: int
) -> None:
    """As fast as it is read. One batch, which its last hit closes and not its age: no time is waited."""
    stock = stocks[FULL_RATE_CHUNK_HITS].first(SOCKET_HITS[quick])

    def work() -> dict[str, float]:
        options = ("--decoders", str(decoders), "--set", f"parts.max_bytes={stock.text_bytes}")
        options += ("--set", f"decode.kernel={TWINS[twin]}")
        return _collected(folder, stock, 0, *options).numbers(stock.hits)

    record(work)


@pytest.mark.parametrize("max_age_s", [2])
@pytest.mark.parametrize("hits_per_s", RATES)
@pytest.mark.usefixtures("round_", "seldom")
def test_steady(
    benchmark: BenchmarkFixture,
    record: Record,
    folder: Path,
    stocks: dict[int, Stock],
    quick: bool,
    hits_per_s: int,
    max_age_s: int,
) -> None:
    """A chunk every 10 ms, two decoders."""
    benchmark.group = f"whole: steady {hits_per_s:,} hits/s"
    stock = stocks[hits_per_s // CHUNKS_PER_S].first(hits_per_s * PACED_S[quick])

    def work() -> dict[str, float]:
        options = ("--set", f"parts.max_age_s={max_age_s}")
        collected = _collected(folder, stock, hits_per_s, *options)
        return collected.numbers(stock.hits) | _latencies(collected, stock, folder / "synced")

    record(work)


def _collected(folder: Path, stock: Stock, rate: float, *options: str) -> Collected:
    output = folder / "output"
    with (
        Sender(folder, stock, rate=rate, hold_s=HOLD_S) as sender,
        _run(sender, folder, "--stop-after-hits", str(stock.hits), *options, notes=bool(rate)) as collector,
    ):
        sender.requested_ns()
        time.sleep(HOLD_S * 0.9)
        start_cpu_s = collector.cpu_s()
        usage = collector.wait(PATIENCE_S)
        sent_ns = sender.sent_ns()
    assert _rows(output) == stock.hits
    return Collected(output, usage, start_cpu_s, sent_ns)


def _run(sender: Sender, folder: Path, *options: str, notes: bool = False) -> Watched:
    """``notes``: those of ``bench/probe``."""
    command = [*COLLECTOR, "run", *sender.trust, "--output", str(folder / "output"), *options]
    environment = dict(CLIENT)
    if notes:
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "bench" / "probe"), str(ROOT)])
        environment["LIVESTREAM_BENCH_SYNCED"] = str(folder / "synced")
    return Watched(command, folder / "log", environment)


def _latencies(collected: Collected, stock: Stock, synced: Path) -> dict[str, float]:
    blocks, lines, visible_ns = _places(collected.output)
    sent_ns = collected.sent_ns[_positions(blocks, lines) // stock.chunk_hits]
    seqs, times_ns = np.fromfile(synced, dtype=np.int64).reshape(-1, 2).T
    durable_ns = times_ns[np.searchsorted(seqs, blocks)]
    latencies_s = {"durable": (durable_ns - sent_ns) / 1e9, "visible": (visible_ns - sent_ns) / 1e9}
    due_s = np.arange(len(collected.sent_ns)) / CHUNKS_PER_S
    late_s = (collected.sent_ns - collected.sent_ns[0]) / 1e9 - due_s
    return {"late_p99_s": float(np.percentile(late_s, 99))} | {
        f"{what}_p{percentile}_s": float(np.percentile(values_s, percentile))
        for what, values_s in latencies_s.items()
        for percentile in PERCENTILES
    }


def _places(output: Path) -> tuple[I64, I64, I64]:
    """Of each row its block, its line there, and when its part got its name."""
    found = []
    for part in _parts(output):
        table = pq.read_table(part, columns=["collector_block", "collector_line"], partitioning=None)
        block, line = (column.to_numpy().astype(np.int64) for column in table.columns)
        found.append((block, line, np.full(len(block), part.stat().st_ctime_ns)))
    blocks, lines, visible_ns = map(np.concatenate, zip(*found, strict=True))
    return blocks, lines, visible_ns


def _positions(blocks: I64, lines: I64) -> I64:
    """In the stream, from 0: every record of its one connection is a row, and blocks are in its order."""
    records = np.bincount(blocks, minlength=int(blocks.max()) + 1)
    return (np.cumsum(records) - records)[blocks] + lines


# ---------------------------------------------------------------- after a crash


@pytest.mark.benchmark(group="whole: after SIGKILL of everything at full rate")
@pytest.mark.usefixtures("round_", "seldom")
def test_recovery(record: Record, folder: Path, stocks: dict[int, Stock], quick: bool) -> None:
    """Two decoders. What the journal held is in Parquet afterwards."""
    stock = stocks[FULL_RATE_CHUNK_HITS].first(SOCKET_HITS[quick])

    def work() -> dict[str, float]:
        with Sender(folder, stock, hold_s=HOLD_S) as sender:
            with _run(sender, folder) as collector:
                sender.requested_ns()
                _wait_for_journal(folder / "output", round(stock.text_bytes * KILLED_AT))
                collector.kill()
            with _run(sender, folder, "--stop-after", "0") as collector:
                usage = collector.wait(PATIENCE_S)
        words = (folder / "log").read_text().rpartition("run.recovered")[2]
        began = STARTED.search(words)
        assert began, words
        assert "left_blocks=0" in words, words
        durable = _rows(folder / "output")
        assert durable > stock.hits / 4
        return usage.numbers(durable) | {
            "rows": durable,
            "recovered_s": datetime.fromisoformat(began[1]).timestamp() - collector.began_ns / 1e9,
            "committed_s": usage.wall_s,
        }

    record(work)


def _wait_for_journal(output: Path, size_bytes: int) -> None:
    """*Blocks* until its segments, each of its full size from the first block on, are as large in all."""
    deadline_s = time.monotonic() + PATIENCE_S
    while _journal_bytes(output) < size_bytes:
        assert time.monotonic() < deadline_s, "the journal does not grow"
        time.sleep(POLL_S)


def _journal_bytes(output: Path) -> int:
    size_bytes = 0
    for path in output.glob(".state/*/journal/*.segment"):
        with contextlib.suppress(FileNotFoundError):  # renamed since it was listed; counted the next time
            size_bytes += path.stat().st_size
    return size_bytes


# ---------------------------------------------------------------- without hits


@pytest.mark.benchmark(group="whole: silent stream")
@pytest.mark.usefixtures("round_", "seldom")
def test_silent(record: Record, folder: Path, quick: bool) -> None:
    """A connection on which nothing comes, once everything is up; two decoders."""

    def work() -> dict[str, float]:
        with Sender(folder) as sender, _run(sender, folder) as collector:
            sender.requested_ns()
            time.sleep(2 * HOLD_S)
            began_s, before_s = time.monotonic(), collector.cpu_s()
            time.sleep(SILENT_S[quick])
            spent_s, watched_s = collector.cpu_s() - before_s, time.monotonic() - began_s
            collector.terminate()
            usage = collector.wait(PATIENCE_S)
        return {
            "hits": 1,
            "cpu_us_per_hit": spent_s / watched_s * 1e6,
            "core_percent": spent_s / watched_s * 100,
            "peak_bytes": usage.peak_bytes,
            "mapped_bytes": usage.mapped_bytes,
        }

    record(work)


@pytest.mark.benchmark(group="whole: start")
@pytest.mark.usefixtures("round_")
def test_start(record: Record, folder: Path) -> None:
    """From exec to the request at the server, then a stop at once; and how long ``--help`` takes."""

    def work() -> dict[str, float]:
        with Sender(folder) as sender, _run(sender, folder) as collector:
            to_request_s = (sender.requested_ns() - collector.began_ns) / 1e9
            collector.terminate()
            usage = collector.wait(PATIENCE_S)
        return usage.numbers(1) | {"to_request_s": to_request_s, "help_s": _help_s()}

    record(work)


def _help_s() -> float:
    began_s = time.monotonic()
    subprocess.run([*COLLECTOR, "--help"], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.monotonic() - began_s


# ---------------------------------------------------------------- what came out


def _parts(output: Path) -> list[Path]:
    return sorted((output / "hits").rglob("*.parquet"))


def _rows(output: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in _parts(output))
