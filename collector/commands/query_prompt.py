"""The prompt of ``query``: lines until a semicolon, commands that begin with a dot, history and completion.

Runs on the terminal of a person. Ctrl-C ends the query or the line that is typed, Ctrl-D the prompt.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from collector.commands.query_output import form_of, show_table, write_file
from collector.commands.query_session import QueryInterrupted, Session
from collector.commands.query_views import VIEWS
from collector.errors import CollectorError, ConfigurationError
from collector.escaping import printable

_ASK: Final = "livestream> "
_ASK_ON: Final = "        ...> "
_HISTORY_LINES: Final = 1000
_HELP: Final = """SQL of DuckDB, over several lines until a semicolon. Ctrl-C ends a query, Ctrl-D the prompt.

  .tables          the views
  .schema [VIEW]   columns of one; without VIEW all views as SQL, for any DuckDB
  .once FILE       the next result into FILE (.csv, .json, .ndjson, .parquet)
  .help            this
  .quit            leave

  SELECT pageName, count(*) FROM hits GROUP BY ALL ORDER BY 2 DESC LIMIT 10;
  SELECT evars['campaign'], count(*) FROM hits GROUP BY ALL;
  FROM hours WHERE suspected_gap <> 'no' OR NOT complete;
More in docs/cookbook.md."""


class Prompt:
    """``run`` it once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._once: Path | None = None
        self._words: list[str] = []

    def run(self) -> None:
        """*Blocks* until the person leaves."""
        print(f"{self._session.folder}: {', '.join(VIEWS)}. Type .help for help.")
        with self._line_editing():
            while (text := self._read()) is not None:
                self._answer(text)
        print()

    def _read(self) -> str | None:
        """A whole statement or a command with a dot; ``None``: it is over."""
        lines: list[str] = []
        while True:
            try:
                lines.append(input(_ASK_ON if lines else _ASK))
            except KeyboardInterrupt:
                print("^C")
                lines = []
                continue
            except EOFError:
                return None
            text = "\n".join(lines)
            if not text.strip():
                lines = []
            elif len(lines) == 1 and text.lstrip().startswith("."):
                return None if text.split()[0] in {".quit", ".exit", ".q"} else text.strip()
            elif sqlite3.complete_statement(text):
                return text

    def _answer(self, text: str) -> None:
        try:
            if text.startswith("."):
                self._command(*text.rstrip(";").split(maxsplit=1))
            else:
                self._query(text)
        except (QueryInterrupted, KeyboardInterrupt):
            print("interrupted")
        except CollectorError as error:
            print("\n".join(printable(line) for line in str(error).split("\n")), file=sys.stderr)

    def _query(self, sql: str) -> None:
        for statement in self._session.statements(sql):
            if not statement.has_rows:
                self._session.attempt(
                    lambda text=statement.text: self._session.database.execute(text)  # type: ignore[misc]
                )
            elif self._once is not None:
                file, self._once = self._once, None
                write_file(self._session, statement, form_of(None, file, terminal=False), file)
                print(f"written to {printable(str(file))}")
            else:
                show_table(self._session, statement, sys.stdout, took=True)

    def _command(self, name: str, argument: str = "") -> None:
        match name:
            case ".help":
                print(_HELP)
            case ".tables":
                print("\n".join(f"{view:12} {meaning}" for view, meaning in VIEWS.items()))
            case ".schema" if argument:
                self._show_columns(argument)
            case ".schema":
                print(";\n\n".join(self._session.schema()) + ";")
            case ".once":
                form_of(None, Path(argument), terminal=False)
                self._once = Path(argument).expanduser()
            case _:
                raise ConfigurationError(f"{name} is no command of the prompt: .help lists them")

    def _show_columns(self, view: str) -> None:
        """All of them, however many: a table would show the first ones."""
        describe = self._session.statements(f"DESCRIBE {view}")[0].text
        for name, kind, *_ in self._session.attempt(
            lambda: self._session.database.execute(describe).fetchall()
        ):
            print(f"{printable(name):22} {printable(kind)}")

    # ------------------------------------------------------------ the line

    @contextlib.contextmanager
    def _line_editing(self) -> Iterator[None]:
        """Where Python has it."""
        try:
            import readline  # noqa: PLC0415
        except ImportError:
            yield
            return
        self._words = self._known_words()
        history = _history_file()
        with contextlib.suppress(OSError):
            readline.read_history_file(history)
        readline.set_history_length(_HISTORY_LINES)
        readline.set_completer_delims(" \t\n'\"()[]{},;=<>+-*/|&!")
        readline.set_completer(self._completed)
        readline.parse_and_bind("tab: complete")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))
                readline.write_history_file(history)

    def _completed(self, beginning: str, number: int) -> str | None:
        folded = beginning.casefold()
        fitting = [word for word in self._words if word.casefold().startswith(folded)]
        return fitting[number] if number < len(fitting) else None

    def _known_words(self) -> list[str]:
        def names(sql: str) -> list[str]:
            rows = self._session.attempt(lambda: self._session.database.execute(sql).fetchall())
            return [row[0] for row in rows]

        columns = names("SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal ORDER BY ALL")
        keywords = names(
            "SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        )
        return [".help", ".tables", ".schema", ".once", ".quit", *VIEWS, *columns, *keywords]


def _history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "livestream-collector" / "query_history"
