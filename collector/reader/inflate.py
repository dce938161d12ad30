"""Inflates an endless series of gzip members, piece by piece.

Runs in the reader. The invariant: a piece is at most ``PIECE_BYTES`` whatever the ratio, and
nothing is inflated before it is asked for, so memory stays bounded and the taker can pause
between pieces. Bad gzip is data (``fault``), never an exception: the stream is then over.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from isal import igzip_lib

PIECE_BYTES: Final = 256 * 1024
"""What one ``pull`` gives at most."""

MAGIC: Final = b"\x1f\x8b\x08"
"""How every gzip member begins: its id and the only method there is. *Source*: RFC 1952, 2.3."""

_SLICE_BYTES: Final = 64 * 1024
"""Input handed over at once: each member in it costs one copy of the rest."""

_MAX_HEADER_BYTES: Final = 64 * 1024
"""A member's header: 10 bytes, more only with a file name or comment, which no stream needs."""

_FIXED_HEADER_BYTES: Final = 10
_FLAG_HEADER_CRC: Final = 0x02
_FLAG_EXTRA: Final = 0x04
_FLAGS_TEXT: Final = (0x08, 0x10)
"""File name, then comment: each ends in a NUL."""


def header_bytes(data: bytes) -> int:
    """How long the member header is that ``data`` begins with; 0: it is not whole yet.

    *Source*: RFC 1952, 2.3.
    """
    if len(data) < _FIXED_HEADER_BYTES:
        return 0
    flags, end = data[3], _FIXED_HEADER_BYTES
    if flags & _FLAG_EXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for flag in _FLAGS_TEXT:
        if flags & flag:
            end = data.find(b"\0", end) + 1
            if not end:
                return 0
    end += 2 * bool(flags & _FLAG_HEADER_CRC)
    return end if end <= len(data) else 0


class Inflater:
    """Raw bytes in by ``push``, text out by ``pull``."""

    def __init__(self) -> None:
        self.fault = ""
        """Why the bytes are no gzip, in words; empty while they are."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._header = b""
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._members = 0
        self._more = False

    @property
    def pending(self) -> bool:
        """Whether ``pull`` may still give something without another ``push``."""
        return not self.fault and (self._more or bool(self._waiting))

    @property
    def waiting_bytes(self) -> int:
        """Raw bytes not yet inflated."""
        return self._waiting_bytes

    @property
    def at_border(self) -> bool:
        """Whether the bytes so far are whole members (or none)."""
        return not self.fault and not self.pending and self._member is None and not self._header

    def push(self, raw: bytes) -> None:
        self._waiting.extend(raw[begin : begin + _SLICE_BYTES] for begin in range(0, len(raw), _SLICE_BYTES))
        self._waiting_bytes += len(raw)

    def pull(self) -> bytes:
        """The next piece; empty: it takes another ``push``, or there is a ``fault``."""
        while self.pending:
            try:
                piece = self._step()
            except igzip_lib.error as error:  # type: ignore[misc]  # its stub declares a value
                self._fail(f"the gzip stream is damaged in its member {self._members}: {error}")
                return b""
            if piece:
                return piece
        return b""

    def _step(self) -> bytes:
        data = b""
        if not self._more:
            data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
        if self._member is None:
            data = self._begin_member(self._header + data)
            if self._member is None:
                return b""
        piece: bytes = self._member.decompress(data, PIECE_BYTES)
        self._more = bool(piece)
        if self._member.eof:
            self._end_member(self._member.unused_data)
        return piece

    def _begin_member(self, data: bytes) -> bytes:
        """Keep a header until it is whole: isal misreads some that come in parts."""
        self._header = data
        if not MAGIC.startswith(data[: len(MAGIC)]):
            self._fail(self._no_gzip(data))
        elif header_bytes(data):
            self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self._members += 1
            self._header = b""
        elif len(data) > _MAX_HEADER_BYTES:
            self._fail(f"a gzip header is longer than {_MAX_HEADER_BYTES} bytes")
        return data

    def _end_member(self, rest: bytes) -> None:
        self._member = None
        self._more = False
        if rest:
            self._waiting.appendleft(rest)
            self._waiting_bytes += len(rest)

    def _no_gzip(self, data: bytes) -> str:
        begins = data[: len(MAGIC)].hex(" ")
        if self._members:
            return f"after gzip member {self._members} come bytes that begin no other: {begins}"
        return f"the body is not gzip: it begins with {begins}"

    def _fail(self, reason: str) -> None:
        self.fault = reason
        self._waiting.clear()
        self._waiting_bytes = 0
        self._header = b""
        self._member = None
