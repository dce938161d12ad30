"""The command for who wants to know: explain."""

from __future__ import annotations

from typing import Annotated

import typer

from collector.cli.app import app
from collector.cli.completion import codes


@app.command("explain")
def _explain(
    code: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CODE]",
            help="Such as 409, exit 3, connection.refused, LivestreamNoHits.",
            autocompletion=codes,
        ),
    ] = None,
) -> None:
    """Say what a code means here, what causes it and what to do.

    CODE is an HTTP status, an exit code, a log event, an alert, a state or a reason, however it is written.
    Without it all are listed. Exit 2 if it is not known.
    """
    from collector.commands.explain import run  # noqa: PLC0415

    raise typer.Exit(run(" ".join(code or [])))
