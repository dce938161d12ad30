"""``livestream-collector verify``: the proof that nothing committed is missing, doubled or changed.

Reads only, takes no lock, and may run beside the collector. With ``--rebuild`` it is the state folder's
only user and makes a damaged commit log again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from collector.errors import ConfigurationError, ExitCode, VerificationError
from collector.escaping import printable
from collector.settings import Settings
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.verify.findings import Report
from collector.storage.verify.proof import Watcher, verify


class _Unwatched:
    def begun(self, total_bytes: int) -> None:
        pass

    def advanced(self, count_bytes: int) -> None:
        pass


def run(settings: Settings) -> int:
    """*Blocks* for one read of everything. *Raises* VerificationError, StorageError, ConfigurationError."""
    state = StateFolder(settings.state.folder)
    if not os.path.isdir(state.root):
        raise ConfigurationError(
            f"{state.root} is no state folder: nothing has collected here; give the --output and --stream"
            " (or --state) of the collector whose parts shall be verified"
        )
    with _watching() as watcher:
        report = verify(
            DISK, state, settings.output.folder, stream=settings.stream.name or "", watcher=watcher
        )
    return _told(report)


def _told(report: Report) -> int:
    for note in report.notes:
        sys.stdout.write(f"note: {printable(note)}\n")
    for finding in report.findings:
        sys.stdout.write(f"{printable(str(finding))}\n")
    sys.stdout.write(f"{report.summary()}\n")
    sys.stdout.flush()
    if report.findings:
        raise VerificationError(f"{len(report.findings)} findings, listed on stdout")
    return ExitCode.DONE


@contextmanager
def _watching() -> Iterator[Watcher]:
    """A progress bar, on a terminal only."""
    if not sys.stderr.isatty():
        yield _Unwatched()
        return
    from rich.console import Console  # noqa: PLC0415 - takes 0.1 s
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)

        class Bar:
            def begun(self, total_bytes: int) -> None:
                progress.update(bar, total=total_bytes)

            def advanced(self, count_bytes: int) -> None:
                progress.advance(bar, count_bytes)

        yield Bar()
