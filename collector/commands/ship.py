"""``livestream-collector ship``: what ``run`` does beside collecting, by hand: everything that is committed.

For after a run, for saved files, for cron. Never beside a ``run`` that ships: one process does.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from collector.commands.terminal import Progress, Region, is_terminal
from collector.core.entries import Made
from collector.core.shipping import ShipPlan, retry_delay_s
from collector.credentials import conceal_store_secrets
from collector.errors import ConfigurationError, ExitCode, StorageError
from collector.lake.plan import require_lake, ship_plan
from collector.lake.process import open_shipper
from collector.lake.shipper import Shipper
from collector.lake.store import ShipError
from collector.settings import Settings
from collector.storage.archive import all_entries
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.shipped import ShipProgress, shipping_lock
from collector.telemetry import log

PATIENCE_S: Final = 60.0
"""How long the same failure is tried again before it ends the command."""


def run(settings: Settings) -> int:
    """*Blocks* until all is out. *Raises*: InUseError, StorageError, ConfigurationError."""
    plan = ship_plan(settings)
    if plan is None:
        raise ConfigurationError(
            "there is nothing to do: give ship.url, or table.format, as the collector's settings do"
        )
    require_lake(plan)
    conceal_store_secrets(os.environ)
    state = StateFolder(Path(plan.state))
    instance = _instance(state)
    with shipping_lock(DISK, state), _watching() as watch:
        parts = _ship(plan, instance, watch)
    sys.stdout.write(f"{parts:,} parts shipped; everything that is committed is out\n")
    return ExitCode.DONE


def _instance(state: StateFolder) -> str:
    if not DISK.exists(state.commit_log):
        raise ConfigurationError(f"{state.root} has no commit log: nothing has been collected into it")
    made = next((entry for _, entry in all_entries(DISK, state) if isinstance(entry, Made)), None)
    return "" if made is None else made.instance


def _ship(plan: ShipPlan, instance: str, watch: Callable[[int, int], object]) -> int:
    """How many parts. ``watch`` is told the bytes that are out, and all of them."""
    shipper: Shipper | None = None
    failures, failing_since_s, before = 0, 0.0, ShipProgress()
    while True:
        try:
            if shipper is None:
                shipper = open_shipper(plan, instance, say=log, beat=lambda: None)
                before = shipper.progress
            if not shipper.step():
                return shipper.progress.parts - before.parts
        except ShipError as error:
            failures += 1
            failing_since_s = time.monotonic() if failures == 1 else failing_since_s
            if time.monotonic() - failing_since_s > PATIENCE_S:
                raise StorageError(str(error)) from error
            time.sleep(retry_delay_s(failures, random.random()))  # noqa: S311
        else:
            failures = 0
            out = shipper.progress.bytes - before.bytes
            watch(out, out + shipper.report().behind_bytes)


@contextmanager
def _watching() -> Iterator[Callable[[int, int], object]]:
    """How far it is, on a terminal only."""
    if not is_terminal():
        yield lambda _done, _total: None
        return
    region = Region()
    try:
        yield Progress(region, "shipping").at
    finally:
        region.close()
