"""``livestream-collector compact``: small parts into large ones, and each hit once.

Takes no lock of a collector's and runs beside running ones. What it does and in which order is in
``collector.lake``; here is what it says.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from collector.commands.terminal import Progress, Region, is_terminal, size_text
from collector.core.compaction import Plan
from collector.errors import ConfigurationError, ExitCode, VerificationError
from collector.escaping import printable
from collector.lake.compact import Compaction, HourDone, Outcome, Rules
from collector.lake.engines import DuckDbEngine, Engine, SparkEngine
from collector.lake.inventory import hour_name
from collector.lake.plan import ship_plan
from collector.settings import Settings
from collector.storage.compacted import CompactionFolder
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder

_US: Final = 1_000_000
_MOST_HOURS: Final = 4


def run(settings: Settings, states: Sequence[Path], *, dry_run: bool = False) -> int:
    """*Blocks* until every closed hour is compacted.

    *Raises*: VerificationError where something did not add up; InUseError, NoSpaceError, StorageError,
    ConfigurationError.
    """
    output, stream = settings.output.folder, settings.stream.name
    if not output.is_dir():
        raise ConfigurationError(f"{output} is no folder: nothing has collected there; give another --output")
    rules = Rules(
        stream=stream,
        lateness_us=round(settings.compact.lateness_s * _US),
        memory_bytes=settings.compact.memory_bytes,
        target_bytes=settings.compact.file_bytes,
        mode=settings.output.mode,
    )
    compaction = Compaction(
        DISK,
        output,
        rules,
        states=[*states, *_configured(settings)],
        shipping=ship_plan(settings),
        now_us=lambda: time.time_ns() // 1000,
    )
    if dry_run:
        _say_plan(compaction, compaction.survey())
        return ExitCode.DONE
    with compaction.alone():
        engine = _engine(settings, CompactionFolder.of(output, stream).scratch)
        try:
            with _watching() as watcher:
                outcome = compaction.run(engine, watcher, watcher.told)
        finally:
            engine.close()
    return _summary(compaction, outcome)


def _configured(settings: Settings) -> list[Path]:
    """A state folder that the settings name, wherever it is; the default place is looked at anyway."""
    state = settings.state.folder
    usual = state.parent == settings.output.folder / ".state"
    return [state] if not usual and DISK.exists(StateFolder(state).commit_log) else []


def _engine(settings: Settings, scratch: Path) -> Engine:
    if settings.compact.engine == "spark":
        return SparkEngine(DISK)
    return DuckDbEngine(scratch, settings.compact.memory_bytes)


# ---------------------------------------------------------------- words


def _say_plan(compaction: Compaction, plan: Plan) -> None:
    for hour in plan.due:
        inputs = compaction.inputs(hour)
        rows, size = sum(file.rows for file in inputs), sum(file.size for file in inputs)
        _say(f"would compact {hour_name(hour)}: {len(inputs):,} files, {rows:,} rows, {size_text(size)}")
    for hour in plan.beside:
        _say(f"would look through {hour_name(hour)}, which is compacted, for resends of hits beside it")
    _say_left(compaction, plan)
    _say(f"{len(plan.due):,} hours to compact, {size_text(compaction.size(plan.due))}; nothing was changed")


def _say_left(compaction: Compaction, plan: Plan) -> None:
    if plan.open:
        _say(f"not over yet, or not for long enough: {_hours(plan.open)}")
    if plan.unsettled:
        _say(f"something is decided and not committed yet: {_hours(plan.unsettled)}")
    for why, files in sorted(compaction.inventory.left.items()):
        _say(f"left alone: {f'{files:,} files of ' if files else ''}{why}")


def _hours(hours: Sequence[int]) -> str:
    left = len(hours) - _MOST_HOURS
    more = f" and {left:,} hours before" if left > 0 else ""
    return ", ".join(hour_name(hour) for hour in hours[:_MOST_HOURS]) + more


def _hour_line(done: HourDone) -> str:
    rate = (done.rows + done.doubles) / done.seconds if done.seconds else 0.0
    return (
        f"{done.hour}: {done.files:,} files, {size_text(done.size)} -> {done.outputs:,},"
        f" {size_text(done.size_after)}; {done.rows:,} rows, {done.doubles:,} doubles removed;"
        f" {rate:,.0f} rows/s"
    )


def _summary(compaction: Compaction, outcome: Outcome) -> int:
    if outcome.finished:
        _say(f"finished what an earlier run had decided on {outcome.finished}")
    for text in outcome.changed:
        _say(f"left to the next run: {text}")
    for text in outcome.faults:
        _say(f"left alone: {text}")
    _say_left(compaction, compaction.plan)
    done = outcome.done
    _say(
        f"{len(done):,} hours compacted: {sum(one.files for one in done):,} files ->"
        f" {sum(one.outputs for one in done):,}, {sum(one.rows for one in done):,} rows,"
        f" {sum(one.doubles for one in done):,} doubles removed"
    )
    if outcome.faults:
        count = len(outcome.faults)
        raise VerificationError(f"{count:,} hour{'' if count == 1 else 's'} left alone, said on stdout")
    return ExitCode.DONE


def _say(text: str) -> None:
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()


# ---------------------------------------------------------------- how far it is


class _Lines:
    """Without a terminal: a line for each hour."""

    def begun(self, total_bytes: int) -> None:
        pass

    def advanced(self, count_bytes: int) -> None:
        pass

    def named(self, name: str) -> None:
        pass

    def told(self, done: HourDone) -> None:
        _say(_hour_line(done))


class _Drawn:
    """The same above a line of how far it is."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._progress = Progress(region, "compacting")
        self._done_bytes = self._total_bytes = 0
        self._name = ""

    def begun(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._progress.begun(total_bytes)

    def advanced(self, count_bytes: int) -> None:
        self._done_bytes += count_bytes
        self._progress.at(self._done_bytes, self._total_bytes, self._name)

    def named(self, name: str) -> None:
        self._name = f"compacting {name}"
        self.advanced(0)

    def told(self, done: HourDone) -> None:
        self._region.print(_hour_line(done))


@contextmanager
def _watching() -> Iterator[_Lines | _Drawn]:
    if not is_terminal():
        yield _Lines()
        return
    region = Region()
    try:
        yield _Drawn(region)
    finally:
        region.close()
