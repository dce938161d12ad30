"""The shipping process as the coordinator sees it: started, heard, replaced, never waited for.

Runs in the coordinator. Invariant: whatever becomes of that process, the collector goes on; only at the end
of a drain it is given what is left of ``run.drain_s``, so that the last parts are out when the collector is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from collector.coordinator.supervisor import Child, start_child
from collector.core.messages import Failed
from collector.core.remedies import Remedy
from collector.core.shipping import (
    SHIP_FAILURES,
    FinishShipping,
    FromShipper,
    ShipFailure,
    ShipPlan,
    ShipReport,
    ShipSaid,
    retry_delay_s,
)
from collector.core.status import Ship
from collector.credentials import shipping_environment
from collector.errors import ExitCode
from collector.storage.shipped import ShipProgress, must_stay
from collector.telemetry import log, log_told

NAME: Final = "shipper"
HEARTBEAT_LIMIT_S: Final = 600.0
"""It has the lowest priority: on a busy host it may be silent for long and be well."""

_FINAL: Final = frozenset({ExitCode.CONFIGURATION})
"""Exit codes after which another start would end the same way."""


class Shipping:
    """Keeps one shipping process alive for as long as the collector runs."""

    def __init__(self, plan: ShipPlan, instance: str, environ: Mapping[str, str]) -> None:
        self.plan = plan
        self.report = ShipReport()
        """The newest one."""
        self._instance = instance
        self._environment = shipping_environment(environ)
        self._child: Child[FromShipper] | None = None
        self._heard = False
        self._finishing = False
        self._gone = asyncio.Event()

    async def keep_shipping(self, _: object) -> None:
        """A companion of the collector: it ends when it is cancelled."""
        await self._keep_one()
        await asyncio.Event().wait()

    async def _keep_one(self) -> None:
        """Until ``finish``, or until it is of no use to start it again."""
        deaths = 0
        while not self._finishing:
            child = self._child = await self._started()
            self._gone.clear()
            began_s = asyncio.get_running_loop().time()
            try:
                await self._listen(child)
            finally:
                self._child = None
                death = await child.reap()
                self._gone.set()
            if self._finishing:
                return
            if asyncio.get_running_loop().time() - began_s > HEARTBEAT_LIMIT_S:
                deaths = 0
            deaths += 1
            if death.exit_code in _FINAL:
                log("attention.needed", reason="nothing is shipped: its message is above")
                return
            delay_s = retry_delay_s(deaths, random.random())  # noqa: S311
            log("child.died", name=NAME, pid=child.pid, how=death.how, blocks_again=0, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    async def finish(self, deadline_s: float | None) -> None:
        """Ship what is committed, then end; killed at the deadline, and the next run goes on from there."""
        self._finishing = True
        if self._child is None:
            return
        self._child.send(FinishShipping())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s):
                await self._gone.wait()

    def may_go(self, path: str) -> bool:
        """Whether retention may take this part away: it is out, and no table needs the local one."""
        known = ShipProgress(url=self.plan.url, block=self.report.block, rows_entry=self.report.rows_entry)
        in_place = not self.plan.url and bool(self.plan.table)
        return not must_stay(path, known, url=self.plan.url, table_in_place=in_place)

    def view(self, at_us: int) -> Ship:
        """For the status."""
        report = self.report
        return Ship(
            url=self.plan.url,
            table="" if self.plan.table_format == "off" else self.plan.table_format,
            behind_parts=report.behind_parts,
            behind_bytes=report.behind_bytes,
            lag_s=max(0.0, (at_us - report.oldest_us) / 1e6) if report.oldest_us else 0.0,
            parts=report.parts,
            bytes=report.bytes,
            table_commits=report.table_commits,
            removed_parts=report.removed_parts,
            failure=report.failure,
            reason=report.reason,
        )

    # ------------------------------------------------------------ one process

    async def _started(self) -> Child[FromShipper]:
        plan = msgspec.json.encode(self.plan).decode()
        child: Child[FromShipper] = await start_child(
            NAME,
            "collector.lake.process",
            ["--plan", plan, "--instance", self._instance],
            FromShipper,
            environment=self._environment,
            inherited_fds=[],
            heartbeat_limit_s=HEARTBEAT_LIMIT_S,
        )
        log("child.started", name=NAME, pid=child.pid)
        return child

    async def _listen(self, child: Child[Any]) -> None:
        while (message := await child.receive()) is not None:
            match message:
                case ShipReport():
                    self._take(message)
                case ShipSaid():
                    log_told(message.event, message.fields)
                case Failed():
                    log("attention.needed", reason=f"{NAME}: {message.message}")
                case _:
                    pass

    def _take(self, report: ShipReport) -> None:
        before, self.report = self.report, report
        if not self._heard:  # what earlier runs have shipped is no news
            self._heard, before = True, msgspec.structs.replace(report, failure="")
        if report.failure and report.failure != before.failure:
            log(
                "ship.failed",
                failure=report.failure,
                reason=report.reason,
                remedy=_remedy(report.failure).do,
                parts=report.behind_parts,
                retry_s=report.retry_s,
            )
        elif before.failure and not report.failure:
            log("ship.resumed", parts=report.behind_parts)
        elif report.parts > before.parts and not report.behind_parts:
            log("ship.shipped", parts=report.parts - before.parts, bytes=report.bytes - before.bytes)


def _remedy(failure: str) -> Remedy:
    return SHIP_FAILURES[ShipFailure(failure)]
