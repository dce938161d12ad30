"""The first and the last log line of a run.

Runs in the coordinator.
"""

from __future__ import annotations

import os

from collector import __version__
from collector.coordinator.foundation import Foundation
from collector.core.messages import Totals
from collector.settings import Settings
from collector.telemetry import log


def say_started(settings: Settings, foundation: Foundation) -> None:
    ledger = foundation.ledger
    log(
        "run.started",
        version=__version__,
        pid=os.getpid(),
        stream=ledger.stream,
        instance=ledger.instance,
        url=settings.stream.url,
        output=settings.output.folder,
        state=foundation.state.root,
        decoders=settings.run.decoders,
        durability=settings.journal.durability,
        rows=ledger.totals.rows,
    )


def say_stopped(totals: Totals, reason: str, duration_s: float) -> None:
    log(
        "run.stopped",
        reason=reason or "nothing left to read",
        records=totals.records,
        rows=totals.rows,
        resends=totals.resends,
        rejects=totals.rejects,
        duration_s=duration_s,
    )
