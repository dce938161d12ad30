"""Runs a command of the collector and says what it cost: CPU by process, memory, bytes written.

Everything from the start of the first process to the end of the last counts, imports and the drain too.
All CPU time and all bytes written come from the kernel's own sums at the end, so that nothing is lost; how
the children's part of it divides into reader and decoders is from samples, and what they did not see (less
than 2 x ``SAMPLE_S`` a process) is divided as they were.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
SAMPLE_S = 0.05
LAST_WORDS = 3000
"""Characters."""

COORDINATOR, READER, DECODERS = "coordinator", "reader", "decoders"
_CHILDREN = {b"collector.reader.process": READER, b"collector.decoder.process": DECODERS}
"""Module that a child runs, and its role."""


@dataclass(frozen=True)
class Usage:
    """What all processes of one command took."""

    wall_s: float
    cpu_s: Mapping[str, float]
    """By role."""
    peak_bytes: int
    """Anonymous and shared memory of all at the same time. What is shared counts for each that maps it."""
    mapped_bytes: int
    """The most of mapped files, libraries included, that were in memory: the kernel can drop them."""
    written_bytes: int
    """To disks; memory file systems do not count."""

    @property
    def all_cpu_s(self) -> float:
        return sum(self.cpu_s.values())

    def numbers(self, hits: int) -> dict[str, float]:
        """As a benchmark records them."""
        by_role = {f"cpu_us_per_hit_{role}": cpu_s / hits * 1e6 for role, cpu_s in self.cpu_s.items()}
        return {
            "hits": hits,
            "cpu_us_per_hit": self.all_cpu_s / hits * 1e6,
            **by_role,
            "peak_bytes": self.peak_bytes,
            "mapped_bytes": self.mapped_bytes,
            "written_bytes": self.written_bytes,
        }


@dataclass
class Watched:
    """A running command; leave its ``with`` block, and it is gone. An error there gets its last words."""

    command: Sequence[str]
    log: Path
    """Where its output goes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to ours."""

    def __enter__(self) -> Self:
        self._began_s = time.monotonic()
        self.began_ns = time.time_ns()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self.command, cwd=ROOT, stdout=log, stderr=log, env=os.environ | dict(self.environment)
            )
        self._tree = _Tree(self._process.pid)
        self._sampler = threading.Thread(target=self._tree.watch)
        self._sampler.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._sampler.join()
        if error is not None:
            error.add_note(self.log.read_text(errors="replace")[-LAST_WORDS:])

    def cpu_s(self) -> float:
        """Of all processes so far."""
        return self._tree.sample()

    def memory_bytes(self) -> dict[str, int]:
        """Anonymous and shared memory now, by role."""
        return self._tree.memory_bytes()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """All at once: no child learns that its parent is gone."""
        for name in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (self._process.pid, *self._tree.children()):
                os.kill(pid, name)
        self._process.wait()

    def wait(self, patience_s: float) -> Usage:
        """*Blocks* until it ends. *Raises* AssertionError when it takes too long, or fails."""
        pid = self._process.pid
        self._sampler.join(patience_s)
        assert not self._sampler.is_alive(), f"still running after {patience_s:.0f} s"
        wall_s = time.monotonic() - self._began_s
        coordinator_s = _cpu_s(pid)
        written_bytes = _own_written_bytes()
        _, status, usage = os.wait4(pid, 0)
        # What a process wrote is added to its parent's sum when it is waited for.
        written_bytes = _own_written_bytes() - written_bytes
        self._process.returncode = os.waitstatus_to_exitcode(status)
        assert self._process.returncode == 0, f"it ended with exit code {self._process.returncode}"
        children_s = usage.ru_utime + usage.ru_stime - coordinator_s
        return Usage(
            wall_s=wall_s,
            cpu_s={COORDINATOR: coordinator_s, **self._tree.divided(children_s)},
            peak_bytes=self._tree.peak_bytes,
            mapped_bytes=self._tree.mapped_bytes,
            written_bytes=written_bytes,
        )


class _Tree:
    """A process and its children, as long as it lives."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._roles: dict[int, str] = {}
        self._seen_s: dict[int, float] = {}
        self._looking = threading.Lock()
        self.peak_bytes = 0
        self.mapped_bytes = 0

    def watch(self) -> None:
        """*Blocks* until the process has ended; it is still to be waited for then."""
        pidfd = os.pidfd_open(self._pid)
        try:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            while not ended.poll(SAMPLE_S * 1000):
                self.sample()
        finally:
            os.close(pidfd)

    def sample(self) -> float:
        """Gives the CPU time of all so far."""
        with self._looking:
            self._find_children()
            sizes = [_memory_bytes(pid) for pid in (self._pid, *self._roles)]
            self.peak_bytes = max(self.peak_bytes, sum(own for own, _ in sizes))
            self.mapped_bytes = max(self.mapped_bytes, sum(mapped for _, mapped in sizes))
            for pid in self._roles:
                self._seen_s[pid] = _cpu_s(pid) or self._seen_s.get(pid, 0.0)
            return _cpu_s(self._pid) + sum(self._seen_s.values())

    def memory_bytes(self) -> dict[str, int]:
        by_role: dict[str, int] = defaultdict(int)
        with self._looking:
            for pid, role in {self._pid: COORDINATOR, **self._roles}.items():
                by_role[role] += _memory_bytes(pid)[0]
        return by_role

    def children(self) -> list[int]:
        return [*self._roles]

    def divided(self, cpu_s: float) -> dict[str, float]:
        """The children's, by role."""
        by_role: dict[str, float] = defaultdict(float)
        for pid, role in self._roles.items():
            by_role[role] += self._seen_s.get(pid, 0.0)
        seen_s = sum(by_role.values())
        return {role: cpu_s * share_s / seen_s for role, share_s in by_role.items()} if seen_s else {}

    def _find_children(self) -> None:
        with contextlib.suppress(OSError):
            for name in Path(f"/proc/{self._pid}/task/{self._pid}/children").read_bytes().split():
                pid = int(name)
                if pid not in self._roles and (role := _role(pid)):
                    self._roles[pid] = role


def _role(pid: int) -> str:
    """Empty while it is not yet what it is to become."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return next((role for module, role in _CHILDREN.items() if module in words), "")
    return ""


def _cpu_s(pid: int) -> float:
    """Of all its threads; 0 once it was waited for. *Source* clock_getcpuclockid(3)."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _memory_bytes(pid: int) -> tuple[int, int]:
    """Anonymous and shared memory; mapped files."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return (kib.get("RssAnon", 0) + kib.get("RssShmem", 0)) << 10, kib.get("RssFile", 0) << 10


def _own_written_bytes() -> int:
    """Of this process and all that it waited for. *Source* proc_pid_io(5)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
