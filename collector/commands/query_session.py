"""One DuckDB database over the output folder: its limits, what it refuses, and its errors in our words.

Run by ``query``. Invariant: a statement whose purpose is a file is refused.
"""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import duckdb

from collector.commands.query_views import VIEWS, define_views, definitions
from collector.errors import CollectorError, ConfigurationError, StorageError
from collector.settings import Settings

ATTEMPTS: Final = 3
"""At a query whose files are taken away or come while it begins."""

_HEED_S: Final = 0.1
"""How long Ctrl-C may go unnoticed."""

_LOST_FILE: Final = re.compile(r"No files found|No such file|[Cc]annot open file")

_WRITING: Final = frozenset({"COPY", "EXPORT", "ATTACH"})
"""Kinds of statement that make files."""

_LAZY: Final = frozenset({"SELECT", "MULTI"})
"""Kinds whose rows can be asked for by a query around them."""

_WITH_ROWS: Final = _LAZY | {"EXPLAIN", "PRAGMA", "CALL", "EXECUTE"}

Result = TypeVar("Result")


class QueryInterrupted(CollectorError):  # noqa: N818 - nothing went wrong
    """Raised when Ctrl-C ended a query."""


class Statement(NamedTuple):
    text: str
    """Without the semicolon and what stands behind it."""
    kind: str

    @property
    def has_rows(self) -> bool:
        return self.kind in _WITH_ROWS

    @property
    def is_lazy(self) -> bool:
        return self.kind in _LAZY


class Session:
    """A context: the database in memory, and the folder that it may spill into, end with it."""

    def __init__(self, settings: Settings) -> None:
        self.folder: Path = settings.output.folder
        self._lateness_s = settings.query.lateness_s
        self._memory_bytes = settings.query.memory_bytes
        self._threads = settings.query.threads
        self._ending = contextlib.ExitStack()
        self._worker: futures.ThreadPoolExecutor
        self.database: Any = None

    def __enter__(self) -> Self:
        if not self.folder.is_dir():
            raise ConfigurationError(
                f"there is no folder {self.folder}: give --output the folder that `run` writes to"
            )
        self._worker = self._ending.enter_context(futures.ThreadPoolExecutor(1, "query"))
        spill = self._ending.enter_context(tempfile.TemporaryDirectory(prefix="livestream-query-"))
        self.database = self._ending.enter_context(duckdb.connect())
        limits = {"TimeZone": "UTC", "memory_limit": f"{self._memory_bytes}B", "temp_directory": spill}
        if self._threads is not None:
            limits["threads"] = str(self._threads)
        for name, value in limits.items():
            self.database.execute(f"SET {name} = {literal(value)}")
        self.database.execute("SET python_enable_replacements = false")  # FROM x is no variable of ours
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def statements(self, sql: str) -> list[Statement]:
        """*Raises* ConfigurationError where it is no SQL, or would write."""
        with self._in_our_words():
            parsed = self.database.extract_statements(sql)
        found = [Statement(_without_end(one.query), one.type.name) for one in parsed]
        for statement in found:
            if statement.kind in _WRITING:
                raise ConfigurationError(
                    f"query only reads, and {statement.kind} makes files: a result goes into one with"
                    " -o FILE, at the prompt with .once FILE"
                )
        return found

    def attempt(self, work: Callable[[], Result], *, again: Callable[[], bool] = lambda: True) -> Result:
        """What ``work`` gives, over the files that there are now; once more where one of them went meanwhile.

        ``again``: whether nothing of it was shown yet. *Raises* ConfigurationError with what DuckDB says;
        StorageError where files keep going; QueryInterrupted.
        """
        for left in reversed(range(ATTEMPTS)):
            try:
                with self._in_our_words():
                    return self._run(work)
            except StorageError:
                if not left or not again():
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _run(self, work: Callable[[], Result]) -> Result:
        """On a thread, since DuckDB heeds no signal while it fetches rows."""
        interrupted = False

        def interrupt(*_: object) -> None:
            nonlocal interrupted
            interrupted = True

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            running = self._worker.submit(self._work_on_what_is_there, work)
            while not futures.wait([running], timeout=_HEED_S).done:
                if interrupted:  # again and again: the query may not have begun
                    self.database.interrupt()
        finally:
            signal.signal(signal.SIGINT, before)
        if interrupted:
            raise QueryInterrupted("interrupted")
        return running.result()

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise ConfigurationError(f"{error}\n--set query.memory_bytes=SIZE gives more memory") from error
        except duckdb.Error as error:
            if _LOST_FILE.search(str(error)) and str(self.folder) in str(error):
                raise StorageError(f"{error}\nwas it taken away meanwhile? Then call it again") from error
            raise ConfigurationError(_failed(error)) from error

    def _work_on_what_is_there(self, work: Callable[[], Result]) -> Result:
        define_views(self.database, self.folder, self._lateness_s)
        return work()

    def schema(self) -> list[str]:
        """The views as SQL, for any DuckDB."""
        return definitions(self.database, self.folder, self._lateness_s)


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _without_end(text: str) -> str:
    """``tokenize`` counts bytes."""
    tokens = [(at, kind.name) for at, kind in duckdb.tokenize(text) if kind.name != "comment"]
    encoded = text.encode()
    while tokens and tokens[-1][1] == "operator" and encoded[tokens[-1][0] :].startswith(b";"):
        encoded = encoded[: tokens.pop()[0]]
    return encoded.decode()


def _failed(error: Exception) -> str:
    return f"{error}\nViews: {', '.join(VIEWS)}. DESCRIBE hits shows the columns of one"
