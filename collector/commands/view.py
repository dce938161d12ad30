"""What a terminal shows while the collector works: the live view of ``run``, the progress of ``decode``.

Runs on the coordinator's loop and only looks. Log lines go on above the view.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from collector import telemetry
from collector.coordinator.clock import boottime_s
from collector.coordinator.process import Coordinator
from collector.core.connection import ConnectionState, ConnectionView

REFRESH_S: Final = 0.5
RATE_WINDOW_S: Final = 5.0

_COLOURS: Final = {
    ConnectionState.STREAMING: "green",
    ConnectionState.PAUSED: "yellow",
    ConnectionState.WAITING: "yellow",
    ConnectionState.REFUSED: "red",
}


@dataclass(slots=True)
class Rate:
    """A count's growth per second over the last few seconds."""

    samples: deque[tuple[float, int]] = field(default_factory=deque)

    def per_s(self, now_s: float, count: int) -> float:
        self.samples.append((now_s, count))
        while now_s - self.samples[0][0] > RATE_WINDOW_S:
            self.samples.popleft()
        began_s, before = self.samples[0]
        return (count - before) / (now_s - began_s) if now_s > began_s else 0.0


async def live_view(coordinator: Coordinator) -> None:
    """Until cancelled."""
    rate = Rate()
    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        telemetry.configure(
            form="console",
            level=coordinator.settings.log.level,
            write=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
        try:
            while True:
                live.update(_screen(coordinator, rate), refresh=True)
                await asyncio.sleep(REFRESH_S)
        finally:
            telemetry.configure(form="console", level=coordinator.settings.log.level)


def _screen(coordinator: Coordinator, rate: Rate) -> Group:
    now_s = boottime_s()
    assert coordinator.stream is not None  # noqa: S101 - the view is of a live stream
    return Group(
        _headline(coordinator.stream.view(), now_s),
        _figures(coordinator, rate, now_s),
        *(Text(f"not ready: {reason}", style="red") for reason in coordinator.not_ready()),
    )


def _headline(view: ConnectionView, now_s: float) -> Text:
    text = Text(
        f"{view.state.value} for {duration(now_s - view.since_s)}", style=_COLOURS.get(view.state, "bold")
    )
    if view.next_attempt_s is not None:
        text.append(f"; next request in {duration(max(0.0, view.next_attempt_s - now_s))}")
    if view.cause:
        text.append(f" - {view.cause}", style="default")
    return text


def _figures(coordinator: Coordinator, rate: Rate, now_s: float) -> Table:
    accepted = coordinator.intake.accepted_total
    totals = coordinator.ledger.totals
    batching = coordinator.pipeline.batching
    oldest = batching.oldest_uncommitted()
    table = Table.grid(padding=(0, 3))
    for _ in range(6):
        table.add_column(justify="right")
    table.add_row("hits/s", "accepted", "in Parquet", "resends", "rejects", "lag", style="dim")
    table.add_row(
        f"{rate.per_s(now_s, accepted):,.0f}",
        f"{accepted:,}",
        f"{totals.rows:,}",
        f"{totals.resends:,}",
        f"{totals.rejects:,}",
        "0 s" if oldest is None else duration(coordinator.age_s(oldest)),
    )
    return table


def duration(seconds: float) -> str:
    """Two units at most: ``8 s``, ``4 min 10 s``, ``3 h 2 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


async def file_progress(coordinator: Coordinator) -> None:
    """Until cancelled."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        telemetry.configure(
            form="console",
            level="warning",
            write=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
        bar = progress.add_task("reading")
        accepted_before = coordinator.intake.accepted_total
        while True:
            if coordinator.files is not None:
                at = coordinator.files.progress
                accepted = coordinator.intake.accepted_total - accepted_before
                decoded = min(1.0, coordinator.pipeline.decoded_records / accepted) if accepted else 1.0
                name = "" if at.path is None else at.path.name
                total = at.bytes_total or None
                progress.update(bar, description=name, completed=at.bytes_read * decoded, total=total)
            await asyncio.sleep(REFRESH_S)
