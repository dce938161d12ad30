"""The command line: flags into settings, errors into one message and an exit code.

Runs in the process a person or a service manager starts. Nothing but typer is imported until a command is
chosen, so ``--help`` answers at once; no secret is ever taken from an argument.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from collector import __version__
from collector.credentials import refuse_secret_arguments
from collector.errors import CollectorError, ConfigurationError, ExitCode
from collector.escaping import defect_in_words, printable, without_secrets

PROGRAM: Final = "livestream-collector"

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

_EXTRAS: Final = {"duckdb": "query"}
"""Optional packages, and the extra that brings each."""

app = typer.Typer(
    name=PROGRAM,
    help="Hold one Adobe Analytics Livestream connection and turn it into Parquet.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    # Rich help takes 0.2 s to import, and its tracebacks show local variables: secrets.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


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


_Config = Annotated[Path | None, typer.Option("--config", metavar="F", help="Settings file (TOML).")]
_Url = Annotated[str | None, typer.Option("--url", metavar="U", help="The stream's address.")]
_Stream = Annotated[
    str | None,
    typer.Option("--stream", metavar="NAME", help="Name of the stream in paths.", show_default=False),
]
_Output = Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Output folder; required.")]
_State = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="State folder; default OUTPUT/.state/NAME.")
]
_Decoders = Annotated[
    str | None, typer.Option("--decoders", metavar="N", help="Decoder processes; default 2.")
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; may be given several times."),
]
_RedoBatch = Annotated[
    int | None,
    typer.Option("--redo-batch", metavar="FIRST", min=1, help="Undo the pending batch, run it again."),
]
_AcceptJournalLoss = Annotated[
    bool, typer.Option("--accept-journal-loss", help="Go on without damaged blocks of the journal.")
]
_LogFormat = Annotated[
    LogFormat | None, typer.Option("--log-format", help="Form of log lines.", show_default="console")
]


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


@app.command("run")
def _run(
    *,
    config: _Config = None,
    url: _Url = None,
    stream: _Stream = None,
    output: _Output = None,
    state: _State = None,
    decoders: _Decoders = None,
    assignments: _Set = None,
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
    redo_batch: _RedoBatch = None,
    accept_journal_loss: _AcceptJournalLoss = False,
    log_format: _LogFormat = None,
) -> None:
    """Hold the connection and write Parquet.

    Every refusal is ridden out, and every request waits for the floor.

    SIGTERM and SIGINT drain and exit 0; a second one exits at once.
    """
    from collector import telemetry  # noqa: PLC0415
    from collector.commands.run import run  # noqa: PLC0415
    from collector.credentials import load_credentials  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415
    from collector.settings_values import is_loopback  # noqa: PLC0415
    from collector.storage.recovery import WaysOn  # noqa: PLC0415

    settings = load_settings(
        Purpose.RUN,
        config=config,
        environ=os.environ,
        options=_places(stream, output, state)
        | {"stream.url": url, "run.decoders": decoders, "log.format": log_format},
        assignments=assignments or (),
    )
    credentials = load_credentials(os.environ, loopback=is_loopback(settings.stream.url))
    telemetry.configure(form=settings.log.format, level=settings.log.level)
    terminal = log_format is None and settings.log.format == "console" and _is_terminal()
    code = run(
        settings,
        credentials,
        stop_after_hits=stop_after_hits,
        stop_after_s=stop_after_s,
        terminal=terminal,
        ways_on=WaysOn(redo_batch, accept_journal_loss),
    )
    raise typer.Exit(code)


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
    config: _Config = None,
    stream: _Stream = None,
    output: _Output = None,
    state: _State = None,
    decoders: _Decoders = None,
    assignments: _Set = None,
    redo_batch: _RedoBatch = None,
    accept_journal_loss: _AcceptJournalLoss = False,
    log_format: _LogFormat = None,
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
    from collector.settings import Purpose, load_settings  # noqa: PLC0415
    from collector.storage.recovery import WaysOn  # noqa: PLC0415

    if bool(files) is rejects:
        raise ConfigurationError("decode takes either FILE... or --rejects: give one of them, and not both")
    settings = load_settings(
        Purpose.REJECTS if rejects else Purpose.DECODE,
        config=config,
        environ=os.environ,
        options=_places(stream, output, state) | {"run.decoders": decoders, "log.format": log_format},
        assignments=assignments or (),
    )
    telemetry.configure(form=settings.log.format, level=settings.log.level)
    ways_on = WaysOn(redo_batch, accept_journal_loss)
    if files:
        from collector.commands.decode import run  # noqa: PLC0415

        raise typer.Exit(run(settings, files, ways_on))
    from collector.commands.rejects import run as run_rejects  # noqa: PLC0415

    raise typer.Exit(run_rejects(settings, ways_on))


@app.command("verify")
def _verify(
    *,
    config: _Config = None,
    stream: _Stream = None,
    output: _Output = None,
    state: _State = None,
    assignments: _Set = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="First make a damaged commit log again from the parts."),
    ] = False,
) -> None:
    """Prove that nothing committed is missing, doubled or changed.

    Reads the commit log and every part of this state folder's collector, beside a running one too, and
    changes nothing. Exit 7 and one line per finding if anything is off.

    --rebuild needs the state folder for itself (exit 5 while a collector runs). It keeps what can be read
    of the log, takes the rest from the parts' footers and columns, and says what cannot be known. The old
    log goes to STATE/quarantine.
    """
    from collector.commands.verify import run  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    settings = load_settings(
        Purpose.STATE,
        config=config,
        environ=os.environ,
        options=_places(stream, output, state),
        assignments=assignments or (),
    )
    raise typer.Exit(run(settings, rebuild=rebuild))


@app.command("reset")
def _reset(
    *,
    value: Annotated[
        ResetValue,
        typer.Argument(
            metavar="VALUE", help="smallest or earliest: the oldest held; largest or latest: now."
        ),
    ],
    config: _Config = None,
    stream: _Stream = None,
    output: _Output = None,
    state: _State = None,
    assignments: _Set = None,
) -> None:
    """Send `reset` with the next request, once. Can lose data: an operator's decision."""
    from collector.commands.reset import run  # noqa: PLC0415
    from collector.settings import Purpose, load_settings  # noqa: PLC0415

    settings = load_settings(
        Purpose.STATE,
        config=config,
        environ=os.environ,
        options=_places(stream, output, state),
        assignments=assignments or (),
    )
    raise typer.Exit(run(settings, value.value))


def main(arguments: Sequence[str] | None = None) -> None:
    """The whole program. Ends in ``SystemExit``; a defect of ours ends in its traceback and exit code 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        refuse_secret_arguments(given)
        app(given, prog_name=PROGRAM)
    except CollectorError as error:
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            _end_in_defect(error)
        text = f"{error.name} is not installed: pip install '{PROGRAM}[{extra}]'"
        _fail(text, ConfigurationError.exit_code)
    except Exception as error:  # noqa: BLE001 - Python's own traceback would not be masked
        _end_in_defect(error)


def _end_in_defect(error: Exception) -> NoReturn:
    sys.stderr.write(defect_in_words(error))
    sys.exit(int(ExitCode.DEFECT))


def _fail(message: str, code: int) -> None:
    lines = (printable(without_secrets(line)) for line in message.split("\n"))
    sys.stderr.write(f"{PROGRAM}: " + "\n".join(lines) + "\n")
    sys.exit(int(code))


def _places(stream: str | None, output: Path | None, state: Path | None) -> dict[str, str | None]:
    """As settings."""
    return {"stream.name": stream, "output.folder": _text(output), "state.folder": _text(state)}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
