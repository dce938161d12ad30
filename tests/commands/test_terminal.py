"""The bottom of a terminal: drawn in place, as much as fits, and nobody waits for one that takes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator

import pytest
from rich.console import Console, Group
from rich.text import Text

from collector.commands import terminal
from collector.commands.terminal import (
    MOST_WAITING_LINES,
    Progress,
    Rate,
    Region,
    bar,
    progress_line,
    size_text,
    sparkline,
    styled,
)


class Screen:
    """Ours of a pseudo-terminal: what a process wrote, as bytes."""

    def __init__(self, columns: int, rows: int) -> None:
        self.ours, theirs = pty.openpty()
        self.theirs = os.fdopen(theirs, "w", encoding="utf-8")
        os.set_blocking(self.ours, False)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def written(self) -> str:
        text = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.ours, 1 << 16):
                text += chunk
        return text.decode().replace("\r\n", "\n")

    def close(self) -> None:
        self.theirs.close()
        os.close(self.ours)


@pytest.fixture
def screen(monkeypatch) -> Iterator[Screen]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    made = Screen(40, 10)
    yield made
    made.close()


def test_it_is_drawn_in_place(screen):
    """The second time over the first, and in the end it is gone."""
    region = Region(screen.theirs)
    region.draw("one\ntwo")
    assert screen.written() == "\rone\x1b[K\ntwo\x1b[K\n\x1b[J"
    region.draw("three")
    assert screen.written() == "\r\x1b[2Athree\x1b[K\n\x1b[J"
    region.close()
    assert screen.written() == "\r\x1b[1A\x1b[J"


def test_what_is_printed_goes_above_and_stays(screen):
    """The lines are drawn anew below it."""
    region = Region(screen.theirs)
    region.draw("below")
    screen.written()
    region.print("a warning")
    assert screen.written() == "\r\x1b[1A\x1b[Ja warning\nbelow\x1b[K\n\x1b[J"


def test_no_more_is_drawn_than_fits(screen):
    """Neither lines nor columns, for what scrolled away could not be taken back."""
    region = Region(screen.theirs)
    region.draw("\n".join("x" * 100 for _ in range(50)))
    lines = screen.written().split("\n")
    assert len(lines) - 1 == 8
    assert all(len(line.strip("\r").removesuffix("\x1b[K")) <= 39 for line in lines[:-1])


def test_a_terminal_that_was_made_wider_is_used(screen, monkeypatch):
    """Whatever COLUMNS said at the start."""
    monkeypatch.setenv("COLUMNS", "40")
    region = Region(screen.theirs)
    screen.resize(100, 10)
    region.draw("v" * 90)
    assert "v" * 90 in screen.written()


def test_a_terminal_that_was_made_narrower_has_wrapped_the_lines(screen):
    """As many rows are gone back as there are now."""
    region = Region(screen.theirs)
    region.draw("y" * 39)
    screen.resize(20, 10)
    screen.written()
    region.close()
    assert screen.written().startswith("\r\x1b[2A")


def test_a_terminal_that_takes_nothing_holds_nobody_up(screen):
    """Ctrl-S: lines wait, the oldest are left out and counted, and all comes when it goes on."""
    region = Region(screen.theirs)
    for number in range(10 * MOST_WAITING_LINES):
        region.print(f"{number} {'z' * 30}")
    region.draw("still there")
    text = ""
    for _ in range(100):
        text += screen.written()
        region.print("the last one")
    assert "lines are left out: the terminal took none)" in text
    assert "the last one\nstill there" in text


def test_another_users_terminal_is_left_as_it_was(screen, monkeypatch):
    """After su it cannot be opened anew: it blocks for others, and for nobody here."""
    monkeypatch.setattr(terminal.os, "ttyname", lambda _: "/no/such/terminal")
    region = Region(screen.theirs)
    for number in range(10 * MOST_WAITING_LINES):
        region.print(f"{number} {'z' * 30}")
    assert os.get_blocking(screen.theirs.fileno())
    text = ""
    for _ in range(100):
        text += screen.written()
        region.draw("there")
    assert "there" in text


def test_a_line_that_does_not_fit_is_cut(screen):
    """Not wrapped, whatever is drawn."""
    Region(screen.theirs).draw(Text("w" * 100, no_wrap=True, overflow="ellipsis"))
    assert screen.written().count("\n") == 1


def test_a_terminal_that_is_gone_ends_nothing(screen):
    """Whoever drew goes on."""
    region = Region(screen.theirs)
    region.draw("there")
    os.close(screen.ours)
    region.draw("gone")
    region.print("gone")
    region.close()
    screen.ours = os.open(os.devnull, os.O_RDONLY)


@pytest.mark.parametrize(("variable", "coloured"), [("TERM", True), ("NO_COLOR", False)])
def test_colours_where_they_are_wanted(screen, monkeypatch, variable, coloured):
    """NO_COLOR takes them away, and nothing else."""
    monkeypatch.setenv(variable, "xterm" if variable == "TERM" else "1")
    Region(screen.theirs).draw(Text("red", style="red"))
    text = screen.written()
    assert "red" in text
    assert ("\x1b[31m" in text) is coloured


def test_progress_says_how_much_how_fast_and_how_long(screen, monkeypatch):
    """Once there is a rate to speak of."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    screen.resize(100, 10)
    progress = Progress(Region(screen.theirs), "reading")
    progress.begun(100 << 20)
    for _ in range(10):
        now[0] += 1
        progress.advanced(5 << 20)
    last = screen.written().rpartition("\r")[2]
    for words in (" 50 %", "50.0 MiB of 100 MiB", "5.0 MiB/s", "10 s left", "reading"):
        assert words in last


def shown(line: Text, width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(Group(line))
    return captured.get().rstrip("\n")


@pytest.mark.parametrize("width", [20, 40, 200])
def test_progress_is_one_line(width):
    """However narrow it is; of an unknown whole it says what is done."""
    line = progress_line("a file with a name", 5 << 30, 9 << 30, 1 << 20, cells=8, ascii_only=True)
    assert "\n" not in shown(line, width)
    assert "left" not in progress_line("x", 5, 0, 1.0, cells=8, ascii_only=True).plain


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (150 * 1024, "150 KiB"),
        (3 << 30, "3.0 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_sizes_have_three_digits(size_bytes, text):
    """Or four, of what is beyond the units."""
    assert size_text(size_bytes) == text


def test_a_rate_is_that_of_its_window():
    """What was before it does not count."""
    rate = Rate(5.0)
    assert rate.per_s(0, 0) == 0
    assert rate.per_s(1, 100) == 100
    assert rate.per_s(10, 100) == 0


def test_bars_and_curves_keep_within_their_bounds():
    """Whatever the figures are."""
    assert bar(-1, 4, ascii_only=True) == "----"
    assert bar(0.5, 4, ascii_only=True) == "##--"
    assert bar(7, 4, ascii_only=False) == "████"
    assert sparkline([0, 1, 1000], ascii_only=False) == " ▁█"
    assert sparkline([0, 0], ascii_only=False) == "  "
    assert sparkline([], ascii_only=True) == ""
    assert sparkline([0, 1], ascii_only=True).isascii()


def test_styles_are_for_terminals():
    """Stdout is none here."""
    assert styled("text", 1, 31) == "text"
