"""Runs of the resend index: sorted ids of committed batches, mapped, merged when they get many.

A decoder writes one run per share; the coordinator opens, asks and merges them. Invariant: a run is
immutable; a merged run is durable before the runs it replaces are gone, and a crash leaves either.

File: header of 4096 bytes (magic, version, count, held_us of first and last block, first and last
block, CRC-32 of keys, of lows, of these fields), keys u64[n] ascending, lows u64[n]. Little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from collector.core.resends import U64, Mask, key_of
from collector.errors import DamagedError, NewerVersionError
from collector.storage.fs import Disk
from collector.storage.layout import run_range

RUN_VERSION: Final = 1
MERGED_SHARE: Final = 0
"""In the name of a merged run, in place of a share's number."""

MOST_RUNS: Final = 4
"""Above this, the ``MERGED_RUNS`` adjacent ones that are smallest together are merged.

Source: to ask a run for 316 ids takes 27 us, whatever its size; with 8 and 4 a hit costs 0.4 us more.
"""
MERGED_RUNS: Final = 2
LIMIT_PARTS: Final = 4
"""No merged run spans more than this part of the window (ids: half of it), so that it can expire in time."""

_MAGIC: Final = b"LSidsrun"
_HEADER: Final = struct.Struct("<8sIxxxxQqqQQII")
_CRC: Final = struct.Struct("<I")
_HEADER_BYTES: Final = 4096
_ID_BYTES: Final = 8
_IDS_PER_BUCKET: Final = 8
_AT_A_TIME: Final = 1 << 15
"""Elements of a run looked at when it is opened: what that takes does not grow with the run."""
_MERGE_IDS: Final = 1 << 18
"""Ids in memory at a time."""


class Run:
    """One run file, mapped. Check it by opening it.

    *Raises*: DamagedError, NewerVersionError. *Blocks* for one read of the file.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self.path = path
        fd = disk.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            size_bytes = disk.size(path)
            if size_bytes < _HEADER_BYTES:
                raise _damaged(path, f"has {size_bytes} bytes, less than its header")
            mapping = memoryview(disk.map_read_only(fd))
        finally:
            disk.close(fd)
        crcs = self._read_header(mapping, size_bytes)
        self.keys = self._array(mapping, 0)
        self.lows = self._array(mapping, self.count)
        if crcs != (crc32(self.keys), crc32(self.lows)):
            raise _damaged(path, f"bytes {_HEADER_BYTES} to {size_bytes} do not check out")
        if any((piece[1:] < piece[:-1]).any() for piece in _pieces(self.keys)):
            raise _damaged(path, "its ids are out of order")
        self._make_buckets()

    def _read_header(self, mapping: memoryview, size_bytes: int) -> tuple[int, int]:
        magic, version, count, *numbers = _HEADER.unpack_from(mapping)
        (crc,) = _CRC.unpack_from(mapping, _HEADER.size)
        if magic != _MAGIC or crc != crc32(mapping[: _HEADER.size]):
            raise _damaged(self.path, f"its header, bytes 0 to {_HEADER_BYTES}, does not check out")
        if version > RUN_VERSION:
            raise NewerVersionError(
                f"{self.path} has version {version}, this one knows {RUN_VERSION}; use a newer one"
            )
        if size_bytes != _size_bytes(count):
            raise _damaged(self.path, f"has {size_bytes} bytes, expected {_size_bytes(count)}")
        held_first_us, held_last_us, self.first, self.last, keys_crc, lows_crc = numbers
        self.count: int = count
        self.held_us: tuple[int, int] = (held_first_us, held_last_us)
        return keys_crc, lows_crc

    def _array(self, mapping: memoryview, skip: int) -> U64:
        return np.frombuffer(mapping, "<u8", self.count, _HEADER_BYTES + skip * _ID_BYTES)

    def _make_buckets(self) -> None:
        """Where each bucket of keys with the same leading bits starts: one step instead of twenty."""
        bits = (self.count // _IDS_PER_BUCKET).bit_length()
        self._shift = np.uint64(64 - bits) if bits else np.uint64(0)
        starts: NDArray[np.unsignedinteger[Any]]
        starts = np.full((1 << bits) + 1, self.count, np.uint32 if self.count < 2**32 else np.uint64)
        for first in range(0, 1 << bits, _AT_A_TIME):
            buckets = np.arange(first, min(first + _AT_A_TIME, 1 << bits), dtype=np.uint64)
            starts[first : first + len(buckets)] = np.searchsorted(self.keys, buckets << self._shift)
        self._starts = starts
        self._one_bucket = not bits
        self._rounds = int(max(np.diff(piece).max() for piece in _pieces(starts))).bit_length()

    def contains(self, key: U64, low: U64) -> Mask:
        """*Shape*: n and n, in any order; a mask of n."""
        if not self.count:
            return np.zeros(len(key), np.bool_)
        at = self._lower_bound(key)
        hit: Mask = self.keys.take(at, mode="clip") == key
        return hit if not hit.any() else self._with_low(hit, at, key, low)

    def _lower_bound(self, key: U64) -> NDArray[np.int64]:
        bucket = np.zeros(len(key), np.int64) if self._one_bucket else (key >> self._shift).astype(np.int64)
        begin, end = self._starts[bucket].astype(np.int64), self._starts[bucket + 1].astype(np.int64)
        for _ in range(self._rounds):
            middle = (begin + end) >> 1
            less = self.keys.take(middle, mode="clip") < key
            begin = np.minimum(np.where(less, middle + 1, begin), end)
            end = np.where(less, end, middle)
        return begin

    def _with_low(self, hit: Mask, at: NDArray[np.int64], key: U64, low: U64) -> Mask:
        found = np.zeros(len(hit), np.bool_)
        asked = np.flatnonzero(hit)
        at = at[asked]
        while len(asked):  # one round, but for ids whose keys collide
            found[asked] |= self.lows[at] == low[asked]
            onward = (~found[asked]) & (at + 1 < self.count)
            asked, at = asked[onward], at[onward] + 1
            same = self.keys[at] == key[asked]
            asked, at = asked[same], at[same]
        return found


def _pieces(array: NDArray[np.unsignedinteger[Any]]) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
    """Each begins with the last element of the one before. Of fewer than two elements: none."""
    return (array[begin : begin + _AT_A_TIME + 1] for begin in range(0, len(array) - 1, _AT_A_TIME))


def _size_bytes(count: int) -> int:
    return _HEADER_BYTES + 2 * count * _ID_BYTES


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(
        f"{path}: {what}; restore it from a copy, or remove it: resends of its hits are then kept"
    )


# ---------------------------------------------------------------- writing


def write_run(
    disk: Disk, path: Path, high: U64, low: U64, *, held_us: tuple[int, int], blocks: tuple[int, int]
) -> None:
    """A share's ids, in any order. Content is durable when this returns, the name is not.

    *Raises*: NoSpaceError, StorageError; then there is no such file.
    """
    key = key_of(high, low)
    order = key.argsort()
    with disk.removed_on_failure(path), _writing(disk, path) as fd:
        _write_sorted(disk, fd, len(key), [(key[order], low[order])], held_us=held_us, blocks=blocks)


def merge_runs(disk: Disk, paths: Sequence[Path], out: Path) -> None:
    """All ids of these runs as one run, durable under its name. Bounded memory; may run in a thread."""
    runs = sorted((Run(disk, path) for path in paths), key=lambda run: run.first)
    held_us = (min(run.held_us[0] for run in runs), max(run.held_us[1] for run in runs))
    blocks = (min(run.first for run in runs), max(run.last for run in runs))
    new = out.with_name(out.name + ".new")
    count = sum(run.count for run in runs)
    with disk.removed_on_failure(new):
        with _writing(disk, new) as fd:
            _write_sorted(disk, fd, count, _merged(runs), held_us=held_us, blocks=blocks)
        disk.rename(new, out)
    disk.fsync_folder(out.parent)


@contextmanager
def _writing(disk: Disk, path: Path) -> Iterator[int]:
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW)
    try:
        yield fd
        disk.fsync(fd)
    finally:
        disk.close(fd)


def _write_sorted(
    disk: Disk,
    fd: int,
    count: int,
    pieces: Iterable[tuple[U64, U64]],
    *,
    held_us: tuple[int, int],
    blocks: tuple[int, int],
) -> None:
    disk.allocate(fd, _size_bytes(count))
    keys_at, lows_at = _HEADER_BYTES, _HEADER_BYTES + count * _ID_BYTES
    keys_crc = lows_crc = 0
    for keys, lows in pieces:
        keys_crc, lows_crc = crc32(keys, keys_crc), crc32(lows, lows_crc)
        disk.pwrite_all(fd, keys.data, keys_at)
        disk.pwrite_all(fd, lows.data, lows_at)
        keys_at, lows_at = keys_at + keys.nbytes, lows_at + lows.nbytes
    fields = _HEADER.pack(_MAGIC, RUN_VERSION, count, *held_us, *blocks, keys_crc, lows_crc)
    disk.pwrite_all(fd, (fields + _CRC.pack(crc32(fields))).ljust(_HEADER_BYTES, b"\0"), 0)


def _merged(runs: Sequence[Run]) -> Iterator[tuple[U64, U64]]:
    """Keys are uniform, so equal ranges of keys hold about as many ids."""
    ranges = sum(run.count for run in runs) // _MERGE_IDS + 1
    edges = np.array([i * 2**64 // ranges for i in range(1, ranges)], np.uint64)
    cuts = [[0, *np.searchsorted(run.keys, edges).tolist(), run.count] for run in runs]
    for i in range(ranges):
        parts = [slice(cut[i], cut[i + 1]) for cut in cuts]
        keys = np.concatenate([run.keys[part] for run, part in zip(runs, parts, strict=True)])
        lows = np.concatenate([run.lows[part] for run, part in zip(runs, parts, strict=True)])
        order = keys.argsort(kind="stable")
        yield keys[order], lows[order]


# ---------------------------------------------------------------- all runs together


@dataclass(frozen=True, slots=True)
class RunLimits:
    """``resends.window_s`` and ``resends.max_ids``."""

    window_us: int
    max_ids: int


@dataclass(frozen=True, slots=True)
class Expired:
    """Runs that ``expire`` removed. ``early``: ids within the window that ``max_ids`` had no room for."""

    runs: int
    ids: int
    early: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Runs to be merged with ``merge_runs``, then ``RunSet.replaced``."""

    paths: tuple[Path, ...]
    out: Path


class RunSet:
    """The runs in a folder, by block range.

    ``contains`` may be asked while another thread changes the set; only one may change it at a time.
    """

    def __init__(self, disk: Disk, folder: Path, limits: RunLimits) -> None:
        """Opens them all; finishes a merge that a crash interrupted. *Raises*: as ``Run``."""
        self._disk = disk
        self._folder = folder
        self._limits = limits
        self._runs: tuple[Run, ...] = ()
        disk.fsync_folder(folder)  # a merged run's name may not be durable yet: what it replaces still is
        names = disk.listdir(folder)
        for name in names:
            if name.endswith(".run.new"):
                disk.unlink(folder / name)
        ranges = {name: found for name in names if (found := run_range(name)) is not None}
        for name, found in ranges.items():
            if any(_replaces(merged, found) for merged in ranges.values()):
                disk.unlink(folder / name)
            else:
                self.add(folder / name)

    @property
    def ids(self) -> int:
        return sum(run.count for run in self._runs)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(run.path for run in self._runs)

    def add(self, path: Path) -> None:
        """A run that was just published."""
        self._set((*self._runs, Run(self._disk, path)))

    def _set(self, runs: Iterable[Run]) -> None:
        self._runs = tuple(sorted(runs, key=lambda run: (run.first, run.last, run.path.name)))

    def contains(self, key: U64, low: U64) -> Mask:
        found = np.zeros(len(key), np.bool_)
        for run in self._runs:
            found |= run.contains(key, low)
        return found

    def expire(self, oldest_uncommitted_held_us: int) -> Expired:
        """Remove runs behind the window, then the oldest while there are more than ``max_ids``."""
        edge_us = oldest_uncommitted_held_us - self._limits.window_us
        old = [run for run in self._runs if run.held_us[1] < edge_us]
        left = [run for run in self._runs if run not in old]
        early = []
        while left and sum(run.count for run in left) > self._limits.max_ids:
            early.append(left.pop(0))
        self._remove([*old, *early])
        ids = sum(run.count for run in (*old, *early))
        return Expired(len(old) + len(early), ids, sum(run.count for run in early))

    def _remove(self, runs: Sequence[Run]) -> None:
        self._set(run for run in self._runs if run not in runs)
        for run in runs:
            self._disk.unlink(run.path)

    def plan_merge(self) -> Merge | None:
        """What to merge next, if there are too many runs."""
        if len(self._runs) <= MOST_RUNS:
            return None
        windows = [self._runs[i : i + MERGED_RUNS] for i in range(len(self._runs) - MERGED_RUNS + 1)]
        allowed = [self._whole_batches(window) for window in windows]
        allowed = [window for window in allowed if self._may_merge(window)]
        if not allowed:
            return None
        chosen = min(allowed, key=_count)
        first, last = chosen[0].first, max(run.last for run in chosen)
        name = f"{first:012d}-{last:012d}-{MERGED_SHARE}.run"
        return Merge(tuple(run.path for run in chosen), self._folder / name)

    def _whole_batches(self, window: tuple[Run, ...]) -> tuple[Run, ...]:
        """With every share of the batches at its ends: a merged run stands for all its blocks."""
        first, last = window[0].first, window[-1].last
        return tuple(run for run in self._runs if first <= run.first and run.last <= last)

    def _may_merge(self, window: tuple[Run, ...]) -> bool:
        span_us = window[-1].held_us[1] - window[0].held_us[0]
        few = _count(window) <= self._limits.max_ids // (2 * LIMIT_PARTS)
        return few and span_us <= self._limits.window_us // LIMIT_PARTS

    def replaced(self, merge: Merge) -> None:
        """The merge is durable: use it, remove what went into it."""
        merged = Run(self._disk, merge.out)
        old = [run for run in self._runs if run.path in merge.paths]
        self._set([*(run for run in self._runs if run not in old), merged])
        for run in old:
            self._disk.unlink(run.path)


def _count(runs: Iterable[Run]) -> int:
    return sum(run.count for run in runs)


def _replaces(merged: tuple[int, int, int], run: tuple[int, int, int]) -> bool:
    return merged[2] == MERGED_SHARE and merged != run and merged[0] <= run[0] and run[1] <= merged[1]
