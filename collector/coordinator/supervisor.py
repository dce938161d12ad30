"""Children as processes: started from the main thread, heard over their channel, reaped when gone.

Runs in the coordinator. EOF on the channel is a child's death, whatever became of its process: it is
killed and reaped before anybody else gets its work. A child that hangs is ended by force, and its
death is then one like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec

from collector.core.supervision import (
    LOOK_INTERVAL_S,
    OUT_OF_MEMORY,
    Death,
    Health,
    Heartbeat,
    Phase,
    RestartIntensity,
)
from collector.errors import ChildFailedError
from collector.ipc.cell import ProgressCell
from collector.ipc.channel import CoordinatorChannel
from collector.telemetry import log

T = TypeVar("T")

ALLOCATOR_ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "2",
}
"""Without these glibc gives a block's buffers back and faults them in again for the next one."""

LAST_STEPS_S: Final = 2.0
"""From the end of a channel to SIGKILL: a child that ends by itself shall not seem to have been killed."""

LAST_WORDS_S: Final = 2.0
"""From SIGABRT, upon which a hung child says where it hangs, to SIGKILL."""


@dataclass(slots=True)
class Child(Generic[T]):
    """A running child. ``receive`` gives ``None`` once it is gone; then call ``reap``."""

    name: str
    process: subprocess.Popen[bytes]
    channel: CoordinatorChannel[T]
    cell: ProgressCell
    _watch: asyncio.Task[None] = field(init=False)
    _hung: bool = False
    _gone: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def phase(self) -> Phase | None:
        """What it is doing; ``None``: it is gone."""
        return None if self._gone else self.cell.read().phase

    def send(self, message: msgspec.Struct) -> None:
        self.channel.send(message)

    async def receive(self) -> T | None:
        message = await self.channel.receive()
        self._gone = message is None
        return message

    def watch(self, limit_s: float) -> None:
        """From now on it is looked at once a second, until it is reaped."""
        self._watch = asyncio.create_task(self._keep_looking(Heartbeat(limit_s)))

    def kill(self) -> None:
        """Its end is heard on the channel."""
        self.process.kill()

    async def reap(self, *, grace_s: float = 0.0) -> Death:
        """Closes the channel, gives the process ``grace_s`` to end, then kills it. Says how it ended."""
        await self.channel.close()
        grace_s = max(grace_s, LAST_STEPS_S) if self._gone else grace_s
        self._gone = True
        with contextlib.suppress(TimeoutError):
            if grace_s:
                await asyncio.wait_for(self._exited(), grace_s)
        if self.process.poll() is None:
            self.process.kill()
            await self._exited()
        self._watch.cancel()
        death = _death(self.process.wait(), self.cell, hung=self._hung)
        self.cell.close()
        return death

    async def _keep_looking(self, heartbeat: Heartbeat) -> None:
        loop = asyncio.get_running_loop()
        health = Health.WELL
        while health is not Health.HUNG:
            await asyncio.sleep(LOOK_INTERVAL_S)
            seen = self.cell.read()
            health = heartbeat.look(seen, loop.time())
            if health is not Health.WELL:
                event = "child.hung" if health is Health.HUNG else "child.slow"
                phase = seen.phase.name.lower()
                log(event, name=self.name, pid=self.pid, phase=phase, silent_s=heartbeat.silent_s)
        self._hung = True
        self.process.send_signal(signal.SIGABRT)
        await asyncio.sleep(LAST_WORDS_S)
        self.process.kill()

    async def _exited(self) -> None:
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        try:
            pidfd = os.pidfd_open(self.process.pid)
        except ProcessLookupError:  # reaped already
            return
        loop.add_reader(pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def _death(code: int, cell: ProgressCell, *, hung: bool) -> Death:
    at = cell.read()
    if code >= 0:
        why = ", out of memory" if code == OUT_OF_MEMORY else ""
        return Death(f"exit code {code}{why}", exit_code=code, at=at)
    name = signal.Signals(-code).name
    return Death(f"signal {name}{', it hung' if hung else ''}", signal=name, at=at)


def delay_of_successor_s(name: str, death: Death, intensity: RestartIntensity) -> float:
    """*Raises* ChildFailedError where there is to be none."""
    delay_s = intensity.died(asyncio.get_running_loop().time())
    if delay_s is None:
        what = "keeps failing" if intensity.was_ready else "cannot start"
        raise ChildFailedError(f"{name} {what} (last: {death.how}); its message is above")
    return delay_s


async def start_child(
    name: str,
    module: str,
    arguments: Sequence[str],
    incoming: Any,
    *,
    environment: Mapping[str, str],
    inherited_fds: Sequence[int],
    heartbeat_limit_s: float,
) -> Child[Any]:
    """Spawn ``python -m module``; ``--channel``, ``--parent`` and ``--cell`` are added to its arguments.

    *Blocks* the loop for the spawn itself, a few milliseconds.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    cell, cell_fd = ProgressCell.make()
    with theirs, os.fdopen(cell_fd, "rb"):
        handles = ["--channel", str(theirs.fileno()), "--parent", str(os.getpid()), "--cell", str(cell_fd)]
        process = subprocess.Popen(  # noqa: ASYNC220  # PR_SET_PDEATHSIG wants the main thread
            [sys.executable, "-X", "faulthandler", "-m", module, *handles, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), cell_fd, *inherited_fds],
            env={**environment, **ALLOCATOR_ENVIRONMENT},
        )
    ours.setblocking(False)
    child: Child[Any] = Child(name, process, await CoordinatorChannel.over(ours, incoming), cell)
    child.watch(heartbeat_limit_s)
    return child
