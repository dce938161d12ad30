"""What a hit costs as things grow: the resend index, the age of the installation, its fields, odd hits.

``python -m pytest bench/test_growth.py`` gives one record per size and round: microseconds of CPU time per
hit, over all threads, by the product's own code in this process. A start is counted as if it were there for
one batch of 100,000 hits; ``start_cpu_s`` is all of it. With ``--quick`` the largest sizes are left out.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bench.blocks import Payload, blocks_of_lines
from bench.data import lines
from bench.staging import staged
from bench.state import HITS_PER_BATCH, INSTANCE, LIMITS, NO_SYNCS, aged_state, commits_after, new_ids, opened
from collector.core.messages import FileKind
from collector.core.resends import ResendIndex
from collector.decoder.decode import BlockDecoder, Decoded
from collector.decoder.kernel.rows import KernelRows
from collector.decoder.plain import PlainRows
from collector.decoder.process import THOROUGH_BLOCKS
from collector.decoder.strict import Degree
from collector.storage.commitlog import archives
from collector.storage.fs import DISK
from collector.storage.ids import RunSet, merge_runs, write_run
from collector.storage.layout import StateFolder
from collector.storage.recovery import recover_state

IDS = (100_000, 1_000_000, 20_000_000)
MOST_IDS_QUICK = 1_000_000
IDS_PER_BATCH = 100_000
CLAIMED_HITS, CLAIMED_HITS_PER_BLOCK = 60_000, 300

BATCHES = (1, 1_000, 10_000)
MOST_BATCHES_QUICK = 1_000
MORE_COMMITS = 3

FIELDS_HITS = 6_000
FIELDS_BYTES = 3_000
"""Of the fields that are few and long, or many and short: the short ones have values of some 13 bytes."""
FEW, MANY = 12, 120

ODD_SHARES = (0.0, 0.05, 0.10, 0.20, 0.50)
TWINS = {"kernel": KernelRows, "plain": PlainRows}
ODD_HITS, ODD_HITS_QUICK = 20_000, 6_000

pytestmark = pytest.mark.timeout(900)


def growth(name: str) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=f"growth: {name}")


def skip_when_quick(quick: bool, size: int, most: int) -> None:
    if quick and size > most:
        pytest.skip("takes long")


# ---------------------------------------------------------------- the resend index


@dataclass(slots=True)
class Indexes:
    """Made once a session, by size."""

    folder: Path
    _made: dict[int, RunSet] = field(default_factory=dict)

    def of(self, ids: int) -> RunSet:
        if ids not in self._made:
            folder = self.folder / f"{ids}"
            folder.mkdir()
            self._made[ids] = RunSet(DISK, folder, LIMITS)
            grow_index(self._made[ids], folder, ids)
        return self._made[ids]


def grow_index(runs: RunSet, folder: Path, ids: int) -> None:
    """Batch by batch, with every merge that comes due, as the collector does."""
    for batch in range(1, ids // IDS_PER_BATCH + 1):
        high, low = new_ids(IDS_PER_BATCH, (batch,))
        path = folder / f"{batch:012d}-{batch:012d}-1.run"
        write_run(NO_SYNCS, path, high, low, held_us=(batch, batch), blocks=(batch, batch))
        runs.add(path)
        while (merge := runs.plan_merge()) is not None:
            merge_runs(NO_SYNCS, merge.paths, merge.out)
            runs.replaced(merge)


@pytest.fixture(scope="session")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexes]:
    made = Indexes(tmp_path_factory.mktemp("indexes"))
    yield made
    shutil.rmtree(made.folder)


@growth("resend index, runs and their merges")
@pytest.mark.parametrize("ids", IDS)
def test_index_merges(cpu, quick, indexes, ids):
    """All that an id costs from its batch's run to the merges it went through. Once, as it takes long."""
    skip_when_quick(quick, ids, MOST_IDS_QUICK)
    cpu(lambda: indexes.of(ids), hits=ids)


@growth("resend index, claims")
@pytest.mark.usefixtures("round_")
@pytest.mark.parametrize("ids", IDS)
def test_index_claims(cpu, quick, indexes, ids):
    """Blocks of one batch, none of whose hits is a resend."""
    skip_when_quick(quick, ids, MOST_IDS_QUICK)
    index = ResendIndex(indexes.of(ids))
    line = np.arange(CLAIMED_HITS_PER_BLOCK, dtype=np.int32)
    claims = [
        (1, seq, *new_ids(CLAIMED_HITS_PER_BLOCK, (0, seq)), line)
        for seq in range(CLAIMED_HITS // CLAIMED_HITS_PER_BLOCK)
    ]
    dropped = cpu(lambda: sum(len(index.answer(*claim)) for claim in claims), hits=CLAIMED_HITS)
    assert dropped == 0


@growth("resend index, start")
@pytest.mark.usefixtures("round_")
@pytest.mark.parametrize("ids", IDS)
def test_index_start(cpu, benchmark, quick, indexes, ids):
    """Every run opened and checked."""
    skip_when_quick(quick, ids, MOST_IDS_QUICK)
    folder = indexes.of(ids).paths[0].parent
    runs = started(cpu, benchmark, lambda: RunSet(DISK, folder, LIMITS))
    assert runs.ids == ids


def started(cpu: Any, benchmark: Any, work: Callable[[], Any]) -> Any:
    began_ns = time.process_time_ns()
    done = cpu(work, hits=HITS_PER_BATCH)
    benchmark.extra_info["start_cpu_s"] = (time.process_time_ns() - began_ns) / 1e9
    return done


# ---------------------------------------------------------------- the age of the installation


@pytest.fixture(scope="session")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], StateFolder]:
    """State folders of so many committed batches, made once a session."""
    made: dict[int, StateFolder] = {}

    def of(batches: int) -> StateFolder:
        if batches not in made:
            made[batches] = aged_state(tmp_path_factory.mktemp(f"aged{batches}"), batches)
        return made[batches]

    return of


@growth("committed batches, start")
@pytest.mark.usefixtures("round_")
@pytest.mark.parametrize("batches", BATCHES)
def test_start(cpu, benchmark, quick, aged, tmp_path, batches):
    """The log opened and folded, the state recovered; what log, ledger and archives take."""
    skip_when_quick(quick, batches, MOST_BATCHES_QUICK)
    state = aged(batches)

    def start() -> Any:
        log, ledger = opened(state)
        recover_state(DISK, state, tmp_path, journal=state.journal, commit_log=log, ledger=ledger)
        return log, ledger

    log, ledger = started(cpu, benchmark, start)
    log.close()
    benchmark.extra_info["log_bytes"] = state.commit_log.stat().st_size
    benchmark.extra_info["ledger_bytes"] = len(msgspec.msgpack.encode(ledger.checkpoint()))
    benchmark.extra_info["archives_bytes"] = sum(
        archive.path.stat().st_size for archive in archives(DISK, state.archive)
    )


@growth("committed batches, one more")
@pytest.mark.usefixtures("round_")
@pytest.mark.parametrize("batches", BATCHES)
def test_commit(cpu, quick, aged, tmp_path, batches):
    """What the next batches cost to commit, each of 100,000 hits."""
    skip_when_quick(quick, batches, MOST_BATCHES_QUICK)
    state = StateFolder(shutil.copytree(aged(batches).root, tmp_path / "state"))
    with commits_after(tmp_path, state) as commits:
        staged = commits.staged(MORE_COMMITS)
        cpu(lambda: commits.commit(staged), hits=MORE_COMMITS * HITS_PER_BATCH)
    shutil.rmtree(tmp_path)


# ---------------------------------------------------------------- the fields of a hit


@growth("fields at the same bytes")
@pytest.mark.usefixtures("round_")
@pytest.mark.parametrize("fields", [FEW, MANY])
@pytest.mark.parametrize("where", ["evars and props", "extra"])
@pytest.mark.parametrize("twin", TWINS)
def test_fields(cpu, tmp_path, where, fields, twin):
    """Few long ones against ten times as many short ones; those of ``extra`` are unknown to the schema.

    All that a decoder does, from the bytes of a block to the staged part.
    """
    blocks = blocks_with_fields(where, fields)
    files = cpu(lambda: staged(tmp_path, decoded(blocks, twin)), hits=FIELDS_HITS)
    assert sum(file.rows for file in files if file.kind is FileKind.HITS) == FIELDS_HITS
    shutil.rmtree(tmp_path)


@functools.cache
def blocks_with_fields(where: str, fields: int) -> list[Payload]:
    return blocks_of_lines([*with_fields(lines(FIELDS_HITS), where, fields)])


def with_fields(texts: Iterable[bytes], where: str, fields: int) -> Iterator[bytes]:
    """Hits whose maps are empty but for these fields. Their values are one text, cut that often."""
    for text in texts:
        hit = json.loads(text) | {"evars": {}, "props": {}}
        values = "".join(re.findall(r"[\w./:=&-]+", text.decode())) * 2
        if where == "extra":
            hit |= _entries("unknown", fields, FIELDS_BYTES, values)
        else:
            hit["evars"] = {"evars": _entries("evar", fields // 2, FIELDS_BYTES // 2, values)}
            hit["props"] = _entries("prop", fields // 2, FIELDS_BYTES // 2, values[FIELDS_BYTES // 2 :])
        yield msgspec.json.encode(hit)


def _entries(name: str, count: int, size_bytes: int, values: str) -> dict[str, str]:
    """Each is ``"key":"value",`` in the text, so six bytes of it are neither."""
    found, cut = {}, 0
    for number in range(1, count + 1):
        key = f"{name}{number}"
        length = size_bytes // count - len(key) - 6
        found[key] = values[cut : cut + length]
        cut += length
    assert sum(map(len, (*found, *found.values()))) == size_bytes - 6 * count
    return found


def decoded(blocks: Iterable[Payload], twin: str) -> Iterator[Decoded]:
    """As in a decoder process: thoroughly for a while once the columnariser refused a block."""
    decoder, thorough_blocks = BlockDecoder(INSTANCE, TWINS[twin]()), 0
    for block, payload in blocks:
        degree = Degree.THOROUGH if thorough_blocks else Degree.USUAL
        found = decoder.decode(payload, block, degree=degree)
        thorough_blocks = THOROUGH_BLOCKS if found.refused else max(0, thorough_blocks - 1)
        yield found


# ---------------------------------------------------------------- odd hits


@growth("odd hits")
@pytest.mark.usefixtures("round_")
@pytest.mark.parametrize("odd", ODD_SHARES)
@pytest.mark.parametrize("twin", TWINS)
def test_odd_hits(cpu, quick, odd, twin):
    """From the bytes of a block to rows, with this share of hits that need repair."""
    hits = ODD_HITS_QUICK if quick else ODD_HITS
    blocks = mixed(hits, odd)
    rows = cpu(lambda: sum(len(block.lines) for block in decoded(blocks, twin)), hits=hits)
    assert rows == hits


@functools.cache
def mixed(hits: int, odd: float) -> list[Payload]:
    return blocks_of_lines(lines(hits, odd))
