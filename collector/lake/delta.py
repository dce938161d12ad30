"""The table as a Delta table over ``hits/``: its log lies in ``hits/_delta_log``, its files are the parts.

Run by the shipping process and by ``compact``. Invariant: a commit carries the instance and its last block
as Delta's own app transaction. It is looked at before; of two committers at once Delta refuses the later one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import pyarrow as pa

from collector.core.messages import FileKind
from collector.core.shipping import ShipFailure, ShipPlan
from collector.lake.store import ShipError, failure_of, in_short
from collector.lake.tables import Commit, TablePart, path_keys
from collector.storage.layout import SCHEMA_VERSION

PARTITIONS: Final = ("v", "stream", "date", "hour")
"""All keys of a part's path: engines that read them from there refuse a table that lacks one."""

_PARTITION_FIELDS: Final = (
    pa.field("v", pa.int32()),
    pa.field("stream", pa.string()),
    pa.field("date", pa.date32()),
    pa.field("hour", pa.string()),
)
_CHECKPOINT_EVERY: Final = "100"
"""Commits. A reader reads at most this many small files; writing one takes a few ms per thousand parts."""


class DeltaTable:
    """One table for all streams and hosts that ship below the same address."""

    def __init__(self, location: str, options: dict[str, str]) -> None:
        import deltalake  # noqa: PLC0415 - an extra
        from deltalake import transaction  # noqa: PLC0415

        self._deltalake: Any = deltalake
        self._actions: Any = transaction
        self._location = location
        self._options = options
        self._opened: Any = None

    @classmethod
    def open(cls, plan: ShipPlan) -> Self:
        if not plan.url:
            location = os.path.join(plan.output, FileKind.HITS)
            os.makedirs(location, 0o755, exist_ok=True)
            return cls(location, {})
        options: dict[str, str] = {}
        if plan.endpoint:
            options |= {"AWS_ENDPOINT_URL": plan.endpoint}
            options |= {"AWS_ALLOW_HTTP": "true"} if plan.endpoint.startswith("http:") else {}
        options |= {"AWS_REGION": plan.region} if plan.region else {}
        return cls(f"{plan.url.rstrip('/')}/{FileKind.HITS}", options)

    # ------------------------------------------------------------ what it can do

    def committed(self, instance: str) -> int:
        table = self._table()
        if table is None:
            return 0
        with self._translated():
            return int(table.transaction_version(_app(instance)) or 0)

    def add(self, commit: Commit, parts: Sequence[TablePart]) -> bool:
        with self._translated():
            table = self._evolved(parts)
            if (table.transaction_version(_app(commit.instance)) or 0) >= commit.last:
                return False  # asked of the very version that the commit builds on: a later one fails it
            self._write(
                table,
                [self._added(part) for part in parts],
                app=(_app(commit.instance), commit.last),
                said={
                    "livestream.stream": commit.stream,
                    "livestream.instance": commit.instance,
                    "livestream.first-block": str(commit.first),
                    "livestream.last-block": str(commit.last),
                },
            )
        return True

    def replace(self, name: str, old: Sequence[str], new: Sequence[TablePart]) -> bool:
        app = f"livestream-collector/{name}"
        with self._translated():
            table = self._evolved(new)
            if table.transaction_version(app) is not None:
                return False
            now_ms = round(time.time() * 1000)
            removed = [
                self._actions.RemoveAction(_relative(path), True, now_ms, None, _partition(path))
                for path in old
            ]
            actions = [*removed, *(self._added(part) for part in new)]
            self._write(table, actions, app=(app, 1), said={"livestream.replaced-by": name})
        return True

    # ------------------------------------------------------------ how

    def _table(self) -> Any:
        """As of now; ``None``: there is none yet."""
        with self._translated():
            if self._opened is None:
                if not self._deltalake.DeltaTable.is_deltatable(self._location, self._options):
                    return None
                self._opened = self._deltalake.DeltaTable(self._location, storage_options=self._options)
            else:
                self._opened.update_incremental()
            return self._opened

    def _evolved(self, parts: Sequence[TablePart]) -> Any:
        """The table, with every column that these parts have."""
        schemas = [part.schema for part in parts if part.schema is not None]
        table = self._table()
        if table is None:
            if not schemas:
                raise ShipError(ShipFailure.TABLE, f"{self._location} was there and is gone")
            whole = pa.schema([*pa.unify_schemas(schemas), *_PARTITION_FIELDS])
            self._deltalake.DeltaTable.create(
                self._location,
                schema=self._deltalake.Schema.from_arrow(whole),
                mode="ignore",
                partition_by=list(PARTITIONS),
                name=str(FileKind.HITS),
                description=f"Livestream hits, schema version {SCHEMA_VERSION} and those before",
                configuration={"delta.checkpointInterval": _CHECKPOINT_EVERY},
                storage_options=self._options,
            )
            table = self._table()
        known = {field.name for field in table.schema().fields}
        for schema in schemas:
            fields = self._deltalake.Schema.from_arrow(schema).fields
            new = [field for field in fields if field.name not in known]
            if new:
                table.alter.add_columns(new)
                known |= {field.name for field in new}
                table.update_incremental()
        return table

    def _added(self, part: TablePart) -> Any:
        return self._actions.AddAction(
            _relative(part.path),
            part.size,
            _partition(part.path),
            round(time.time() * 1000),
            True,
            f'{{"numRecords":{part.rows}}}',
        )

    def _write(
        self, table: Any, actions: Sequence[Any], *, app: tuple[str, int], said: dict[str, str]
    ) -> None:
        properties = self._actions.CommitProperties(
            custom_metadata=said, app_transactions=[self._actions.Transaction(*app)]
        )
        table.create_write_transaction(
            list(actions), "append", table.schema(), list(PARTITIONS), commit_properties=properties
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ShipError:
            raise
        except Exception as error:
            self._opened = None
            failure = failure_of(error)
            known = failure if failure is not ShipFailure.AWAY else ShipFailure.TABLE
            raise ShipError(known, f"Delta table {self._location}: {in_short(error)}") from error


def _app(instance: str) -> str:
    return f"livestream-collector/{instance}"


def _relative(path: str) -> str:
    return path.removeprefix(f"{FileKind.HITS}/")


def _partition(path: str) -> dict[str, str | None]:
    keys = path_keys(path)
    return {name: keys[name] for name in PARTITIONS}
