from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.errors import InUseError
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.lock import (
    ChildIdentity,
    StateLock,
    identity_of,
    record_children,
    take_children,
)

SLEEP = "import sys; sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.read()"


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path)
    folder.make(DISK)
    return folder


@pytest.fixture
def orphan(state: StateFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A child of a collector that is gone: it alone holds ``children``."""
    lock = take_children(DISK, state)
    child = start(lock.fd)
    lock.release()
    yield child
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.close()
    child.wait(10)


def start(fd: int) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEP], pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    return child


def test_a_second_collector_is_refused_at_once(state: StateFolder) -> None:
    """The message names the folder and who has it; the first one is undisturbed."""
    first = StateLock.take(DISK, state)
    with pytest.raises(InUseError, match=f"{state.root} is in use by process {os.getpid()}"):
        StateLock.take(DISK, state)
    first.release()
    StateLock.take(DISK, state).release()


def test_a_refusal_without_a_known_holder(state: StateFolder) -> None:
    """The lock counts, not what is written in its file."""
    first = StateLock.take(DISK, state)
    state.lock.write_bytes(b"\xff not a number")
    with pytest.raises(InUseError, match="in use by another collector"):
        StateLock.take(DISK, state)
    first.release()


def test_the_lock_is_not_inherited(state: StateFolder) -> None:
    """A child that lives on does not keep the next collector out."""
    lock = StateLock.take(DISK, state)
    assert not os.get_inheritable(lock._fd)
    lock.release()


def test_without_orphans_children_is_taken_at_once(state: StateFolder) -> None:
    """And says that nobody had to be waited for."""
    lock = take_children(DISK, state, wait_s=0.0)
    assert not lock.orphaned
    lock.release()


def test_an_orphan_that_goes_by_itself_is_waited_for(
    state: StateFolder, orphan: subprocess.Popen[bytes]
) -> None:
    """It seals and syncs first, and is not killed."""
    assert orphan.stdin is not None
    orphan.stdin.close()
    lock = take_children(DISK, state, wait_s=30, kill=lambda pid, signal: pytest.fail("killed"))
    assert orphan.wait(10) == 0
    lock.release()


def test_an_orphan_that_stays_is_killed(state: StateFolder, orphan: subprocess.Popen[bytes]) -> None:
    """By the pid and start time that were recorded; then the lock is free."""
    record_children(DISK, state, [orphan.pid, os.getpid()])
    recorded = state.children_record.read_bytes()
    assert str(orphan.pid).encode() in recorded
    record_children(DISK, state, [orphan.pid])
    lock = take_children(DISK, state, wait_s=0.05)
    assert lock.orphaned
    assert orphan.wait(10) == -9
    lock.release()


def test_a_process_with_another_start_time_is_never_killed(
    state: StateFolder, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number was given again: that process has nothing to do with us."""
    monkeypatch.setattr("collector.storage.lock._KILLED_WITHIN_S", 0.05)
    record_children(DISK, state, [orphan.pid])
    found = identity_of(orphan.pid)
    assert found is not None
    text = state.children_record.read_text()
    state.children_record.write_text(text.replace(str(found.start), str(found.start + 1)))
    with pytest.raises(InUseError, match="killed: none"):
        take_children(DISK, state, wait_s=0.05)
    assert orphan.poll() is None


@pytest.mark.parametrize("record", [None, b"", b"[{", b'{"pid": 1}'])
def test_without_a_readable_record_nobody_is_killed(
    state: StateFolder,
    orphan: subprocess.Popen[bytes],
    record: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the start is refused in words."""
    monkeypatch.setattr("collector.storage.lock._KILLED_WITHIN_S", 0.05)
    if record is not None:
        state.children_record.write_bytes(record)
    with pytest.raises(InUseError, match="find it with fuser"):
        take_children(DISK, state, wait_s=0.0)
    assert orphan.poll() is None


def test_a_process_is_known_by_its_start() -> None:
    """The same twice; none once it is gone."""
    child = subprocess.Popen(["true"])
    assert identity_of(os.getpid()) == identity_of(os.getpid())
    assert isinstance(identity_of(os.getpid()), ChildIdentity)
    child.wait(10)
    assert identity_of(child.pid) is None
