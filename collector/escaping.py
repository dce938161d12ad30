"""Makes foreign text fit to be shown: nothing in it can steer a terminal, break a line or give a secret away.

Imported by every process that writes log lines, messages or reasons.
"""

from __future__ import annotations

import traceback
from typing import Final

MASK: Final = "***"
_SHORTEST_SECRET: Final = 6
"""Characters. Masking shorter ones would garble ordinary text."""

_secrets: set[str] = set()


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


def conceal(secret: str) -> None:
    """From now on ``without_secrets`` masks this text, wherever the service or a library echoes it."""
    if len(secret) >= _SHORTEST_SECRET:
        _secrets.add(secret)


def without_secrets(text: str) -> str:
    """``text`` with every known secret masked."""
    for secret in _secrets:
        text = text.replace(secret, MASK)
    return text
