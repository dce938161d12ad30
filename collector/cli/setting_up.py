"""The commands that come before the first run: init, config, check."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from collector.cli.app import app
from collector.cli.options import Config, Decoders, Output, Set, State, Stream, Url, places

config = typer.Typer(
    help="Look at the settings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(config, name="config")

Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


class Credentials(enum.StrEnum):
    """How the credentials come."""

    OAUTH = "oauth"
    TOKEN_FILE = "token-file"  # noqa: S105 - the name of a way
    TOKEN = "token"  # noqa: S105 - the name of a way


@app.command("init")
def _init(
    *,
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Settings file to write.")] = Path(
        "livestream.toml"
    ),
    url: Url = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    credentials: Annotated[
        Credentials | None, typer.Option(help="How credentials will come; default oauth.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="PATH", help="With token-file: the file.")
    ] = None,
    assignments: Set = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Write a commented settings file.

    On a terminal it asks for what is not given: the stream, the folder, how the credentials come. No secret
    is asked for or written.
    """
    from collector.commands.init import Way, run  # noqa: PLC0415

    options = places(stream, output, state) | {
        "stream.url": url,
        "auth.token_file": None if token_file is None else str(token_file),
    }
    code = run(
        str(file),
        options,
        assignments or [],
        way=None if credentials is None else Way(credentials.value),
        force=force,
        ask=sys.stdin.isatty() and sys.stderr.isatty(),
    )
    raise typer.Exit(code)


@config.command("show")
def _show(
    *,
    config: Config = None,
    url: Url = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    decoders: Decoders = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Show the settings a `run` with the same options would have, each with where it comes from.

    The text is a settings file itself. Of secrets is shown which are given and from where.
    """
    from collector.commands.config import run  # noqa: PLC0415
    from collector.settings import Purpose, load_with_sources  # noqa: PLC0415

    loaded = load_with_sources(
        Purpose.RUN,
        config=config,
        environ=os.environ,
        options=places(stream, output, state) | {"stream.url": url, "run.decoders": decoders},
        assignments=assignments or (),
    )
    raise typer.Exit(run(loaded, os.environ, as_json=as_json))


@app.command("check")
def _check(
    *,
    config: Config = None,
    url: Url = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    decoders: Decoders = None,
    assignments: Set = None,
    hits_per_second: Annotated[
        float | None,
        typer.Option(metavar="R", min=0, help="Work out disk, memory and cores for this rate."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Try out everything a run needs, step by step, without taking the connection.

    Settings, credentials, folders, room, clock, kernel, names, the way there, certificates, the token. What
    depends on a failed step is skipped. Exits with the code of the first cross.
    """
    from collector.commands.check import run  # noqa: PLC0415
    from collector.settings import Loaded, Purpose, load_with_sources  # noqa: PLC0415

    options = places(stream, output, state) | {"stream.url": url, "run.decoders": decoders}

    def load() -> Loaded:
        return load_with_sources(
            Purpose.RUN,
            config=config,
            environ=os.environ,
            options=options,
            assignments=assignments or (),
        )

    flags = {"--config": config, "--url": url, "--stream": stream, "--output": output, "--state": state}
    again = [text for flag, value in flags.items() if value is not None for text in (flag, str(value))]
    again += ["--decoders", decoders] if decoders is not None else []
    again += [text for assignment in assignments or () for text in ("--set", assignment)]
    raise typer.Exit(run(load, os.environ, again, hits_per_s=hits_per_second, as_json=as_json))
