"""A saved file as the source of a connection.

Runs in the reader's loop. The invariant: a file gives the same records however it is compressed,
and the records to skip are exactly the first ones.
"""

from __future__ import annotations

import os
from typing import Final

from collector.core.messages import Outcome
from collector.reader.attempt import Stream, Verdict
from collector.reader.inflate import MAGIC, Inflater
from collector.reader.response import escaped

_READ_BYTES: Final = 256 * 1024


class PlainText:
    """Text that needs no inflating, with the face of an ``Inflater``."""

    def __init__(self) -> None:
        self.fault = ""
        self._waiting = b""

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        return len(self._waiting)

    @property
    def at_border(self) -> bool:
        """Plain text may end anywhere."""
        return not self._waiting

    def push(self, raw: bytes) -> None:
        self._waiting += raw

    def pull(self) -> bytes:
        piece, self._waiting = self._waiting, b""
        return piece


class FileSource:
    """A ``.jsonl`` or ``.jsonl.gz`` file, told apart by content. Same face as an ``Attempt``."""

    def __init__(self, path: str) -> None:
        self.verdict: Verdict | None = None
        self.stream: Stream | None = None
        self.bytes_received = 0
        self._is_gzip = False
        self._paused = False
        self._data = b""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._is_gzip = os.pread(self._fd, len(MAGIC), 0) == MAGIC
        except OSError as error:
            self._fail(error)

    def text(self) -> Inflater | PlainText:
        """What turns its bytes into text."""
        return Inflater() if self._is_gzip else PlainText()

    @property
    def deadline(self) -> float | None:
        """A file always has more, until it has ended."""
        return None if self._paused or self.verdict else 0.0

    def tick(self, _now: float) -> None:
        """*Blocks* for one read."""
        if self._paused or self.verdict:
            return
        try:
            self._data = os.read(self._fd, _READ_BYTES)
        except OSError as error:
            self._fail(error)
            return
        self.bytes_received += len(self._data)
        if not self._data:
            self.close(Verdict(Outcome.ENDED, "the file was read to its end"))

    def take(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def close(self, verdict: Verdict) -> None:
        if self.verdict is None:
            self.verdict = verdict
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _fail(self, error: OSError) -> None:
        self.close(Verdict(Outcome.LOST, escaped(f"the file cannot be read: {error.strerror}")))
