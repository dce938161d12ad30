"""SIGHUP: new settings for a collector that runs, and decoders rolled without touching the connection."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import ROOT, Collector, Service, wait_until

from collector.simulator.settings import SimulatorSettings

KEY = "0123456789abcdef0123456789abcdef"
PRIVATE = '[privacy]\ndrop = ["ip"]\nhash = ["userAgent"]\n'
ENVIRONMENT = {
    "LIVESTREAM_TOKEN": "simulator-token",
    "LIVESTREAM_CLIENT_ID": "simulator-key",
    "LIVESTREAM_PRIVACY_KEY": KEY,
}


class Run:
    """A collector with a settings file, against a service of its own."""

    def __init__(self, folder: Path, hits_per_second: float) -> None:
        self.service = Service(SimulatorSettings(hits_per_second=hits_per_second))
        self.collector = Collector(self.service, folder, settings={"log.format": "json"})
        self.file = folder / "settings.toml"
        self.file.write_text("")

    def start(self, *arguments: str) -> None:
        self.collector.start("--config", str(self.file), *arguments, environment=ENVIRONMENT)

    @property
    def pid(self) -> int:
        assert self.collector.process is not None
        return self.collector.process.pid

    def hang_up(self, text: str | None = None) -> None:
        if text is not None:
            self.file.write_text(text)
        os.kill(self.pid, signal.SIGHUP)

    def reload(self, text: str, event: str = "decoders.rolled") -> dict:
        before = len(self.collector.events(event))
        self.hang_up(text)
        wait_until(lambda: len(self.collector.events(event)) > before, event)
        return self.collector.events(event)[-1]

    def streams(self) -> None:
        wait_until(lambda: self.collector.rows() > 0, "the first rows")

    def more(self, hits: int = 2000) -> None:
        rows = self.collector.rows()
        wait_until(lambda: self.collector.rows() > rows + hits, "more rows")

    def finish(self) -> None:
        """Everything up to the end is there once, by one request, and nothing is left over."""
        assert self.collector.drain() == 0
        self.collector.assert_complete(self.collector.rows())
        self.collector.assert_tidy()
        assert len(self.service.requests) == 1
        assert self.collector.left_processes() == []

    def parts(self) -> list[tuple[int, bool]]:
        """First block of each part of hits, and whether it is private; its rows are so, all of them."""
        found = []
        for path in (self.collector.output / "hits").rglob("*.parquet"):
            with pq.ParquetFile(path) as part:
                metadata = part.metadata.metadata or {}
                rows = part.read(["ip", "userAgent"])
            private = b"collector.privacy_dropped" in metadata
            agents = [agent for agent in rows["userAgent"].to_pylist() if agent]
            assert rows["ip"].null_count == (rows.num_rows if private else 0)
            assert all((len(agent) == 64 and " " not in agent) == private for agent in agents)
            found.append((int(metadata[b"collector.first_block"]), private))
        return sorted(found)


@pytest.fixture
def one(tmp_path) -> Iterator[Run]:
    one = Run(tmp_path, hits_per_second=3000)
    yield one
    if one.collector.process is not None and one.collector.process.poll() is None:
        one.collector.kill_all()
    one.service.close()


def test_privacy_changes_under_load_without_a_hit_lost_or_a_mixed_part(one):
    """On and off again: each part is one or the other, and from a batch on all of them are."""
    one.start()
    one.streams()
    assert one.reload(PRIVATE, "settings.reloaded")["changed"] == "privacy.drop privacy.hash"
    wait_until(lambda: one.collector.events("decoders.rolled"), "the roll")
    one.more()
    one.reload("")
    one.more()
    one.finish()
    states = [private for _, private in one.parts()]
    assert states[0] is False
    assert True in states
    changes = [at for at in range(1, len(states)) if states[at] != states[at - 1]]
    assert len(changes) == 2, "no part of the old kind after the first of the new"


def test_decoders_killed_amid_the_roll_cost_no_hit(one):
    """Old ones and new ones, at once."""
    one.start("--decoders", "3")
    one.streams()
    wait_until(lambda: len(one.collector.events("child.started")) == 4, "all decoders to be up")
    one.hang_up(PRIVATE)
    wait_until(lambda: one.collector.events("settings.reloaded"), "the reload")
    for _ in range(3):
        for pid in one.collector.pids("decoder"):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.15)
    wait_until(lambda: one.collector.events("decoders.rolled"), "the roll")
    one.more()
    one.finish()
    assert len(one.collector.events("connection.opened")) == 1
    first = min(block for block, private in one.parts() if private)
    reloaded = [private for block, private in one.parts() if block > first]
    assert all(reloaded)


@pytest.fixture(scope="module")
def steady(tmp_path_factory) -> Iterator[Run]:
    """One run for all that only looks at what becomes of settings; it must not end nor connect again."""
    one = Run(tmp_path_factory.mktemp("steady"), hits_per_second=1000)
    one.start()
    one.streams()
    yield one
    try:
        assert one.collector.drain() == 0
        assert one.collector.doubled() == {}
        assert len(one.service.requests) == 1
        assert {private for _, private in one.parts()} == {False, True}
    finally:
        if one.collector.process is not None and one.collector.process.poll() is None:
            one.collector.kill_all()
        one.service.close()


def test_the_number_of_decoders_changes_and_only_that(steady):
    """More are started, fewer are ended; those that stay are not touched."""
    wait_until(lambda: len(steady.collector.pids("decoder")) == 2, "both decoders")
    before = set(steady.collector.pids("decoder"))
    steady.reload("[run]\ndecoders = 4\n")
    wait_until(lambda: len(steady.collector.pids("decoder")) == 4, "two more decoders")
    assert before <= set(steady.collector.pids("decoder"))
    assert steady.reload("[run]\ndecoders = 1\n")["decoders"] == 1
    assert len(steady.collector.pids("decoder")) == 1
    assert set(steady.collector.pids("decoder")) <= before


def test_what_cannot_be_used_is_refused_whole(steady):
    """Every fault in one event, and nothing of the file is in force."""
    reloaded = len(steady.collector.events("settings.reloaded"))
    bad = '[privacy]\ndrop = ["ipp"]\n[run]\ndecoders = 0\n[log]\nlevel = "error"\n'
    reason = steady.reload(bad, "settings.refused")["reason"]
    assert "did you mean ip?" in reason
    assert "run.decoders" in reason
    assert "cannot start" not in reason
    assert "no valid TOML" in steady.reload("[", "settings.refused")["reason"]
    steady.file.unlink()
    refused = len(steady.collector.events("settings.refused"))
    steady.hang_up()
    wait_until(lambda: len(steady.collector.events("settings.refused")) > refused, "a third refusal")
    assert len(steady.collector.events("settings.reloaded")) == reloaded


def test_what_wants_a_restart_is_named_and_left_alone(steady):
    """Beside it everything else is taken over."""
    text = '[reconnect]\non_refusal = "retry"\n[resends]\nwindow_s = 5\n[journal]\nmax_bytes = "1 GiB"\n'
    waiting = steady.reload(text, "settings.waiting")
    assert waiting["changed"] == "reconnect.on_refusal resends.window_s"
    assert "restart" in waiting["remedy"]
    assert "journal.max_bytes" in steady.collector.events("settings.reloaded")[-1]["changed"]
    assert steady.collector.events("settings.reloaded")[-1]["decoders"] == "kept"
    command = [
        sys.executable,
        "-m",
        "collector",
        "status",
        "--output",
        str(steady.collector.output),
        "--json",
    ]
    status = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert status["journal"]["max_bytes"] == 1 << 30
    assert [child["restarts"] for child in status["children"]] == [0] * len(status["children"])


def test_log_lines_change_at_once_and_a_flag_still_wins(steady):
    """As at the start: ``parts.max_age_s`` is given by a flag."""
    text = '[log]\nlevel = "warning"\n[parts]\nmax_age_s = 3000\n' + PRIVATE
    changed = steady.reload(text, "settings.reloaded")["changed"].split()
    assert {"log.level", "privacy.drop"} <= set(changed)
    assert "parts.max_age_s" not in changed
    committed = len(steady.collector.events("batch.committed"))
    steady.more()
    assert len(steady.collector.events("batch.committed")) == committed


def test_signals_at_any_time_are_harmless(one):
    """While it starts, in a storm, and while it drains: many are as one."""
    one.start()
    wait_until(lambda: _catches_hangup(one.pid), "the handler")
    one.hang_up()
    one.streams()
    wait_until(lambda: one.collector.events("settings.reloaded"), "the first, as soon as it could")
    for number in range(40):
        one.hang_up(PRIVATE if number % 2 else "")
    wait_until(lambda: one.collector.events("decoders.rolled"), "a roll")
    one.more()
    os.kill(one.pid, signal.SIGTERM)
    for _ in range(20):
        one.hang_up()
        time.sleep(0.005)
        if one.collector.process is not None and one.collector.process.poll() is not None:
            break
    assert one.collector.wait() == 0
    one.collector.assert_complete(one.collector.rows())
    assert len(one.service.requests) == 1
    assert len(one.collector.events("settings.reloaded")) < 20


def _catches_hangup(pid: int) -> bool:
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")
    ]
    return bool(int(line.split()[1], 16) >> (signal.SIGHUP - 1) & 1)


def test_with_its_terminal_a_run_ends(one, tmp_path):
    """It would hold the connection unseen; it drains, as for SIGTERM."""
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "collector",
        "run",
        "--url",
        one.service.url,
        "--set",
        "parts.max_age_s=0.5",
    ]
    command += [
        "--output",
        str(one.collector.output),
        "--log-format",
        "json",
        "--set",
        "journal.reserve_bytes=0",
    ]
    starter = "import fcntl,os,sys,termios; fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0); os.execvp(sys.argv[2], sys.argv[2:])"  # noqa: E501
    with open(tmp_path / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", starter, str(theirs), *command],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs],
            start_new_session=True,
        )
    one.collector.process = process
    os.close(theirs)
    one.streams()
    os.close(ours)
    assert one.collector.wait() == 0
    assert one.collector.events("drain.began")[0]["reason"] == "SIGHUP: the terminal is gone"
    assert one.collector.events("connection.closed")[0]["outcome"] == "drained"
    assert one.collector.events("settings.reloaded") == []
