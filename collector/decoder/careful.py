"""A block in pieces: what to do once decoding it as a whole has failed.

Run by the decoder processes. Invariant: the rows and rejects are those of the usual way, but for the
lines that decoding fails on: each of these is a reject, kept with its raw bytes.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

import numpy as np
from msgspec.structs import replace

from collector.core.messages import Block, BlockFlag
from collector.decoder.decode import BlockDecoder, Decoded, nothing
from collector.decoder.plain import line_ends
from collector.decoder.rows import POISON, Reject
from collector.decoder.strict import Line
from collector.errors import CollectorError

UNBLAMED: Final = (CollectorError, MemoryError, OSError, ImportError)
"""Exceptions that are no record's: want of memory, of descriptors."""

WHOLE: Final = -1
"""No single line."""


def decode_carefully(
    decoder: BlockDecoder,
    payload: Line,
    block: Block,
    *,
    line_by_line: bool,
    poison: Mapping[int, str],
    begins: Callable[[int], object],
) -> tuple[Decoded, dict[int, str]]:
    """The block, and the lines that failed now. Those of ``poison`` are not looked at.

    ``begins`` is told each line before it is decoded alone: should that never end, the line is known.
    Not ``line_by_line``, what fails is halved until the lines are found.
    """
    text = _Text(payload, block)
    todo = [(line, line + 1) for line in range(text.lines)] if line_by_line else [(0, text.lines)]
    todo = [span for span in reversed(todo) if span[0] not in poison]
    pieces: list[Decoded] = []
    failed: dict[int, str] = {}
    while todo:
        first, last = todo.pop()
        begins(first if last == first + 1 else WHOLE)
        little, part = text.part(first, last)
        try:
            pieces.append(decoder.decode(little, part, first_line=first))
        except UNBLAMED:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of one of these records
            reason = failure(error)
            if last == first + 1:
                failed[first] = reason
            else:
                middle = (first + last) // 2
                todo += [(middle, last), (first, middle)]
    rejects = [Reject(line, f"{POISON}: {why}", text.raw(line)) for line, why in {**poison, **failed}.items()]
    return _joined(block, pieces, rejects), failed


def failure(error: Exception) -> str:
    """What is said of it; where it happened is written to stderr, once for each place.

    Not in its own words: these may quote the record.
    """
    name = type(error).__name__
    _say(_where(f"decoding failed ({name})", error.__traceback__))
    return f"decoding it failed ({name})"


def show_defect_without_words(
    kind: type[BaseException], _error: BaseException, trace: TracebackType | None
) -> None:
    """An ``excepthook`` for where no part of a record may reach the log."""
    _say(_where(f"ended by a {kind.__name__}, whose words may quote a record", trace))


def _where(what: str, trace: TracebackType | None) -> str:
    return "".join([f"{what}:\n", *traceback.format_tb(trace)])


@functools.lru_cache(maxsize=64)
def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Text:
    """A block's payload by lines; what is kept of an oversized record is one."""

    def __init__(self, payload: Line, block: Block) -> None:
        self._view = memoryview(payload)
        self._block = block
        self._oversized = bool(block.flags & BlockFlag.OVERSIZED)
        ends = [len(payload) - 1] if self._oversized else line_ends(payload, block).tolist()
        self._begins = [0, *(end + 1 for end in ends)]
        self.lines = len(ends)

    def part(self, first: int, last: int) -> tuple[Line, Block]:
        """Lines ``[first, last)`` as a block of their own."""
        view = self._view[self._begins[first] : self._begins[last]]
        return view, replace(self._block, records=last - first, length=len(view))

    def raw(self, line: int) -> bytes:
        """As it was sent, without the line end."""
        return bytes(self._view[self._begins[line] : self._begins[line + 1] - (not self._oversized)])


def _joined(block: Block, pieces: list[Decoded], rejects: list[Reject]) -> Decoded:
    found = [nothing(block, rejects), *pieces]
    return Decoded(
        spans=[span for piece in found for span in piece.spans],
        high=np.concatenate([piece.high for piece in found]),
        low=np.concatenate([piece.low for piece in found]),
        has_id=np.concatenate([piece.has_id for piece in found]),
        lines=np.concatenate([piece.lines for piece in found]),
        hours=np.concatenate([piece.hours for piece in found]),
        rejects=sorted((reject for piece in found for reject in piece.rejects), key=lambda it: it.line),
        repaired=sum(piece.repaired for piece in found),
        refused=any(piece.refused for piece in found),
        records=block.records,
        collected_at_us=block.collected_at_us,
    )
