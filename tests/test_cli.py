"""The command line: flags, exit codes, messages, and that it answers at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from collector import __version__, cli, telemetry
from collector.errors import ExitCode, StorageError
from collector.hangup import Hangup
from collector.storage.recovery import WaysOn

URL = "http://127.0.0.1:1/api/1/stream/shop"
HEAVY = [
    "aiohttp",
    "arro3",
    "duckdb",
    "isal",
    "msgspec",
    "numpy",
    "pyarrow",
    "pycurl",
    "rich",
    "structlog",
    "uvloop",
]


class FakeCommand:
    """Stands where a command's module would be imported from, and records what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.code = 0
        self.raises: Exception | None = None
        self.positional: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        module = ModuleType(f"collector.commands.{name}")
        module.run = self._run
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def _run(self, *positional: Any, **named: Any) -> int:
        self.positional, self.named = positional, named
        if self.raises is not None:
            raise self.raises
        return self.code


@pytest.fixture(autouse=True)
def _own_hangups():
    """``run`` catches the signal for the whole process."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("LIVESTREAM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LIVESTREAM_TOKEN", "canary-token-cli")
    yield
    telemetry.configure()


def called(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return int(caught.value.code or 0)


def test_help_lists_the_commands_and_the_exit_codes(capsys):
    """What a person sees first."""
    assert called("--help") == 0
    text = capsys.readouterr().out
    for command in ("run", "simulate", "demo", "decode", "status", "verify", "reset", "query"):
        assert f"\n  {command} " in text
    for code in ExitCode:
        assert f"\n    {code.value}  " in text


def test_help_imports_nothing_heavy():
    """``--help`` answers at once: what is slow to import is imported by the command that needs it."""
    program = (
        "import sys\nfrom collector.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.exit(','.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_is_the_program():
    """``python -m collector`` is ``livestream-collector``."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"livestream-collector {__version__}\n"


def test_run_gets_settings_and_credentials(monkeypatch, tmp_path):
    """Flags become settings; the token comes from the environment."""
    command = FakeCommand(monkeypatch, "run")
    config = tmp_path / "c.toml"
    config.write_text("[run]\ndecoders = 5\ndrain_s = 5\n")
    code = called(
        *("run", "--config", str(config), "--url", URL, "--stream", "name", "--output", str(tmp_path / "o")),
        *("--state", str(tmp_path / "s"), "--decoders", "3", "--set", "parts.max_age_s=1"),
        *("--set", "reconnect.wait_s=2", "--stop-after-hits", "10", "--stop-after", "1.5"),
        *("--log-format", "json", "--redo-batch", "7", "--accept-journal-loss"),
    )
    assert code == 0
    (given,) = command.positional
    settings, credentials = given.settings, given.credentials
    assert (settings.stream.url, settings.stream.name) == (URL, "name")
    assert (settings.output.folder, settings.state.folder) == (tmp_path / "o", tmp_path / "s")
    assert (settings.run.decoders, settings.run.drain_s) == (3, 5)
    assert (settings.parts.max_age_s, settings.reconnect.wait_s) == (1, 2)
    assert settings.log.format == "json"
    assert credentials.token.reveal() == "canary-token-cli"
    assert command.named.pop("layers").load().settings == settings, "read again, it is the same"
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL, "which would end it"
    assert isinstance(command.named.pop("hangup"), Hangup)
    assert command.named == {
        "stop_after_hits": 10,
        "stop_after_s": 1.5,
        "terminal": False,
        "ways_on": WaysOn(7, accept_journal_loss=True),
    }


def test_a_terminal_gets_the_live_view_unless_lines_are_asked_for(monkeypatch, tmp_path):
    """stderr decides: it is where both the view and the lines go."""
    command = FakeCommand(monkeypatch, "run")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        called("run", "--url", URL, "--output", str(tmp_path))
        assert command.named["terminal"] is True
        called("run", "--url", URL, "--output", str(tmp_path), "--log-format", "console")
        assert command.named["terminal"] is False
        monkeypatch.setenv("TERM", "dumb")
        called("run", "--url", URL, "--output", str(tmp_path))
        assert command.named["terminal"] is False
    os.close(ours)


def test_decode_gets_files_and_its_own_defaults(monkeypatch, tmp_path):
    """NAME, state and durability of saved files; no credentials are needed."""
    command = FakeCommand(monkeypatch, "decode")
    monkeypatch.delenv("LIVESTREAM_TOKEN")
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"]
    for file in files:
        file.touch()
    assert called("decode", *map(str, files), "--output", str(tmp_path), "--decoders", "1") == 0
    given, given_files, ways_on = command.positional
    settings = given.settings
    assert (given_files, ways_on) == (files, WaysOn())
    assert settings.state.folder == tmp_path / ".state" / "files.files"
    assert settings.run.decoders == 1


def test_decode_of_rejects_is_about_a_stream_and_has_a_state_of_its_own(monkeypatch, tmp_path):
    """NAME is the only stream there is; its address in the settings file is none of its business."""
    command = FakeCommand(monkeypatch, "rejects")
    monkeypatch.delenv("LIVESTREAM_TOKEN")
    (tmp_path / ".state" / "shop").mkdir(parents=True)
    (tmp_path / ".state" / "files.files").mkdir()
    assert called("decode", "--rejects", "--output", str(tmp_path)) == 0
    settings = command.positional[0].settings
    assert (settings.stream.name, settings.stream.url) == ("shop", "")
    assert settings.state.folder == tmp_path / ".state" / "shop.rejects"
    assert settings.journal.durability == "memory"
    config = tmp_path / "c.toml"
    config.write_text(f'[stream]\nurl = "{URL}2"\n')
    assert called("decode", "--rejects", "--config", str(config), "--output", str(tmp_path)) == 0
    settings = command.positional[0].settings
    assert (settings.stream.name, settings.stream.url) == ("shop2", "")


def test_decode_takes_files_or_rejects(monkeypatch, capsys, tmp_path):
    """Not both, not neither: exit 2 and why."""
    for name in ("decode", "rejects"):
        FakeCommand(monkeypatch, name).raises = AssertionError("started")
    file = tmp_path / "a.jsonl"
    file.touch()
    for arguments in (["--rejects", str(file)], []):
        assert called("decode", *arguments, "--output", str(tmp_path)) == ExitCode.CONFIGURATION
        assert "FILE... or --rejects" in capsys.readouterr().err


def test_demo_and_simulate_get_their_flags(monkeypatch, tmp_path):
    """Every flag of the contract arrives under its name."""
    demo, simulate = FakeCommand(monkeypatch, "demo"), FakeCommand(monkeypatch, "simulate")
    scenario = tmp_path / "s.toml"
    scenario.touch()
    assert called("demo") == 0
    assert demo.named == {"seconds": 30, "output": None}
    assert called("demo", "--seconds", "5", "--output", "x") == 0
    assert demo.named == {"seconds": 5, "output": Path("x")}
    flags = ("--port", "0", "--hits-per-second", "50", "--total", "9", "--seed", "3")
    assert called("simulate", *flags, "--scenario", str(scenario), "--file", str(scenario)) == 0
    assert simulate.named == {
        "port": 0,
        "hits_per_second": 50,
        "total": 9,
        "seed": 3,
        "scenario": scenario,
        "file": scenario,
    }
    assert called("simulate") == 0
    assert simulate.named == {}


def test_a_commands_code_is_the_programs(monkeypatch):
    """What a command returns is what the process ends with."""
    FakeCommand(monkeypatch, "demo").code = 7
    assert called("demo") == 7


def test_our_errors_are_one_message_without_traceback(monkeypatch, capsys):
    """Exit code of the error's kind; text escaped and masked."""
    FakeCommand(monkeypatch, "demo").raises = StorageError("disk \x1b[31m gone\nsecond line")
    assert called("demo") == ExitCode.STORAGE
    error = capsys.readouterr().err
    more = "(more: livestream-collector explain 4)\n"
    assert error == f"livestream-collector: disk \\x1b[31m gone\nsecond line\n{more}"


def test_defects_end_in_a_traceback():
    """Exit code 1 is a defect of ours, with all that is needed to find it."""
    program = (
        "import sys, types\nfrom collector.cli import main\n"
        "module = sys.modules['collector.commands.demo'] = types.ModuleType('x')\n"
        "module.run = lambda **_: 1 // 0\nmain(['demo'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_missing_extra_names_its_pip_line(monkeypatch, capsys):
    """Exit code 2 and what to install."""
    FakeCommand(monkeypatch, "demo").raises = ModuleNotFoundError("no", name="duckdb")
    assert called("demo") == ExitCode.CONFIGURATION
    assert "pip install 'livestream-collector[query]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--output", "o"],
        ["run", "--url", URL],
        ["run", "--url", URL, "--output", "o", "--decoders", "0"],
        ["run", "--url", URL, "--output", "o", "--set", "x.y=1"],
        ["run", "--url", URL, "--output", "o", "--stop-after-hits", "0"],
        ["run", "--url", URL, "--output", "o", "--no-such-flag"],
        ["decode", "--output", "o"],
        ["decode", "missing.jsonl", "--output", "o"],
        ["reset", "sideways", "--output", "o"],
        ["simulate", "--port", "70000"],
        ["nonsense"],
    ],
)
def test_what_cannot_be_run_is_a_configuration_error(monkeypatch, capsys, tmp_path, arguments):
    """Exit code 2, a message, and nothing is started."""
    for name in ("run", "decode", "simulate"):
        FakeCommand(monkeypatch, name).raises = AssertionError("started")
    monkeypatch.chdir(tmp_path)
    assert called(*arguments) == ExitCode.CONFIGURATION
    assert capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_run_without_credentials_says_what_to_set(monkeypatch, capsys, tmp_path):
    """Before anything is started."""
    FakeCommand(monkeypatch, "run").raises = AssertionError("started")
    monkeypatch.delenv("LIVESTREAM_TOKEN")
    assert called("run", "--url", URL, "--output", str(tmp_path)) == ExitCode.CONFIGURATION
    assert "LIVESTREAM_CLIENT_SECRET" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "variable"),
    [
        ("--token", "LIVESTREAM_TOKEN"),
        ("--client-secret", "LIVESTREAM_CLIENT_SECRET"),
        ("--api-key", "LIVESTREAM_CLIENT_ID"),
    ],
)
def test_secrets_as_arguments_are_refused(capsys, flag, variable):
    """The message names the variable and not the secret, in both spellings of a flag."""
    for arguments in ([flag, "canary-arg"], [f"{flag}=canary-arg"]):
        assert called("run", *arguments) == ExitCode.CONFIGURATION
        error = capsys.readouterr().err
        assert f"set {variable}," in error
        assert "canary" not in error
