"""What a query gave: a table for a person, or CSV, JSON and Parquet made by DuckDB itself.

Run by ``query``. Invariants: nothing that comes from a hit can steer a terminal; rows are passed on as they
come, and no more of them are held than a table shows; a file appears under its name when it is whole.
"""

from __future__ import annotations

import codecs
import contextlib
import enum
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TextIO

from collector.commands.query_session import Session, Statement, literal
from collector.errors import ConfigurationError, StorageError
from collector.escaping import printable

SHOWN_ROWS: Final = 100
COUNTED_ROWS: Final = 10_000
"""A query is run no further than this for a table."""

SHOWN_FIELDS: Final = 250
"""Lines at most, where each value has a line of its own."""

_LONGEST_CELL: Final = 200
_NARROWEST_CELL: Final = 12
_BETWEEN_CELLS: Final = 3
_ANY_WIDTH: Final = 1 << 20
"""Where no edge cuts lines."""

_PUMP_BYTES: Final = 1 << 20
_HELD: Final = "_result"
"""Rows of a statement that no other can be put around."""

_NUMBER: Final = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL\(\d+,\d+\)")


class Form(enum.StrEnum):
    """How a result is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    NDJSON = "ndjson"
    PARQUET = "parquet"


_COPY: Final = {
    Form.CSV: "FORMAT csv, HEADER",
    Form.JSON: "FORMAT json, ARRAY true",
    Form.NDJSON: "FORMAT json",
    Form.PARQUET: "FORMAT parquet, COMPRESSION zstd",
}
_ENDINGS: Final = {f".{form}": form for form in Form if form is not Form.TABLE} | {".jsonl": Form.NDJSON}


def form_of(form: Form | None, file: Path | None, *, terminal: bool) -> Form:
    """What is asked for, else by the file's ending, else by who reads. *Raises* ConfigurationError."""
    if form is None and file is not None:
        form = _ENDINGS.get(file.suffix.lower())
        if form is None:
            raise ConfigurationError(
                f"{file}: which form? Give --format, or a name that ends in {', '.join(_ENDINGS)}"
            )
    form = form or (Form.TABLE if terminal else Form.CSV)
    if form is Form.PARQUET and file is None:
        raise ConfigurationError("parquet goes into a file: give -o FILE")
    return form


# ---------------------------------------------------------------- files and pipes


def write_file(session: Session, statement: Statement, form: Form, file: Path) -> None:
    """Under another name until it is whole. *Raises* ConfigurationError, StorageError."""
    target = Path(os.path.realpath(file))
    if target.is_relative_to(os.path.realpath(session.folder)):
        raise ConfigurationError(
            f"{file} is in the output folder, where only the collector writes: a query of hits could meet it"
        )
    if not target.parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.parent} for {file.name}")
    if target.exists() and not target.is_file():  # a device or a named pipe
        session.attempt(lambda: _copy(session, statement, form, target))
        return
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if form is Form.TABLE:
            with open(unfinished, "w", encoding="utf-8") as text:
                show_table(session, statement, text)
        else:
            session.attempt(lambda: _copy(session, statement, form, unfinished))
        os.replace(unfinished, target)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)


def write_stream(session: Session, statement: Statement, form: Form, out: BinaryIO) -> None:
    """As it comes. On a terminal control characters are written out; elsewhere it is exact.

    *Raises* BrokenPipeError where nobody reads any more; StorageError, ConfigurationError.
    """
    pump = _Pump(out, escaped=out.isatty())

    def copy() -> None:
        with pump.running() as path:
            _copy(session, statement, form, path)

    with contextlib.ExitStack() as told:
        told.callback(pump.raise_if_broken)  # DuckDB's own error is what follows from it
        session.attempt(copy, again=lambda: not pump.passed_on)


def _copy(session: Session, statement: Statement, form: Form, path: Path) -> None:
    """*Blocks* for the query."""
    if not statement.is_lazy:
        held = session.database.sql(statement.text)
        if held is None:
            return
        session.database.register(_HELD, held)
    source = statement.text if statement.is_lazy else f"FROM {_HELD}"
    try:
        session.database.execute(f"COPY ({source}\n) TO {literal(str(path))} ({_COPY[form]})")
    finally:
        if not statement.is_lazy:
            session.database.unregister(_HELD)


class _Pump:
    """Between DuckDB, which opens a path, and our output, which may have been opened for appending."""

    def __init__(self, out: BinaryIO, *, escaped: bool) -> None:
        self._out = out
        self._escaped = escaped
        self.passed_on = False
        self.broken: OSError | None = None

    def raise_if_broken(self) -> None:
        """*Raises* BrokenPipeError, StorageError."""
        if isinstance(self.broken, BrokenPipeError):
            raise self.broken
        if self.broken is not None:
            raise StorageError(f"the result cannot be written: {self.broken.strerror}") from self.broken

    @contextlib.contextmanager
    def running(self) -> Iterator[Path]:
        read_fd, write_fd = os.pipe()
        thread = threading.Thread(target=self._pass_on, args=(read_fd,), name="pump")
        thread.start()
        try:
            yield Path(f"/dev/fd/{write_fd}")
        finally:
            os.close(write_fd)
            thread.join()

    def _pass_on(self, read_fd: int) -> None:
        with open(read_fd, "rb", buffering=0) as source:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            try:
                while chunk := source.read(_PUMP_BYTES):
                    self.passed_on = True
                    self._out.write(_shown(decoder.decode(chunk)).encode() if self._escaped else chunk)
                    self._out.flush()
            except OSError as error:
                self.broken = error


def _shown(text: str) -> str:
    """Line ends and tabs are the form's own, or look like it."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


# ---------------------------------------------------------------- tables


class _Rows(NamedTuple):
    names: Sequence[str]
    types: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    """The first ones, as DuckDB writes their values."""
    in_all: int
    """``COUNTED_ROWS`` + 1: there are more than those."""


def show_table(session: Session, statement: Statement, out: TextIO, *, took: bool = False) -> None:
    """For a person. ``took``: with the time. *Raises* ConfigurationError, StorageError, QueryInterrupted."""
    from rich.console import Console  # noqa: PLC0415 - takes 0.1 s

    began_s = time.monotonic()
    found = session.attempt(lambda: _first_rows(session, statement))
    seconds = time.monotonic() - began_s
    if statement.kind == "EXPLAIN":
        lines = (line for row in found.rows for line in (row[1] or "").split("\n"))
        out.write("".join(f"{printable(line)}\n" for line in lines))
        return
    if not found.names:
        return
    console = Console(
        file=out, highlight=False, markup=False, emoji=False, width=None if out.isatty() else _ANY_WIDTH
    )
    widest = _widest_cell(found, console.width)
    shown = found.rows if widest else found.rows[: max(1, SHOWN_FIELDS // len(found.names))]
    if widest and shown:
        console.print(_table(found, widest, ascii_only=console.options.ascii_only))
    elif shown:
        console.print(_records(found, shown, console.width))
    console.print(_footer(found, len(shown), seconds if took else None), style="dim")


def _widest_cell(found: _Rows, columns: int) -> int | None:
    """Wider ones are cut, so that the table fits; ``None``: then nothing much would be left of them."""
    widths = [
        max(cell.cell_len for cell in (*_header(name, kind).split(), *(_cell(row[at]) for row in found.rows)))
        for at, (name, kind) in enumerate(zip(found.names, found.types, strict=True))
    ]
    room = columns - _BETWEEN_CELLS * (len(widths) - 1)
    levels = (
        range(max(widths), _NARROWEST_CELL - 1, -1) if max(widths) > _NARROWEST_CELL else [_NARROWEST_CELL]
    )
    return next((level for level in levels if sum(min(width, level) for width in widths) <= room), None)


def _first_rows(session: Session, statement: Statement) -> _Rows:
    if not statement.is_lazy:
        relation = session.database.sql(statement.text)
        if relation is None:
            return _Rows((), (), (), 0)
        types = list(map(str, relation.types))
        rows = relation.project("CAST(COLUMNS(*) AS VARCHAR)").fetchall()
        return _Rows(
            relation.columns, types, rows if statement.kind == "EXPLAIN" else rows[:SHOWN_ROWS], len(rows)
        )
    types = []
    if statement.kind == "SELECT":
        relation = session.database.sql(statement.text)  # is not run
        types = list(map(str, relation.types))
    result = session.database.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({statement.text}\n)")  # noqa: S608 - the person's own
    names = [column[0] for column in result.description]
    rows = result.fetchmany(SHOWN_ROWS)
    count = len(rows)
    while count <= COUNTED_ROWS and (more := result.fetchmany(1000)):
        count += len(more)
    return _Rows(names, types or [""] * len(names), rows, min(count, COUNTED_ROWS + 1))


def _table(found: _Rows, widest: int, *, ascii_only: bool) -> Any:
    from rich.box import ASCII, SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=ASCII if ascii_only else SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, kind in zip(found.names, found.types, strict=True):
        side: Any = "right" if _NUMBER.fullmatch(kind) else "left"
        header = _header(name, kind)
        table.add_column(header, justify=side, no_wrap=True, overflow="ellipsis", max_width=widest)
    for row in found.rows:
        table.add_row(*map(_cell, row))
    return table


def _records(found: _Rows, shown: Sequence[Sequence[str | None]], columns: int) -> Any:
    """Each value on a line of its own, for results too wide for the terminal."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    names = [printable(name) for name in found.names]
    width = max(map(len, names)) + 2
    lines = []
    for number, row in enumerate(shown, 1):
        lines.append(Text(f"row {number}", style="dim"))
        for name, value in zip(names, row, strict=True):
            line = Text.assemble((name.ljust(width), "bold"), _cell(value))
            line.truncate(columns, overflow="ellipsis")
            lines.append(line)
    return Group(*lines)


def _header(name: str, kind: str) -> Any:
    """Two lines: the name, and what its values are."""
    from rich.text import Text  # noqa: PLC0415

    return Text.assemble((printable(name), "bold"), (f"\n{_short(kind)}" if kind else "", "dim"))


def _cell(value: str | None) -> Any:
    from rich.text import Text  # noqa: PLC0415

    if value is None:
        return Text("NULL", style="dim")
    return Text(printable(value[: _LONGEST_CELL * 2], _LONGEST_CELL))


def _short(kind: str) -> str:
    return printable(kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"), 24).lower()


def _footer(found: _Rows, shown: int, seconds: float | None) -> str:
    many = found.in_all > COUNTED_ROWS
    count = f"more than {COUNTED_ROWS:,}" if many else f"{found.in_all:,}"
    text = f"{count} row{'' if found.in_all == 1 else 's'}"
    if shown < found.in_all:
        text += f", the first {shown} shown"
    return text + (f" ({seconds:.2f} s)" if seconds is not None else "")
