"""Which hits were already taken: claims of uncommitted batches in memory, committed ids behind a seam.

Runs in the coordinator as pure code. Invariant: of all hits with one id within the window exactly one
is kept, the first to ask, and asking again for the same block and line gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

U64: TypeAlias = NDArray[np.uint64]
Mask: TypeAlias = NDArray[np.bool_]

SLOTS: Final = 8
"""Ids in a bucket: their keys fill one cache line."""

FULLEST: Final = 0.6
"""Of all slots. Above it too many buckets overflow into the next one (Poisson: 1 in 9)."""

LEAST_ROOM: Final = 60_000
"""Ids that a batch's table has room for from the first; memory that none of them falls into is never taken.

Source: growing up to there takes 0.1 us a hit.
"""

NEXT_BATCH: Final = 1.1
"""Ids that a batch is expected to have, times those of the one before."""

_HALF: Final = np.uint64(32)

# The 64-bit finalizer of MurmurHash3 in Stafford's variant 13, as in SplitMix64: a bijection.
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _mix(value: U64) -> U64:
    value = (value ^ (value >> _SHIFTS[0])) * _FACTORS[0]
    value = (value ^ (value >> _SHIFTS[1])) * _FACTORS[1]
    return value ^ (value >> _SHIFTS[2])


def key_of(high: U64, low: U64) -> U64:
    """A uniform key: (key, low) names the same id as (high, low), one to one."""
    return _mix(high ^ _mix(low))


class Runs(Protocol):
    """The ids of committed batches, as far back as the window reaches."""

    def contains(self, key: U64, low: U64) -> Mask: ...


class Claims:
    """The ids kept of one uncommitted batch, each with its owner: the block and line that keep it.

    A hash table of buckets in arrays. A full bucket overflows into the next one, so a bucket with room
    ends the search.
    """

    def __init__(self, room_for: int = LEAST_ROOM) -> None:
        self._make(_buckets_for(room_for))

    def _make(self, buckets: int) -> None:
        self._buckets = buckets
        self._keys = np.zeros((buckets, SLOTS), np.uint64)
        self._lows = np.zeros((buckets, SLOTS), np.uint64)
        self._owners = np.zeros((buckets, SLOTS), np.uint64)
        self._used = np.zeros(buckets, np.uint8)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def _bucket_of(self, key: U64) -> NDArray[np.int64]:
        """In the order of the keys, and of any number of buckets below 2**32."""
        return (((key >> _HALF) * np.uint64(self._buckets)) >> _HALF).astype(np.int64)

    def owners(self, key: U64, low: U64) -> U64:
        """*Shape*: n; 0 where nobody owns the id."""
        found = np.zeros(len(key), np.uint64)
        at = np.arange(len(key))
        bucket = self._bucket_of(key)
        while len(at):
            match = self._keys.take(bucket, axis=0) == key[:, None]
            hit = np.flatnonzero(match.view(np.uint64))  # a row of 8 booleans at a time
            if len(hit):
                found[at[hit]] = self._owners_in(match[hit], bucket[hit], low[hit])
            onward = np.flatnonzero(self._used[bucket] == SLOTS)
            onward = onward[found[at[onward]] == 0]
            at, key, low, bucket = at[onward], key[onward], low[onward], (bucket[onward] + 1) % self._buckets
        return found

    def _owners_in(self, match: Mask, bucket: NDArray[np.int64], low: U64) -> U64:
        match &= self._lows[bucket] == low[:, None]
        slot = match.argmax(axis=1)
        return np.where(match.any(axis=1), self._owners[bucket, slot], np.uint64(0))

    def owned_by(self, owner: U64) -> bool:
        """Looks at all of them."""
        return bool((self._owners == owner).any())

    def add(self, key: U64, low: U64, owner: U64) -> Mask:
        """Claim ids that nobody owns yet. Marks repeats of an id in this call: the first one keeps it."""
        order, repeat = _in_order(key, low)
        if repeat.any():
            order = order[~repeat[order]]
        if self._count + len(order) > self._keys.size * FULLEST:
            self._grow(self._count + len(order))
        self._insert(key[order], low[order], owner[order])
        return repeat

    def _insert(self, key: U64, low: U64, owner: U64) -> None:
        """Ascending by key, without repeats."""
        self._count += len(key)
        bucket = self._bucket_of(key)
        while len(key):
            slot = self._used[bucket] + np.arange(len(bucket)) - np.searchsorted(bucket, bucket)
            fits = np.flatnonzero(slot < SLOTS)
            in_bucket, in_slot = bucket[fits], slot[fits]
            place = in_bucket * SLOTS + in_slot
            self._keys.ravel()[place] = key[fits]
            self._lows.ravel()[place] = low[fits]
            self._owners.ravel()[place] = owner[fits]
            self._used[in_bucket] = in_slot + 1  # of equal buckets the last assignment holds
            onward = np.flatnonzero(slot >= SLOTS)
            bucket = (bucket[onward] + 1) % self._buckets
            onward, bucket = onward[order := bucket.argsort(kind="stable")], bucket[order]
            key, low, owner = key[onward], low[onward], owner[onward]

    def _grow(self, room_for: int) -> None:
        taken = self._owners != 0
        key, low, owner = self._keys[taken], self._lows[taken], self._owners[taken]
        order = key.argsort(kind="stable")
        self._make(max(2 * self._buckets, _buckets_for(room_for)))
        self._insert(key[order], low[order], owner[order])


def _buckets_for(ids: int) -> int:
    return max(2, math.ceil(ids / (SLOTS * FULLEST)))


def _in_order(key: U64, low: U64) -> tuple[NDArray[np.int64], Mask]:
    """Positions ascending by key, and which ones repeat an id of an earlier position."""
    order = key.argsort(kind="stable")
    repeat = np.zeros(len(key), np.bool_)
    ordered = key[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((low, key))
        same = (key[order[1:]] == key[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
        repeat[order[1:][same]] = True
    return order, repeat


def owner_of(seq: int, lines: NDArray[np.int32]) -> U64:
    """Never 0; tells all lines of 2**32 consecutive blocks apart."""
    return (lines.astype(np.uint64) + np.uint64(1)) | np.uint64((seq & 0xFFFFFFFF) << 32)


class ResendIndex:
    """Answers the claims of uncommitted blocks.

    After a commit, the batch's runs must be in ``runs`` before ``drop_batch``.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._claims: dict[int, Claims] = {}
        self._last_count = 0

    @property
    def held(self) -> int:
        """Ids claimed by uncommitted batches."""
        return sum(map(len, self._claims.values()))

    def answer(
        self, batch: int, seq: int, high: U64, low: U64, lines: NDArray[np.int32]
    ) -> NDArray[np.uint32]:
        """Which of a block's hits are resends.

        *Shape*: ``high``, ``low``, ``lines`` of n each, by line; gives ascending positions in them.
        """
        key, owner = key_of(high, low), owner_of(seq, lines)
        if batch not in self._claims:
            self._claims[batch] = Claims(room_for=max(LEAST_ROOM, int(self._last_count * NEXT_BATCH)))
        resend, kept = self._claimed(self._claims.values(), key, low, owner)
        unknown = np.flatnonzero(~(resend | kept))
        resend[unknown[self._runs.contains(key[unknown], low[unknown])]] = True
        new = unknown[~resend[unknown]]
        resend[new[self._claims[batch].add(key[new], low[new], owner[new])]] = True
        return np.flatnonzero(resend).astype(np.uint32)

    @staticmethod
    def _claimed(tables: Iterable[Claims], key: U64, low: U64, owner: U64) -> tuple[Mask, Mask]:
        """Whose ids somebody else owns, and who owns its id itself."""
        resend = np.zeros(len(key), np.bool_)
        kept = np.zeros(len(key), np.bool_)
        for claims in tables:
            owners = claims.owners(key, low)
            resend |= (owners != 0) & (owners != owner)
            kept |= owners == owner
        return resend, kept

    def holds(self, seq: int, line: int) -> bool:
        """Whether this line of an uncommitted block owns an id: to all others it is a resend."""
        owner = owner_of(seq, np.array([line], np.int32))
        return any(claims.owned_by(owner) for claims in self._claims.values())

    def drop_batch(self, batch: int) -> None:
        """It is committed: its ids are in the runs now."""
        claims = self._claims.pop(batch, None)
        if claims is not None:
            self._last_count = len(claims)

    def void(self, committing: Container[int] = ()) -> None:
        """Every uncommitted block runs again from nothing, but for those of these batches."""
        self._claims = {batch: claims for batch, claims in self._claims.items() if batch in committing}
