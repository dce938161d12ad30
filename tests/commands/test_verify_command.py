"""``verify`` as a command: its exit codes, its lines, and that it touches nothing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from collector import cli
from collector.core.messages import FileKind
from collector.storage.fs import DISK
from collector.storage.lock import StateLock
from tests.storage.collected_rig import Collected, make_collected


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Collected:
    return make_collected(tmp_path_factory.mktemp("whole") / "c")


@pytest.fixture
def collected(whole, tmp_path) -> Collected:
    return whole.copy_to(tmp_path / "c")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("LIVESTREAM_"):
            monkeypatch.delenv(name)


def verify(collected: Collected, *more: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["verify", "--output", str(collected.output), *more])
    return int(caught.value.code or 0)


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_what_is_in_order_is_summed_up(collected, capsys):
    """Exit 0, the equation; the only stream of the output is the one that is meant; nothing is written."""
    before = content(collected.root)
    assert verify(collected) == 0
    assert capsys.readouterr().out == (
        "6 batches, 262 records = 246 rows + 11 resends + 5 rejects; all adds up\n"
    )
    assert content(collected.root) == before


def test_each_finding_is_a_line_and_the_exit_code_is_7(collected, capsys):
    """What is found goes to stdout, the verdict to stderr too."""
    paths = [collected.paths(kind)[0] for kind in (FileKind.HITS, FileKind.REJECTS)]
    for path in paths:
        path.unlink()
    assert verify(collected) == 7
    told = capsys.readouterr()
    *lines, summary = told.out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["missing", str(path)] for path in paths]
    assert summary.endswith("2 findings")
    assert "2 findings" in told.err


def test_no_name_can_steer_the_terminal(collected, capsys):
    """A file's name is text from outside."""
    (collected.output / "hits" / "v=1" / "stream=shop" / "a\x1b[31m\nlog: fake").touch()
    assert verify(collected) == 7
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--stream", "other"), "no state folder"),
        (("--state", "elsewhere"), "no state folder"),
        (("--stream", "other", "--state", "STATE"), "of stream 'shop', not of 'other'"),
    ],
)
def test_what_cannot_be_verified_is_a_configuration_error(collected, capsys, arguments, words):
    """Exit 2, and what to give."""
    given = [str(collected.state.root) if text == "STATE" else text for text in arguments]
    assert verify(collected, *given) == 2
    assert words in capsys.readouterr().err


def test_a_state_folder_that_was_just_made_is_no_damage(collected, capsys, tmp_path):
    """A collector makes its folders before its log."""
    (tmp_path / "new" / ".state" / "shop").mkdir(parents=True)
    assert verify(Collected(tmp_path), "--output", str(tmp_path / "new")) == 2
    assert "nothing has been collected into it" in capsys.readouterr().err


def test_beside_a_running_collector_it_verifies_and_does_not_rebuild(collected, capsys):
    """No lock is taken to look; making the log again needs it: exit 5."""
    with StateLock.take(DISK, collected.state):
        assert verify(collected) == 0
        assert verify(collected, "--rebuild") == 5
    assert "in use" in capsys.readouterr().err


def test_a_rebuild_says_what_it_did_and_verifies_what_it_made(collected, capsys):
    """And the stream is known by the state folder's name where the log is gone."""
    collected.state.commit_log.unlink()
    assert verify(collected) == 7
    assert "verify --rebuild" in capsys.readouterr().out
    assert verify(collected, "--rebuild") == 0
    out = capsys.readouterr().out
    assert "rebuild: 6 batches were made again from their parts\n" in out
    assert out.endswith("all adds up\n")
    assert verify(collected) == 0


def test_what_is_lost_for_good_is_found(collected, capsys):
    """A rebuild that could not bring everything back does not end with 0."""
    collected.commit([b'{"pageName":"a"}'], [b'{"pageName":"b"}'])
    collected.paths(FileKind.HITS)[-1].unlink()
    collected.state.commit_log.unlink()
    assert verify(collected, "--rebuild") == 7
    assert "lost: batch of blocks" in capsys.readouterr().out
    assert verify(collected) == 0


def test_a_terminal_sees_how_far_it_is(collected):
    """The bar is on stderr, and only there."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "collector", "verify", "--output", str(collected.output)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=follower,
        cwd=Path(cli.__file__).parents[2],
        env=os.environ | {"TERM": "xterm"},
        check=False,
    )
    os.close(follower)
    shown = os.read(leader, 1 << 16)
    os.close(leader)
    assert done.returncode == 0
    assert b"verifying" in shown
    assert done.stdout.endswith(b"all adds up\n")
