"""What the machine withholds: descriptors, memory, permissions, room on a real file system, time."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_rig import Rig
from harness import wait_until
from small_disk import SmallDisk

MIB = 1 << 20
ROOM = {"journal.reserve_bytes": "16 MiB", "journal.max_bytes": "8 MiB"}
"""The journal leaves room for the parts that are to be made of it."""


@pytest.fixture
def make_rig(tmp_path) -> Iterator:
    rigs = []

    def make(**more) -> Rig:
        rigs.append(Rig(tmp_path / "rig", **{"overlap_s": 30.0, **more}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def pid_of(rig: Rig, name: str) -> int:
    return rig.collector.process.pid if name == "coordinator" else rig.collector.pids(name)[0]


# ---------------------------------------------------------------- descriptors and memory


def without_descriptors(rig: Rig, name: str) -> None:
    """From now on this process can open nothing."""
    rig.start()
    rig.until_rows(300)
    pid = pid_of(rig, name)
    used = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    lowest_free = min({*range(len(used) + 1)} - used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, lowest_free))


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["coordinator", "reader"])
def test_out_of_descriptors(make_rig, name):
    """Where nothing can be opened any more, the collector ends with exit 4; the next run misses nothing."""
    rig = make_rig()
    without_descriptors(rig, name)
    rig.service.cut("rst")  # so that each of them needs one
    rig.ends(4)
    assert "Too many open files" in rig.collector.log
    rig.start()
    rig.finish()


@pytest.mark.matrix
def test_a_decoder_out_of_descriptors_blames_no_record(make_rig):
    """It is replaced, or the collector ends with exit 4; what it could not decode is no reject."""
    rig = make_rig(settings={"run.decoders": 1})
    without_descriptors(rig, "decoder")
    process = rig.collector.process
    wait_until(
        lambda: rig.collector.events("child.died") or process.poll() is not None, "the decoder to fail"
    )
    if process.poll() is not None:
        rig.ends(4)
        rig.start()
    tally = rig.finish()
    assert rig.collector.events("block.poisoned") == []
    assert tally.records["rejects"] < tally.records["hits"] // 200


@pytest.mark.matrix
def test_a_decoder_without_memory_is_replaced(make_rig):
    """It dies or reports; its blocks run again in another, nobody else notices."""
    rig = make_rig(settings={"run.decoders": 1})
    rig.start()
    rig.until_rows(300)
    pid = pid_of(rig, "decoder")
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    used = pages * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(pid, resource.RLIMIT_AS, (used, used))
    wait_until(
        lambda: rig.collector.events("child.died") or rig.collector.process.poll() is not None,
        "the decoder to fail",
    )
    assert rig.collector.process.poll() is None, rig.collector.log
    rig.finish()
    assert len(rig.service.requests) == 1


# ---------------------------------------------------------------- permissions, places, signals


def test_modes_do_not_depend_on_the_umask(make_rig):
    """State 0700 and 0600, parts 0644 in folders of 0755, also under umask 000."""
    rig = make_rig()
    before = os.umask(0)
    try:
        rig.start()
    finally:
        os.umask(before)
    rig.until_rows(300)
    rig.finish()
    wrong = [
        f"{stat.S_IMODE(path.lstat().st_mode):04o} {path}"
        for path in [rig.collector.output, *rig.collector.output.rglob("*")]
        if stat.S_IMODE(path.lstat().st_mode) != wanted_mode(rig, path)
    ]
    assert wrong == []


def wanted_mode(rig: Rig, path: Path) -> int:
    private = ".state" in path.parts and path != rig.collector.output / ".state"
    if path.is_dir():
        return 0o700 if private or path.name == ".state" else 0o755
    return 0o600 if private else 0o644


def test_state_on_another_file_system_is_refused(make_rig, tmp_path):
    """A part becomes visible by a rename: exit 2 before the service is asked for anything."""
    memory = Path("/dev/shm")
    if memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm and the temporary folder are one file system")
    state = memory / f"livestream-test-{os.getpid()}"
    rig = make_rig()
    try:
        rig.start("--state", str(state))
        assert rig.collector.wait() == 2
    finally:
        subprocess.run(["rm", "-rf", str(state)], check=True)
    assert "different file systems" in rig.collector.log
    assert rig.service.requests == []


def test_sigterm_under_full_load(make_rig):
    """The service sends all it can: the drain still ends in time, with exit 0, and the next run goes on."""
    rig = make_rig(hits_per_second=0.0, overlap_s=5.0)
    rig.start()
    rig.until_rows(3000)
    assert rig.collector.drain() == 0, rig.collector.log
    rig.start()
    rig.finish()


# ---------------------------------------------------------------- a file system that is really full


@pytest.fixture
def small_disk(tmp_path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small", 192 * MIB)
    yield disk
    disk.close()


@pytest.mark.matrix
def test_a_disk_that_is_really_full(small_disk, make_rig):
    """Everything waits, nothing partial is visible, no request is sent; with room it goes on by itself."""
    rig = make_rig(output=small_disk.folder / "output", settings=ROOM)
    rig.start()
    rig.until_rows(300)
    small_disk.fill()
    rig.wait_until(lambda: rig.collector.events("storage.full"), "it to be said")
    rig.wait_until(lambda: rig.collector.events("connection.paused"), "the transfer to pause")
    rig.service.cut("rst")
    tries = len(rig.collector.events("storage.full"))
    rig.wait_until(lambda: len(rig.collector.events("storage.full")) > tries + 2, "some more tries")
    assert len(rig.service.requests) == 1, "no request while there is no room"
    rig.assert_nothing_partial()
    small_disk.free()
    rig.finish()
    assert rig.collector.events("child.died") == []


@pytest.mark.matrix
def test_a_crash_on_a_full_disk(small_disk, make_rig):
    """Killed while full, started while full: it says so and ends, or waits; with room nothing is missing."""
    rig = make_rig(output=small_disk.folder / "output", settings=ROOM)
    rig.start()
    rig.until_rows(300)
    small_disk.fill()
    rig.wait_until(lambda: rig.collector.events("storage.full"), "it to be said")
    rig.collector.kill_all()
    asked = len(rig.service.requests)
    rig.start()
    with contextlib.suppress(subprocess.TimeoutExpired):
        assert rig.collector.wait(5.0) == 4, rig.collector.log
    assert len(rig.service.requests) == asked, "no request while there is no room"
    rig.assert_nothing_partial()
    if rig.collector.process.poll() is None:
        rig.collector.kill_all()
    small_disk.free()
    rig.start()
    rig.finish()
