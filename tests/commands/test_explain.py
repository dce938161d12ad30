"""Every code has its text, every text names only what exists, and a code is found however it is written."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from collector.cli import app
from collector.commands import explain
from collector.core.connection import ConnectionState, ConnectionView
from collector.core.messages import Outcome
from collector.core.readiness import not_ready
from collector.core.reconnect_table import Row
from collector.core.rejects import RejectsWatch
from collector.core.remedies import CODES, PROXIES, STATUSES, TokenFailure, for_status
from collector.core.shipping import ShipFailure
from collector.errors import ConfigurationError, ExitCode
from collector.events import EVENTS
from collector.explanations import EXPLANATIONS, Explanation, Kind, find, nearest
from collector.settings_table import SECTIONS, SPECS, environment_name

ROOT = Path(__file__).parents[2]
SECRETS = ("TOKEN", "CLIENT_ID", "CLIENT_SECRET", "PROXY_PASSWORD")
ALERTS = ROOT / "docs" / "deployment" / "alerts.yaml"


def codes(kind: Kind) -> set[str]:
    return {known.code for known in EXPLANATIONS if known.kind is kind}


def test_every_table_is_covered():
    """Each status, exit code, event, state, outcome, token failure and answer of a proxy has its text."""
    assert codes(Kind.STATUS) >= {str(status) for status in STATUSES}
    assert codes(Kind.EXIT) >= {str(code.value) for code in ExitCode}
    assert codes(Kind.EVENT) == set(EVENTS)
    assert codes(Kind.STATE) == {state.value for state in ConnectionState}
    assert codes(Kind.OUTCOME) == {outcome.value for outcome in Outcome}
    assert codes(Kind.TOKEN) == {failure.value for failure in TokenFailure}
    assert codes(Kind.SHIPPING) == {failure.value for failure in ShipFailure}
    assert codes(Kind.PROXY) == {str(status) for status in PROXIES}
    assert codes(Kind.GAP) == {"no", "possible", "likely"}


def test_every_alert_is_covered():
    """The rules that come with the collector, and no others."""
    rules = re.findall(r"^\s*-?\s*alert:\s*(\w+)", ALERTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert codes(Kind.ALERT) == set(rules)


def test_every_reason_of_a_reject_is_covered():
    """The decoder's sources name each kind of reason up to its colon."""
    sources = (ROOT / "collector" / "decoder").glob("*.py")
    kinds = "|".join(sorted(codes(Kind.REJECT)))
    for source in sources:
        text = source.read_text(encoding="utf-8")
        for reason in re.findall(r'(?:Refusal\(|Reject\(\w+, |return )\(?\s*f?"([a-z ]+): ', text):
            assert re.fullmatch(kinds, reason), f"{source}: {reason}"


@pytest.mark.parametrize("row", Row)
def test_every_wait_that_a_start_finds_has_its_code(row):
    """But for the one of which nothing is known."""
    assert find(CODES[row]) if CODES[row] else row is Row.UNKNOWN_END


@pytest.mark.parametrize("state", ConnectionState)
def test_every_reason_for_not_being_ready_is_found(state):
    """Up to its colon it is the code of a text, and the journal's reason as it stands."""
    view = ConnectionView(state, 0.0, "because", ready=False)
    for reason in not_ready(view, rejects=RejectsWatch(), journal_full=True):
        assert find(reason), reason


def test_whoever_is_called_is_told_what_to_do():
    """Whatever is no good news has causes and a remedy."""
    calm = {"0", "200", "requesting", "streaming", "no"}
    calm |= {name for name, event in EVENTS.items() if event.level in ("info", "debug")}
    for known in EXPLANATIONS:
        assert known.means.endswith("."), known
        assert known.do.endswith(".") or not known.do, known
        if known.code not in calm:
            assert known.causes, known
            assert known.do, known


@pytest.mark.parametrize("known", EXPLANATIONS, ids=lambda known: f"{known.kind.value} {known.code}")
def test_a_text_names_only_what_there_is(known: Explanation):
    """Commands, options, settings, environment variables and other codes."""
    assert known in find(known.code)
    for code in known.see:
        assert find(code), code
    texts = " ".join((known.means, *known.causes, known.do))
    assert set(commands_named(texts)) <= set(commands())
    assert set(re.findall(r"(?<![\w-])--[a-z-]+", texts)) <= options()
    settings = re.findall(rf"(?<![\w.])(?:{'|'.join(SECTIONS)})\.[a-z_]+", texts)
    assert set(settings) <= set(SPECS) | set(EVENTS)
    variables = {f"LIVESTREAM_{name}{suffix}" for name in SECRETS for suffix in ("", "_FILE")}
    variables |= {environment_name(key) for key in SPECS}
    assert set(re.findall(r"LIVESTREAM_[A-Z_]+", texts)) <= variables


def commands_named(text: str) -> list[str]:
    return re.findall(r"livestream-collector ([a-z-]+)", text)


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands


def options() -> set[str]:
    return {option for command in commands().values() for one in command.params for option in one.opts}


@pytest.mark.parametrize(
    ("written", "kind", "code"),
    [
        ("409", Kind.STATUS, "409"),
        ("HTTP 409", Kind.STATUS, "409"),
        ("http-404", Kind.STATUS, "404"),
        ("4", Kind.EXIT, "4"),
        ("exit 3", Kind.EXIT, "3"),
        ("EXIT-3", Kind.EXIT, "3"),
        ("exit code 0", Kind.EXIT, "0"),
        ("Connection.Refused", Kind.EVENT, "connection.refused"),
        ("connection_refused", Kind.EVENT, "connection.refused"),
        ("livestreamnohits", Kind.ALERT, "LivestreamNoHits"),
        ("NoHits", Kind.ALERT, "LivestreamNoHits"),
        ("no status", Kind.OUTCOME, "no_status"),
        ("not json: expected a value", Kind.REJECT, "not json"),
        ("state refused", Kind.STATE, "refused"),
        ("gap likely", Kind.GAP, "likely"),
    ],
)
def test_a_code_is_found_however_it_is_written(written, kind, code):
    """One text, the right one."""
    (found,) = find(written)
    assert (found.kind, found.code) == (kind, code)


def test_one_code_of_two_tables_has_both_texts():
    """Whoever asks cannot know which it is."""
    assert [known.kind for known in find("untrusted")] == [Kind.OUTCOME, Kind.TOKEN]
    assert [known.kind for known in find("403")] == [Kind.STATUS, Kind.PROXY]


@pytest.mark.parametrize("status", [100, 418, 502, 599])
def test_an_unknown_status_has_the_text_of_all_such(status):
    """The same that log and page show."""
    (found,) = find(str(status))
    assert found.do == for_status(status).do
    assert str(status) in found.means


@pytest.mark.parametrize("code", ["99", "600", "8", "exit 9", "zebra", "", "\x1b[31m"])
def test_what_is_not_known_is_not_found(code):
    """No guess instead of an answer."""
    assert find(code) == ()


def test_unknown_codes_get_their_neighbours():
    """Exit 2, the nearest ones, nothing that steers a terminal."""
    assert nearest("conection.refusd")[0] == "connection.refused"
    assert "LivestreamNoHits" in nearest("NoHit")
    with pytest.raises(ConfigurationError, match=r"nearest known: rejects\.alarm") as caught:
        explain.run("reject.alarm\x1b[31m")
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    assert "\x1b" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="exit codes are 0 to 7"):
        explain.run("42")


@pytest.mark.parametrize("known", EXPLANATIONS, ids=lambda known: f"{known.kind.value} {known.code}")
def test_it_reads_well_at_80_columns(known, capsys, monkeypatch):
    """No line is longer, no colour without a terminal, and text and remedy are all there."""
    monkeypatch.setenv("COLUMNS", "200")
    assert explain.run(f"{known.kind.name} {known.code}" if known.code.isdigit() else known.code) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    flat = " ".join(text.split())
    assert " ".join(known.means.split()) in flat
    assert " ".join(known.do.split()) in flat


def test_alone_it_lists_every_code(capsys):
    """By kind."""
    assert explain.run("") == 0
    text = " ".join(capsys.readouterr().out.split())
    for known in EXPLANATIONS:
        assert known.code in text


@pytest.mark.parametrize(("environment", "bold"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_headings(environment, bold):
    """Bold where it is a terminal and NO_COLOR is not set."""
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "collector", "explain", "HTTP", "409"]
    subprocess.run(command, stdout=theirs, check=True, env=clean | {"TERM": "xterm"} | environment)
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        text = terminal.read1()
    assert (b"\x1b[1m409 (HTTP status)" in text) == bold
    assert b"409 (HTTP status)" in text
