"""A block line by line: what to do once decoding it as a whole has failed.

Run by the decoder processes. Invariant: the rows and rejects are those of ``decode_block``, but for the
lines that decoding fails on: each of these is a reject, kept with its raw bytes.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from collector.core.messages import Block, BlockFlag
from collector.decoder.decode import Decoded, Reject, decode_block, line_ends
from collector.decoder.schema import HITS_SCHEMA
from collector.decoder.strict import Degree, Line
from collector.errors import CollectorError


def decode_carefully(
    payload: Line, block: Block, *, instance: str, poison: Mapping[int, str], begins: Callable[[int], object]
) -> tuple[Decoded, dict[int, str]]:
    """The block, and the lines that failed now. Those of ``poison`` are not looked at.

    ``begins`` is told each line before it is decoded: should that never end, the line is known.
    """
    pieces: list[Decoded] = []
    rejects: list[Reject] = []
    failed: dict[int, str] = {}
    for number, (line, raw) in enumerate(_lines(payload, block)):
        reason = poison.get(number)
        if reason is None:
            begins(number)
            little = replace(block, records=1, length=len(line))
            try:
                pieces.append(
                    decode_block(line, little, instance=instance, degree=Degree.USUAL, first_line=number)
                )
                continue
            except CollectorError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this record's
                reason = failed[number] = failure(error)
        rejects.append(Reject(number, f"poison: {reason}", bytes(raw)))
    return _joined(block, pieces, rejects), failed


def failure(error: Exception) -> str:
    """What is said of it, after where it happened was written to stderr.

    Not in its own words: these may quote the record.
    """
    name = type(error).__name__
    print(
        f"decoding failed ({name}):", *traceback.format_tb(error.__traceback__), file=sys.stderr, flush=True
    )
    return f"decoding it failed ({name})"


def _lines(payload: Line, block: Block) -> Iterator[tuple[Line, Line]]:
    """Each line with its end and without; what is kept of an oversized record is one."""
    view = memoryview(payload)
    if block.flags & BlockFlag.OVERSIZED:
        yield view, view
        return
    begin = 0
    for end in line_ends(view, block).tolist():
        yield view[begin : end + 1], view[begin:end]
        begin = end + 1


def _joined(block: Block, pieces: list[Decoded], rejects: list[Reject]) -> Decoded:
    batches = [batch for piece in pieces for batch in piece.batches]
    table = pa.Table.from_batches(batches, HITS_SCHEMA).combine_chunks()
    nothing = Decoded(
        batches=[],
        high=np.empty(0, np.uint64),
        low=np.empty(0, np.uint64),
        has_id=np.empty(0, np.bool_),
        lines=np.empty(0, np.int32),
        hours=np.empty(0, np.int64),
        rejects=rejects,
        repaired=0,
        refused=False,
        records=block.records,
        collected_at_us=block.collected_at_us,
    )
    found = [nothing, *pieces]
    return Decoded(
        batches=table.to_batches(),
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
