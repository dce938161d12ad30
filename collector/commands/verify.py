"""``livestream-collector verify``: the proof that nothing committed is missing, doubled or changed.

Reads only, takes no lock, and may run beside the collector. With ``--rebuild`` it is the state folder's
only user and makes a damaged commit log again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from collector.commands.terminal import Progress, Region, is_terminal
from collector.core.shipping import ShipPlan
from collector.credentials import conceal_store_secrets
from collector.errors import ConfigurationError, ExitCode, VerificationError
from collector.escaping import printable
from collector.lake.plan import require_lake, ship_plan
from collector.settings import Settings
from collector.settings_rules import last_segment
from collector.storage.commitlog import acknowledged_path
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.verify.findings import Report
from collector.storage.verify.proof import Watcher, verify
from collector.storage.verify.visible import ROOTS

FILE_STATES: Final = (".files", ".rejects")
"""What state folders are called that no stream's address belongs to."""


class _Unwatched:
    def begun(self, total_bytes: int) -> None:
        pass

    def advanced(self, count_bytes: int) -> None:
        pass


def run(settings: Settings, *, rebuild: bool = False, remote: bool = False, read_remote: bool = False) -> int:
    """*Blocks* for one read of everything. ``remote``: of the store, too.

    *Raises*: VerificationError, StorageError, ConfigurationError; InUseError for ``rebuild``.
    """
    state = StateFolder(settings.state.folder)
    if not os.path.isdir(state.root):
        raise ConfigurationError(
            f"{state.root} is no state folder: nothing has collected here; give the --output and --stream"
            " (or --state) of the collector whose parts shall be verified"
        )
    if _is_young(state, settings.output.folder):
        raise ConfigurationError(f"{state.root} has no commit log yet: nothing has been collected into it")
    plan = _remote_plan(settings) if remote or read_remote else None
    faults = _rebuild(settings, state) if rebuild else []
    with _watching() as watcher:
        report = verify(
            DISK, state, settings.output.folder, stream=settings.stream.name or "", watcher=watcher
        )
        if plan is not None:
            from collector.lake.proof import verify_remote  # noqa: PLC0415 - rarely needed

            verify_remote(DISK, state, plan, report, read=read_remote, watcher=watcher)
    return _told(report, faults)


def _remote_plan(settings: Settings) -> ShipPlan:
    plan = ship_plan(settings)
    if plan is None or not plan.url:
        raise ConfigurationError("--remote looks into the store that parts are shipped to: give ship.url")
    require_lake(plan)
    conceal_store_secrets(os.environ)
    return plan


def _is_young(state: StateFolder, output: Path) -> bool:
    """No log, and no trace of what one would be about."""
    traces = [state.commit_log, acknowledged_path(state.commit_log), state.archive]
    return not any(DISK.exists(path) for path in [*traces, *(output / root for root in ROOTS)])


def _rebuild(settings: Settings, state: StateFolder) -> list[str]:
    """Gives what is missing for good."""
    from collector.storage.rebuild.rebuild import rebuild  # noqa: PLC0415 - rarely needed

    of_files = state.root.name.endswith(FILE_STATES)
    segment = last_segment(settings.stream.url) or ("" if of_files else settings.stream.name)
    done = rebuild(
        DISK, state, settings.output.folder, stream=settings.stream.name or "", url_segment=segment
    )
    for line in done.said:
        sys.stdout.write(f"rebuild: {printable(line)}\n")
    for fault in done.faults:
        sys.stdout.write(f"lost: {printable(fault)}\n")
    return done.faults


def _told(report: Report, faults: list[str]) -> int:
    for note in report.notes:
        sys.stdout.write(f"note: {printable(note)}\n")
    for finding in report.findings:
        sys.stdout.write(f"{printable(str(finding))}\n")
    sys.stdout.write(f"{report.summary()}\n")
    sys.stdout.flush()
    if report.findings or faults:
        count = len(report.findings) + len(faults)
        raise VerificationError(f"{count} finding{'' if count == 1 else 's'}, listed on stdout")
    return ExitCode.DONE


@contextmanager
def _watching() -> Iterator[Watcher]:
    """How far it is, on a terminal only."""
    if not is_terminal():
        yield _Unwatched()
        return
    region = Region()
    try:
        yield Progress(region, "verifying")
    finally:
        region.close()
