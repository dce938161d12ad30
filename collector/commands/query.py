"""``livestream-collector query``: SQL over the output folder, once or at a prompt.

Invariant: nothing is written but what ``-o`` and ``.once`` name, and the prompt's history.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from collector.commands.query_output import Form, form_of, show_table, write_file, write_stream
from collector.commands.query_prompt import Prompt
from collector.commands.query_session import QueryInterrupted, Session
from collector.errors import ConfigurationError, ExitCode
from collector.settings import Settings

INTERRUPTED: Final = 130
_NICE: Final = 10
"""A collector on the same machine goes first."""


def run(settings: Settings, sql: str | None, *, form: Form | None, file: Path | None) -> int:
    """``sql`` ``None``: a prompt. *Raises* ConfigurationError, StorageError."""
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with Session(settings) as session:
        if sql is None:
            Prompt(session).run()
            return ExitCode.DONE
        try:
            _run_all(session, sql, form_of(form, file, terminal=sys.stdout.isatty()), file)
            sys.stdout.flush()
        except (QueryInterrupted, KeyboardInterrupt):
            return INTERRUPTED
        except BrokenPipeError:  # whoever reads has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE


def _run_all(session: Session, sql: str, form: Form, file: Path | None) -> None:
    statements = session.statements(sql)
    results = [statement for statement in statements if statement.has_rows]
    if not statements:
        raise ConfigurationError("there is no statement in it")
    if len(results) > 1 and (form is not Form.TABLE or file is not None):
        raise ConfigurationError(f"{file or form} holds one result, and {len(results)} statements give one")
    for statement in statements:
        if not statement.has_rows:
            session.attempt(lambda text=statement.text: session.database.execute(text))  # type: ignore[misc]
        elif file is not None:
            write_file(session, statement, form, file)
        elif form is Form.TABLE:
            show_table(session, statement, sys.stdout)
        else:
            write_stream(session, statement, form, sys.stdout.buffer)
