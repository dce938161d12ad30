"""Whether every hit that was dropped as a resend is a row somewhere.

Runs in ``verify``; pure. Invariant: memory is that of the ids that were ever listed as resends,
whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.core.resends import U64, key_of


class ListedResends:
    """First ``add`` every list, then ``seal``, then ``meet`` the ids of all rows.

    *Units*: 29 bytes per distinct id.
    """

    def __init__(self) -> None:
        self._added: list[tuple[U64, U64, NDArray[Any], NDArray[Any]]] = []
        self._keys = self._lows = np.empty(0, np.uint64)
        self._blocks = self._lines = np.empty(0, np.int64)
        self._met = np.empty(0, np.bool_)
        self._same_keys = 1

    def add(self, high: U64, low: U64, block: NDArray[Any], line: NDArray[Any]) -> None:
        """*Shape*: n of each."""
        if len(high):
            self._added.append((high, low, block, line))

    def seal(self) -> None:
        if not self._added:
            return
        high, low, block, line = (np.concatenate(each) for each in zip(*self._added, strict=True))
        self._added = []
        key = key_of(high, low)
        order = np.lexsort((low, key))
        key, low = key[order], low[order]
        new_key = np.append(True, key[1:] != key[:-1])
        new = new_key | np.append(True, low[1:] != low[:-1])
        self._keys, self._lows = key[new], low[new]
        self._blocks, self._lines = block[order][new], line[order][new]
        self._met = np.zeros(len(self._keys), np.bool_)
        edges = np.flatnonzero(np.append(new_key[new], True))
        self._same_keys = int(np.diff(edges).max())

    def __len__(self) -> int:
        """Distinct ids."""
        return len(self._keys)

    def meet(self, high: U64, low: U64) -> None:
        """Ids of rows. *Shape*: n and n, in any order."""
        if not len(self._keys):
            return
        key = key_of(high, low)
        at = np.searchsorted(self._keys, key)
        for _ in range(self._same_keys):  # one round, but for ids whose keys collide
            same = (at < len(self._keys)) & (self._keys.take(at, mode="clip") == key)
            same &= self._lows.take(at, mode="clip") == low
            self._met[at[same]] = True
            at = at + 1

    def unmet(self) -> Iterator[tuple[int, int]]:
        """Block and line of a resend of each id that no row had."""
        for at in np.flatnonzero(~self._met):
            yield int(self._blocks[at]), int(self._lines[at])
