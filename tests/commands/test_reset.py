"""The one-shot reset request: stored durably, said in plain words."""

from __future__ import annotations

import pytest

from collector import cli
from collector.errors import ExitCode
from collector.storage.layout import StateFolder


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / ".state" / "shop"
    folder.mkdir(parents=True)
    return StateFolder(folder)


def reset(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["reset", *arguments])
    return int(caught.value.code or 0)


@pytest.mark.parametrize("value", ["smallest", "largest", "earliest", "latest"])
def test_the_request_is_stored_for_the_collector_to_consume(state, tmp_path, value):
    """One small file of the state folder holds the value, readable by its owner only."""
    assert reset(value, "--output", str(tmp_path)) == 0
    assert state.reset_request.read_text() == f"{value}\n"
    assert state.reset_request.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in state.root.iterdir()] == [state.reset_request.name]


def test_a_later_request_replaces_the_one_before(state, tmp_path):
    """There is one request at most."""
    reset("largest", "--output", str(tmp_path))
    reset("smallest", "--output", str(tmp_path), "--stream", "shop")
    assert state.reset_request.read_text() == "smallest\n"


@pytest.mark.parametrize(("value", "loses"), [("largest", True), ("latest", True), ("smallest", False)])
def test_it_says_what_will_be_lost(state, tmp_path, capsys, value, loses):
    """``largest`` throws the backfill away: an operator decides that knowingly."""
    reset(value, "--output", str(tmp_path))
    said = capsys.readouterr().out
    assert ("lost" in said) is loses
    assert "every client of the stream is closed" in said


def test_without_a_state_folder_nothing_is_stored(tmp_path, capsys):
    """A mistyped name must not leave a request that nobody will ever see."""
    assert reset("largest", "--output", str(tmp_path), "--stream", "typo") == ExitCode.CONFIGURATION
    assert "is no state folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
