"""The command that rewrites committed parts: compact."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from collector.cli.app import app
from collector.cli.options import Config, Output, Set, Stream, places


@app.command("compact")
def _compact(
    *,
    config: Config = None,
    stream: Stream = None,
    output: Output = None,
    states: Annotated[
        list[Path] | None,
        typer.Option(
            "--state",
            metavar="DIR",
            help="A state folder that is not in OUTPUT/.state; may be given several times.",
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="SECONDS", help="Only hours over for this long; default 7200."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="NAME", help="duckdb or spark; default duckdb.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help='What it may use; default "1 GiB".')
    ] = None,
    assignments: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
) -> None:
    """Make large files of small parts, hour by hour, with each hit once.

    Resends are removed whichever collector of the stream took them and however long after: of copies with the
    same ids the one collected first stays. Rows are sorted by visitor and time. Runs beside collectors; only
    hours that have been over for a while are touched, and only parts whose collector's state folder is found.
    Killed at any point it is finished by running it again.

    Exit 7 if something did not add up: that hour is as it was. Exit 5 beside another compact.
    """
    from collector.commands.compact import run  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    settings = load_settings(
        Purpose.STATE,
        config=config,
        environ=os.environ,
        options=places(stream, output, None)
        | {"compact.lateness_s": older_than, "compact.engine": engine, "compact.memory_bytes": memory},
        assignments=assignments or (),
    )
    raise typer.Exit(run(settings, states or [], dry_run=dry_run))
