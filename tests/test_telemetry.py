"""Log lines: only what the catalogue names, and nothing in them that can do harm."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import telemetry
from collector.credentials import Secret
from collector.escaping import printable
from collector.events import EVENTS
from collector.telemetry import configure, log

PACKAGE = Path(telemetry.__file__).parent


@pytest.fixture
def lines() -> Iterator[list[str]]:
    written: list[str] = []
    configure(form="console", level="debug", write=written.append)
    yield written
    configure()


@pytest.fixture
def objects() -> Iterator[list[str]]:
    written: list[str] = []
    configure(form="json", level="debug", write=written.append)
    yield written
    configure()


def _is_log(function: ast.expr) -> bool:
    match function:
        case ast.Name(id="log"):
            return True
        case ast.Attribute(value=ast.Name(id="telemetry"), attr="log"):
            return True
        case ast.Attribute(attr="_log_event", value=ast.Name(id="self")):  # another process has it logged
            return True
    return False


def _names(expression: ast.expr, module: ast.Module) -> list[str]:
    """The events an expression can be: a text, a choice of texts, or a variable given such."""
    match expression:
        case ast.Constant(value=str() as name):
            return [name]
        case ast.IfExp():
            return _names(expression.body, module) + _names(expression.orelse, module)
        case ast.Name(id=variable):
            return [
                name
                for node in ast.walk(module)
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == variable
                for name in _names(node.value, module)
            ]
    return []


@pytest.mark.parametrize(
    "path", sorted(set(PACKAGE.rglob("*.py")) - {Path(telemetry.__file__)}), ids=lambda path: path.stem
)
def test_every_logged_event_is_in_the_catalogue(path):
    """Each call of ``log`` in the package names known events, and for each of them known fields."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call) and _is_log(node.func)]
    for call in calls:
        names = _names(call.args[0], module)
        fields = {keyword.arg for keyword in call.keywords} - {None}
        assert names, f"line {call.lineno}: an event's name is written out where it is logged"
        for name in names:
            assert name in EVENTS, f"line {call.lineno}"
            assert not fields - set(EVENTS[name].fields), f"line {call.lineno}: {name}"


def test_every_event_of_the_catalogue_is_logged_somewhere():
    """The documentation names no event that never comes."""
    text = "".join(
        path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.stem != "events"
    )
    assert [name for name in EVENTS if f'"{name}"' not in text] == []


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_catalogue_entries_are_well_formed(name):
    """``noun.past_verb``, a meaning, fields that do not hide the line's own."""
    noun, _, verb = name.partition(".")
    assert noun.isidentifier()
    assert verb.isidentifier()
    assert EVENTS[name].meaning.endswith(".")
    assert not set(EVENTS[name].fields) & {"at", "level", "event"}


def test_console_lines_are_one_line_of_pairs(lines):
    """Time, level, event, then name=value; values with blanks are quoted."""
    log("child.died", name="decoder-1", how="signal 9", delay_s=1.23456, blocks_again=3)
    at, level, event, rest = lines[0].split(maxsplit=3)
    assert at.endswith("Z")
    assert (level, event) == ("WARNING", "child.died")
    assert rest == 'name=decoder-1 how="signal 9" delay_s=1.235 blocks_again=3'


def test_json_lines_are_one_object_each(objects):
    """With the same names, and numbers as numbers."""
    log("batch.committed", batch=1, last=9, rows=3, lag_s=float("nan"))
    line = json.loads(objects[0], parse_constant=pytest.fail)
    assert (line["event"], line["level"], line["batch"], line["lag_s"]) == (
        "batch.committed",
        "info",
        1,
        "nan",
    )


def test_lines_below_the_level_are_not_written():
    """``log.level`` is the lowest level written."""
    written: list[str] = []
    configure(level="warning", write=written.append)
    log("batch.committed", batch=1)
    log("child.died", name="reader")
    configure()
    assert len(written) == 1


@given(st.text())
def test_no_value_makes_a_second_line_or_steers_a_terminal(text):
    """Control characters, escapes, line ends and surrogates are written out, in both forms."""
    for form in ("console", "json"):
        written: list[str] = []
        configure(form=form, write=written.append)
        log("connection.lost", detail=text)
        assert len(written) == 1
        assert written[0].isprintable()
        written[0].encode("utf-8")
    configure()


def test_secrets_never_reach_a_line(lines):
    """Neither as such, nor inside what the service or a library says."""
    secret = Secret("canary-log-77af")
    log("connection.lost", detail="invalid token canary-log-77af", outcome=secret)
    assert "canary" not in lines[0]
    assert lines[0].count("***") == 2


def test_a_line_that_cannot_be_written_harms_nobody():
    """A closed stderr or a value that cannot be shown does not end a run."""

    class Unshowable:
        def __str__(self) -> str:
            raise RuntimeError

    def closed(_line: str) -> None:
        raise BrokenPipeError

    configure(write=closed)
    log("run.stopped", reason="x")
    log("run.stopped", reason=Unshowable())
    configure()


def test_default_lines_go_to_stderr(capsys):
    """stdout belongs to a command's result."""
    configure()
    log("drain.began", reason="SIGTERM")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("drain.began reason=SIGTERM\n")


def test_long_values_are_cut():
    """A limit is in characters of the result, and what is cut is marked."""
    assert printable("x" * 50, 10) == "xxxxxxx..."
    assert printable("\n" * 3, 6) == "\\n\\n\\n"
