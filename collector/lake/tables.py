"""The seam to table formats: what a table must be able to do, whichever it is.

Run by the shipping process and by ``compact``. Invariant: a commit names the stream, the instance and the
block range it is about, and a range is committed once: the table itself says how far it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from collector.core.shipping import ShipPlan


class TablePart(NamedTuple):
    """A Parquet file that is where the table is to find it."""

    path: str
    """Below the root of what is shipped: ``hits/v=1/...``."""
    size: int
    rows: int
    schema: Any
    """Its Arrow schema, where this process saw none of this ``v`` yet; else ``None``."""


class Commit(NamedTuple):
    """Who commits what: in the table's own words it makes a commit that is done once."""

    stream: str
    instance: str
    first: int
    """Block; the first of a compaction is that of the oldest row in it."""
    last: int


class Table(Protocol):
    """Every call *blocks* for the network and *raises* ShipError."""

    def committed(self, instance: str) -> int:
        """The last block of this instance that is in it; 0: none is."""

    def add(self, commit: Commit, parts: Sequence[TablePart]) -> bool:
        """One commit. ``False``: the range was committed before, nothing was done."""

    def replace(self, name: str, old: Sequence[str], new: Sequence[TablePart]) -> bool:
        """In one commit called ``name``: ``old`` paths out, ``new`` in. ``False``: that was done before."""


def open_table(plan: ShipPlan) -> Table:
    """*Raises*: ShipError; ModuleNotFoundError without the extra ``lake``."""
    if plan.table_format == "delta":
        from collector.lake.delta import DeltaTable  # noqa: PLC0415 - an extra

        return DeltaTable.open(plan)
    from collector.lake.iceberg import IcebergTable  # noqa: PLC0415 - an extra

    return IcebergTable.open(plan)


def read_schema(part: bytes | Path) -> Any:
    """The Arrow schema of a Parquet file; of one on this disk only its footer is read."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    return pq.read_schema(part if isinstance(part, Path) else pa.BufferReader(part))


def path_keys(path: str) -> dict[str, str]:
    """``stream``, ``date`` and so on, as the path says them."""
    return dict(name.split("=", 1) for name in path.split("/") if "=" in name)
