"""The status page as files: what a browser is given, and under which rules.

Read once by the coordinator, which serves it; it needs no build step and asks no other host for anything. The
page gets what it shows from ``/events``, each event one ``Status`` as JSON. Invariant: whatever a record,
the service or a file name says is text on the page, never markup: the rules in ``HEADERS`` refuse inline code
and every way to make markup out of a string.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Final, NamedTuple

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


def files() -> dict[str, PageFile]:
    """Every file by the path it is served at; text is UTF-8."""
    folder = resources.files(__name__)
    return {
        "/" if name == _START else f"/{name}": PageFile(
            _TYPES[name.rpartition(".")[2]], folder.joinpath(name).read_bytes()
        )
        for name in (_START, *_NAMES)
    }
