"""Children as processes: started from the main thread, heard over their channel, reaped when gone.

EOF on the channel is a child's death, whatever became of its process: it is killed and reaped
before anybody else gets its work.
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
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from collector.ipc.channel import CoordinatorChannel

T = TypeVar("T")

ALLOCATOR_ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "2",
}
"""Without these glibc gives a block's buffers back and faults them in again for the next one."""


@dataclass(slots=True)
class Child(Generic[T]):
    """A running child. ``receive`` gives ``None`` once it is gone; then call ``reap``."""

    name: str
    process: subprocess.Popen[bytes]
    channel: CoordinatorChannel[T]

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, message: msgspec.Struct) -> None:
        self.channel.send(message)

    async def receive(self) -> T | None:
        return await self.channel.receive()

    async def reap(self, *, grace_s: float = 0.0) -> str:
        """Closes the channel, gives the process ``grace_s`` to end, then kills it. Says how it ended."""
        await self.channel.close()
        with contextlib.suppress(TimeoutError):
            if grace_s:
                await asyncio.wait_for(self._exited(), grace_s)
        if self.process.poll() is None:
            self.process.kill()
            await self._exited()
        return _how_it_ended(self.process.wait())

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


def _how_it_ended(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


async def start_child(
    name: str,
    module: str,
    arguments: Sequence[str],
    incoming: Any,
    *,
    environment: Mapping[str, str],
    inherited_fds: Sequence[int],
) -> Child[Any]:
    """Spawn ``python -m module``; ``--channel`` and ``--parent`` are added to its arguments.

    *Blocks* the loop for the spawn itself, a few milliseconds.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        handles = ["--channel", str(theirs.fileno()), "--parent", str(os.getpid())]
        process = subprocess.Popen(  # noqa: ASYNC220  # PR_SET_PDEATHSIG wants the main thread
            [sys.executable, "-m", module, *handles, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *inherited_fds],
            env={**environment, **ALLOCATOR_ENVIRONMENT},
        )
    ours.setblocking(False)
    return Child(name, process, await CoordinatorChannel.over(ours, incoming))
