"""What the settings ask of shipping and tables, and whether what that needs is installed.

Imported by the commands before anything is started, so nothing of it is heavy.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from collector.core.shipping import ShipPlan
from collector.errors import ConfigurationError
from collector.settings import Settings

PIP_LINE: Final = "pip install 'livestream-collector[lake]'"


def ship_plan(settings: Settings) -> ShipPlan | None:
    """``None``: the settings ask for no shipping and no table."""
    ship, table = settings.ship, settings.table
    if ship.url is None and table.format == "off":
        return None
    default = f"sqlite:///{settings.output.folder}/_tables/catalog.db"
    return ShipPlan(
        output=str(settings.output.folder),
        state=str(settings.state.folder),
        stream=settings.stream.name,
        url=ship.url or "",
        endpoint=ship.endpoint or "",
        region=ship.region or "",
        uploads=ship.uploads,
        keep_local_s=None if ship.keep_local_s == "always" else float(ship.keep_local_s),
        table_format=table.format,
        table_name=table.name if table.format == "iceberg" else "",
        table_catalog=(table.catalog or default) if table.format == "iceberg" else "",
    )


def require_lake(plan: ShipPlan) -> None:
    """*Raises* ConfigurationError with the pip line when a package of the extra is missing."""
    missing = [name for name in _needed(plan) if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} is not installed: {PIP_LINE}")


def _needed(plan: ShipPlan) -> Iterator[str]:
    if plan.url and not plan.url.startswith("file:"):
        yield "obstore"
    if plan.table_format == "iceberg":
        yield "pyiceberg"
    if plan.table_format == "delta":
        yield "deltalake"
