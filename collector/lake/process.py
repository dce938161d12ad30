"""The shipping process: ``python -m collector.lake.process``, a child that the collector never waits for.

Invariant: nothing it does, and nothing that becomes of it, reaches the collector but a report; it works at
the lowest priority, on what the commit log says, and whoever starts it again gets the same end.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from collector.core.messages import Failed, Ready
from collector.core.shipping import (
    FinishShipping,
    ShipFailure,
    ShipPlan,
    ShipReport,
    ShipSaid,
    retry_delay_s,
)
from collector.credentials import conceal_store_secrets
from collector.errors import CollectorError, ExitCode, InUseError
from collector.ipc.cell import ProgressCell
from collector.ipc.channel import Channel
from collector.ipc.child import become_child
from collector.lake.plan import require_lake
from collector.lake.shipper import Shipper
from collector.lake.store import ShipError, open_store
from collector.lake.tables import open_table
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.shipped import shipping_lock

LOOK_INTERVAL_S: Final = 1.0
"""How often the commit log is looked at: one fstat, and a read when it has grown."""

LOWEST_PRIORITY: Final = 19
"""Nice; the disk's scheduler takes its own priority from it."""


def open_shipper(plan: ShipPlan, instance: str, **more: Any) -> Shipper:
    """*Raises*: ShipError; ConfigurationError without the extra ``lake``."""
    require_lake(plan)
    store = open_store(plan.url, endpoint=plan.endpoint, region=plan.region) if plan.url else None
    table = open_table(plan) if plan.table else None
    return Shipper(DISK, plan, instance, store=store, table=table, now_us=now_us, **more)


def now_us() -> int:
    return time.time_ns() // 1000


class _LibraryLines(logging.Handler):
    """What libraries log: it is sent to the coordinator, which masks secrets, from whatever thread."""

    def __init__(self, say: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter())
        self._library_said = say

    def emit(self, record: logging.LogRecord) -> None:
        self._library_said("library.warned", name=record.name, reason=self.format(record))


class ShippingProcess:
    """Steps until it is told to finish, or its parent is gone."""

    def __init__(
        self, channel: Channel[FinishShipping], cell: ProgressCell, plan: ShipPlan, instance: str
    ) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._cell = cell
        self._plan = plan
        self._instance = instance
        self._shipper: Shipper | None = None
        self._failures = 0
        self._finishing = False
        self._sent: ShipReport | None = None

    def run(self) -> None:
        """*Raises*: EOFError when the parent is gone."""
        while True:
            pause_s = self._stepped()
            if self._finishing and (self._failures or pause_s):
                return
            self._hear(pause_s)

    def _stepped(self) -> float:
        """How long to wait before the next one."""
        try:
            if self._shipper is None:
                self._shipper = open_shipper(self._plan, self._instance, say=self.say, beat=self._cell.beat)
                self._report(self._shipper.report())
            more = self._shipper.step()
        except ShipError as error:
            return self._failed(error)
        self._failures = 0
        self._report(self._shipper.report())
        return 0.0 if more else LOOK_INTERVAL_S

    def _failed(self, error: ShipError) -> float:
        self._failures += 1
        delay_s = retry_delay_s(self._failures, random.random())  # noqa: S311
        report = ShipReport() if self._shipper is None else self._shipper.report()
        self._report(
            msgspec.structs.replace(
                report, failure=error.failure, reason=error.detail, retry_s=round(delay_s, 1)
            )
        )
        return delay_s

    def _hear(self, wait_s: float) -> None:
        """Waits, beating; ends it early when there is something to hear."""
        until_s = time.monotonic() + wait_s
        while True:
            self._cell.beat()
            left_s = max(0.0, min(LOOK_INTERVAL_S, until_s - time.monotonic()))
            if select.select([self._channel.fileno()], [], [], left_s)[0]:
                self._finishing |= any(True for _ in self._channel.receive_ready())
                return
            if time.monotonic() >= until_s:
                return

    def say(self, event: str, /, **fields: object) -> None:
        """From any thread."""
        with self._sending:
            self._channel.send(ShipSaid(event, {name: str(value) for name, value in fields.items()}))

    def _report(self, report: ShipReport) -> None:
        if report != self._sent:
            with self._sending:
                self._channel.send(report)
            self._sent = report


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m collector.lake.process")
    for name, kind in (("channel", int), ("parent", int), ("cell", int), ("plan", str), ("instance", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    arguments = _arguments(argv)
    become_child(arguments.parent)
    os.setpriority(os.PRIO_PROCESS, 0, LOWEST_PRIORITY)
    conceal_store_secrets(os.environ)
    channel: Channel[FinishShipping] = Channel.from_fd(arguments.channel, FinishShipping)
    plan = msgspec.json.decode(arguments.plan, type=ShipPlan)
    process = ShippingProcess(channel, ProgressCell.from_fd(arguments.cell), plan, arguments.instance)
    logging.basicConfig(handlers=[_LibraryLines(process.say)])
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)  # it warns of each column without statistics
    try:
        channel.send(Ready(os.getpid()))
        with shipping_lock(DISK, StateFolder(Path(plan.state))):
            process.run()
    except (EOFError, BrokenPipeError):
        pass
    except InUseError as error:
        channel.send(ShipReport(failure=ShipFailure.TABLE_BUSY, reason=str(error)))
        channel.send(Failed(error.exit_code, str(error)))
        return _ended(error.exit_code)
    except CollectorError as error:
        channel.send(Failed(error.exit_code, str(error)))
        return _ended(error.exit_code)
    return _ended(ExitCode.DONE)


def _ended(code: int) -> int:
    """At once: a thread that waits for the network must not hold the process."""
    sys.stderr.flush()
    os._exit(int(code))


if __name__ == "__main__":
    main(sys.argv[1:])
