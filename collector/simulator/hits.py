"""The simulator's hits: hit ``i`` is a function of (seed, i, timeline), and its ids say which ``i`` it is.

The simulator's process makes them, any checker can make them again. Invariant: ``hit(seed, i)``
equals what is streamed, byte for byte, and ``index_of`` is its ids' inverse.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt

from collector.simulator import templates

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_MASK: Final = 2**64 - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_FIRST_INVERSE: Final = pow(_FIRST, -1, 2**64)
_SECOND_INVERSE: Final = pow(_SECOND, -1, 2**64)

_MAX_INDEX: Final = 2**48
"""No run sends more hits; ids that unmix to more are not ours."""

_SESSIONS: Final = 1009
"""Visitors active at any time; hit ``i`` belongs to session slot ``i % 1009``."""

_VISITORS: Final = 1_000_000
_PURCHASE_IN: Final = 8
"""One session in this many ends with a purchase."""


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """When hits were received: ``hours`` are squeezed into the first ``squeezed`` hits, then time runs on.

    *Units* ``start_s``: Unix seconds of hit ``squeezed`` (of hit 0 without ``hours``);
    ``step_us``: microseconds from one hit to the next after that.
    """

    start_s: int = 1_795_000_000
    step_us: int = 100
    hours: float = 0.0
    squeezed: int = 100_000

    def received_s(self, index: I64) -> I64:
        """Unix seconds at which each hit was received, before the service's own disorder."""
        after: I64 = self.start_s + np.maximum(index - self._squeezed, 0) * self.step_us // 1_000_000
        if not self._squeezed:
            return after
        missing_s = np.maximum(self._squeezed - index, 0) * int(self.hours * 3600) // self._squeezed
        received: I64 = after - missing_s
        return received

    @property
    def _squeezed(self) -> int:
        return self.squeezed if self.hours else 0


class Hits:
    """All hits of one seed and timeline. Templates are built when first needed."""

    total: int | None = None
    """How many there are; ``None``: no end."""

    def __init__(self, seed: int = 0, timeline: Timeline = Timeline()) -> None:
        self.seed = seed
        self.timeline = timeline
        self._keys = _keys(seed)
        self._templates: dict[int, bytes] = {}

    def lines(self, first: int, count: int) -> list[bytes]:
        """Hits ``[first, first + count)`` as JSON texts without line end."""
        return self._lines(np.arange(first, first + count, dtype=np.int64))

    def lines_of_share(self, first: int, count: int, share: int, shares: int) -> list[bytes]:
        """Those of ``[first, first + count)`` whose visitor belongs to connection ``share`` of ``shares``."""
        index = np.arange(first, first + count, dtype=np.int64)
        return self._lines(index[self.shares(first, count, shares) == share])

    def shares(self, first: int, count: int, shares: int) -> I64:
        """Which connection of ``shares`` each hit goes to, by its visitor. *Shape* int64[count]."""
        visitor, _, _, _ = _sessions(np.arange(first, first + count, dtype=np.int64), self.seed)
        return (_mix(visitor, 3) % np.uint64(shares)).astype(np.int64)

    def _lines(self, index: I64) -> list[bytes]:
        numbers = self._numbers(index)
        rows = self._rows(index)
        for number in set(numbers).difference(self._templates):
            self._templates[number] = templates.build(self.seed, number)
        texts = self._templates
        return [
            texts[number] % (row if templates.is_purchase(number) else row[:4] + row[5:])
            for number, row in zip(numbers, rows, strict=True)
        ]

    def _numbers(self, index: I64) -> list[int]:
        visitor, session, step, last = _sessions(index, self.seed)
        luck = _mix(session * np.uint64(64) + step, self.seed + 4)
        plain = templates.STEPS - templates.PURCHASE_STEPS
        chance = (luck >> np.uint64(11)).astype(np.float64) / 2.0**53
        browse = (plain * chance * chance).astype(np.uint64)
        buy = np.uint64(plain) + luck % np.uint64(templates.PURCHASE_STEPS)
        buys = (step == last) & (_mix(session, self.seed + 5) % np.uint64(_PURCHASE_IN) == 0)
        profile = _mix(visitor, 6) % np.uint64(templates.PROFILES)
        numbers: list[int] = (profile * np.uint64(templates.STEPS) + np.where(buys, buy, browse)).tolist()
        return numbers

    def _rows(self, index: I64) -> list[tuple[int, ...]]:
        """The values of ``templates.CHANGING``, one tuple per hit."""
        visitor, _, _, _ = _sessions(index, self.seed)
        high, low = self._ids(index)
        disorder = (low % np.uint64(32)).astype(np.int64)
        received = self.timeline.received_s(index) - disorder
        hit_at = received - (low >> np.uint64(8)).astype(np.int64) % 3
        columns = (
            high,
            low,
            _mix(visitor, self.seed + 7),
            _mix(visitor, self.seed + 8),
            high >> np.uint64(16),
            received,
            hit_at,
            _mix(visitor, self.seed + 9),
            _mix(visitor, self.seed + 10),
        )
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _ids(self, index: I64) -> tuple[U64, U64]:
        high = _scramble(index.astype(np.uint64) + np.uint64(self._keys[0]))
        return high, _scramble(high ^ np.uint64(self._keys[1]))


def hit(seed: int, i: int, timeline: Timeline = Timeline()) -> bytes:
    """Hit ``i``, as streamed, without line end."""
    return Hits(seed, timeline).lines(i, 1)[0]


def index_of(seed: int, high: int, low: int) -> int | None:
    """Which hit has these ids; ``None``: no hit of this seed."""
    position, check = _keys(seed)
    i = (_unscramble_int(high) - position) & _MASK
    return i if i < _MAX_INDEX and low == _scramble_int(high ^ check) else None


def indices_of(seed: int, high: U64, low: U64) -> I64:
    """Which hits have these ids. *Shape* int64[n]; -1: no hit of this seed."""
    position, check = _keys(seed)
    i = _unscramble(high) - np.uint64(position)
    ours = (i < np.uint64(_MAX_INDEX)) & (low == _scramble(high ^ np.uint64(check)))
    return np.where(ours, i.astype(np.int64), -1)


def _sessions(index: I64, seed: int) -> tuple[U64, U64, U64, U64]:
    """Visitor, session, step within the session and its last step. *Shape* uint64[n] each."""
    slot = (index % _SESSIONS).astype(np.uint64)
    turn = (index // _SESSIONS).astype(np.uint64)
    length = np.uint64(2) + _mix(slot, seed) % np.uint64(12)
    session = turn // length * np.uint64(_SESSIONS) + slot
    chance = (_mix(session, seed + 1) >> np.uint64(11)).astype(np.float64) / 2.0**53
    visitor = (_VISITORS * chance**3).astype(np.uint64)
    return visitor, session, turn % length, length - np.uint64(1)


def _keys(seed: int) -> tuple[int, int]:
    return _scramble_int(seed * 2 + 1 + _GOLDEN & _MASK), _scramble_int(seed * 2 + 2 + _GOLDEN & _MASK)


def _mix(value: U64, salt: int) -> U64:
    return _scramble(value + np.uint64((salt + 1) * _GOLDEN & _MASK))


def _scramble(z: U64) -> U64:
    """SplitMix64's finaliser: a bijection of 64 bits. *Source* Steele, Lea, Flood, OOPSLA 2014."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def _unscramble(z: U64) -> U64:
    z = (z ^ (z >> np.uint64(31)) ^ (z >> np.uint64(62))) * np.uint64(_SECOND_INVERSE)
    z = (z ^ (z >> np.uint64(27)) ^ (z >> np.uint64(54))) * np.uint64(_FIRST_INVERSE)
    value: U64 = z ^ (z >> np.uint64(30)) ^ (z >> np.uint64(60))
    return value


def _scramble_int(z: int) -> int:
    z = (z ^ (z >> 30)) * _FIRST & _MASK
    z = (z ^ (z >> 27)) * _SECOND & _MASK
    return z ^ (z >> 31)


def _unscramble_int(z: int) -> int:
    z = (z ^ (z >> 31) ^ (z >> 62)) * _SECOND_INVERSE & _MASK
    z = (z ^ (z >> 27) ^ (z >> 54)) * _FIRST_INVERSE & _MASK
    return z ^ (z >> 30) ^ (z >> 60)
