"""``livestream-collector init``: a settings file to begin with.

Runs in the process of a person. The invariants: what is written loads; no secret is asked for or written;
a file that is there stays as it is unless told otherwise.
"""

from __future__ import annotations

import enum
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any, Final

import typer

from collector.errors import ConfigurationError
from collector.escaping import printable
from collector.settings import Purpose, load_with_sources
from collector.settings_text import commented, value_of

PROGRAM: Final = "livestream-collector"


class Way(enum.StrEnum):
    """How the credentials come."""

    OAUTH = "oauth"
    TOKEN_FILE = "token-file"  # noqa: S105 - the name of a way
    TOKEN = "token"  # noqa: S105 - the name of a way


_WAYS: Final[Mapping[Way, str]] = {
    Way.OAUTH: "OAuth Server-to-Server: client id and client secret, tokens are renewed",
    Way.TOKEN_FILE: "a token in a file that something else renews",
    Way.TOKEN: "one token, for as long as it lasts",
}
_VARIABLES: Final[Mapping[Way, tuple[str, ...]]] = {
    Way.OAUTH: ("LIVESTREAM_CLIENT_ID", "LIVESTREAM_CLIENT_SECRET"),
    Way.TOKEN_FILE: ("LIVESTREAM_CLIENT_ID",),
    Way.TOKEN: ("LIVESTREAM_CLIENT_ID", "LIVESTREAM_TOKEN"),
}


def run(
    path: str,
    options: Mapping[str, object],
    assignments: list[str],
    *,
    way: Way | None,
    force: bool,
    ask: bool,
) -> int:
    """Write ``path``. *Raises* ``ConfigurationError`` with all that is missing or wrong."""
    if os.path.lexists(path) and not force:
        raise ConfigurationError(f"{printable(path)} is there already: name another file, or give --force")
    given: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    if way is None and "auth.token_file" in given:
        way = Way.TOKEN_FILE
    if ask:
        way = _ask(given, assignments, way)
    way = way or Way.OAUTH
    if way is Way.TOKEN_FILE and "auth.token_file" not in given:
        raise ConfigurationError("--credentials token-file needs the file: give --token-file PATH")
    if way is not Way.TOKEN_FILE and "auth.token_file" in given:
        raise ConfigurationError("--token-file goes with --credentials token-file")
    loaded = load_with_sources(Purpose.RUN, options=given, assignments=assignments)
    values = {key: value_of(loaded, key) for key in loaded.sources}
    _write(path, commented(values, _head(way)), force=force)
    sys.stdout.write(_next(path, way))
    return 0


# ---------------------------------------------------------------- asking


def _ask(given: dict[str, object], assignments: list[str], way: Way | None) -> Way:
    """Fill in what was not given, until it is right."""
    try:
        _ask_for(given, assignments, "stream.url", "Address of the stream (https://.../stream/NAME)")
        _ask_for(given, assignments, "output.folder", "Folder for the Parquet")
        if way is None:
            way = _ask_way()
        if way is Way.TOKEN_FILE:
            _ask_for(given, assignments, "auth.token_file", "File that holds the token")
    except typer.Abort as error:
        raise ConfigurationError("nothing was written") from error
    return way


def _ask_for(given: dict[str, object], assignments: list[str], key: str, question: str) -> None:
    while key not in given:
        answer: Any = typer.prompt(question, err=True).strip()
        fault = _fault_of(given | {key: answer}, assignments, key)
        if fault:
            typer.echo(fault, err=True)
        else:
            given[key] = answer


def _fault_of(given: Mapping[str, object], assignments: list[str], key: str) -> str:
    """What is wrong with this one answer; what is still to be asked is no fault."""
    try:
        load_with_sources(Purpose.RUN, options=given, assignments=assignments)
    except ConfigurationError as error:
        lines = [line.strip(" -").removeprefix("cannot start: ") for line in str(error).split("\n")]
        return "\n".join(line for line in lines if line.startswith(f"{key} "))
    return ""


def _ask_way() -> Way:
    ways = list(Way)
    typer.echo("How do the credentials come? (They are never asked for nor written.)", err=True)
    for number, way in enumerate(ways, 1):
        typer.echo(f"  {number}  {_WAYS[way]}", err=True)
    while True:
        answer = typer.prompt("Number", default="1", err=True).strip()
        if answer in {str(number) for number in range(1, len(ways) + 1)}:
            return ways[int(answer) - 1]
        typer.echo(f"{printable(answer, 40)!r} is none of them: 1 to {len(ways)}", err=True)


# ---------------------------------------------------------------- writing


def _head(way: Way) -> list[str]:
    variables = " and ".join(_VARIABLES[way])
    about = (
        f"Settings of {PROGRAM}. What is commented out has its default; every setting can also be given as"
        " LIVESTREAM_<SECTION>__<KEY> in the environment or as --set section.key=value."
    )
    secrets = (
        f"No secret stands in this file. Credentials: {_WAYS[way]}. Given in the environment as {variables},"
        " or in files readable by the collector's user alone, whose paths are in the same names with _FILE."
    )
    return [about, "", secrets]


def _write(path: str, text: str, *, force: bool) -> None:
    try:
        with open(path, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"{printable(path)} cannot be written: {error.strerror}") from error


def _next(path: str, way: Way) -> str:
    file = shlex.quote(path)
    commands = [f"read -rsp '{name}: ' {name}; export {name}" for name in _VARIABLES[way]]
    commands += [f"{PROGRAM} check --config {file}", f"{PROGRAM} run --config {file}"]
    return f"{printable(path)} is written. Next:\n\n" + "".join(f"  {line}\n" for line in commands)
