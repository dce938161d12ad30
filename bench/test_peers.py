"""The collector's ``decode`` and other ways from a file of hits to Parquet, in turns on the same file.

And the script that one writes by hand for the stream itself, against a server that only sends prepared bytes;
what the collector takes for that is measured in ``bench/test_wholes.py``, in the same rounds.

``scripts/bench -k peers`` runs it. Each contestant is a command of its own with one thread that does the
work, and zstd at level 1; those that are far slower do not run in every round. Recorded each time:

- ``cpu_us_per_hit``: without starts. A peer takes it itself, around the conversion alone, after a small one.
  Of the collector's it is the CPU time of all processes of ``decode`` with this file, less the least of
  ``START_ROUNDS`` runs with ``START_HITS`` hits, for each hit that the larger file has more.
- ``cpu_us_per_hit_whole``: from the start of the first process to the end of the last, imports included; for
  the floor also the decoding that it does beforehand.
- ``parquet_bytes``, ``rows``, ``peak_bytes``, and as texts ``settings`` and ``lacks``.

A contestant that has not one row per hit, or other values than were sent in the columns it claims, fails.
"""

from __future__ import annotations

import gzip
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data import gzip_file
from bench.processes import Usage, Watched
from bench.sender import Sender, Stock, prepare
from collector.decoder.schema import ID_COLUMNS

OURS = {"collector": (), "collector_plain": ("--set", "decode.kernel=off")}
"""With the compiled kernel, and without."""
CLOSE_PEERS = ("floor", "clickhouse", *OURS, "duckdb")
FAR_PEERS = ("msgspec", "handwritten", "duckdb_inferred", "pyarrow_json", "polars", "handwritten_inferred")
FAR_ROUNDS = {True: 1, False: 3}
"""By whether it is to be quick: how often those run that take several times as long as the collector."""

SETTINGS = (
    "decode with one decoder, all settings as they come: journal in memory, parts synced, resends dropped"
)
PATIENCE_S = 100.0
SOCKET_CHUNK_HITS = 100
SOCKET_SAME_HITS = 4_000
"""The stock leaves out some hits after these, those that filled no chunk."""
START_HITS = 100
START_ROUNDS = 3
SAMPLES = 20
NEVER_MISSING = {"evars", "products", *ID_COLUMNS}


@dataclass(frozen=True)
class Outcome:
    usage: Usage
    parquet: Sequence[Path]
    warm_cpu_us: float
    settings: str
    lacks: str = ""
    unclaimed: Sequence[str] = ()


Contest = Callable[[Path], Outcome]
"""Run in an empty folder."""


@pytest.fixture(scope="session")
def sample(hits_file: Path, hits: int) -> list[dict[str, Any]]:
    return _sample(hits_file, hits)


def _sample(hits_file: Path, hits: int) -> list[dict[str, Any]]:
    """Some of the first so many, as sent."""
    with gzip.open(hits_file) as lines:
        return [json.loads(line) for line in itertools.islice(lines, 0, hits, hits // SAMPLES)]


@pytest.fixture(scope="session")
def start_us(tmp_path_factory: pytest.TempPathFactory) -> float:
    """CPU time of ``decode`` that is not for hits."""
    folder = tmp_path_factory.mktemp("start")
    source = gzip_file(folder, START_HITS)
    return min(_decode(source, folder / str(round_)).all_cpu_s * 1e6 for round_ in range(START_ROUNDS))


@pytest.mark.often
@pytest.mark.benchmark(group="peer: file to Parquet")
@pytest.mark.parametrize("peer", [*CLOSE_PEERS, *FAR_PEERS])
def test_file_to_parquet(
    benchmark: BenchmarkFixture,
    round_: int,
    quick: bool,
    peer: str,
    hits_file: Path,
    hits: int,
    sample: list[dict[str, Any]],
    start_us: float,
    tmp_path: Path,
) -> None:
    """Every way gives one row per hit, with the values that were sent."""
    _skip_far(peer, round_, quick)
    ours = peer in OURS
    contest = _collector(hits_file, hits, start_us, peer) if ours else _peer(peer, str(hits_file))
    _record(benchmark, lambda: contest(tmp_path), hits, sample)


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory, hits: int) -> Stock:
    return prepare(tmp_path_factory.mktemp("stock"), hits, SOCKET_CHUNK_HITS)


@pytest.mark.benchmark(group="peer: socket to Parquet")
@pytest.mark.parametrize("peer", ["handwritten"])
def test_socket_to_parquet(
    benchmark: BenchmarkFixture,
    round_: int,
    quick: bool,
    peer: str,
    stock: Stock,
    hits_file: Path,
    tmp_path: Path,
) -> None:
    """What is sent begins like the file."""
    _skip_far(peer, round_, quick)
    with Sender(tmp_path, stock) as sender:
        contest = _peer(f"{peer}_socket", sender.url, str(tmp_path / "ca.pem"), str(stock.hits))
        _record(benchmark, lambda: contest(tmp_path), stock.hits, _sample(hits_file, SOCKET_SAME_HITS))


def _skip_far(peer: str, round_: int, quick: bool) -> None:
    if peer in FAR_PEERS and round_ >= FAR_ROUNDS[quick]:
        pytest.skip("it is far from the others, and has had its rounds")


def _record(
    benchmark: BenchmarkFixture, contest: Callable[[], Outcome], hits: int, sample: Sequence[dict[str, Any]]
) -> None:
    outcome = benchmark.pedantic(contest, rounds=1, iterations=1)
    rows = pa.concat_tables(map(pq.read_table, outcome.parquet)) if outcome.parquet else pa.table({})
    assert rows.num_rows == hits
    assert _differences(rows, sample, outcome.unclaimed) == []
    benchmark.extra_info.update(
        hits=hits,
        rows=rows.num_rows,
        cpu_us_per_hit=outcome.warm_cpu_us / hits,
        cpu_us_per_hit_whole=outcome.usage.all_cpu_s * 1e6 / hits,
        peak_bytes=outcome.usage.peak_bytes,
        parquet_bytes=sum(path.stat().st_size for path in outcome.parquet),
        settings=outcome.settings,
        lacks=outcome.lacks,
    )


def _collector(source: Path, hits: int, start_us: float, name: str) -> Contest:
    def run(folder: Path) -> Outcome:
        usage = _decode(source, folder, *OURS[name])
        spent_us = (usage.all_cpu_s * 1e6 - start_us) / (hits - START_HITS) * hits
        settings = SETTINGS + (", decode.kernel off" if OURS[name] else "")
        return Outcome(usage, sorted((folder / "output" / "hits").rglob("*.parquet")), spent_us, settings)

    return run


def _decode(source: Path, folder: Path, *options: str) -> Usage:
    folder.mkdir(exist_ok=True)
    arguments = ["decode", str(source), "--output", str(folder / "output"), "--decoders", "1", *options]
    return _ended(Watched([sys.executable, "-m", "collector", *arguments], folder / "log"))


def _peer(name: str, *arguments: str) -> Contest:
    def run(folder: Path) -> Outcome:
        target = folder / "out.parquet"
        watched = Watched(
            [sys.executable, "-m", f"bench.peers.{name}", *arguments, str(target)], folder / "log"
        )
        usage = _ended(watched)
        report = json.loads(watched.log.read_text().splitlines()[-1])
        said = (report[name] for name in ("warm_cpu_us", "settings", "lacks", "unclaimed"))
        return Outcome(usage, [target], *said)

    return run


def _ended(watched: Watched) -> Usage:
    with watched:
        return watched.wait(PATIENCE_S)


def _differences(rows: pa.Table, sample: Sequence[dict[str, Any]], unclaimed: Sequence[str]) -> list[str]:
    """Where a file has other values than the hits."""
    missing = NEVER_MISSING.difference(rows.column_names)
    assert not missing, f"the file has no {sorted(missing)}"
    ids = (
        rows.column("hitIdLow").cast(pa.float64(), safe=False).to_numpy()
    )  # what every file can be compared by
    found = []
    for hit in sample:
        at = np.flatnonzero(np.isclose(ids, float(hit["hitIdLow"]), rtol=1e-14, atol=0))
        if len(at) != 1:
            found.append(f"{len(at)} rows for hit {hit['hitIdLow']}")
            continue
        row = rows.slice(int(at[0]), 1).to_pylist(maps_as_pydicts="strict")[0]
        claimed = [name for name in hit if name in row and name not in unclaimed]
        found += [f"{name}: {row[name]!r}" for name in claimed if not _holds(row[name], hit[name], name)]
    return found


def _holds(value: Any, sent: Any, name: str = "") -> bool:
    """Whether all that was sent is there. Null and empty are the same: not every engine tells them apart."""
    if name == "evars" and isinstance(value, dict) and name not in value:
        sent = sent[name]  # ``evars['evar1']`` instead of ``evars['evars']['evar1']``
    match sent:
        case []:
            return not value
        case {} if not sent:
            return not value or not any(value.values())
        case dict():
            return isinstance(value, dict) and all(_holds(value.get(key), sent[key]) for key in sent)
        case list():
            return (
                isinstance(value, list)
                and len(value) == len(sent)
                and all(itertools.starmap(_holds, zip(value, sent, strict=True)))
            )
        case _:
            return bool(value == sent)
