"""The progress cell: what a child says of itself is read by another process, also when it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from collector.core.supervision import Phase, ProgressSnapshot
from collector.ipc.cell import CELL_BYTES, ProgressCell


@pytest.fixture
def sides():
    """The coordinator's and the child's."""
    ours, fd = ProgressCell.make()
    theirs = ProgressCell.from_fd(fd)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_new_cell_is_a_child_that_starts(sides):
    """Zeros say so: nobody has to write anything first."""
    ours, _ = sides
    assert ours.read() == ProgressSnapshot(0, Phase.STARTING, 0, 0)


def test_each_word_of_the_child_is_a_beat(sides):
    """Whatever it says, it lives."""
    ours, theirs = sides
    theirs.beat()
    assert ours.read().beats == 1
    theirs.enter(Phase.DECODING, 2**40, 3)
    assert ours.read() == ProgressSnapshot(2, Phase.DECODING, 2**40, 3)
    theirs.enter(Phase.WAITING)
    assert ours.read() == ProgressSnapshot(3, Phase.WAITING, 0, -1)


def test_a_call_that_waits_for_the_disk_says_so_and_returns(sides):
    """Whether it succeeds or not, the child goes on with what it was doing."""
    ours, theirs = sides
    theirs.enter(Phase.DECODING, 7, 3)

    def fail() -> None:
        with theirs.waits_for_disk():
            assert ours.read().phase is Phase.DISK
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fail()
    assert ours.read() == ProgressSnapshot(3, Phase.DECODING, 7, 3)


def test_what_a_dead_child_said_last_is_still_there():
    """A killed process takes nothing with it."""
    ours, fd = ProgressCell.make()
    code = (
        "import os, sys\nfrom collector.core.supervision import Phase\n"
        "from collector.ipc.cell import ProgressCell\n"
        "ProgressCell.from_fd(int(sys.argv[1])).enter(Phase.DECODING, 9, 4); os.kill(os.getpid(), 9)"
    )
    with os.fdopen(fd):
        ended = subprocess.run([sys.executable, "-c", code, str(fd)], pass_fds=[fd], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ours.read() == ProgressSnapshot(1, Phase.DECODING, 9, 4)
    ours.close()


def test_whatever_a_stray_child_writes_can_be_read(sides):
    """A phase that there is none of is one like any other."""
    ours, theirs = sides
    theirs.enter(99, -5, 2**62)  # type: ignore[arg-type]
    assert ours.read() == ProgressSnapshot(1, Phase.WAITING, -5, 2**62)


def test_a_cell_that_nobody_reads_can_be_written():
    """Where a child is started without one."""
    cell = ProgressCell.from_fd(None)
    cell.enter(Phase.READING)
    assert cell.read().phase is Phase.READING
    cell.close()
    assert CELL_BYTES == 64
