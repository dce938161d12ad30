"""Lines of a saved file as the simulator's source of hits.

The simulator's process runs it. Invariant: lines are streamed as they stand in the file, empty ones left out.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import msgspec
import numpy as np

from collector.errors import ConfigurationError
from collector.simulator.hits import I64


class _Visitor(msgspec.Struct):
    visIdHigh: int = 0  # noqa: N815 - the service's name
    visIdLow: int = 0  # noqa: N815 - the service's name


_visitor = msgspec.json.Decoder(_Visitor)


class SavedLines:
    """A ``.jsonl`` or ``.jsonl.gz`` file, held in memory. *Raises* ``ConfigurationError``."""

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigurationError(f"file of hits {path} cannot be read: {error}") from error
        self._lines = [line for line in (raw.removesuffix(b"\r") for raw in text.split(b"\n")) if line]

    @property
    def total(self) -> int | None:
        """How many lines there are."""
        return len(self._lines)

    def lines(self, first: int, count: int) -> list[bytes]:
        """Lines ``[first, first + count)``."""
        return self._lines[first : first + count]

    def lines_of_share(self, first: int, count: int, share: int, shares: int) -> list[bytes]:
        """Those whose visitor belongs to connection ``share`` of ``shares``."""
        chosen = self.shares(first, count, shares) == share
        return [line for line, mine in zip(self.lines(first, count), chosen, strict=True) if mine]

    def shares(self, first: int, count: int, shares: int) -> I64:
        """Which connection of ``shares`` each line goes to. *Shape* int64[n]."""
        return np.array([_key(line) % shares for line in self.lines(first, count)], dtype=np.int64)


def _key(line: bytes) -> int:
    try:
        visitor = _visitor.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return zlib.crc32(line)
    return zlib.crc32(b"%d:%d" % (visitor.visIdHigh, visitor.visIdLow))
