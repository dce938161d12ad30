"""Shell completion, as shells ask for it: the script typer gives, and the answers at each TAB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collector.cli.completion import refuse_unknown_shell
from collector.cli.options import PROGRAM
from collector.errors import ConfigurationError
from collector.settings_table import SPECS

ASK = "_LIVESTREAM_COLLECTOR_COMPLETE"


def asked(*words: str, shell: str = "bash") -> list[str]:
    """What is offered for the last of the words. zsh and fish are asked alike."""
    environment = {
        ASK: f"complete_{shell}",
        "COMP_WORDS": "\n".join((PROGRAM, *words)),
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": " ".join((PROGRAM, *words)),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-m", "collector"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.rstrip("\n").splitlines()


def test_a_real_bash_completes(tmp_path):
    """The script that bash gets, run by bash: commands, options, settings, codes."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    program = tmp_path / PROGRAM
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m collector "$@"\n')
    program.chmod(0o755)
    asks = [
        ("veri",),
        ("run", "--stop-after"),
        ("run", "--set", "journal.dur"),
        ("run", "--set", "parts."),
        ("explain", "LivestreamNo"),
        ("query", "--format", "nd"),
        ("query", "--la"),
    ]
    calls = "".join(
        f"COMP_WORDS=({PROGRAM} {' '.join(words)}); COMP_CWORD={len(words)}; "
        f'_livestream_collector_completion {PROGRAM}; echo "${{COMPREPLY[@]}}"\n'
        for words in asks
    )
    script = f'script="$({PROGRAM} --show-completion)" && eval "$script"\n{calls}'
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "verify",
        "--stop-after-hits --stop-after",
        "journal.durability= journal.durability=disk journal.durability=memory",
        "parts.max_age_s= parts.max_bytes=",
        "LivestreamNotReady LivestreamNoHits",
        "ndjson",
        "--lateness",
    ]


def test_zsh_and_fish_get_their_forms():
    """With what each needs around an answer; a value of a setting goes on after the equals sign."""
    assert asked("run", "--set", "journal.durability=d", shell="fish") == ["journal.durability=disk"]
    assert asked("run", "--set", "log.format=", shell="zsh") == [
        '_arguments \'*: :(("log.format=console"',
        '"log.format=json"))\'',
    ]


def test_every_setting_can_be_completed():
    """After its section, or after nothing at all."""
    assert asked("run", "--set", "") == [f"{key}=" for key in SPECS]
    for key in ("journal.max_bytes", "output.mode"):
        assert asked("run", "--set", key)[0] == f"{key}="
    assert asked("run", "--set", "journal.max_by")[1] == "journal.max_bytes=8GiB"
    assert asked("run", "--set", "no.such") == []


def test_without_a_shell_it_is_said_what_is_wanted(monkeypatch):
    """Typer itself would end with "Shell  not supported." and the exit code of a defect."""
    shellingham = pytest.importorskip("shellingham")
    found: list[object] = [("bash", "/bin/bash"), ("pwsh", "/bin/pwsh"), shellingham.ShellDetectionFailure()]

    def detect() -> object:
        answer = found.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(shellingham, "detect_shell", detect)
    refuse_unknown_shell(["--show-completion"])
    with pytest.raises(ConfigurationError, match="is pwsh: call it at the prompt"):
        refuse_unknown_shell(["--install-completion"])
    with pytest.raises(ConfigurationError, match="bash, zsh and fish"):
        refuse_unknown_shell(["--show-completion"])
    refuse_unknown_shell(["run", "--show-completion"])
    refuse_unknown_shell([])


def test_installing_writes_into_the_home_folder_alone(tmp_path):
    """What typer says it does; a home that is not ours stays as it is."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    done = subprocess.run(
        [bash, "-c", f'"{sys.executable}" -m collector --install-completion; exit $?'],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    script = tmp_path / ".bash_completions" / f"{PROGRAM}.sh"
    assert str(script) in done.stdout
    assert str(script) in Path(tmp_path / ".bashrc").read_text()
    assert "complete -o default" in script.read_text()
