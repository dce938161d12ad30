"""What the commands share: the program's name, its options, and flags as settings.

Nothing heavy is imported here nor in the modules of the commands: ``--help`` imports them all.
"""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from collector.cli.completion import assignments

PROGRAM: Final = "livestream-collector"


class ResetValue(enum.StrEnum):
    """What the service takes for ``reset``: two names for each end of what it holds."""

    SMALLEST = "smallest"
    LARGEST = "largest"
    EARLIEST = "earliest"
    LATEST = "latest"


class LogFormat(enum.StrEnum):
    """How log lines are written."""

    CONSOLE = "console"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", metavar="F", help="Settings file (TOML).")]
Url = Annotated[str | None, typer.Option("--url", metavar="U", help="The stream's address.")]
Stream = Annotated[
    str | None,
    typer.Option("--stream", metavar="NAME", help="Name of the stream in paths.", show_default=False),
]
Output = Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Output folder; required.")]
State = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="State folder; default OUTPUT/.state/NAME.")
]
Decoders = Annotated[
    str | None, typer.Option("--decoders", metavar="N", help="Decoder processes; default 2.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Any setting; may be given several times.",
        autocompletion=assignments,
    ),
]
RedoBatch = Annotated[
    int | None,
    typer.Option("--redo-batch", metavar="FIRST", min=1, help="Undo the pending batch, run it again."),
]
AcceptJournalLoss = Annotated[
    bool, typer.Option("--accept-journal-loss", help="Go on without damaged blocks of the journal.")
]
LogFormatOption = Annotated[
    LogFormat | None, typer.Option("--log-format", help="Form of log lines.", show_default="console")
]


def places(stream: str | None, output: Path | None, state: Path | None) -> dict[str, str | None]:
    """As settings."""
    return {"stream.name": stream, "output.folder": _text(output), "state.folder": _text(state)}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
