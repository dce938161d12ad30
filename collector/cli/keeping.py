"""The commands about what a collector does and keeps: status, bundle, verify, ship, reset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from collector.cli.app import app
from collector.cli.options import Config, Output, ResetValue, Set, State, Stream, places


@app.command("status")
def _status(
    *,
    config: Config = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    assignments: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what the running collector is doing, or what the last one left behind.

    The sentence on top is the status page's. Without --stream, of several streams in OUTPUT/.state, a line
    for each. Asks by the state folder's socket, page or not, and disturbs nobody. Exits 0, also when none
    runs: health checks are /healthz and /readyz of status.listen.
    """
    from collector.commands.status import run  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    settings = load_settings(
        Purpose.LOOK,
        config=config,
        environ=os.environ,
        options=places(stream, output, state),
        assignments=assignments or (),
    )
    raise typer.Exit(run(settings, as_json=as_json))


@app.command("bundle")
def _bundle(
    *,
    config: Config = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    assignments: Set = None,
    file: Annotated[
        Path | None,
        typer.Option("-o", metavar="FILE.tar.gz", help="What to write; default a new file in this folder."),
    ] = None,
) -> None:
    """Pack what somebody who helps needs to see: settings, status, events, log, versions.

    No hit, no byte of a record and no secret is in it. Works beside a running collector and with a damaged
    state folder: what cannot be told says why. Never replaces a file.
    """
    from collector.commands.bundle import run  # noqa: PLC0415
    from collector.settings import Purpose, load_with_sources  # noqa: PLC0415

    loaded = load_with_sources(
        Purpose.STATE,
        config=config,
        environ=os.environ,
        options=places(stream, output, state),
        assignments=assignments or (),
    )
    raise typer.Exit(run(loaded, os.environ, file))


@app.command("verify")
def _verify(
    *,
    config: Config = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    assignments: Set = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="First make a damaged commit log again from the parts."),
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Look for every shipped part in the store as well.")
    ] = False,
    read_remote: Annotated[
        bool, typer.Option("--read-remote", help="The same, and read and hash each of them there.")
    ] = False,
) -> None:
    """Prove that nothing committed is missing, doubled or changed.

    Reads the commit log and every part of this state folder's collector, beside a running one too, and
    changes nothing. Exit 7 and one line per finding if anything is off.

    --rebuild needs the state folder for itself (exit 5 while a collector runs). It keeps what can be read
    of the log, takes the rest from the parts' footers and columns, and says what cannot be known. The old
    log goes to STATE/quarantine.

    --remote asks the store of ship.url for each part that was shipped: its size, and the SHA-256 that was
    recorded with it. --read-remote downloads and hashes each of them. Parts that wait to go are a note.
    """
    from collector.commands.verify import run  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    settings = load_settings(
        Purpose.STATE,
        config=config,
        environ=os.environ,
        options=places(stream, output, state),
        assignments=assignments or (),
    )
    raise typer.Exit(run(settings, rebuild=rebuild, remote=remote, read_remote=read_remote))


@app.command("ship")
def _ship(
    *,
    config: Config = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    assignments: Set = None,
) -> None:
    """Ship what is committed to the object store and the table, then end.

    `run` does the same all the time, where ship.url or table.format is set; this is for what a stopped
    collector left, and for what `decode` made (--state OUTPUT/.state/NAME.files). Exit 5 while another one
    ships this state folder's parts, 4 when the store was away or refused for a minute: what is out stays out.
    """
    from collector.commands.ship import run  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    settings = load_settings(
        Purpose.STATE,
        config=config,
        environ=os.environ,
        options=places(stream, output, state),
        assignments=assignments or (),
    )
    raise typer.Exit(run(settings))


@app.command("reset")
def _reset(
    *,
    value: Annotated[
        ResetValue,
        typer.Argument(
            metavar="VALUE", help="smallest or earliest: the oldest held; largest or latest: now."
        ),
    ],
    config: Config = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    assignments: Set = None,
) -> None:
    """Send `reset` with the next request, once. Can lose data: an operator's decision."""
    from collector.commands.reset import run  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    settings = load_settings(
        Purpose.STATE,
        config=config,
        environ=os.environ,
        options=places(stream, output, state),
        assignments=assignments or (),
    )
    raise typer.Exit(run(settings, value.value))
