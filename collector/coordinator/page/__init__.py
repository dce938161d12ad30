"""The status page as files: what a browser is given, and under which rules.

Read once by the coordinator, which serves it; it needs no build step and asks no other host for anything.
What it shows comes from ``/events``, each event one ``Status`` as JSON; what to do, from the table of
``explain``. Invariant: whatever a record, the service or a file name says is text on the page, never
markup: the rules in ``HEADERS`` refuse inline code and every way to make markup out of a string.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Final, NamedTuple

import msgspec

from collector.explanations import EXPLANATIONS, Kind

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Sent with each of the files."""


class PageFile(NamedTuple):
    content_type: str
    body: bytes


_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "json": "application/json",
}

_START: Final = "index.html"
_NAMES: Final = (
    "page.css",
    "page.js",
    "headline.js",
    "figures.js",
    "charts.js",
    "strip.js",
    "words.js",
    "dom.js",
    "icon.svg",
)


_ADVISED: Final = frozenset(
    {Kind.STATUS, Kind.PROXY, Kind.OUTCOME, Kind.TOKEN, Kind.NOT_READY, Kind.GAP, Kind.ALERT}
)
"""What a status can be about."""


def files() -> dict[str, PageFile]:
    """Every file by the path it is served at; text is UTF-8."""
    folder = resources.files(__name__)
    found = {
        "/" if name == _START else f"/{name}": PageFile(
            _TYPES[name.rpartition(".")[2]], folder.joinpath(name).read_bytes()
        )
        for name in (_START, *_NAMES)
    }
    found["/advice.json"] = PageFile(_TYPES["json"], _advice())
    return found


def _advice() -> bytes:
    """Likely causes and what to do, by code."""
    advised = (each for each in reversed(EXPLANATIONS) if each.kind in _ADVISED)
    return msgspec.json.encode({each.code: {"causes": each.causes, "do": each.do} for each in advised})
