from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from faulty_disk import FaultyDisk

from collector.errors import InUseError
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.lock import (
    ChildIdentity,
    StateLock,
    identity_of,
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
    with StateLock.take(DISK, state) as lock:
        lock.take_children()
        child = start(lock.children_fd)
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
    with StateLock.take(DISK, state) as lock:
        assert not os.get_inheritable(lock._fd)


def test_without_orphans_children_is_taken_at_once(state: StateFolder) -> None:
    """And says that nobody had to be waited for."""
    with StateLock.take(DISK, state) as lock:
        assert not lock.take_children(wait_s=0.0)


def test_an_orphan_that_goes_by_itself_is_waited_for(
    state: StateFolder, orphan: subprocess.Popen[bytes]
) -> None:
    """It seals and syncs first, and is not killed."""
    assert orphan.stdin is not None
    orphan.stdin.close()
    with StateLock.take(DISK, state) as lock:
        lock.take_children(wait_s=30, kill=lambda pid, signal: pytest.fail("killed"))
    assert orphan.wait(10) == 0


def test_an_orphan_that_stays_is_killed(state: StateFolder, orphan: subprocess.Popen[bytes]) -> None:
    """By the pid and start time that were recorded; then the lock is free."""
    found = identity_of(orphan.pid)
    state.children.write_bytes(msgspec.json.encode([found]).ljust(100))
    with StateLock.take(DISK, state) as lock:
        assert lock.take_children(wait_s=0.05)
    assert orphan.wait(10) == -9


def test_children_that_are_gone_are_not_recorded(state: StateFolder) -> None:
    """The record holds who may have to be killed, each with its start time."""
    gone = subprocess.Popen(["true"])
    gone.wait(10)
    with StateLock.take(DISK, state) as lock:
        lock.take_children()
        lock.record_children([gone.pid, os.getpid()])
    recorded = msgspec.json.decode(state.children.read_bytes(), type=list[ChildIdentity])
    assert recorded == [identity_of(os.getpid())]


def test_recording_children_needs_no_room_and_no_sync(state: StateFolder) -> None:
    """A full or slow disk keeps no child from being started."""
    disk = FaultyDisk()
    with StateLock.take(disk, state) as lock:
        lock.take_children()
        disk.calls.clear()
        lock.record_children([os.getpid()])
        assert disk.calls == ["pwritev"]
        assert state.children.stat().st_blocks * 512 >= state.children.stat().st_size > 0


def test_a_record_that_became_shorter_leaves_nothing_of_the_longer_one(state: StateFolder) -> None:
    """It is overwritten in place."""
    with StateLock.take(DISK, state) as lock:
        lock.take_children()
        lock.record_children([os.getpid(), os.getppid()])
        lock.record_children([])
    assert msgspec.json.decode(state.children.read_bytes()) == []


def refused(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("collector.storage.lock._KILLED_WITHIN_S", 0.05)
    with StateLock.take(DISK, state) as lock, pytest.raises(InUseError) as caught:
        lock.take_children(wait_s=0.0)
    return str(caught.value)


def test_a_process_with_another_start_time_is_never_killed(
    state: StateFolder, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number was given again: that process has nothing to do with us."""
    found = identity_of(orphan.pid)
    assert found is not None
    later = ChildIdentity(found.pid, found.start + 1)
    state.children.write_bytes(msgspec.json.encode([later]))
    assert "killed: none" in refused(state, monkeypatch)
    assert orphan.poll() is None


@pytest.mark.parametrize("record", [None, b"", b"[{", b'{"pid": 1}'])
def test_without_a_readable_record_nobody_is_killed(
    state: StateFolder,
    orphan: subprocess.Popen[bytes],
    record: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the start is refused in words."""
    if record is not None:
        state.children.write_bytes(record)
    assert "find it with fuser" in refused(state, monkeypatch)
    assert orphan.poll() is None


def test_a_process_is_known_by_its_start() -> None:
    """The same twice; none once it is gone."""
    child = subprocess.Popen(["true"])
    assert identity_of(os.getpid()) == identity_of(os.getpid())
    assert isinstance(identity_of(os.getpid()), ChildIdentity)
    child.wait(10)
    assert identity_of(child.pid) is None
