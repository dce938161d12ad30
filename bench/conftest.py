"""What every benchmark shares: the options, the rounds, the hits, and what a result says of its machine.

``python -m pytest bench`` runs them all; ``scripts/bench`` does so in an environment of its own and prints
the tables. ``--quick`` takes fewer hits and rounds, ``--rounds N`` that many rounds. A test that takes
``round_`` runs once per round, and every test of a round runs before the next one begins: whatever the
machine does meanwhile, it does to every contestant. A figure is the least of its rounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pycurl
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import collector
from bench.data import gzip_file
from collector.allocator import tell_allocator
from collector.coordinator.supervisor import ALLOCATOR_ENVIRONMENT

T = TypeVar("T")

QUICK_ROUNDS, FULL_ROUNDS = 2, 5
OFTEN = 3
"""Times the rounds, for what is marked so: one run of ``decode`` is 2 s, many are 5 % above the best."""

QUICK_HITS, FULL_HITS = 20_000, 60_000

PACKAGES = (
    *("pycurl", "msgspec", "pyarrow", "arro3-core", "arro3-io", "isal", "numpy", "uvloop"),
    *("duckdb", "polars", "chdb", "requests", "pytest-benchmark"),
)


class Cpu(Protocol):
    def __call__(self, work: Callable[[], T], *, hits: int, **more: float) -> T: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "benchmarks")
    group.addoption("--quick", action="store_true", help="fewer hits, fewer rounds: a minute or two in all")
    rounds = f"rounds: {FULL_ROUNDS} by default, {QUICK_ROUNDS} with --quick"
    group.addoption("--rounds", type=int, help=rounds)


def pytest_configure(config: pytest.Config) -> None:
    """What the product's children have: glibc keeps their memory, and Arrow's work is one thread's."""
    config.addinivalue_line("markers", "often: takes little time and is compared closely: more rounds")
    tell_allocator(ALLOCATOR_ENVIRONMENT)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    np.asarray(pa.array([0]).dictionary_encode().dictionary)  # what Arrow imports at its first use


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "round_" in metafunc.fixturenames:
        quick, rounds = (metafunc.config.getoption(name) for name in ("--quick", "--rounds"))
        count = rounds or (QUICK_ROUNDS if quick else FULL_ROUNDS)
        if not quick and metafunc.definition.get_closest_marker("often"):
            count *= OFTEN
        metafunc.parametrize("round_", range(count), ids="round{}".format)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_round_of)


def _round_of(item: pytest.Item) -> int:
    call = getattr(item, "callspec", None)
    return call.params.get("round_", 0) if call else 0


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["collector"] = collector.__version__
    machine_info["versions"] = dict(_versions()) | {"libcurl": pycurl.version}
    machine_info["kernel"] = os.uname().release
    machine_info["cpu_model"] = _cpu_model()
    machine_info["cores"] = len(os.sched_getaffinity(0))
    machine_info["load"] = os.getloadavg()[0]
    machine_info["quick"] = bool(config.getoption("--quick"))


def _versions() -> Iterator[tuple[str, str]]:
    """Of those that are installed: the product runs without the peers."""
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--quick"))


@pytest.fixture(scope="session")
def hits(quick: bool) -> int:
    """How many hits a benchmark takes that has no reason to take another number."""
    return QUICK_HITS if quick else FULL_HITS


@pytest.fixture(scope="session")
def hits_file(tmp_path_factory: pytest.TempPathFactory, hits: int) -> Path:
    """``hits`` clean hits, one gzip member."""
    return gzip_file(tmp_path_factory.mktemp("hits"), hits)


@pytest.fixture
def cpu(benchmark: BenchmarkFixture) -> Cpu:
    """Runs ``work`` once and records what it took of all threads of this process, with ``more`` beside it."""

    def run(work: Callable[[], T], *, hits: int, **more: float) -> T:
        spent_ns = 0

        def timed() -> T:
            nonlocal spent_ns
            began_ns = time.process_time_ns()
            done = work()
            spent_ns = time.process_time_ns() - began_ns
            return done

        done = benchmark.pedantic(timed, rounds=1, iterations=1)
        benchmark.extra_info.update(hits=hits, cpu_us_per_hit=spent_ns / 1e3 / hits, **more)
        return done

    return run
