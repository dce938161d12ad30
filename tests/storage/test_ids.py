from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from faulty_disk import NO_SPACE, Crashed, FaultyDisk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collector.core.resends import U64, key_of
from collector.errors import DamagedError, NewerVersionError, NoSpaceError
from collector.storage import ids as ids_module
from collector.storage.fs import DISK, Disk
from collector.storage.ids import MOST_RUNS, Expired, Run, RunLimits, RunSet, merge_runs, write_run

LIMITS = RunLimits(window_us=1000, max_ids=1_000_000)


def u64(values: list[int]) -> U64:
    return np.array(values, np.uint64)


def write(
    folder: Path,
    values: list[int] | U64,
    first: int,
    last: int,
    share: int = 1,
    *,
    held: int = 0,
    disk: Disk = DISK,
) -> Path:
    path = folder / f"{first:012d}-{last:012d}-{share}.run"
    high = np.asarray(values, np.uint64)
    write_run(disk, path, high, high + np.uint64(1), held_us=(held, held), blocks=(first, last))
    return path


def has(runs: RunSet | Run, values: list[int]) -> list[bool]:
    high = u64(values)
    low = high + np.uint64(1)
    return runs.contains(key_of(high, low), low).tolist()


# ---------------------------------------------------------------- one run


@settings(max_examples=60, deadline=None)
@given(
    held=arrays(np.uint64, st.integers(0, 300), elements=st.integers(0, 400)),
    asked=arrays(np.uint64, st.integers(0, 50), elements=st.integers(0, 400)),
)
def test_a_run_has_what_was_written_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, held: U64, asked: U64
) -> None:
    """Whatever the number of ids, from none on, with repeats, asked in any order."""
    run = Run(DISK, write(tmp_path_factory.mktemp("ids"), held, 1, 2))
    assert has(run, asked.tolist()) == [value in set(held.tolist()) for value in asked.tolist()]
    assert (run.count, run.first, run.last) == (len(held), 1, 2)


def test_ids_with_the_same_key_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The low half decides, wherever among its equals it stands."""
    monkeypatch.setattr(ids_module, "key_of", lambda high, low: high)
    key, low = u64([5] * 40 + [9]), np.arange(41, dtype=np.uint64)
    write_run(DISK, tmp_path / "r", key, low[::-1].copy(), held_us=(0, 0), blocks=(1, 1))
    run = Run(DISK, tmp_path / "r")
    assert run.contains(key, low[::-1].copy()).all()
    assert run.contains(u64([5, 9, 5, 8, 10]), u64([41, 1, 0, 3, 3])).tolist() == [False] * 5


def test_the_smallest_and_largest_keys_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends of the range are where buckets and searches go wrong."""
    monkeypatch.setattr(ids_module, "key_of", lambda high, low: high)
    for count in (1, 2, 7, 8, 9, 64, 1000):
        keys = np.linspace(0, 2**64 - 2**12, count, dtype=np.float64).astype(np.uint64)
        keys[-1] = np.uint64(2**64 - 1)
        write_run(DISK, tmp_path / "r", keys, keys, held_us=(0, 0), blocks=(1, 1))
        run = Run(DISK, tmp_path / "r")
        assert run.contains(keys, keys).all()
        asked = u64([1, 2**63 + 1, 2**64 - 2])
        assert not run.contains(asked, asked).any()


def test_a_run_is_opened_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a piece ends, every id is found, and what is out of order is damage."""
    monkeypatch.setattr(ids_module, "key_of", lambda high, low: high)
    monkeypatch.setattr(ids_module, "_AT_A_TIME", 3)
    keys = np.sort(np.random.default_rng(5).integers(0, 2**64, 100, dtype=np.uint64))
    for count in range(len(keys)):
        write_run(DISK, tmp_path / "r", keys[:count], keys[:count], held_us=(0, 0), blocks=(1, 1))
        run = Run(DISK, tmp_path / "r")
        assert run.contains(keys, keys).tolist() == [True] * count + [False] * (len(keys) - count)
    for at in range(8):
        swapped = keys[:9].copy()
        swapped[[at, at + 1]] = swapped[[at + 1, at]]
        with ids_module._writing(DISK, tmp_path / "r") as fd:
            ids_module._write_sorted(DISK, fd, 9, [(swapped, swapped)], held_us=(0, 0), blocks=(1, 1))
        with pytest.raises(DamagedError, match="out of order"):
            Run(DISK, tmp_path / "r")


def test_a_bit_flipped_anywhere_is_damage(tmp_path: Path) -> None:
    """A wrong index would double or drop hits, so it is not opened."""
    path = write(tmp_path, [1, 2, 3], 1, 2)
    whole = path.read_bytes()
    body = range(4096, len(whole))
    for at in (*range(68), *body):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedError, match="restore it"):
            Run(DISK, path)


@pytest.mark.parametrize("size", [0, 10, 4096, 4097])
def test_a_cut_run_is_damage(tmp_path: Path, size: int) -> None:
    """Also one that is empty."""
    path = write(tmp_path, [1, 2, 3], 1, 2)
    os.truncate(path, size)
    with pytest.raises(DamagedError):
        Run(DISK, path)


def test_a_run_of_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not taken for damage."""
    monkeypatch.setattr(ids_module, "RUN_VERSION", 2)
    path = write(tmp_path, [1], 1, 2)
    monkeypatch.undo()
    with pytest.raises(NewerVersionError):
        Run(DISK, path)


def test_a_run_is_durable_when_it_is_written(tmp_path: Path) -> None:
    """The last thing that happens to it is its sync."""
    disk = FaultyDisk()
    write(tmp_path, [1, 2], 1, 1, disk=disk)
    assert disk.calls[-1] == "fsync"


def test_a_run_there_is_no_room_for_leaves_nothing_behind(tmp_path: Path) -> None:
    """Whichever write says so."""
    for call in range(1, 10):
        disk = FaultyDisk(call, NO_SPACE, only=frozenset({"allocate", "pwritev"}))
        try:
            write(tmp_path, [1, 2], 1, 1, disk=disk)
        except NoSpaceError:
            assert os.listdir(tmp_path) == []
            continue
        break
    assert not disk.fired
    assert len(os.listdir(tmp_path)) == 1


# ---------------------------------------------------------------- all runs


def test_the_set_has_what_any_run_has(tmp_path: Path) -> None:
    """Those found at the start, and those added since."""
    write(tmp_path, [1], 1, 1)
    write(tmp_path, [2], 2, 2)
    runs = RunSet(DISK, tmp_path, LIMITS)
    runs.add(write(tmp_path, [3], 3, 3))
    assert has(runs, [0, 1, 2, 3, 4]) == [False, True, True, True, False]
    assert runs.ids == 3


def test_a_run_expires_only_when_all_of_it_is_behind_the_window(tmp_path: Path) -> None:
    """Counted in held connection, from the oldest block that may still ask."""
    write(tmp_path, [1], 1, 1, held=5000)
    runs = RunSet(DISK, tmp_path, LIMITS)
    assert runs.expire(6000) == Expired(0, 0, 0)
    assert has(runs, [1]) == [True]
    assert runs.expire(6001) == Expired(runs=1, ids=1, early=0)
    assert has(runs, [1]) == [False]
    assert os.listdir(tmp_path) == []


def test_too_many_ids_push_the_oldest_out_early(tmp_path: Path) -> None:
    """And it is told how many ids that were."""
    for first, values in ((1, [1, 2]), (2, [3]), (3, [4, 5])):
        write(tmp_path, values, first, first)
    runs = RunSet(DISK, tmp_path, RunLimits(window_us=1000, max_ids=3))
    assert runs.expire(0) == Expired(runs=1, ids=2, early=2)
    assert has(runs, [1, 2, 3, 4, 5]) == [False, False, True, True, True]


def test_many_runs_are_merged_into_few(tmp_path: Path) -> None:
    """A batch a minute for hours: lookups meet a handful of runs, and every id stays."""
    runs = RunSet(DISK, tmp_path, RunLimits(window_us=10**9, max_ids=10**6))
    for batch in range(1, 60):
        for share in (1, 2):
            runs.add(write(tmp_path, [batch * 10 + share], batch, batch, share))
        while (merge := runs.plan_merge()) is not None:
            merge_runs(DISK, merge.paths, merge.out)
            runs.replaced(merge)
    assert len(runs.paths) <= MOST_RUNS
    assert sorted(os.listdir(tmp_path)) == [path.name for path in runs.paths]
    assert all(has(runs, [batch * 10 + share for batch in range(1, 60) for share in (1, 2)]))
    assert runs.ids == 118


def test_a_merge_never_splits_a_batch(tmp_path: Path) -> None:
    """A merged run's name says that every share of its blocks is in it."""
    runs = RunSet(DISK, tmp_path, LIMITS)
    for batch in (1, 2):
        for share in range(1, 8):
            runs.add(write(tmp_path, [batch * 10 + share], batch, batch, share))
    merge = runs.plan_merge()
    assert merge is not None
    assert len(merge.paths) in {7, 14}


def test_runs_that_span_too_much_of_the_window_stay_apart(tmp_path: Path) -> None:
    """A merged run expires as a whole, so it must not outlive the window by much."""
    runs = RunSet(DISK, tmp_path, RunLimits(window_us=1000, max_ids=10**6))
    for batch in range(1, 20):
        runs.add(write(tmp_path, [batch], batch, batch, held=batch * 300))
    assert runs.plan_merge() is None


def test_a_merge_in_pieces_is_the_same_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: only a range of the keys is held at a time."""
    chance = np.random.default_rng(5)
    parts = [chance.integers(0, 2**64, size, dtype=np.uint64) for size in (1000, 1, 0, 700)]
    paths = [write(tmp_path, part, n, n, held=n) for n, part in enumerate(parts, 1)]
    merge_runs(DISK, paths, tmp_path / "one")
    monkeypatch.setattr(ids_module, "_MERGE_IDS", 64)
    merge_runs(DISK, paths[::-1], tmp_path / "pieces")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "pieces").read_bytes()
    merged = Run(DISK, tmp_path / "one")
    assert (merged.count, merged.first, merged.last, merged.held_us) == (1701, 1, 4, (1, 4))
    assert has(merged, np.concatenate(parts).tolist()) == [True] * 1701
    assert (np.diff(merged.keys.astype(object)) >= 0).all()


def test_a_crash_during_a_merge_loses_no_id(tmp_path: Path) -> None:
    """At every disk call: the next start has the old runs or the merged one, never both, never neither."""
    for call in range(1, 200):
        folder = tmp_path / str(call)
        folder.mkdir()
        for batch in range(1, 10):
            write(folder, [batch], batch, batch)
        disk = FaultyDisk()
        runs = RunSet(disk, folder, LIMITS)
        disk._fail_at = len(disk.calls) + call
        merge = runs.plan_merge()
        assert merge is not None
        try:
            merge_runs(disk, merge.paths, merge.out)
            runs.replaced(merge)
        except Crashed:
            pass
        again = RunSet(DISK, folder, LIMITS)
        assert all(has(again, list(range(1, 10))))
        assert again.ids == 9
        assert len(os.listdir(folder)) == len(again.paths)
        if not disk.fired:
            break
    assert not disk.fired


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    """Only what is named like a run is a run."""
    (tmp_path / "note.txt").touch()
    assert RunSet(DISK, tmp_path, LIMITS).paths == ()
    assert os.listdir(tmp_path) == ["note.txt"]
