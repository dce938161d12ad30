"""What ``compact`` does beyond the output folder: the table that lists the parts, and the store it is of.

Invariant: a part that is shipped, or listed in a table, is replaced only where it is there already; else
whoever ships it would bring its rows back.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

from collector.core.shipping import ShipPlan
from collector.errors import ConfigurationError
from collector.lake.store import ShipError, open_store
from collector.lake.tables import TablePart, open_table, read_schema
from collector.storage.compacted import PlanRecord
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder
from collector.storage.shipped import ShipProgress

_TRIES: Final = 5
"""A collector that commits at the same moment makes the table refuse a replacement."""

_LAST: Final = re.compile(r"-([0-9]{12,18})-[0-9]{1,9}\.parquet$")


class Elsewhere:
    """``plan``: what the settings say of shipping and tables; ``None``: neither.

    *Raises* ConfigurationError for shipping without a table: the store would keep what was compacted here.
    """

    def __init__(self, disk: Disk, output: Path, plan: ShipPlan | None) -> None:
        self._disk = disk
        self._output = output
        self._plan = plan
        if plan is not None and plan.table_format == "off":
            raise ConfigurationError(
                f"parts are shipped to {plan.url} as they are, and would stay beside the compacted ones:"
                " set table.format, whose readers see a replacement at once"
            )

    def must_wait(self, state: StateFolder, progress: ShipProgress | None, path: str) -> str:
        """Why a part cannot be replaced yet; empty: it can.

        *Raises* ConfigurationError where its collector ships and the settings do not say so.
        """
        if self._plan is None:
            if progress is None:
                return ""
            where = progress.table or progress.url
            raise ConfigurationError(
                f"the parts of {state.root} go to {where}: give its collector's settings with --config; if"
                f" that is over, remove {state.root}/ship"
            )
        last = _LAST.search(path)
        if progress is None or (progress.url, progress.table) != (self._plan.url, self._plan.table):
            return "not in the table yet"
        listed = last is not None and int(last[1]) <= progress.block
        return "" if listed else "not in the table yet"

    def replace(self, plan: PlanRecord) -> None:
        """The new files are in place, the old ones still there. Done again it changes nothing.

        *Blocks* for the network. *Raises* ShipError.
        """
        if self._plan is None:
            return
        shipping = self._plan
        if shipping.url:
            store = open_store(shipping.url, endpoint=shipping.endpoint, region=shipping.region)
            for file in plan.outputs:
                store.put_new(self._output / file.path, file.path, file.size, file.digest)
        new = [
            TablePart(
                file.path, file.size, file.rows, read_schema(self._disk.read_file(self._output / file.path))
            )
            for file in plan.outputs
        ]
        for attempt in range(1, _TRIES + 1):
            try:
                open_table(shipping).replace(f"compact-{plan.key}", [file.path for file in plan.inputs], new)
            except ShipError:
                if attempt == _TRIES:
                    raise
                time.sleep(0.2 * attempt)
            else:
                return
