"""``compact`` ended at every disk call of it: what is to be seen is never short of a row, and the next run
brings it to the same end; ``verify`` finds nothing wrong at any moment."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compact_rig import Lake, by_place, copies, failure, hit, hit_without_id, stays

from collector.errors import NoSpaceError, StorageError, SyncFailedError
from tests.storage.faulty_disk import TAKES_ROOM, Crashed, Fate, FaultyDisk, LossyDisk, cycle

MOST_CALLS = 100
CHANGING = (TAKES_ROOM | {"unlink", "truncate", "set_mode"}) - {"open"}
"""A new file is met at its ``set_mode``."""


@pytest.fixture
def folders() -> Iterator[Path]:
    """In memory where there is a tmpfs: thousands of files are made and none is synced."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="collector-test-", dir=in_memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def calls(request) -> Callable[[int, int], range]:
    """The numbers of the calls that fail in variant ``which`` of ``variants`` of a fault: with ``--all`` each
    of them. Everyday runs give each call to one variant, to which one is drawn with the seed of the faults.
    """
    if request.config.getoption("--all"):
        return lambda which, variants: range(1, MOST_CALLS)
    seed = request.config.getoption("--fault-seed")
    return lambda which, variants: range(1 + (seed + which) % variants, MOST_CALLS, variants)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Lake:
    """Compacted once, and late hits since: the next run replaces parts of two collectors and its own file."""
    lake = Lake(tmp_path_factory.mktemp("small") / "c")
    first, second = lake.first, lake.second
    first.make()
    second.make()
    first.commit([hit(1), hit(2), hit_without_id(1)])
    lake.compact()
    second.commit([hit(2), hit(3)])
    first.commit([hit(4)], shares=1)
    return lake


def nothing_missing(lake: Lake, before: list) -> None:
    """Every row that stays is to be seen, at most twice; and no fault is found."""
    seen = copies(lake.rows())
    assert {place for place in copies(stays(before)) if place not in seen} == set()
    assert max(seen.values()) <= 2
    lake.assert_green()


def finished(lake: Lake, before: list) -> None:
    """As if nothing had happened."""
    lake.compact()
    assert by_place(lake.rows()) == stays(before)
    assert [name[:7] for name in lake.names()] == ["compact"]
    for folder in (lake.folder.staging, lake.folder.scratch):
        assert list(folder.iterdir()) == []
    assert not lake.folder.plan.exists()
    lake.assert_green()


def test_killed_at_any_call_it_is_finished_by_running_it_again(small, folders):
    """No clean-up runs, whatever was half done stays."""
    before = small.rows()
    twice = 0
    for call in range(1, MOST_CALLS):
        lake = small.copy_to(folders / str(call))
        disk = FaultyDisk(call, only=CHANGING)
        try:
            lake.compact(disk)
        except Crashed:
            nothing_missing(lake, before)
            twice += max(copies(lake.rows()).values()) == 2
        finished(lake, before)
        shutil.rmtree(lake.root)
        if not disk.fired:
            break
    assert not disk.fired
    assert twice > 0  # the window that docs/compaction.md speaks of


@pytest.mark.parametrize("sticky", [False, True])
def test_a_full_disk_leaves_everything_as_it_was(small, folders, calls, sticky):
    """Until the replacement is decided; from there on the next run goes on."""
    before = small.rows()
    names, untouched = small.names(), 0
    other = small.copy_to(folders / "whole")
    other.compact()
    done = other.names()
    for call in calls(sticky, 2):
        lake = small.copy_to(folders / str(call))
        disk = FaultyDisk(call, errno.ENOSPC, sticky=sticky, only=TAKES_ROOM)
        error = failure(lake, disk)
        assert error in {None, NoSpaceError, SyncFailedError, StorageError}
        assert (error is None) == (not disk.fired), disk.failed_call
        nothing_missing(lake, before)
        if error is not None and not lake.folder.plan.exists():
            untouched += lake.names() == names
            assert lake.names() in (names, done)
            assert list(lake.folder.staging.iterdir()) == []
        finished(lake, before)
        shutil.rmtree(lake.root)
        if not disk.fired:
            break
    assert not disk.fired
    assert untouched > 1


FATES = {"dropped": [Fate.DROPPED], "mixed": [Fate.DROPPED, Fate.KEPT, Fate.GARBLED], "kept": [Fate.KEPT]}


@pytest.mark.parametrize("fates", FATES)
def test_no_row_is_missing_after_a_power_failure(small, folders, calls, fates):
    """What was not synced is kept, dropped or garbled, names and bytes alike."""
    before = small.rows()
    for call in calls(list(FATES).index(fates), len(FATES)):
        lake = small.copy_to(folders / str(call))
        lossy = LossyDisk(folders)
        disk = FaultyDisk(call, only=CHANGING, over=lossy)
        try:
            lake.compact(disk)
        except Crashed:
            lossy.lose_power(cycle(FATES[fates]), call)
            nothing_missing(lake, before)
        finished(lake, before)
        shutil.rmtree(lake.root)
        if not disk.fired:
            break
    assert not disk.fired


def test_a_decided_replacement_whose_file_is_gone_stops_the_next_run(small, tmp_path):
    """It names the file and how much of what it was made of is still there."""
    lake = small.copy_to(tmp_path / "c")
    for call in range(1, MOST_CALLS):
        disk = FaultyDisk(call, only=CHANGING)
        with pytest.raises(Crashed):
            lake.compact(disk)
        if lake.folder.plan.exists():
            break
    for staged in lake.folder.staging.iterdir():
        staged.unlink()
    before = lake.contents()
    with pytest.raises(StorageError, match=r"cannot be finished: neither .* 3 of 3 files"):
        lake.compact()
    assert lake.contents() == before
