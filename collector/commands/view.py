"""What a terminal shows while the collector works: the live view of ``run``, the progress of ``decode``.

Runs on the coordinator's loop and only looks, at the same status as page and ``status``. Log lines that
matter scroll by above it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from collector import telemetry
from collector.commands import facts
from collector.commands.terminal import REFRESH_S, Progress, Region, bar, size_text, sparkline
from collector.coordinator.process import Coordinator
from collector.core.connection import ConnectionState
from collector.core.sentence import duration
from collector.core.status import Sample, Status
from collector.escaping import printable
from collector.events import Level

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_WIDEST: Final = 110
_BAR_CELLS: Final = 24
_LABEL_CELLS: Final = 11
_VALUE_CELLS: Final = 12

_TONES: Final = {
    ConnectionState.STREAMING: "green",
    ConnectionState.WAITING: "yellow",
    ConnectionState.PAUSED: "yellow",
    ConnectionState.REFUSED: "red",
}


async def live_view(coordinator: Coordinator) -> None:
    """Until cancelled. Warnings and errors scroll by above it."""
    assert coordinator.status is not None  # noqa: S101 - the view is of a live stream
    with _region(coordinator) as region:
        while True:
            columns, rows = region.size()
            region.draw(screen(coordinator.status.now(), columns, rows, ascii_only=region.ascii))
            await asyncio.sleep(REFRESH_S)


async def file_progress(coordinator: Coordinator) -> None:
    """Until cancelled."""
    accepted_before = coordinator.intake.accepted_total
    with _region(coordinator) as region:
        progress = Progress(region, "reading")
        while True:
            if coordinator.files is not None:
                at = coordinator.files.progress
                accepted = coordinator.intake.accepted_total - accepted_before
                decoded = min(1.0, coordinator.pipeline.decoded_records / accepted) if accepted else 1.0
                name = "" if at.path is None else printable(at.path.name)
                progress.at(round(at.bytes_read * decoded), at.bytes_total, name)
            await asyncio.sleep(REFRESH_S)


@contextmanager
def _region(coordinator: Coordinator) -> Iterator[Region]:
    """With log lines above it, as long as it is there."""
    settings = coordinator.settings.log
    region = Region()
    least: Level = "error" if settings.level == "error" else "warning"
    telemetry.configure(form="console", level=least, write=region.print)
    try:
        yield region
    finally:
        region.close()
        telemetry.configure(form="console", level=settings.level)


# ---------------------------------------------------------------- the screen


def screen(status: Status, columns: int, rows: int, *, ascii_only: bool) -> RenderableType:
    """As much of the status as fits, the most important first."""
    from rich.console import Group  # noqa: PLC0415 - takes 0.1 s
    from rich.text import Text  # noqa: PLC0415

    width = min(columns - 1, _WIDEST)
    head = Text(printable(status.sentence), style=_tone(status))
    curves = [*_curves(status, width, ascii_only=ascii_only)]
    counts = _counts(status)
    bars = [*_bars(status, ascii_only=ascii_only)]
    notes = [_line(label, words) for label, words in _notes(status)]
    tall = rows >= 20
    spaces = [Text("")] if tall else []
    return Group(head, *spaces, *curves, *spaces, counts, *spaces, *bars, *spaces, *notes)


def _tone(status: Status) -> str:
    state = status.connection.state
    at_work = state in _TONES
    return (
        f"bold {_TONES[state] if status.ready or state is ConnectionState.REFUSED else 'red'}"
        if at_work
        else "bold"
    )


def _line(label: str, words: str = "") -> Text:
    """On one line; what does not fit is cut."""
    from rich.text import Text  # noqa: PLC0415

    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(label.ljust(_LABEL_CELLS), style="dim")
    line.append(words)
    return line


def _curves(status: Status, width: int, *, ascii_only: bool) -> Iterator[Text]:
    cells = max(0, width - _LABEL_CELLS - _VALUE_CELLS - 16)
    for label, value, values in (
        ("hits/s", f"{status.hits_per_s:,.0f}", [at.hits_per_s for at in status.history]),
        ("lag", duration(status.lag_s), [at.lag_s for at in status.history]),
    ):
        line = _line(label)
        line.append(value.ljust(_VALUE_CELLS), style="bold")
        line.append(sparkline(condensed(values, cells), ascii_only=ascii_only), style="cyan")
        line.append(f"  {_span(status.history)}", style="dim")
        yield line


def condensed(values: Sequence[float], cells: int) -> list[float]:
    """At most so many: each the highest of its stretch, the newest last."""
    if not cells:
        return []
    step = -(-len(values) // cells) or 1
    first = len(values) % step
    stretches = [values[:first]] if first else []
    stretches += [values[at : at + step] for at in range(first, len(values), step)]
    return [max(stretch) for stretch in stretches]


def _span(history: Sequence[Sample]) -> str:
    return f"last {duration((history[-1].at_us - history[0].at_us) / 1e6)}" if len(history) > 1 else ""


def _counts(status: Status) -> Text:
    at = status.totals
    line = _line("in Parquet")
    for number, name in ((at.rows, "hits"), (at.resends, "resends"), (at.rejects, "rejects")):
        line.append(f"{number:,}", style="bold")
        line.append(f" {name}   ", style="dim")
    line.append(f"{status.journal.waiting_records:,}", style="bold")
    line.append(" waiting", style="dim")
    return line


def _bars(status: Status, *, ascii_only: bool) -> Iterator[Text]:
    journal, disk = facts.journal_part(status), facts.disk_part(status)
    low = status.disk.free_bytes < 2 * status.disk.reserve_bytes
    for label, part, alarm, words in (
        ("journal", journal, status.journal.full, f"of {size_text(status.journal.max_bytes)}"),
        ("disk", disk, low, f"{size_text(status.disk.free_bytes)} free"),
    ):
        line = _line(label)
        line.append(bar(part, _BAR_CELLS, ascii_only=ascii_only), style="red" if alarm else "green")
        line.append(f" {100 * part:3.0f} %  {words}")
        yield line


def _notes(status: Status) -> Iterator[facts.Fact]:
    yield "connection", facts.connection(status)
    yield "processes", facts.processes(status)
    if status.ship is not None:
        yield "shipping", facts.shipping(status.ship)
    yield "gaps", facts.gaps(status)
    if status.rejects:
        yield "reject", facts.reject(status.rejects[0], status.at_us)
    yield "token", facts.token(status)
    if status.page:
        yield "page", printable(status.page)
