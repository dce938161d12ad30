"""What a person sees in the live view: the page's states, on a terminal of any size."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from rich.console import Console
from states import HOSTILE, STATUSES

from collector.commands.view import condensed, screen
from collector.core.sentence import sentence
from collector.core.status import Status

SIZES = [(80, 24), (200, 60), (50, 12), (20, 4)]


def seen(status: Status, columns: int = 80, rows: int = 24, *, ascii_only: bool = False) -> str:
    """As ``Region`` draws it, without colours."""
    told = msgspec.structs.replace(status, sentence=sentence(status))
    console = Console(file=io.StringIO(), width=columns, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(screen(told, columns, rows, ascii_only=ascii_only), width=columns - 1)
    return captured.get()


@pytest.mark.parametrize("name", STATUSES)
def test_every_state_fits_the_usual_terminal(name):
    """The sentence on top, and all of it within 80 by 24."""
    lines = seen(STATUSES[name]).splitlines()
    words = " ".join(sentence(STATUSES[name]).split())
    assert words.startswith(" ".join(lines[0].split()))
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 79


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_no_line_is_longer_than_the_terminal(columns, rows):
    """However small it is."""
    for status in STATUSES.values():
        assert max(map(len, seen(status, columns, rows).splitlines())) < columns


def test_it_shows_what_an_operator_needs():
    """Rates with their curves, counts, room, processes, gaps, the newest reject, the page's address."""
    text = seen(
        msgspec.structs.replace(
            STATUSES["rejects-alarm"], page="http://127.0.0.1:9464/", timeline=STATUSES["gap"].timeline
        ),
        120,
        40,
    )
    for words in (
        r"hits/s +1,240 +[▁▂▃▄▅▆▇█ ]{40,} +last 1 h",
        r"lag +12 s +[▁▂▃▄▅▆▇█ ]{40,}",
        r"36,231,923 hits +9,157 resends +92,261 rejects",
        r"journal +█+░+ +4 %  of 8\.0 GiB",
        r"disk +█+░+ +18 %  412 GiB free",
        r"decoder 2 idle \(restarted 1x\); decoding is plain",
        r"hits are likely missing",
        r"reject +\d\d:\d\d:\d\d UTC, not a JSON object",
        r"page +http://127.0.0.1:9464/",
    ):
        assert re.search(words, text), words


def test_foreign_text_steers_no_terminal():
    """Of records and of the service: no escape, no line of its own, no markup."""
    hostile = "\x1b[2J\r\n[bold]x[/bold]" + HOSTILE[1]
    status = STATUSES["rejects-alarm"]
    reject = msgspec.structs.replace(status.rejects[0], text=hostile, reason=hostile)
    at = msgspec.structs.replace(status.connection, host=hostile, cause=hostile)
    for state in (status, STATUSES["waiting-409"]):
        told = msgspec.structs.replace(
            state,
            rejects=(reject,),
            stream=hostile,
            connection=msgspec.structs.replace(at, state=state.connection.state),
        )
        text = seen(told, 200)
        assert "\x1b" not in text
        assert "\r" not in text
        assert len(text.splitlines()) < 24
        assert "[bold]" in text


def test_a_terminal_without_block_characters():
    """ASCII does."""
    assert seen(STATUSES["reading"], ascii_only=True).replace("…", "").isascii()


@pytest.mark.parametrize("cells", [0, 1, 7, 40, 400])
def test_a_curve_hides_no_peak(cells):
    """Each character is the highest of its stretch, the newest last."""
    values = [float(number % 50) for number in range(361)]
    found = condensed(values, cells)
    assert len(found) <= cells
    if cells:
        assert max(found) == 49
        assert found[-1] >= values[-1]
