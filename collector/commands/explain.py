"""``livestream-collector explain``: what a code means here, what causes it and what to do.

Runs in the command's own process. Invariant: the words are those of log, page and exit message; without a
terminal there is nothing in them but text and line ends.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import Final

from collector.commands.terminal import styled
from collector.errors import ConfigurationError, ExitCode
from collector.escaping import printable
from collector.explanations import EXPLANATIONS, Explanation, Kind, find, nearest

_WIDEST: Final = 80
_BOLD: Final = 1
_LONGEST_SHOWN: Final = 60
_HEADINGS: Final = {
    Kind.EXIT: "Exit codes",
    Kind.STATUS: "HTTP statuses (any other from 100 to 599 is explained too)",
    Kind.PROXY: "Answers of a proxy",
    Kind.OUTCOME: "How a connection ends",
    Kind.TOKEN: "Token failures",
    Kind.SHIPPING: "Failures of shipping",
    Kind.STATE: "States of the connection",
    Kind.NOT_READY: "Not ready",
    Kind.GAP: "Suspected gaps",
    Kind.REJECT: "Reasons of rejects",
    Kind.ALERT: "Alerts",
    Kind.EVENT: "Log events",
}


def run(code: str) -> int:
    """Explain the code, or list all. *Raises* ``ConfigurationError`` for one that is not known."""
    if not code:
        print("\n".join(_listed()))
        return ExitCode.DONE
    found = find(code)
    if not found:
        raise ConfigurationError(_unknown(code))
    print("\n\n".join("\n".join(_shown(explanation)) for explanation in found))
    return ExitCode.DONE


def _unknown(code: str) -> str:
    alike = nearest(code)
    shown = printable(code, _LONGEST_SHOWN)
    if code.strip().isdigit():
        like = "exit codes are 0 to 7, HTTP statuses 100 to 599"
    elif alike:
        like = f"nearest known: {', '.join(alike)}"
    else:
        like = "nothing known is like it"
    return f'no code "{shown}"; {like}. `livestream-collector explain` lists all'


def _shown(explanation: Explanation) -> Iterator[str]:
    yield styled(f"{explanation.code} ({explanation.kind.value})", _BOLD)
    yield from _wrapped(explanation.means)
    if explanation.causes:
        yield ""
        yield styled(
            "Likely causes, the likeliest first" if len(explanation.causes) > 1 else "Likely cause", _BOLD
        )
        for number, cause in enumerate(explanation.causes, 1):
            yield from _wrapped(cause, f"  {number}. ", "     ")
    yield ""
    yield styled("What to do", _BOLD)
    yield from _wrapped(explanation.do or "Nothing: nothing is wrong.")
    if explanation.see:
        yield ""
        yield from _wrapped(f"See also: {', '.join(explanation.see)}")


def _listed() -> Iterator[str]:
    yield from _wrapped("Say `livestream-collector explain CODE` with any of these:", "", "")
    for kind, heading in _HEADINGS.items():
        yield ""
        yield styled(heading, _BOLD)
        codes = [known.code for known in EXPLANATIONS if known.kind is kind]
        yield from _wrapped(", ".join(code.replace(" ", "\0") for code in codes))


def _wrapped(text: str, first: str = "  ", rest: str = "  ") -> Iterator[str]:
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    lines = textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield from (line.replace("\0", " ") for line in lines)
