"""The commands that move hits: run, decode, simulate, demo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from collector.cli.app import app
from collector.cli.options import (
    AcceptJournalLoss,
    Config,
    Decoders,
    LogFormatOption,
    Output,
    RedoBatch,
    Set,
    State,
    Stream,
    Url,
    is_terminal,
    places,
)
from collector.errors import ConfigurationError


@app.command("run")
def _run(
    *,
    config: Config = None,
    url: Url = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    decoders: Decoders = None,
    assignments: Set = None,
    stop_after_hits: Annotated[
        int | None,
        typer.Option(
            "--stop-after-hits",
            metavar="N",
            min=1,
            help="Drain once N rows are committed, earlier runs included.",
        ),
    ] = None,
    stop_after_s: Annotated[
        float | None,
        typer.Option("--stop-after", metavar="SECONDS", min=0, help="Drain after this time."),
    ] = None,
    redo_batch: RedoBatch = None,
    accept_journal_loss: AcceptJournalLoss = False,
    log_format: LogFormatOption = None,
) -> None:
    """Hold the connection and write Parquet.

    Every refusal is ridden out, and every request waits for the floor.

    SIGTERM and SIGINT drain and exit 0; a second one exits at once. SIGHUP reads the settings again.
    """
    from collector.hangup import Hangup  # noqa: PLC0415

    hangup = Hangup.catch()  # before what takes its time: its default would end the process
    from collector import telemetry  # noqa: PLC0415
    from collector.commands.run import run  # noqa: PLC0415
    from collector.given import Layers  # noqa: PLC0415
    from collector.settings import Purpose  # noqa: PLC0415
    from collector.storage.recovery import WaysOn  # noqa: PLC0415

    layers = Layers(
        Purpose.RUN,
        dict(os.environ),
        config,
        places(stream, output, state)
        | {"stream.url": url, "run.decoders": decoders, "log.format": log_format},
        assignments or (),
    )
    given = layers.load()
    settings = given.settings
    telemetry.configure(form=settings.log.format, level=settings.log.level)
    terminal = log_format is None and settings.log.format == "console" and is_terminal()
    code = run(
        given,
        layers=layers,
        hangup=hangup,
        stop_after_hits=stop_after_hits,
        stop_after_s=stop_after_s,
        terminal=terminal,
        ways_on=WaysOn(redo_batch, accept_journal_loss),
    )
    raise typer.Exit(code)


@app.command("decode")
def _decode(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Hits, .jsonl or .jsonl.gz."),
    ] = None,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="Run the stream's rejects again instead of files.")
    ] = False,
    config: Config = None,
    stream: Stream = None,
    output: Output = None,
    state: State = None,
    decoders: Decoders = None,
    assignments: Set = None,
    redo_batch: RedoBatch = None,
    accept_journal_loss: AcceptJournalLoss = False,
    log_format: LogFormatOption = None,
) -> None:
    """Turn saved files into Parquet, each once.

    NAME is "files" by default, and the state folder OUTPUT/.state/NAME.files. Hits are filed by
    receivedTimeGMT, however old, and not compared with those that `run` took.

    With --rejects: the records that were no hits are run again, after an upgrade that knows more of them.
    NAME is then the stream whose rejects they are, the state folder OUTPUT/.state/NAME.rejects. Each rejects
    part is run once. What is still no hit goes to new rejects parts, which only another version runs again,
    or each call would feed on the leftovers of the last. The old parts stay as they are: collector_instance
    tells old and new rows apart. Records over journal.max_record_bytes are left out: only their first MiB
    was kept. Interrupted, it goes on where it stood when it is called again.
    """
    from collector import telemetry  # noqa: PLC0415
    from collector.given import Layers  # noqa: PLC0415
    from collector.settings import Purpose  # noqa: PLC0415
    from collector.storage.recovery import WaysOn  # noqa: PLC0415

    if bool(files) is rejects:
        raise ConfigurationError("decode takes either FILE... or --rejects: give one of them, and not both")
    given = Layers(
        Purpose.REJECTS if rejects else Purpose.DECODE,
        dict(os.environ),
        config,
        places(stream, output, state) | {"run.decoders": decoders, "log.format": log_format},
        assignments or (),
    ).load()
    telemetry.configure(form=given.settings.log.format, level=given.settings.log.level)
    ways_on = WaysOn(redo_batch, accept_journal_loss)
    if files:
        from collector.commands.decode import run  # noqa: PLC0415

        raise typer.Exit(run(given, files, ways_on))
    from collector.commands.rejects import run as run_rejects  # noqa: PLC0415

    raise typer.Exit(run_rejects(given, ways_on))


@app.command("simulate")
def _simulate(
    *,
    port: Annotated[
        int | None, typer.Option(metavar="P", min=0, max=65_535, help="Default: a free one.")
    ] = None,
    hits_per_second: Annotated[
        float | None, typer.Option(metavar="R", min=0, help="Default 100; 0: as fast as they are read.")
    ] = None,
    total: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Exactly N distinct hits, then open and silent.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Hit i is a function of seed and i.")] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="F", exists=True, dir_okay=False, help="What goes wrong and when (TOML)."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="HITS", exists=True, dir_okay=False, help="Hits to send, .jsonl or .jsonl.gz."),
    ] = None,
) -> None:
    """Stand in for Livestream on this machine. The first line of stdout is the stream's address."""
    from collector.commands.simulate import run  # noqa: PLC0415

    flags = {
        "port": port,
        "hits_per_second": hits_per_second,
        "total": total,
        "seed": seed,
        "scenario": scenario,
        "file": file,
    }
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    raise typer.Exit(run(**given))


@app.command("demo")
def _demo(
    *,
    seconds: Annotated[float, typer.Option(metavar="N", min=1, help="How long to stream.")] = 30.0,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder, new or empty; default: a fresh one.")
    ] = None,
) -> None:
    """Simulate, collect, disconnect once, and look.

    Ends with what the Parquet says: hits per minute, top pages, the gap, and what is missing or doubled.
    """
    from collector.commands.demo import run  # noqa: PLC0415

    raise typer.Exit(run(seconds=seconds, output=output))
