"""The part of the table of settings that is about object stores and tables: ``[ship]`` and ``[table]``.

Imported by the table of settings.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from collector.settings_kinds import Kind, setting


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ship:
    """Committed parts to an object store, by a process of its own. Needs the extra `lake`: docs/lake.md.

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
