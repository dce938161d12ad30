"""Makes foreign text fit to be shown: nothing in it can steer a terminal, break a line or give a secret away.

Imported by every process that writes log lines, messages or reasons.
"""

from __future__ import annotations

import traceback
from collections import deque
from typing import Final

MASK: Final = "***"
_SHORTEST_SECRET: Final = 6
"""Characters. Masking shorter ones would garble ordinary text."""

_PASSING_KEPT: Final = 32
"""Newest tokens that are masked: a connection may still hold the one before, nobody an older one."""

_secrets: set[str] = set()
_passing: deque[str] = deque(maxlen=_PASSING_KEPT)


def printable(text: str, limit: int | None = None) -> str:
    """``text`` with control characters, escapes, line ends and lone surrogates written out.

    *Units*: ``limit`` is in characters of the result; what is cut is marked by "...".
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if limit is None or len(text) <= limit else text[: max(0, limit - 3)] + "..."


def defect_in_words(error: BaseException) -> str:
    """Its traceback, fit to be shown: messages of libraries hold URLs, and what a service said."""
    lines = "".join(traceback.format_exception(error)).split("\n")
    return "\n".join(printable(without_secrets(line)) for line in lines)


def conceal(secret: str, *, passing: bool = False) -> None:
    """From now on ``without_secrets`` masks this text, wherever the service or a library echoes it.

    ``passing``: it is one of a row that has no end, each in place of the one before.
    """
    if len(secret) >= _SHORTEST_SECRET:
        (_passing.append if passing else _secrets.add)(secret)


def without_secrets(text: str) -> str:
    """``text`` with every known secret masked."""
    for secret in (*_secrets, *_passing):
        text = text.replace(secret, MASK)
    return text
