"""``livestream-collector decode``: saved files through the same pipeline, each once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from collector.commands.run import on_loop
from collector.commands.terminal import is_terminal
from collector.coordinator.files import Unpack
from collector.coordinator.foundation import Foundation, lay_foundation
from collector.coordinator.process import Companion, Coordinator
from collector.credentials import scrubbed_environment
from collector.errors import ExitCode
from collector.given import Given
from collector.ipc.child import forbid_core_dumps
from collector.storage.recovery import WaysOn


def run(given: Given, files: Sequence[Path], ways_on: WaysOn) -> int:
    """Until every record of every file is committed. *Raises* ``CollectorError``."""
    with lay_foundation(given.settings, ways_on=ways_on) as foundation:
        before = foundation.ledger.totals
        try:
            return decode(given, foundation, [path.resolve() for path in files])
        finally:  # what is committed is, whatever ended it
            totals = foundation.ledger.totals
            print(
                f"{totals.rows - before.rows:,} hits, {totals.resends - before.resends:,} resends,"
                f" {totals.rejects - before.rejects:,} rejects added to {given.settings.output.folder}"
            )


def decode(
    given: Given, foundation: Foundation, paths: Sequence[Path], unpack: Unpack | None = None
) -> ExitCode:
    """Each of the files once, with a progress bar on a terminal. *Raises* ``CollectorError``."""
    forbid_core_dumps()
    companions: list[Companion] = []
    if is_terminal():
        from collector.commands.view import file_progress  # noqa: PLC0415 - rich takes 0.1 s

        companions.append(file_progress)

    async def run_files() -> ExitCode:
        coordinator = Coordinator(
            given.settings,
            foundation,
            environment=scrubbed_environment(os.environ),
            ca_file="",
            privacy=given.privacy,
        )
        return await coordinator.run_files(paths, unpack=unpack, companions=companions)

    return on_loop(run_files())
