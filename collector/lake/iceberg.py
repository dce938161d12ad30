"""The table as an Iceberg table whose data files are the parts, partitioned by the hour of ``received_at``.

Run by the shipping process and by ``compact``. Invariant: the commit that adds a batch also sets a property
of the table that says how far this instance is. It survives the expiry of snapshots, and is looked at again
before each attempt: nothing here is ever retried blindly by the library.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import pyarrow as pa

from collector.core.messages import FileKind
from collector.core.shipping import ShipFailure, ShipPlan
from collector.lake.store import ShipError, failure_of, in_short, uri_of
from collector.lake.tables import Commit, TablePart

_ATTEMPTS: Final = 10
"""Against others who commit to the same table at the same time."""

_FIRST_PAUSE_S: Final = 0.05
_PARTITION: Final = "received_hour"
_FOLDER: Final = "_tables"
"""Of metadata, beside ``hits``: engines that list folders skip the name."""

_STREAM: Final = "livestream.stream"

_PROPERTIES: Final = {
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "50",
    "commit.manifest.target-size-bytes": str(256 << 10),
    "write.metadata.metrics.default": "none",
    "write.metadata.metrics.column.received_at": "full",
    "write.metadata.metrics.column.collected_at": "full",
    "write.metadata.metrics.column.hit_at": "full",
    "write.parquet.compression-codec": "zstd",
}
"""Else one commit a minute makes 1,440 metadata files and manifests a day, and merging them rewrites all.

Of a hundred columns few have statistics in the parts; those of the times are what queries skip files by.
"""

KEEP_SNAPSHOTS: Final = 200
_EXPIRE_AT: Final = 250
"""Each commit rewrites the list of snapshots, a KB for each."""


class IcebergTable:
    """One table of hits; ``name`` is ``namespace.table``."""

    def __init__(self, catalog: Any, name: str, *, stream: str, root: str, location: str) -> None:
        self._catalog = catalog
        self._name = name
        self._stream = stream
        self._root = root
        self._location = location
        self._loaded: Any = None

    @classmethod
    def open(cls, plan: ShipPlan) -> Self:
        root = plan.url.rstrip("/") or f"file://{plan.output}"
        location = f"{root}/{_FOLDER}/{plan.table_name.replace('.', '/')}"
        try:
            catalog = _catalog(plan, f"{root}/{_FOLDER}")
        except ModuleNotFoundError:
            raise
        except Exception as error:
            raise _failed(error, plan.table_name) from error
        return cls(catalog, plan.table_name, stream=plan.stream, root=root, location=location)

    # ------------------------------------------------------------ what it can do

    def committed(self, instance: str) -> int:
        with self._translated():
            table = self._table()
            return 0 if table is None else int(table.properties.get(_block_of(instance), 0))

    def add(self, commit: Commit, parts: Sequence[TablePart]) -> bool:
        done = False

        def add(table: Any) -> None:
            nonlocal done
            done = int(table.properties.get(_block_of(commit.instance), 0)) >= commit.last
            if done:
                return
            with table.transaction() as transaction:
                transaction.add_files(
                    [uri_of(self._root, part.path) for part in parts],
                    snapshot_properties={
                        _STREAM: commit.stream,
                        "livestream.instance": commit.instance,
                        "livestream.first-block": str(commit.first),
                        "livestream.last-block": str(commit.last),
                    },
                    check_duplicate_files=False,
                )
                transaction.set_properties({_block_of(commit.instance): str(commit.last)})

        self._commit(parts, add)
        return not done

    def replace(self, name: str, old: Sequence[str], new: Sequence[TablePart]) -> bool:
        gone, come = ({uri_of(self._root, path) for path in paths} for paths in (old, (p.path for p in new)))
        done = False

        def replace(table: Any) -> None:
            nonlocal done
            there = {task.file.file_path: task.file for task in table.scan().plan_files()}
            done = come <= set(there) and not gone & set(there)
            if done:
                return
            if gone - set(there) or come & set(there):
                raise ShipError(ShipFailure.TABLE, f"Iceberg table {self._name}: {name} is half done in it")
            with table.transaction() as transaction:
                update = transaction.update_snapshot(snapshot_properties={"livestream.replaced-by": name})
                with update.overwrite() as overwrite:
                    for uri in gone:
                        overwrite.delete_data_file(there[uri])
                    for file in _data_files(table, sorted(come)):
                        overwrite.append_data_file(file)

        self._commit(new, replace)
        return not done

    # ------------------------------------------------------------ how

    def _commit(self, parts: Sequence[TablePart], change: Callable[[Any], None]) -> None:
        """Once, whoever else commits. The table is loaded anew for each attempt."""
        from pyiceberg.exceptions import CommitFailedException  # noqa: PLC0415

        with self._translated():
            table = self._evolved(parts)
            for attempt in range(_ATTEMPTS):
                try:
                    change(_without_retries(table))
                except CommitFailedException:
                    if attempt + 1 == _ATTEMPTS:
                        raise
                    time.sleep(_FIRST_PAUSE_S * (attempt + 1) * (1 + random.random()))  # noqa: S311
                    table.refresh()
                else:
                    self._expire(table)
                    return

    def _table(self) -> Any:
        """As of now; ``None``: there is none yet."""
        from pyiceberg.exceptions import NoSuchTableError  # noqa: PLC0415

        if self._loaded is not None:
            return self._loaded.refresh()
        try:
            self._loaded = self._checked(self._catalog.load_table(self._name))
        except NoSuchTableError:
            return None
        return self._loaded

    def _checked(self, table: Any) -> Any:
        """Its rows do not say which stream they are of, so it is of one."""
        of = table.properties.get(_STREAM, self._stream)
        if of != self._stream:
            raise ShipError(
                ShipFailure.TABLE,
                f"Iceberg table {self._name} is of stream {of!r}, not of {self._stream!r}: give another"
                " table.name",
            )
        return table

    def _evolved(self, parts: Sequence[TablePart]) -> Any:
        """The table, with every column that these parts have."""
        schemas = [part.schema for part in parts if part.schema is not None]
        table = self._table()
        if table is None:
            if not schemas:
                raise ShipError(ShipFailure.TABLE, f"Iceberg table {self._name} was there and is gone")
            table = self._created(pa.unify_schemas(schemas))
        known = {field.name for field in table.schema().fields}
        for schema in schemas:
            if not set(schema.names) <= known:
                with table.update_schema() as update:
                    update.union_by_name(schema)
                table.refresh()
                known |= set(schema.names)
        return table

    def _created(self, schema: pa.Schema) -> Any:
        from pyiceberg.exceptions import TableAlreadyExistsError  # noqa: PLC0415
        from pyiceberg.transforms import HourTransform  # noqa: PLC0415

        self._catalog.create_namespace_if_not_exists(self._name.rpartition(".")[0])
        try:
            with (
                self._catalog.create_table_transaction(
                    self._name,
                    schema=schema,
                    location=self._location,
                    properties={**_PROPERTIES, _STREAM: self._stream},
                ) as transaction,
                transaction.update_spec() as spec,
            ):
                spec.add_field("received_at", HourTransform(), _PARTITION)
        except TableAlreadyExistsError:  # another host was first
            pass
        self._loaded = self._checked(self._catalog.load_table(self._name))
        return self._loaded

    def _expire(self, table: Any) -> None:
        snapshots = table.snapshots()
        if len(snapshots) < _EXPIRE_AT:
            return
        old = sorted(snapshots, key=lambda snapshot: snapshot.timestamp_ms)[: len(snapshots) - KEEP_SNAPSHOTS]
        table.maintenance.expire_snapshots().by_ids([snapshot.snapshot_id for snapshot in old]).commit()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ShipError:
            raise
        except Exception as error:
            self._loaded = None
            raise _failed(error, self._name) from error


def _failed(error: Exception, name: str) -> ShipError:
    failure = failure_of(error)
    known = failure if failure is not ShipFailure.AWAY else ShipFailure.TABLE
    return ShipError(known, f"Iceberg table {name}: {in_short(error)}")


def _catalog(plan: ShipPlan, warehouse: str) -> Any:
    """SQLite is the default; any other name is that of a catalog in pyiceberg's own configuration."""
    if not plan.table_catalog.startswith("sqlite:"):
        from pyiceberg.catalog import load_catalog  # noqa: PLC0415

        return load_catalog(plan.table_catalog)
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    os.makedirs(os.path.dirname(plan.table_catalog.removeprefix("sqlite:///")), 0o700, exist_ok=True)
    options = {"uri": plan.table_catalog, "warehouse": warehouse}
    options |= {"s3.endpoint": plan.endpoint} if plan.endpoint else {}
    options |= {"s3.region": plan.region} if plan.region else {}
    try:
        return SqlCatalog("livestream", **options)
    except OperationalError:  # another made its tables after this one had not found them: now they are there
        return SqlCatalog("livestream", **options)


def _without_retries(table: Any) -> Any:
    """In memory only: the library would commit again what another one of us has committed meanwhile."""
    table.metadata.properties["commit.retry.num-retries"] = "0"
    return table


def _data_files(table: Any, uris: Sequence[str]) -> Any:
    from pyiceberg.io.pyarrow import parquet_files_to_data_files  # noqa: PLC0415

    return parquet_files_to_data_files(io=table.io, table_metadata=table.metadata, file_paths=iter(uris))


def _block_of(instance: str) -> str:
    """The table property that says how far an instance is."""
    return f"{FileKind.HITS}.livestream.{instance}.block"
