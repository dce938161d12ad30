"""The live view of ``run`` in a real terminal: sizes, a stopped terminal, a lost connection, the end."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
from harness import ROOT, Collector, wait_until


class Tmux:
    """A terminal that can be looked at."""

    def __init__(self, columns: int, rows: int) -> None:
        if shutil.which("tmux") is None:
            reason = "tmux is not installed (on Debian: apt-get install tmux)"
            if os.environ.get("CI"):
                pytest.fail(f"{reason}: CI must have it")
            pytest.skip(reason)
        self._server = f"collector-{uuid.uuid4().hex}"
        self._size = ("-x", str(columns), "-y", str(rows))

    def __call__(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._server, "-f", os.devnull, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self, command: list[str], **environment: str) -> None:
        variables = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        shown = f"cd {shlex.quote(str(ROOT))}; {shlex.join(command)}; echo EXIT $?; sleep 600"
        self("new-session", "-d", *self._size, *variables, shown)

    def resize(self, columns: int, rows: int) -> None:
        self("resize-window", "-x", str(columns), "-y", str(rows))

    def press(self, key: str) -> None:
        self("send-keys", key)

    def text(self, *, colours: bool = False) -> str:
        return self("capture-pane", "-p", *(["-e"] if colours else []))

    def until(self, pattern: str) -> str:
        wait_until(lambda: re.search(pattern, self.text()), f"{pattern} on\n{self.text()}", pause_s=0.1)
        return self.text()

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._server, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def tmux() -> Iterator[Tmux]:
    made = Tmux(80, 24)
    yield made
    made.close()


def command_of(collector: Collector) -> list[str]:
    command = [sys.executable, "-m", "collector", "run", "--url", collector.service.url]
    command += ["--output", str(collector.output), "--set", "reconnect.wait_s=5"]
    return [*command, "--set", "parts.max_age_s=0.5", "--set", "status.listen=127.0.0.1:0"]


def test_a_run_in_a_terminal(tmux, make_service, make_collector):
    """It fits each size, a stopped terminal stops nothing, a warning scrolls by above, it ends in words."""
    service = make_service(hits_per_second=300.0)
    collector = make_collector(service)
    tmux.start(
        command_of(collector),
        LIVESTREAM_TOKEN="simulator-token",
        LIVESTREAM_CLIENT_ID="simulator-key",
    )
    text = tmux.until(r"hits/s +\d{2,}[^\n]*[▁▂▃▄▅▆▇█]")
    assert re.search(r"Reading since \d\d:\d\d UTC, \d+ hits/s, nothing lost\.", text)
    tmux.until(r"page +http://127\.0\.0\.1:\d+/")
    assert "\x1b[" in tmux.text(colours=True)

    tmux.resize(50, 12)
    tmux.until(r"(?s)\A.*Reading since[^\n]*\n.*disk")
    tmux.resize(120, 40)
    tmux.until(r"(?s)processes [^\n]*the compiled kernel decodes|decoding is plain")

    tmux.press("C-s")
    rows = collector.rows()
    wait_until(lambda: collector.rows() > rows + 300, "rows while the terminal is stopped")
    tmux.press("C-q")

    service.cut("rst")
    text = tmux.until(r"Waiting \d+ s before reconnecting: the connection was lost")
    assert text.index("WARNING connection.lost") < text.index("Waiting ")
    tmux.until(r"gaps +1 in the last 24 h")
    tmux.press("C-c")
    text = tmux.until(r"EXIT 0")
    assert re.search(r"Stopped at \d\d:\d\d UTC with exit code 0: SIGINT\.\n[\d,]+ records = ", text)
    assert "hits/s" not in text.rpartition("Stopped at")[2]
    collector.assert_tidy()
