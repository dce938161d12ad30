"""What all commands show on a terminal is drawn here: a few lines at its bottom, drawn again in place.

Runs in the process a person started, on its one thread. The invariants: what is printed goes above the
lines and stays; the cursor is never hidden and always stands on an empty line below them, so nothing is to be
restored whatever ends the process; and a terminal that takes nothing (stopped by Ctrl-S, or gone) holds
nobody up.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TextIO

from collector.core.sentence import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_S: Final = 0.5
RATE_WINDOW_S: Final = 5.0
MOST_WAITING_LINES: Final = 1000
"""Printed while the terminal takes nothing; older ones are left out, and counted."""

_USUAL_SIZE: Final = (80, 24)
"""Where a terminal does not know its own."""

_NARROWEST: Final = 20
_DUMB: Final = frozenset({"", "dumb", "unknown"})
_STYLING: Final = re.compile(r"\x1b\[[0-9;]*m")
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = " ._-=+*#@"
_UNITS: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def is_terminal() -> bool:
    """Whether stderr is one that can be drawn on."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in _DUMB


def styled(text: str, *codes: int) -> str:
    """For stdout: in these styles where it is a terminal and nobody asked for none. 0 is no style."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in _DUMB or not sys.stdout.isatty()
    wanted = ";".join(str(code) for code in codes if code)
    return text if plain or not wanted else f"\x1b[{wanted}m{text}\x1b[0m"


class Region:
    """The last lines of a terminal. ``draw`` them, ``print`` above them, ``close`` in the end."""

    def __init__(self, file: TextIO | None = None) -> None:
        from rich.console import Console, Group  # noqa: PLC0415 - takes 0.1 s

        self._file = file or sys.stderr
        self._console = Console(file=self._file, highlight=False)
        self._group = Group
        self._cells: list[int] = []
        """Of each line that is on the screen."""
        self._lines: list[str] = []
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING_LINES)
        self._left_out = 0
        self._fd, self._shared = _opened_anew(self._file)
        self._unwritten = b""
        """The end of what was drawn last, which the terminal had no room for."""

    @property
    def ascii(self) -> bool:
        """Block characters cannot be shown."""
        return self._console.options.ascii_only

    def size(self) -> tuple[int, int]:
        """Columns and rows, as of now."""
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(self._file.fileno())
            if columns and rows:
                return max(columns, _NARROWEST), rows
        return _USUAL_SIZE

    def draw(self, what: RenderableType) -> None:
        """In place of what was drawn before; what finds no room at the bottom is left out."""
        columns, rows = self.size()
        self._console.size = (columns, rows)  # by itself it would believe COLUMNS, which does not change
        with self._console.capture() as captured:
            # In a group: printed alone, a text forgets that it is not to be wrapped.
            self._console.print(self._group(what), width=columns - 1, soft_wrap=False, overflow="ellipsis")
        self._lines = captured.get().splitlines()[: max(1, rows - 2)]
        self._write()

    def print(self, line: str) -> None:
        """Above, for good."""
        self._left_out += len(self._waiting) == MOST_WAITING_LINES
        self._waiting.append(line)
        self._write()

    def close(self) -> None:
        """What was drawn is taken away, what was printed stays."""
        self._lines = []
        self._write()
        os.close(self._fd)

    def _write(self) -> None:
        if not self._flushed():
            return
        text = self._to_the_first_line()
        if self._left_out:
            self._waiting.appendleft(f"({self._left_out:,} lines are left out: the terminal took none)")
        if self._waiting:
            text += "\x1b[J" + "".join(f"{line}\n" for line in self._waiting)
        text += "".join(f"{line}\x1b[K\n" for line in self._lines) + "\x1b[J"
        self._unwritten = text.encode(self._file.encoding or "utf-8", "replace")
        self._flushed()
        self._waiting.clear()
        self._left_out = 0
        self._cells = [_cells(line) for line in self._lines]

    def _flushed(self) -> bool:
        """Whether all of it is out. A terminal that is gone takes anything."""
        try:
            os.set_blocking(self._fd, False)
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._fd, self._unwritten) :]
        except BlockingIOError:
            return False
        except OSError:
            self._unwritten = b""
        finally:
            if self._shared:
                os.set_blocking(self._fd, True)
        return True

    def _to_the_first_line(self) -> str:
        """A terminal that was made narrower has wrapped the lines."""
        columns, _ = self.size()
        rows = sum(max(1, -(-cells // columns)) for cells in self._cells)
        return f"\r\x1b[{rows}A" if rows else "\r"


def _opened_anew(file: TextIO) -> tuple[int, bool]:
    """The same terminal, and whether others share how it is opened: for them it is to block."""
    file.flush()
    try:
        return os.open(os.ttyname(file.fileno()), os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), False
    except OSError:  # another user's, as after su, or of another mount namespace
        return os.dup(file.fileno()), True


def _cells(line: str) -> int:
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(_STYLING.sub("", line))


# ---------------------------------------------------------------- figures


@dataclass(slots=True)
class Rate:
    """A count's growth per second over the last few seconds."""

    window_s: float = RATE_WINDOW_S
    samples: deque[tuple[float, int]] = field(default_factory=deque)

    def per_s(self, now_s: float, count: int) -> float:
        """As of now."""
        self.samples.append((now_s, count))
        while now_s - self.samples[0][0] > self.window_s:
            self.samples.popleft()
        began_s, before = self.samples[0]
        return (count - before) / (now_s - began_s) if now_s > began_s else 0.0


def bar(part: float, cells: int, *, ascii_only: bool) -> str:
    """How much of a whole: 0 to 1."""
    full, empty = ("#", "-") if ascii_only else ("█", "░")
    filled = round(max(0.0, min(1.0, part)) * cells)
    return full * filled + empty * (cells - filled)


def sparkline(values: list[float], *, ascii_only: bool) -> str:
    """One character each, the highest of them at full height; only a nothing is empty."""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    top = max(values, default=0.0)
    steps = len(blocks) - 1
    return "".join(blocks[max(1, round(value / top * steps)) if value > 0 else 0] for value in values)


def size_text(size_bytes: float) -> str:
    """Three digits and a unit."""
    for unit, name in _UNITS:
        if size_bytes >= unit:
            number = size_bytes / unit
            return f"{number:.0f} {name}" if number >= 100 else f"{number:.1f} {name}"
    return f"{size_bytes:.0f} B"


# ---------------------------------------------------------------- long work


class Progress:
    """One line of how far long work is: how much of it, how fast, how long yet."""

    _BAR_CELLS: Final = 24
    _WINDOW_S: Final = 15.0
    _LEAST_S: Final = 2.0
    """Before it a rate says nothing about the time left."""

    def __init__(self, region: Region, name: str) -> None:
        self._region = region
        self._name = name
        self._began_s = time.monotonic()
        self._drawn_s = 0.0
        self._rate = Rate(self._WINDOW_S)
        self._done = self._total = 0

    def begun(self, total_bytes: int) -> None:
        """As far as it is known by now."""
        self._total = total_bytes
        self._draw()

    def advanced(self, count_bytes: int) -> None:
        """As often as it likes."""
        self.at(self._done + count_bytes, self._total)

    def at(self, done_bytes: int, total_bytes: int, name: str | None = None) -> None:
        """``total_bytes`` 0: it is not known."""
        self._done, self._total = done_bytes, total_bytes
        self._name = self._name if name is None else name
        if time.monotonic() - self._drawn_s >= REFRESH_S / 2:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        rate = self._rate.per_s(self._drawn_s, self._done)
        columns, _ = self._region.size()
        elapsed_s = self._drawn_s - self._began_s
        self._region.draw(
            progress_line(
                self._name,
                self._done,
                self._total,
                rate if elapsed_s >= self._LEAST_S else 0.0,
                cells=max(4, min(self._BAR_CELLS, columns // 5)),
                ascii_only=self._region.ascii,
            )
        )


def progress_line(
    name: str, done_bytes: int, total_bytes: int, bytes_per_s: float, *, cells: int, ascii_only: bool
) -> RenderableType:
    """``name  ████░░░░  52 %  1.2 GiB of 2.3 GiB  118 MiB/s  9 s left``, on one line."""
    from rich.text import Text  # noqa: PLC0415

    line = Text(no_wrap=True, overflow="ellipsis")
    if total_bytes:
        part = min(1.0, done_bytes / total_bytes)
        line.append(bar(part, cells, ascii_only=ascii_only), style="green")
        line.append(f" {100 * part:3.0f} %  {size_text(done_bytes)} of {size_text(total_bytes)}")
    else:
        line.append(size_text(done_bytes))
    if bytes_per_s > 0:
        line.append(f"  {size_text(bytes_per_s)}/s")
        if total_bytes > done_bytes:
            line.append(f"  {duration((total_bytes - done_bytes) / bytes_per_s)} left", style="bold")
    line.append(f"  {name}", style="dim")
    return line
