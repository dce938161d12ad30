"""A collected folder that is shipped, stores and tables that die at call N, and what is there afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
from collected_rig import COLLECTED_AT_US, INSTANCE, STREAM, Collected
from faulty_disk import Crashed

from collector.core.messages import FileKind
from collector.core.shipping import ShipPlan
from collector.lake.shipper import Shipper
from collector.lake.store import open_store
from collector.lake.tables import open_table
from collector.storage.fs import DISK, Disk
from collector.storage.shipped import shipping_lock

LATER_US = COLLECTED_AT_US + 10**9


class Dying:
    """Counts our calls to store, table and disk; at the nth the process is gone, before it or after."""

    def __init__(self, at: int, *, after: bool = False) -> None:
        self._at = at
        self._after = after
        self.calls = 0
        self.dead = False

    def around(self, target: Any, names: frozenset[str]) -> Any:
        dying = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                found = getattr(target, name)
                return dying.counted(found) if name in names else found

        return Wrapped()

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if self.dead:
                raise Crashed
            self.calls += 1
            dies = self.calls == self._at
            self.dead |= dies
            if dies and not self._after:
                raise Crashed
            result = call(*arguments, **named)
            if dies:
                raise Crashed
            return result

        return counted


STEPS = frozenset({"put_new", "find", "add", "replace", "committed"})
DISK_STEPS = frozenset({"write_file_durably", "unlink"})


@dataclass
class Shipped:
    collected: Collected
    plan: ShipPlan
    said: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    now_us: int = LATER_US

    @classmethod
    def of(cls, collected: Collected, url: str = "", **more: Any) -> Shipped:
        plan = ShipPlan(
            output=str(collected.output),
            state=str(collected.state.root),
            stream=STREAM,
            url=url,
            uploads=2,
            **more,
        )
        return cls(collected, plan)

    def with_plan(self, **changes: Any) -> Shipped:
        return Shipped(self.collected, msgspec.structs.replace(self.plan, **changes), self.said, self.now_us)

    def shipper(self, dying: Dying | None = None, disk: Disk = DISK) -> Shipper:
        store = (
            open_store(self.plan.url, endpoint=self.plan.endpoint, region=self.plan.region)
            if self.plan.url
            else None
        )
        table = open_table(self.plan) if self.plan.table else None
        if dying is not None:
            store = store and dying.around(store, STEPS)
            table = table and dying.around(table, STEPS)
            disk = dying.around(disk, DISK_STEPS)
        return Shipper(
            disk,
            self.plan,
            INSTANCE,
            store=store,
            table=table,
            now_us=lambda: self.now_us,
            say=lambda event, /, **fields: self.said.append((event, fields)),
            beat=lambda: None,
        )

    def ship(self, dying: Dying | None = None) -> Shipper:
        """Everything there is to do."""
        with shipping_lock(DISK, self.collected.state):
            shipper = self.shipper(dying)
            try:
                while shipper.step():
                    pass
            finally:
                shipper.close()
        return shipper

    def events(self) -> Counter[str]:
        return Counter(event for event, _ in self.said)

    # ------------------------------------------------------------ what is there

    @property
    def root(self) -> Path:
        """Of a store that is a folder."""
        return Path(self.plan.url.removeprefix("file://"))

    def shipped_files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): DISK.sha256(path)
            for kind in (FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS)
            for path in (self.root / kind).rglob("*.parquet")
            if "_delta_log" not in path.parts
        }

    def committed_files(self) -> dict[str, bytes]:
        kinds = (FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS)
        return {file.final: file.sha256 for kind in kinds for file in self.collected.files(kind)}

    def places(self) -> list[tuple[int, int]]:
        """(block, line) of every row of hits that is in the store."""
        tables = [
            pq.read_table(path, partitioning=None) for path in (self.root / "hits" / "v=1").rglob("*.parquet")
        ]
        return places_of(*tables)


def places_of(*tables: Any) -> list[tuple[int, int]]:
    columns = ("collector_block", "collector_line")
    return sorted(
        place for table in tables for place in zip(*(table[c].to_pylist() for c in columns), strict=True)
    )
