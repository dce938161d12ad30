"""The prompt of ``query`` on a terminal of its own: lines, keys, commands, and a terminal's results."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest
from harness import PATIENCE_S, ROOT
from query_rig import IDS, SENT

PROMPT = "livestream> "
GOING_ON = "        ...> "
CTRL_C, CTRL_D = "\x03", "\x04"
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])|\x07")


class Terminal:
    """A ``query`` process on a pseudo-terminal, and what it has shown."""

    def __init__(self, output, state, *arguments: str, columns: int = 100, **environment: str) -> None:
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        command = [sys.executable, "-m", "collector", "query", "--output", str(output), *arguments]
        plain = {"TERM": "xterm", "XDG_STATE_HOME": str(state), "INPUTRC": os.devnull}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *command],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | plain | environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.raw = ""
        self._read = 0

    def expect(self, text: str) -> str:
        """What is shown up to and with ``text``, without styling. *Blocks* until it is there."""
        deadline = time.monotonic() + PATIENCE_S
        while (at := self.shown.find(text, self._read)) < 0:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.shown[self._read :]!r}"
            self._take(1.0)
        found = self.shown[self._read : at + len(text)]
        self._read = at + len(text)
        return found

    @property
    def shown(self) -> str:
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def ask(self, sql: str) -> str:
        """At a prompt; gives the answer up to the next one."""
        self.type(f"{sql}\n")
        self.expect(sql.rpartition("\n")[2])
        return self.expect(PROMPT).removesuffix(PROMPT)

    def end(self) -> int:
        while self._take(PATIENCE_S):
            pass
        return self.process.wait(PATIENCE_S)

    def _take(self, patience_s: float) -> bool:
        if not select.select([self._fd], [], [], patience_s)[0]:
            return False
        try:
            chunk = os.read(self._fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += chunk.decode(errors="replace")
        return bool(chunk)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)


CONTROLLED = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the session's own, so that Ctrl-C on it is a signal."""


@pytest.fixture
def open_terminal(collected, tmp_path):
    terminals = []

    def opened(*arguments: str, **more) -> Terminal:
        terminals.append(Terminal(more.pop("output", collected), tmp_path, *arguments, **more))
        return terminals[-1]

    yield opened
    for terminal in terminals:
        terminal.close()


def test_the_first_five_minutes(open_terminal, tmp_path):
    """Greeting, commands, a query over several lines, a mistake, one into a file, history, the end."""
    terminal = open_terminal()
    assert "hits, rejects, connections, hours" in terminal.expect(PROMPT)
    assert "one row per hit" in terminal.ask(".tables")
    assert "Ctrl-C ends a query" in terminal.ask(".help")
    columns = terminal.ask(".schema hits")
    assert re.search(r"hitIdHigh +DECIMAL\(20,0\)", columns)
    assert re.search(r"hour +VARCHAR", columns)
    assert "CREATE OR REPLACE VIEW hours" in terminal.ask(".schema")

    terminal.type("SELECT count(*) AS n\n")
    terminal.expect(GOING_ON)
    terminal.type("FROM hits;\n")
    answer = terminal.expect(PROMPT)
    assert f" {SENT + len(IDS)}\n" in answer
    assert re.search(r"1 row \(\d+\.\d\d s\)", answer)

    assert "syntax error" in terminal.ask("SELEC 1;")
    assert "query only reads" in terminal.ask("COPY hits TO 'x.csv';")
    assert ".help lists them" in terminal.ask(".nonsense")
    terminal.ask(f".once {tmp_path}/n.json")
    assert "written to" in terminal.ask("SELECT 1 AS one;")
    assert json.loads((tmp_path / "n.json").read_text()) == [{"one": 1}]
    assert "only the collector writes" not in terminal.ask("CREATE TABLE t AS SELECT 2 AS two;")
    assert "2" in terminal.ask("FROM t;")

    terminal.type(CTRL_D)
    assert terminal.end() == 0
    history = tmp_path / "livestream-collector" / "query_history"
    assert "SELECT count(*) AS n" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_keys(open_terminal):
    """Ctrl-C drops the line or ends the query and never the prompt; TAB completes; .quit leaves."""
    terminal = open_terminal()
    terminal.expect(PROMPT)
    terminal.type(f"half a line{CTRL_C}")
    terminal.expect(PROMPT)
    terminal.type("SELECT\n")
    terminal.expect(GOING_ON)
    terminal.type(CTRL_C)
    terminal.expect(PROMPT)
    terminal.type("SELECT count(*) FROM range(1000000000000) r WHERE hash(r.range) = 1;\n")
    terminal.expect("= 1;\n")
    terminal.type(CTRL_C)
    assert "interrupted" in terminal.expect(PROMPT)
    assert "\n42" in terminal.ask("SELECT 42;").replace(" ", "")
    terminal.type("SELECT suspected_\t")
    terminal.expect("suspected_gap")
    terminal.type(" FROM hours LIMIT 0;\n")
    assert "0 rows" in terminal.expect(PROMPT)
    terminal.type(".quit\n")
    assert terminal.end() == 0


def test_ctrl_c_ends_a_single_query(open_terminal):
    """130, as a shell expects of it, and no traceback."""
    terminal = open_terminal(
        "SELECT 'begun'; SELECT count(*) FROM range(1000000000000) r WHERE hash(r.range) = 1"
    )
    terminal.expect("1 row")
    terminal.type(CTRL_C)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown


def test_what_is_too_wide_is_shown_value_by_value(open_terminal):
    """All columns of a hit on a narrow terminal, each line cut at its edge."""
    terminal = open_terminal("SELECT * FROM hits WHERE stream = 'demo-stream' LIMIT 1", columns=60)
    assert terminal.end() == 0
    lines = terminal.shown.splitlines()
    assert any(re.match(r"hitIdHigh +\d+", line) for line in lines)
    assert any(re.match(r"usesPersistentCookie +", line) for line in lines)
    assert max(map(len, lines)) <= 60
    assert "…" in terminal.shown


def test_only_the_widest_columns_of_a_table_are_cut(open_terminal):
    """Narrow ones stay whole beside a long text, and many narrow ones are still a table."""
    text = "SELECT 'short' AS a, 'also short' AS b, repeat('long ', 100) AS c, 'short again' AS d"
    terminal = open_terminal(text, columns=80)
    assert terminal.end() == 0
    assert all(word in terminal.shown for word in ("short ", "also short ", "long long", "…", "short again"))
    assert max(map(len, terminal.shown.splitlines())) <= 80
    terminal = open_terminal("FROM hours", columns=110)
    assert terminal.end() == 0
    assert re.search(
        "stream +date +hour +hits +rejects +resends +gaps +gap_s +suspected_gap +complete", terminal.shown
    )


@pytest.mark.parametrize("form", ["table", "csv", "json", "ndjson"])
def test_no_form_lets_text_steer_a_terminal(open_terminal, form):
    """What would be exact in a pipe is written out here."""
    sql = "SELECT pageName, evars FROM hits WHERE stream = 'files'"
    terminal = open_terminal("--format", form, sql, NO_COLOR="1", TERM="dumb")
    assert terminal.end() == 0
    assert "owned" in terminal.raw
    assert set(filter(lambda char: not char.isprintable(), terminal.raw)) <= {"\r", "\n", "\t"}


def test_no_color_means_none(open_terminal):
    """As https://no-color.org has it."""
    terminal = open_terminal("FROM hours", NO_COLOR="1")
    assert terminal.end() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", terminal.raw)
