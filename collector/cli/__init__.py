"""The command line: flags into settings, errors into one message and an exit code.

Runs in the process a person or a service manager starts. Nothing but typer is imported until a command is
chosen, so ``--help`` answers at once; no secret is ever taken from an argument.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

# In the order in which --help lists them.
from collector.cli import setting_up, collecting, keeping, compacting, querying, explaining  # isort: skip
from collector.cli.app import app
from collector.cli.completion import refuse_unknown_shell
from collector.cli.options import PROGRAM
from collector.credentials import refuse_secret_arguments
from collector.errors import CollectorError, ConfigurationError, ExitCode
from collector.escaping import defect_in_words, printable, without_secrets

__all__ = ["collecting", "compacting", "explaining", "keeping", "main", "querying", "setting_up"]

_EXTRAS: Final = {"duckdb": "query", "ibis": "lake", "pyspark": "spark"}
"""Optional packages, and the extra that brings each."""

_MORE_TO_SAY: Final = frozenset(ExitCode) - {ExitCode.DONE, ExitCode.CONFIGURATION}
"""Exit codes that ``explain`` knows more about than the message has; settings are told fault by fault."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The whole program. Ends in ``SystemExit``; a defect of ours ends in its traceback and exit code 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # numpy's linear algebra, which nothing here uses, starts threads that spin: 50 ms of CPU in each process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        refuse_secret_arguments(given)
        refuse_unknown_shell(given)
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
    more = f"(more: {PROGRAM} explain {int(code)})\n" if code in _MORE_TO_SAY else ""
    sys.stderr.write(f"{PROGRAM}: " + "\n".join(lines) + "\n" + more)
    sys.exit(int(code))
