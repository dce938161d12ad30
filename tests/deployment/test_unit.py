"""The systemd unit: systemd itself takes it, how much it shuts in, and that it fits the collector."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dockerfile import ROOT
from tools import run_tool

from collector.coordinator.notify import DRAIN_MARGIN_S
from collector.credentials import given_secrets
from collector.errors import ExitCode
from collector.settings_table import SPECS

UNIT = ROOT / "docs" / "deployment" / "livestream-collector@.service"
LINES = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
MOST_EXPOSED = 1.5
"""Of 10, as `systemd-analyze security` counts."""


def of(name: str) -> list[str]:
    """Its values, in order."""
    return [value for key, _, value in (line.partition("=") for line in LINES) if key == name]


def analyze(*arguments: object):
    return run_tool("systemd-analyze", *arguments, package="systemd")


@pytest.fixture
def instance(tmp_path) -> Path:
    """Of a stream called web, where the program that it starts exists."""
    text = UNIT.read_text()
    program = of("ExecStart")[0].split()[0]
    path = tmp_path / "livestream-collector@web.service"
    path.write_text(text.replace(program, "/usr/bin/env"))
    return path


def test_systemd_takes_it_without_a_word(instance):
    """No unknown key, no value that is passed over, no missing unit."""
    verified = analyze("verify", "--man=no", instance)
    assert (verified.returncode, verified.stdout) == (0, "")


def test_a_mistake_would_be_noticed(instance):
    """The same check has something to say of a misspelt key."""
    instance.write_text(instance.read_text().replace("ProtectClock", "ProtectClocks"))
    assert "ProtectClocks" in analyze("verify", "--man=no", instance).stdout


def test_how_much_it_shuts_in(instance):
    """No more exposed than the documentation says: the command ends with an error above its threshold."""
    judged = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", instance)
    assert judged.returncode == 0, judged.stdout
    assert f"{MOST_EXPOSED} of 10" in (ROOT / "docs" / "deployment.md").read_text()


@pytest.mark.parametrize("number", range(3))
def test_systemd_takes_the_drop_ins_of_the_documentation(number, instance):
    """Each as it stands there; a mistake in one would be noticed."""
    found = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), re.DOTALL)
    assert len(found) == 3
    folder = instance.with_name(f"{instance.name}.d")
    folder.mkdir()
    for text, said in ((found[number], ""), (found[number] + "Nonsense=1\n", "Nonsense")):
        (folder / "own.conf").write_text(text)
        verified = analyze("verify", "--man=no", instance)
        assert said in verified.stdout if said else verified.stdout == ""


def test_no_restart_where_a_person_is_needed():
    """The contract of the exit codes."""
    assert of("Restart") == ["always"]
    codes = {ExitCode.CONFIGURATION, ExitCode.REFUSED, ExitCode.IN_USE}
    assert {int(code) for code in of("RestartPreventExitStatus")[0].split()} == codes
    assert of("StartLimitIntervalSec") == ["0"]


def test_a_drain_has_the_time_it_needs():
    """With the default of run.drain_s; a longer one is asked for by EXTEND_TIMEOUT_USEC."""
    assert int(of("TimeoutStopSec")[0]) > SPECS["run.drain_s"].default + DRAIN_MARGIN_S
    assert of("KillMode") == ["mixed"]


def test_a_child_that_memory_ran_out_for_does_not_end_the_rest():
    """systemd's default is to stop the whole unit."""
    assert of("OOMPolicy") == ["continue"]


@pytest.mark.parametrize("name", ["RemoveIPC", "DynamicUser", "ProtectProc", "ProcSubset"])
def test_what_would_break_it_is_not_set(name):
    """The unit says why."""
    assert of(name) == []
    assert f"{name}=" in UNIT.read_text()


def test_secrets_come_as_credentials():
    """Each that is loaded is named to the collector, by a variable that it knows."""
    loaded = {value.partition(":")[0] for value in of("LoadCredential")}
    named = dict(value.partition("=")[::2] for value in of("Environment"))
    assert set(named.values()) == {f"%d/{credential}" for credential in loaded}
    assert set(named) <= {f"{secret}_FILE" for secret in given_secrets({})}
