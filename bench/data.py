"""The hits that everything here is measured with: the simulator's, sorted into clean ones and odd ones.

Clean: the strict pass takes it as it stands, and no escape in it has to be spelt out first. Odd: it needs
repair. Ids are unique within a seed, and tell which of the simulator's hits each one is
(``collector.simulator.hits.indices_of``). Nothing is repeated; the same arguments give the same bytes.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from collector.decoder.columns import trapped_lines
from collector.decoder.strict import Degree, misfits
from collector.simulator.hits import Hits

SEED = 1
GZIP_LEVEL = 6
RUN = 2000
"""Hits that are made and sorted at a time."""

_LF = 0x0A


def lines(count: int, odd: float = 0.0, seed: int = SEED) -> list[bytes]:
    """Hits without line ends; the share ``odd`` of them needs repair, spread evenly."""
    return list(itertools.islice(_mixed(odd, seed), count))


def gzip_file(folder: Path, count: int, odd: float = 0.0, seed: int = SEED) -> Path:
    """The same as a file: one gzip member. Made once for each set of arguments."""
    path = folder / f"hits-{seed}-{count}-{odd:g}.jsonl.gz"
    if not path.exists():
        with gzip.open(path, "wb", compresslevel=GZIP_LEVEL) as file:
            file.writelines(line + b"\n" for line in itertools.islice(_mixed(odd, seed), count))
    return path


def clean_lines(hits: Hits, first: int, count: int) -> list[bytes]:
    """The clean ones of the simulator's hits ``[first, first + count)``."""
    return _sorted_out(hits, first, count)[0]


def _mixed(odd: float, seed: int) -> Iterator[bytes]:
    """Without end. The hit of place ``k`` is odd where ``k * odd`` passes a whole number."""
    kinds = [_of_kind(Hits(seed), kind) for kind in range(2)]
    for place in itertools.count():
        yield next(kinds[int((place + 1) * odd) > int(place * odd)])


def _of_kind(hits: Hits, kind: int) -> Iterator[bytes]:
    for first in itertools.count(0, RUN):
        yield from _sorted_out(hits, first, RUN)[kind]


def _sorted_out(hits: Hits, first: int, count: int) -> tuple[list[bytes], list[bytes]]:
    """Clean ones, odd ones."""
    texts = hits.lines(first, count)
    payload = b"\n".join([*texts, b""])
    ends = np.flatnonzero(np.frombuffer(payload, dtype=np.uint8) == _LF)
    odd = {*misfits(texts, Degree.THOROUGH), *trapped_lines(payload, ends)}
    return (
        [text for place, text in enumerate(texts) if place not in odd],
        [text for place, text in enumerate(texts) if place in odd],
    )
