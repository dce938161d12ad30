"""What a response says before, or instead of, a stream.

Pure; used by the reader. The invariant: everything here is foreign text, so it is bounded in what
is taken and escaped in what is handed on.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from collector.escaping import printable
from collector.reader.inflate import MAGIC, Inflater

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of status lines, headers and trailers of one response; servers rarely send 8 KiB."""

MAX_BODY_BYTES: Final = 64 * 1024
"""Of a body that is no stream, as sent and inflated; only its description is used."""

MAX_WORDS: Final = 300
"""Characters of foreign text in one message."""

_DESCRIPTIONS: Final = ("error_description", "message", "error", "detail", "title")
"""Where JSON bodies keep their words, the documented name first."""

_STATUS_LINE: Final = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})(?: .*)?\Z", re.DOTALL)


def escaped(text: str | bytes) -> str:
    """Foreign text in one printable line of at most ``MAX_WORDS`` characters."""
    if isinstance(text, bytes):
        text = text[: 4 * MAX_WORDS].decode("utf-8", "backslashreplace")
    return printable(text[: MAX_WORDS + 1], MAX_WORDS)


class Head:
    """Status and headers of the response that counts: interim ones (1xx) are passed over."""

    def __init__(self) -> None:
        self.status = 0
        """0: no status line came yet."""
        self.complete = False
        self._headers: dict[str, str] = {}
        self._bytes = 0

    def add(self, line: bytes) -> bool:
        """Take one line as it came; false once there were more than ``MAX_HEAD_BYTES`` of them."""
        self._bytes += len(line)
        if self._bytes > MAX_HEAD_BYTES:
            return False
        # curl hands over a line that the end of the connection cut; it says nothing.
        if not self.complete and line.endswith(b"\n"):
            self._parse(line.rstrip(b"\r\n"))
        return True

    def get(self, name: str) -> str:
        """The first header of this name; empty: there is none."""
        return self._headers.get(name, "")

    def _parse(self, line: bytes) -> None:
        if not line:
            self.complete = self.status >= 200
        elif found := _STATUS_LINE.match(line):
            self.status = int(found[1])
            self._headers.clear()
        else:
            name, _, value = line.decode("latin-1").partition(":")
            self._headers.setdefault(name.strip().lower(), value.strip())

    @property
    def final_status(self) -> int:
        """The status, if it is no interim one."""
        return self.status if self.status >= 200 else 0


def error_description(body: bytes) -> str:
    """The words of a JSON body, gzip or not, escaped; empty: there are none."""
    try:
        content = msgspec.json.decode(_plain(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""
    return escaped(_description(content))


def _description(content: Any) -> str:
    if not isinstance(content, dict):
        return ""
    for name in _DESCRIPTIONS:
        value = content.get(name)
        if isinstance(value, dict):
            value = _description(value)
        if isinstance(value, str) and value:
            return value
    return ""


def _plain(body: bytes) -> bytes:
    if not body.startswith(MAGIC):
        return body
    inflater = Inflater()
    inflater.push(body)
    text = b""
    while len(text) < MAX_BODY_BYTES and (piece := inflater.pull()):
        text += piece
    return text
