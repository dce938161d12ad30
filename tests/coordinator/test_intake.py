"""The intake over a disk that blocks: credit and freed segments wait for it, the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from collector.coordinator.intake import Intake
from collector.core.messages import Accepted, Block, Ready, SegmentGranted, SegmentWanted
from collector.core.segments import Segments
from collector.storage.fs import Disk
from collector.storage.segments import free_name, segment_name

GUARD_S = 30.0


class BlockingDisk(Disk):
    """``gate`` shut: calls that wait for a device wait for it to be opened."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def _wait(self) -> None:
        self.reached.set()
        assert self.gate.wait(GUARD_S)

    def rename(self, source, target) -> None:
        self._wait()
        super().rename(source, target)

    def unlink(self, path) -> None:
        self._wait()
        super().unlink(path)

    def free_bytes(self, path) -> int:
        self._wait()
        return super().free_bytes(path)


class Reader:
    """A child as the intake sees it."""

    name = "reader"
    pid = 1

    def __init__(self) -> None:
        self.says: asyncio.Queue = asyncio.Queue()
        self.grants: asyncio.Queue[SegmentGranted] = asyncio.Queue()

    async def receive(self):
        return await self.says.get()

    def send(self, message) -> None:
        self.grants.put_nowait(message)

    async def reap(self, *, grace_s: float) -> None:
        """It was never a process."""


class Transport:
    """Remembers whether there was room when it heard of the reader."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.had_room: asyncio.Queue[bool] = asyncio.Queue()

    def reader_ready(self) -> None:
        self.had_room.put_nowait(not self.intake.starved)

    def reader_gone(self) -> None: ...


def block(seq: int, segment: int) -> Block:
    return Block(seq, segment, 0, 10, 5, 1, 0, 0, 0)


class Stage:
    """A running intake with its reader, over segments 1 to 4 that are full of accepted blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = BlockingDisk()
        self.reader = Reader()
        self.accepted = asyncio.Event()
        for number in range(1, 5):
            (folder / segment_name(number)).touch()
        self.intake = Intake(
            disk=self.disk,
            journal=folder,
            quarantine=folder,
            watched=(folder,),
            segments=Segments(segment_bytes=1, max_bytes=10, next_segment=5),
            reserve_bytes=0,
            next_seq=1,
            held_us=0,
            accepted_total=0,
            start_reader=self._start,
            accepted=lambda blocks: self.accepted.set(),
            journal_full=lambda size_bytes: None,
        )
        self.transport = self.intake.transport = Transport(self.intake)

    async def _start(self, next_seq: int) -> Reader:
        return self.reader

    async def act(self, play) -> None:
        task = asyncio.create_task(self.intake.run())
        try:
            self.reader.says.put_nowait(Ready(1))
            self.reader.says.put_nowait(Accepted(tuple(block(n, n) for n in range(1, 5))))
            async with asyncio.timeout(GUARD_S):
                await self.accepted.wait()
                await play(self)
        finally:
            self.disk.gate.set()
            task.cancel()
            self.reader.says.put_nowait(None)
            await asyncio.gather(task, return_exceptions=True)
            self.intake.close()

    async def reached(self) -> None:
        """The disk has been asked, and has not answered."""
        await asyncio.get_running_loop().run_in_executor(None, self.disk.reached.wait, GUARD_S)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_freeing_segments_on_a_stuck_disk_holds_nobody_up(stage: Stage) -> None:
    """The loop goes on; the segments are free, and can be granted, once the disk is back."""

    async def play(stage: Stage) -> None:
        stage.disk.gate.clear()
        stage.intake.committed(3)
        await stage.reached()
        stage.reader.says.put_nowait(SegmentWanted())
        for _ in range(100):
            await asyncio.sleep(0)
        assert stage.reader.grants.empty()
        stage.disk.gate.set()
        assert await stage.reader.grants.get() == SegmentGranted(5, free_name(1))
        names = sorted(path.name for path in stage.folder.iterdir())
        assert names == [segment_name(4), free_name(1), free_name(2)]

    asyncio.run(stage.act(play))


def test_asking_a_stuck_disk_for_its_room_holds_nobody_up(stage: Stage) -> None:
    """A file system behind a network may answer late."""

    async def play(stage: Stage) -> None:
        stage.disk.gate.clear()
        stage.reader.says.put_nowait(SegmentWanted())
        await stage.reached()
        assert stage.reader.grants.empty()
        stage.disk.gate.set()
        assert await stage.reader.grants.get() == SegmentGranted(5, "")

    asyncio.run(stage.act(play))


@pytest.mark.parametrize("reserve_bytes", [0, 2**60])
def test_a_reader_is_announced_when_its_room_is_known(stage: Stage, reserve_bytes: int) -> None:
    """Not before: a request must not be sent while the disk is full, at a start neither."""
    stage.intake._reserve_bytes = reserve_bytes

    async def play(stage: Stage) -> None:
        stage.disk.gate.clear()
        stage.reader.says.put_nowait(SegmentWanted())
        await stage.reached()
        assert stage.intake.ready.is_set()
        assert stage.transport.had_room.empty()
        stage.disk.gate.set()
        assert await stage.transport.had_room.get() is (reserve_bytes == 0)

    asyncio.run(stage.act(play))
