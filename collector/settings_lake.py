"""The part of the table of settings about committed parts: ``[retention]``, ``[ship]`` and so on.

Imported by the table of settings.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from collector.settings_kinds import GIB, MIB, TIB, Kind, setting


def _age(what: str, folder: str) -> Any:
    doc = f"{what} are removed when their {folder} was over this long ago. By default they are kept."
    return setting(Kind.DAYS, None, doc, minimum=0.05, maximum=36_500)


def _size(what: str, folder: str) -> Any:
    doc = f"With more bytes of {what} than this the oldest {folder}s of them are removed. By default none is."
    return setting(Kind.SIZE, None, doc, minimum=MIB, maximum=1024 * TIB)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long committed parts stay, if not for ever. Looked at every ten minutes, while `run` runs.

    What goes is a whole hour of hits, or a whole day of rejects or connections, once it is past and all of it
    is committed. Only this state folder's own parts count and go: not those of another collector or of
    `decode`, and not what `compact` made.
    """

    hits_max_age_days: float | None = _age("Hits", "hour")
    hits_max_bytes: int | None = _size("hits", "hour")
    rejects_max_age_days: float | None = _age("Rejects", "day")
    rejects_max_bytes: int | None = _size("rejects", "day")
    connections_max_age_days: float | None = _age("Rows of connections", "day")
    connections_max_bytes: int | None = _size("rows of connections", "day")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ship:
    """Committed parts to an object store, by a process of its own. Needs the extra `lake`: docs/lake.md.

    Without `url` nothing is shipped, and whatever else here is not the default is refused.

    Credentials come from the environment only, as the store's own tools take them: `AWS_ACCESS_KEY_ID`,
    `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` and so on. Only that process gets them.
    """

    url: str | None = setting(
        Kind.STORE,
        None,
        "Where parts go, under their final names. By default they go nowhere.",
    )
    keep_local_s: float | Literal["always"] = setting(
        Kind.SECONDS_OR_ALWAYS,
        "always",
        "How long after its commit a part that is shipped, and in the table if there is one, stays on this "
        "disk. `0`: no longer than that takes.",
        minimum=0,
        maximum=3_153_600_000,
    )
    uploads: int = setting(Kind.COUNT, 4, "Parts that are sent at the same time.", minimum=1, maximum=64)
    endpoint: str | None = setting(
        Kind.URL,
        None,
        "Address of a store that speaks S3, where it is not Amazon's. Plain `http://` for loopback only.",
    )
    region: str | None = setting(Kind.TEXT, None, "Of the S3 bucket; by default `AWS_REGION`.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Each batch as one commit of a table over the parts. Needs the extra `lake`: docs/lake.md."""

    format: Literal["off", "iceberg", "delta"] = setting(
        Kind.CHOICE,
        "off",
        "Which table. Its files are the shipped parts; without `ship.url` those in the output folder.",
        choices=("off", "iceberg", "delta"),
    )
    name: str = setting(
        Kind.TABLE_NAME,
        "livestream.hits",
        "Of the Iceberg table: one stream, one table. A Delta table is known by its place, `hits/` below "
        "`ship.url`, and holds every stream there.",
    )
    catalog: str | None = setting(
        Kind.TEXT,
        None,
        "Of Iceberg: `sqlite:////path/to/catalog.db`, or the name of a catalog in PyIceberg's own "
        "configuration (`PYICEBERG_CATALOG__NAME__URI` and so on, or `~/.pyiceberg.yaml`), which was not "
        "tried. By default `_tables/catalog.db` in the output folder.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compact:
    """The command `compact`."""

    lateness_s: float = setting(
        Kind.SECONDS,
        7200.0,
        "An hour is compacted once it has been over for this long.",
        minimum=0,
        maximum=31_622_400,
        flag="--older-than",
    )
    engine: Literal["duckdb", "spark"] = setting(
        Kind.CHOICE,
        "duckdb",
        "What looks for resends: `duckdb` in this process, or `spark`, the cluster that `SPARK_REMOTE` or "
        "`SPARK_MASTER` names, else local mode.",
        choices=("duckdb", "spark"),
        flag="--engine",
    )
    memory_bytes: int = setting(
        Kind.SIZE,
        GIB,
        "What the command may use; the rest waits on the disk.",
        minimum=512 * MIB,
        maximum=TIB,
        flag="--memory",
    )
    file_bytes: int = setting(
        Kind.SIZE,
        GIB,
        "An hour becomes as many files of about this size as it needs.",
        minimum=MIB,
        maximum=TIB,
    )
