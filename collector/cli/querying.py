"""The command for what was collected: query."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from collector.cli.app import app
from collector.cli.options import Config, Output, Set, places
from collector.errors import ConfigurationError


class ResultForm(enum.StrEnum):
    """How a result is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    NDJSON = "ndjson"
    PARQUET = "parquet"


@app.command("query")
def _query(
    *,
    sql: Annotated[
        str | None, typer.Argument(metavar="[SQL]", help="What to ask, in DuckDB's SQL; -: from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="F", exists=True, dir_okay=False, help="SQL from a file.")
    ] = None,
    form: Annotated[
        ResultForm | None,
        typer.Option("--format", help="Default: by FILE's ending, else table on a terminal and csv."),
    ] = None,
    result: Annotated[
        Path | None, typer.Option("-o", "--result", metavar="FILE", help="Where the result goes.")
    ] = None,
    lateness_s: Annotated[
        str | None,
        typer.Option(
            "--lateness",
            metavar="SECONDS",
            help="How long an hour counts as open after its end; default 900.",
        ),
    ] = None,
    config: Config = None,
    output: Output = None,
    assignments: Set = None,
) -> None:
    """Ask the output with SQL; without SQL, at a prompt.

    Views: hits, rejects, connections, and hours (what each hour brought and whether it is complete). It reads
    beside a running collector, needs no credentials, and writes nothing but FILE. Exit 2 if the SQL is wrong.
    """
    from collector.commands.query import run  # noqa: PLC0415
    from collector.commands.query_output import Form  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    if sql is not None and file is not None:
        raise ConfigurationError("query takes SQL or --file: give one of them, and not both")
    settings = load_settings(
        Purpose.LOOK,
        config=config,
        environ=os.environ,
        options=places(None, output, None) | {"query.lateness_s": lateness_s},
        assignments=assignments or (),
    )
    if file is not None:
        sql = _text(file.read_bytes(), str(file))
    elif sql == "-" or (sql is None and not sys.stdin.isatty()):
        sql = _text(sys.stdin.buffer.read(), "stdin")
    elif sql is None and (form is not None or result is not None):
        raise ConfigurationError("the prompt takes neither --format nor -o: give SQL, or use .once there")
    raise typer.Exit(run(settings, sql, form=None if form is None else Form(form.value), file=result))


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{source} is no text in UTF-8: {error}") from error
