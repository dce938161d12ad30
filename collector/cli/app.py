"""The application that the commands are put on."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from collector import __version__
from collector.cli.options import PROGRAM

_EPILOG: Final = """Secrets come from the environment, each also from a file: LIVESTREAM_CLIENT_ID and
LIVESTREAM_CLIENT_SECRET, or LIVESTREAM_CLIENT_ID and LIVESTREAM_TOKEN; LIVESTREAM_TOKEN_FILE and so on.

\b
Exit codes:
  0  done
  1  a defect of ours
  2  configuration, or a missing extra
  3  permanently refused by the service
  4  storage
  5  the state folder is in use
  6  a child process kept failing
  7  something is missing or doubled
A service manager must not restart on 2, 3 and 5.
"""

app = typer.Typer(
    name=PROGRAM,
    help="Hold one Adobe Analytics Livestream connection and turn it into Parquet.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # Rich help takes 0.2 s to import, and its tracebacks show local variables: secrets.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
