"""Every component of the storage layer, every disk call of it failing in turn.

The sweep fails call 1, 2, 3, ... until one run passes.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from components import COMPONENTS, Acknowledged, attempt
from faulty_disk import FALLIBLE, SYNCS, TAKES_ROOM, Crashed, FaultyDisk, ShortDisk

from collector.errors import NoSpaceError, StorageError, SyncFailedError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
ALL = frozenset(FALLIBLE)
FAULTS = [
    pytest.param(None, True, id="crash"),
    *(
        pytest.param(code, sticky, id=f"{errno.errorcode[code]}-{'sticky' if sticky else 'once'}")
        for code, sticky in (
            (errno.ENOSPC, False),
            (errno.ENOSPC, True),
            (errno.EDQUOT, False),
            (errno.EIO, False),
            (errno.EIO, True),
            (errno.EROFS, True),
        )
    ),
]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def judge_descriptors(before: set[str], disk: FaultyDisk) -> None:
    assert descriptors() == before, disk.failed_call


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize(("code", "sticky"), FAULTS)
def test_whatever_call_fails_the_rule_holds(
    memory_path: Path, name: str, code: int | None, sticky: bool
) -> None:
    """Nothing partial is visible, nothing acknowledged is lost, the error says whether waiting helps,
    no descriptor is left open, no file is left that the next start does not know."""
    component = COMPONENTS[name]
    for call in range(1, 400):
        root = memory_path / str(call)
        root.mkdir()
        component.prepare(root)
        before, acknowledged = descriptors(), Acknowledged()
        disk = FaultyDisk(call, code, sticky=sticky, only=TAKES_ROOM if code in NO_ROOM else ALL)
        error = attempt(component, disk, root, acknowledged)
        judge_descriptors(before, disk)
        acknowledged.more["can clean"] = not (sticky and code not in NO_ROOM)
        judge_error(error, disk, code)
        component.judge(FaultyDisk(), root, acknowledged)
        shutil.rmtree(root)
        if not disk.fired:
            break
    assert not disk.fired


def judge_error(error: type[BaseException] | None, disk: FaultyDisk, code: int | None) -> None:
    """``NoSpaceError`` where waiting helps, and there alone: after a failed sync it does not."""
    if not disk.fired:
        assert error is None
    elif code is None:
        assert error is Crashed
    elif disk.failed_call in SYNCS:
        assert error is SyncFailedError or (disk.sticky and error is StorageError), error
    elif code in NO_ROOM:
        assert error in {None, NoSpaceError}, disk.failed_call
    else:
        assert error is StorageError, disk.failed_call


@pytest.mark.parametrize("name", COMPONENTS)
def test_short_writes_are_finished_everywhere(memory_path: Path, name: str) -> None:
    """However little one call takes."""
    component, acknowledged = COMPONENTS[name], Acknowledged(more={"can clean": True})
    component.prepare(memory_path)
    component.work(ShortDisk(), memory_path, acknowledged)
    component.judge(FaultyDisk(), memory_path, acknowledged)
