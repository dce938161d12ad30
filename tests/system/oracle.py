"""The judge of what a collector left behind. It reads Parquet through pyarrow and DuckDB alone.

Hit content is a formula of the hit's number, so the judge needs no copy of what was sent. What was
accepted is what the commit log counts per block. The invariants, by their names in messages:
I1 each accepted record is in exactly one of rows, rejects, resends; each accepted hit once in rows.
I2 its content is what was sent. I3 no row was invented. I4 every visible Parquet opens. I5 ``verify`` agrees.
I6 nothing is left running or lying about. I7 a hit sent after the faults is committed. I8 the token is
nowhere. I9 the service was left in peace.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import PATIENCE_S, ROOT, wait_until

from collector.core.entries import BlockCount, Intent, Void
from collector.core.ledger import LogState
from collector.simulator.hits import Hits, indices_of
from collector.simulator.requestlog import Request, floor_violations, held_together
from collector.storage.archive import all_entries
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from tests import reference

SPOILED_IN = 397
"""One line in this many is no hit."""

ENDS_WITHIN_S = 10.0
KINDS = ("hits", "rejects", "connections")


class SpoiledHits(Hits):
    """The simulator's hits, but for lines that are no JSON and become rejects."""

    def _lines(self, index):
        lines = super()._lines(index)
        for position in np.flatnonzero(is_spoiled(index)).tolist():
            lines[position] = spoiled(int(index[position]))
        return lines


def spoiled(number: int) -> bytes:
    return b'{"spoiled": %d' % number


def is_spoiled(index: Any) -> Any:
    """Of one number, or of many."""
    return index % SPOILED_IN == SPOILED_IN - 1


class Judged(Protocol):
    """A collector's leftovers: ``harness.Collector``, or whatever looks like one."""

    wait_s: float
    folder: Path

    @property
    def output(self) -> Path: ...
    @property
    def state(self) -> Path: ...
    def left_processes(self) -> list[int]: ...


def is_visible(path: Path) -> bool:
    return path.is_file() and ".state" not in path.parts


# ---------------------------------------------------------------- what is in the parts


class Tally:
    """Counts of every record's place and every hit's rows; parts are taken one by one, each once."""

    def __init__(self, hits: Hits, *, sampled_rows: int = 30, seed: int = 0) -> None:
        self._hits = hits
        self._sampled_rows = sampled_rows
        self._draw = random.Random(seed)
        self._duckdb = duckdb.connect()
        self._places: dict[int, np.ndarray] = {}
        self._rows_of_hit = np.zeros(1 << 16, np.uint8)
        self._resent: list[np.ndarray] = []
        self.records = dict.fromkeys(("hits", "rejects", "resends", "connections"), 0)
        self.connections: list[dict[str, Any]] = []
        self.compared = 0
        """Rows whose every value was compared with what was sent."""

    def close(self) -> None:
        self._duckdb.close()

    def take_all(self, output: Path, state: Path) -> None:
        """Every visible part and every list of resends."""
        for path in sorted(path for path in output.rglob("*") if is_visible(path)):
            assert path.suffix == ".parquet", f"I4: {path} is visible and no part"
            self.take(path, next(kind for kind in KINDS if kind in path.relative_to(output).parts))
        for path in sorted((state / "resends").glob("*.parquet")):
            self.take(path, "resends")

    def take(self, path: Path, kind: str) -> None:
        table = self._read(path)
        self.records[kind] += table.num_rows
        if kind == "connections":
            self.connections += table.to_pylist()
            return
        self._place(table)
        if kind == "hits":
            self._count(self._numbers(table, path))
            self._compare(table)
        elif kind == "resends":
            self._resent.append(self._numbers(table, path))
        else:
            self._compare_rejects(table)

    def _read(self, path: Path) -> pa.Table:
        """All of it, with both engines."""
        with pq.ParquetFile(path) as file:
            table = file.read()
        sql = "SELECT count(*), sum(hash(part)::HUGEINT) FROM read_parquet(?, hive_partitioning = false) part"
        rows, _ = self._duckdb.execute(sql, [str(path)]).fetchone()
        assert rows == table.num_rows, f"I4: {path} has {table.num_rows} rows in pyarrow and {rows} in DuckDB"
        return table

    def _place(self, table: pa.Table) -> None:
        block, line = (column(table, name) for name in ("collector_block", "collector_line"))
        order = np.argsort(block, kind="stable")
        block, line = block[order], line[order]
        names, starts = np.unique(block, return_index=True)
        for name, lines in zip(names.tolist(), np.split(line, starts[1:]), strict=True):
            places = self._places.get(name, np.zeros(0, np.uint8))
            if int(lines.max()) >= len(places):
                places = np.pad(places, (0, int(lines.max()) + 1 - len(places)))
            np.add.at(places, lines, 1)
            self._places[name] = places

    def _numbers(self, table: pa.Table, path: Path) -> np.ndarray:
        high, low = (identifiers(table, name) for name in ("hitIdHigh", "hitIdLow"))
        numbers = indices_of(self._hits.seed, high, low)
        assert (numbers >= 0).all(), f"I3: {path} has {int((numbers < 0).sum())} rows that were never sent"
        return numbers

    def _count(self, numbers: np.ndarray) -> None:
        if not len(numbers):
            return
        while int(numbers.max()) >= len(self._rows_of_hit):
            self._rows_of_hit = np.pad(self._rows_of_hit, (0, len(self._rows_of_hit)))
        np.add.at(self._rows_of_hit, numbers, 1)

    def _compare(self, table: pa.Table) -> None:
        chosen = self._draw.sample(range(table.num_rows), min(self._sampled_rows, table.num_rows))
        numbers = indices_of(
            self._hits.seed, *(identifiers(table, name) for name in ("hitIdHigh", "hitIdLow"))
        )
        for row, number in zip(table.take(chosen).to_pylist(), numbers[chosen].tolist(), strict=True):
            (line,) = self._hits.lines(number, 1)
            extra = reference.plain(("map", "text"), row["extra"] or {})
            rebuilt = reference.rebuild(reference.columns_of(row), extra)
            assert reference.same(rebuilt, reference.parse(line.decode())), f"I2: hit {number} is {row}"
            self.compared += 1

    def _compare_rejects(self, table: pa.Table) -> None:
        for raw in table.column("raw").to_pylist():
            number = re.fullmatch(rb'\{"spoiled": ([0-9]+)', raw)
            assert number is not None, f"I2: the reject {raw!r} was never sent"
            assert is_spoiled(int(number[1])), f"I2: the reject {raw!r} was never sent"
            assert raw == spoiled(int(number[1])), f"I2: the reject {raw!r} was never sent"

    # ------------------------------------------------------------ the verdict

    def assert_every_record_has_one_place(self, blocks: Iterable[BlockCount]) -> None:
        """I1, of the records: the blocks that were committed, and no other."""
        records = {block.seq: block.records for block in blocks}
        unknown = sorted(self._places.keys() - records.keys())
        assert not unknown, f"I1: blocks {unknown[:9]} are in parts and were never committed"
        for seq, count in records.items():
            places = self._places.get(seq, np.zeros(0, np.uint8))
            missing = count - int((places[:count] > 0).sum())
            assert not missing, f"I1: {missing} of block {seq}'s {count} records are nowhere"
            assert len(places) == count, (
                f"I1: block {seq} has {count} records, and line {len(places) - 1} of it"
            )
            assert (places == 1).all(), (
                f"I1: {int((places > 1).sum())} records of block {seq} are in two places"
            )

    def assert_every_hit_is_a_row_once(self) -> None:
        """I1, of the hits."""
        doubled = np.flatnonzero(self._rows_of_hit > 1)
        assert not len(doubled), f"I1: hits {ranges(doubled)[:9]} are rows more than once"
        resent = np.unique(np.concatenate([np.zeros(0, np.int64), *self._resent]))
        lost = resent[~np.isin(resent, np.flatnonzero(self._rows_of_hit))]
        assert not len(lost), f"I1: hits {ranges(lost)[:9]} were counted as resends and are no row"

    @property
    def newest(self) -> int:
        """The newest hit that is a row; -1: none is."""
        found = np.flatnonzero(self._rows_of_hit)
        return int(found[-1]) if len(found) else -1

    def missing(self) -> list[tuple[int, int]]:
        """Ranges of hits that are no row, up to the newest that is; spoiled lines part none."""
        numbers = np.arange(self.newest + 1)
        numbers = numbers[~is_spoiled(numbers)]
        found = ranges(np.flatnonzero(self._rows_of_hit[numbers] == 0))
        return [(int(numbers[first]), int(numbers[last])) for first, last in found]


def column(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()


def identifiers(table: pa.Table, name: str) -> np.ndarray:
    """Of decimals the low words: ids have 64 bits."""
    joined = table.column(name).combine_chunks()
    words = np.frombuffer(joined.buffers()[1], np.uint64).reshape(-1, 2)
    return words[joined.offset : joined.offset + len(joined), 0]


def ranges(numbers: np.ndarray) -> list[tuple[int, int]]:
    """[1, 2, 3, 7] is 1 to 3 and 7 to 7."""
    if not len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [(int(run[0]), int(run[-1])) for run in np.split(numbers, breaks)]


# ---------------------------------------------------------------- the commit log


def committed_blocks(state: Path) -> Iterator[BlockCount]:
    """Of every batch that was decided and not undone, over the log and its archives."""
    pending: Intent | None = None
    for _, entry in all_entries(DISK, StateFolder(state)):
        if isinstance(entry, Intent):
            if pending is not None:
                yield from pending.blocks
            pending = entry
        elif isinstance(entry, Void):
            pending = None
    if pending is not None:
        yield from pending.blocks


def ledger_of(state: Path) -> LogState:
    ledger = LogState()
    for number, entry in all_entries(DISK, StateFolder(state)):
        ledger.fold(number, entry)
    return ledger


# ---------------------------------------------------------------- everything


def judge(
    collector: Judged, requests: list[Request], tally: Tally, *, fresh: int | None = None, canary: str = ""
) -> None:
    """After the collector ended: every invariant. *Raises* AssertionError with the one that is broken.

    ``fresh``: a hit that was sent after the last fault. ``tally`` may have taken parts that are gone.
    """
    assert_nothing_left(collector)
    tally.take_all(collector.output, collector.state)
    tally.assert_every_record_has_one_place(committed_blocks(collector.state))
    tally.assert_every_hit_is_a_row_once()
    totals = ledger_of(collector.state).totals
    counted = (tally.records["hits"], tally.records["resends"], tally.records["rejects"])
    assert counted == (totals.rows, totals.resends, totals.rejects), (
        f"I1: {counted} is in parts, not {totals}"
    )
    assert_verified(collector)
    assert fresh is None or tally.newest >= fresh, f"I7: hit {fresh} is no row, the newest is {tally.newest}"
    assert_no_secret(collector.folder, canary)
    assert_no_secret(collector.output, canary)
    assert_left_in_peace(requests, collector.wait_s)


def assert_missing_is_said(tally: Tally, requests: list[Request], *, most: int) -> None:
    """Hits that were sent and never accepted are a connection's newest, few, and ``connections`` says so."""
    gaps = [row for row in tally.connections if row["kind"] == "gap"]
    said = [row for row in gaps if row["suspected_gap"] in ("possible", "likely")]
    begins = [
        request.first_hit for request in requests if request.is_stream and request.first_hit is not None
    ]
    missing = tally.missing()
    for first, last in missing:
        assert last - first < most, f"hits {first} to {last} are missing: more than can be in flight"
        ends = {last + 1, last + 2}  # a spoiled line is no hit
        assert ends & set(begins), f"hits {first} to {last} are missing, and not before a break"
    assert len(missing) <= len(said), f"{missing} are missing, and connections has {len(said)} gaps"


def assert_left_in_peace(requests: list[Request], wait_s: float) -> None:
    violations = floor_violations(requests, wait_s)
    assert not violations, f"I9: a request came {violations[0][2]:.3f} s after a stream: {violations[0]}"
    together = held_together(requests)
    assert not together, f"I9: two streams at once: {together[0]}"


def assert_nothing_left(collector: Judged) -> None:
    wait_until(lambda: not collector.left_processes(), "I6: every process to end", ENDS_WITHIN_S)
    staged = sorted(path.name for path in (collector.state / "staging").iterdir())
    assert not staged, f"I6: {staged} are left in staging"
    found = list(collector.folder.rglob("*")) + list(collector.output.rglob("*"))
    sockets = [path for path in found if path.is_socket()]
    assert not sockets, f"I6: sockets {sockets}"
    journal, quarantine = collector.state / "journal", collector.state / "quarantine"
    strays = [
        path for path in found if path.suffix == ".segment" and path.parent not in (journal, quarantine)
    ]
    assert not strays, f"I6: segments {strays}"
    instance = ledger_of(collector.state).instance
    memory = Path("/dev/shm") / f"livestream-collector-{instance}"
    assert not memory.exists(), f"I6: {memory} is left"


def assert_no_secret(folder: Path, canary: str) -> None:
    if canary:
        for path in folder.rglob("*"):
            assert not path.is_file() or canary.encode() not in path.read_bytes(), (
                f"I8: the token is in {path}"
            )


def assert_no_secret_in_processes(pids: Iterable[int], canary: str, *, own_pid: int) -> None:
    """``own_pid``: the coordinator, whose environment brought the token."""
    for pid in pids:
        for where in ("cmdline",) if pid == own_pid else ("cmdline", "environ"):
            text = Path(f"/proc/{pid}/{where}").read_bytes()
            assert canary.encode() not in text, f"I8: the token is in {where} of process {pid}"


def assert_verified(collector: Judged) -> None:
    """I5."""
    done = verify(collector.output, collector.state)
    assert done.returncode == 0, f"I5: verify ends with {done.returncode}:\n{done.stdout}{done.stderr}"


def verify(output: Path, state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector", "verify", "--output", str(output), "--state", str(state)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVESTREAM_")}
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=PATIENCE_S
    )
