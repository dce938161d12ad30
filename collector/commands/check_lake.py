"""What ``check`` tries of the object store that parts are to be shipped to.

The invariant: nothing is written there, and no fault of it is a cross but a missing package: the collector
starts without its store, and parts wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from collector.commands.checklist import Found, Step, note, ok
from collector.commands.checkup import Checkup
from collector.core.messages import FileKind
from collector.core.shipping import SHIP_FAILURES, ShipPlan
from collector.credentials import conceal_store_secrets
from collector.lake.plan import require_lake, ship_plan
from collector.lake.store import ShipError, Stored, open_store

_NOT_THERE: Final = f"{FileKind.HITS}/.check"
"""A name that no part has: that it is not found is what is hoped for."""


async def _store(checkup: Checkup) -> Found:
    plan = ship_plan(checkup.settings)
    if plan is None:
        return ok("parts stay where they are: neither ship.url nor table.format is set")
    require_lake(plan)
    if not plan.url:
        return ok(f"a table ({plan.table_format}) over the output folder; nothing is shipped")
    conceal_store_secrets(checkup.environ)
    try:
        await asyncio.to_thread(partial(_asked, plan))
    except ShipError as error:
        remedy = SHIP_FAILURES[error.failure]
        return note(f"{remedy.means}: {error.detail}", f"{remedy.do} Until then parts wait on this disk.")
    return ok(f"{plan.url} answers; nothing was written there")


def _asked(plan: ShipPlan) -> Stored | None:
    return open_store(plan.url, endpoint=plan.endpoint, region=plan.region).find(_NOT_THERE)


LAKE_STEPS: Final[Sequence[Step[Checkup]]] = (Step("store", ("settings",), _store),)
