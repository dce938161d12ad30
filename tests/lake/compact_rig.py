"""Two collectors of one stream that share an output folder, and a compaction of what they took."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from collector.core.shipping import ShipPlan
from collector.errors import CollectorError
from collector.lake.compact import Compaction, Outcome, Rules
from collector.lake.engines import DuckDbEngine, Engine
from collector.storage.compacted import CompactionFolder
from collector.storage.fs import DISK, Disk
from tests.storage.collected_rig import COLLECTED_AT_US, HOUR_US, STREAM, Collected
from tests.unwatched import Unwatched

NOW_S = COLLECTED_AT_US // 1_000_000
LATER_US = COLLECTED_AT_US + 10 * HOUR_US
MEMORY_BYTES = 512 << 20
ID = ("hitIdHigh", "hitIdLow")
PLACE = ("collector_instance", "collector_block", "collector_line")
SOONEST = ("collected_at", *PLACE)


def hit(number: int, hours_ago: int = 0, visitor: int = 1) -> bytes:
    """Ids up to 2**64 - 1."""
    high = 2**64 - 1 - number
    text = f'{{"hitIdHigh":{high},"hitIdLow":{number},"visIdHigh":{visitor},"visIdLow":{2**63 + visitor}'
    return f'{text},"pageName":"page {number}","receivedTimeGMT":{NOW_S - 3600 * hours_ago}}}'.encode()


def hit_without_id(number: int, hours_ago: int = 0) -> bytes:
    return f'{{"pageName":"no id {number}","receivedTimeGMT":{NOW_S - 3600 * hours_ago}}}'.encode()


@dataclass
class Lake:
    """``first`` collected what it has before ``second`` did."""

    root: Path
    watcher: Unwatched = field(default_factory=Unwatched)

    @property
    def first(self) -> Collected:
        return Collected(self.root, instance="00000000000000aa", name="shop")

    @property
    def second(self) -> Collected:
        at_us = COLLECTED_AT_US + 600_000_000
        return Collected(self.root, instance="00000000000000bb", name="shop-b", collected_at_us=at_us)

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def folder(self) -> CompactionFolder:
        return CompactionFolder.of(self.output, STREAM)

    def copy_to(self, root: Path) -> Lake:
        shutil.copytree(self.root, root, symlinks=True)
        return Lake(root)

    def compaction(
        self,
        disk: Disk = DISK,
        *,
        states: Sequence[Path] = (),
        now_us: int = LATER_US,
        lateness_us: int = 0,
        target_bytes: int = 1 << 30,
        shipping: ShipPlan | None = None,
    ) -> Compaction:
        rules = Rules(STREAM, lateness_us, MEMORY_BYTES, target_bytes, 0o644)
        return Compaction(disk, self.output, rules, states=states, shipping=shipping, now_us=lambda: now_us)

    def compact(self, disk: Disk = DISK, engine: Engine | None = None, **more: Any) -> Outcome:
        compaction = self.compaction(disk, **more)
        used = engine or DuckDbEngine(self.folder.scratch, MEMORY_BYTES)
        with compaction.alone():
            return compaction.run(used, self.watcher, lambda _: None)

    # ------------------------------------------------------------ looking at it

    def files(self) -> list[Path]:
        return sorted((self.output / "hits").rglob("*.parquet"))

    def names(self) -> list[str]:
        return [path.name for path in self.files()]

    def contents(self) -> dict[str, bytes]:
        """Of everything but the locks and what the compaction's folder is made of."""
        paths = [path for path in self.output.rglob("*") if path.is_file() and path.name != "lock"]
        return {str(path.relative_to(self.output)): path.read_bytes() for path in paths}

    def rows(self) -> list[dict[str, Any]]:
        """As they are to be seen, by hour and in the order of the file."""
        return [row | {"hour": hour_of(path)} for path in self.files() for row in read(path)]

    def assert_green(self) -> None:
        for collected in (self.first, self.second):
            if collected.state.commit_log.exists():
                report = collected.verify()
                assert report.findings == [], report.findings


def read(path: Path) -> list[dict[str, Any]]:
    return list(pq.ParquetFile(path).read().to_pylist())


def hour_of(path: Path) -> str:
    return "/".join(path.parts[-3:-1])


def place_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in PLACE)


def id_of(row: dict[str, Any]) -> tuple[Decimal, Decimal] | None:
    found = tuple(row[name] for name in ID)
    return None if None in found else found


def stays(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The oracle: of each id the row collected first, and every row without one."""
    first: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: [row[name] for name in SOONEST]):
        first.setdefault(id_of(row) or place_of(row), row)
    return sorted(first.values(), key=place_of)


def by_place(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=place_of)


def copies(rows: Iterable[dict[str, Any]]) -> Counter[Any]:
    """How often each row, by what names it for ever."""
    return Counter(place_of(row) for row in rows)


def failure(lake: Lake, disk: Disk, **more: Any) -> type[BaseException] | None:
    try:
        lake.compact(disk, **more)
    except CollectorError as error:
        return type(error)
    return None


def make_lake(root: Path) -> Lake:
    """Resends across collectors, across the border of an hour, and in one collector beyond its index."""
    lake = Lake(root)
    first, second = lake.first, lake.second
    first.make()
    second.make()
    first.commit(
        [*(hit(n, 1, n % 7) for n in range(30)), b"no hit", hit_without_id(1, 1)],
        [*(hit(n, 0, n % 7) for n in range(30, 50)), hit_without_id(2)],
    )
    second.commit(
        [*(hit(n, 1, n % 7) for n in range(20, 30)), hit_without_id(1, 1)],
        [*(hit(n, 0, n % 7) for n in range(30, 70))],
        [hit(3), hit(4), *(hit(n, 2) for n in range(70, 75))],
    )
    for run in first.state.ids.iterdir():
        run.unlink()  # what its index knew is out of its window
    first.commit([hit(0, 1), hit(31), hit(90)], [hit(60), hit(91, 2)])
    return lake
