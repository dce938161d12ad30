"""Faults in real processes: wraps the disk calls of a collector that has this folder on its PYTHONPATH.

Runs at the start of every Python process there, before the product, which knows nothing of it. The
environment variable LIVESTREAM_TEST_FAULTS holds the faults (``plan.Fault``) as JSON;
LIVESTREAM_TEST_ROTATE_BYTES makes the commit log rotate sooner. A fault fires
only while its control file NAME.armed exists, and uses that file up unless it is sticky, so it fires once
whatever is restarted meanwhile. Each firing is a line in NAME.fired, written before its effect.
"""

from __future__ import annotations

import errno
import fnmatch
import itertools
import json
import os
import signal
import sys
import time
from importlib.machinery import PathFinder

CHANGING = {
    "pwritev": "write",
    "write": "write",
    "fdatasync": "fdatasync",
    "fsync": "fsync",
    "allocate": "allocate",
    "truncate": "truncate",
    "set_mode": "chmod",
    "rename": "rename",
    "rename_noreplace": "rename",
    "unlink": "unlink",
    "make_folder": "mkdir",
    "create": "open",
}
"""Methods that change the disk, and what their errors call them. ``create``: an ``open`` of a new file."""

OTHERS = {
    "open": "open",
    "pread": "read",
    "map_read_only": "mmap",
    "listdir": "listdir",
    "free_bytes": "statvfs",
}
DISK_MODULE, LOG_MODULE = "collector.storage.fs", "collector.storage.commitlog"
_REMEMBERED_BYTES = 1 << 16


def process_name() -> str:
    for name, folder in (("reader", "reader"), ("decoder", "decoder"), ("shipper", "lake")):
        if f"collector.{folder}.process" in sys.orig_argv:
            return name
    return "coordinator"


def subject_of(call: str, arguments: tuple) -> str:
    """What a fault's path is matched with: the path, or both of a rename."""
    first = arguments[0]
    if isinstance(first, int):
        try:
            return os.readlink(f"/proc/self/fd/{first}")
        except OSError:
            return ""
    name = os.path.abspath(os.fspath(first))
    return f"{name} -> {os.path.abspath(os.fspath(arguments[1]))}" if call.startswith("rename") else name


class Fault:
    def __init__(self, given: dict) -> None:
        self.calls = set(CHANGING) if given["call"] == "*" else set(given["call"].split("|"))
        self.path = given["path"]
        self.content = given["content"].encode("latin-1")
        self.when = given["when"]
        self.effect = given["effect"]
        self.delay_s = given["delay_s"]
        self._armed = os.path.join(given["folder"], given["name"] + ".armed")
        self._fired = os.path.join(given["folder"], given["name"] + ".fired")
        self._nth = given["nth"]
        self._sticky = given["sticky"]
        self._matched = itertools.count(1)

    def fires(self, call: str, subject: str, content: bytes) -> bool:
        if (
            call not in self.calls
            or self.content not in content
            or not fnmatch.fnmatchcase(subject, self.path)
        ):
            return False
        if not os.path.exists(self._armed) or next(self._matched) < self._nth:
            return False
        if not self._sticky:
            try:
                os.unlink(self._armed)
            except FileNotFoundError:  # another process was faster
                return False
        line = f"{time.time():.6f} {process_name()} {os.getpid()} {call} {subject}\n"
        fd = os.open(self._fired, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, line.encode())
        os.close(fd)
        return True


def whole_tree() -> list[int]:
    """The coordinator and its children, this process last."""
    coordinator = os.getpid() if process_name() == "coordinator" else os.getppid()
    pids = [coordinator]
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == coordinator:
            pids.append(int(entry))
    return [*(pid for pid in pids if pid != os.getpid()), os.getpid()]


class Injector:
    """Wraps the methods of ``Disk`` that any fault names."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._written: dict[str, bytes] = {}

    def wrap(self, fs: object) -> None:
        self._storage_error = fs.storage_error
        wanted = set().union(*(fault.calls for fault in self._faults))
        if any(fault.content for fault in self._faults):
            wanted |= {"pwritev", "write"}
        for call in wanted - {"create"}:
            setattr(fs.Disk, call, self._wrapped(call, getattr(fs.Disk, call)))
        if "create" in wanted:
            fs.Disk.open = self._wrapped("create", fs.Disk.open)

    def _wrapped(self, call: str, real):
        def method(disk, *arguments, **named):
            if call == "make_folder" and os.path.isdir(arguments[0]):
                return real(disk, *arguments, **named)
            if call == "create" and (not arguments[1] & os.O_CREAT or os.path.lexists(arguments[0])):
                return real(disk, *arguments, **named)
            subject = subject_of(call, arguments)
            content = self._content(call, subject, arguments)
            for fault in self._faults:
                if fault.when == "before" and fault.fires(call, subject, content):
                    short = self._take_effect(fault, call, subject, arguments)
                    if short is not None:
                        return short
            result = real(disk, *arguments, **named)
            for fault in self._faults:
                if fault.when == "after" and fault.fires(call, subject, content):
                    self._take_effect(fault, call, subject, arguments)
            return result

        return method

    def _content(self, call: str, subject: str, arguments: tuple) -> bytes:
        """What is written; of a sync, what was written last."""
        if call == "pwritev":
            buffers = arguments[1]
            small = sum(memoryview(buffer).nbytes for buffer in buffers) <= _REMEMBERED_BYTES
            self._written[subject] = b"".join(map(bytes, buffers)) if small else b""
        return self._written.get(subject, b"")

    def _take_effect(self, fault: Fault, call: str, subject: str, arguments: tuple) -> int | None:
        match fault.effect:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill_all":
                for pid in whole_tree():
                    os.kill(pid, signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "delay":
                time.sleep(fault.delay_s)
            case "short":
                return self._write_half(call, arguments)
            case name:
                self._write_half(call, arguments)
                code = getattr(errno, name)
                label = {**CHANGING, **OTHERS}[call]
                raise self._storage_error(
                    label, subject.partition(" -> ")[0], OSError(code, os.strerror(code))
                )
        return None

    def _write_half(self, call: str, arguments: tuple) -> int | None:
        """As a disk that fills up does it."""
        if call not in ("pwritev", "write"):
            return None
        data = b"".join(map(bytes, arguments[1])) if call == "pwritev" else bytes(arguments[1])
        half = data[: max(1, len(data) // 2)]
        return (
            os.pwrite(arguments[0], half, arguments[2]) if call == "pwritev" else os.write(arguments[0], half)
        )


class Hook:
    """Changes a module once it is imported, whenever that is."""

    def __init__(self, module: str, change) -> None:
        self._module = module
        self._change = change

    def find_spec(self, name, path=None, target=None):
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        real = spec.loader.exec_module

        def exec_module(module):
            real(module)
            self._change(module)

        spec.loader.exec_module = exec_module
        return spec


def rotate_sooner(commitlog, rotate_bytes: int) -> None:
    commitlog.CommitLog.open.__func__.__kwdefaults__["rotate_bytes"] = rotate_bytes


def install() -> None:
    here = process_name()
    given = json.loads(os.environ.get("LIVESTREAM_TEST_FAULTS", "[]"))
    faults = [Fault(fault) for fault in given if fault["process"] in (here, "*")]
    if faults:
        sys.meta_path.insert(0, Hook(DISK_MODULE, Injector(faults).wrap))
    if rotate_bytes := os.environ.get("LIVESTREAM_TEST_ROTATE_BYTES"):
        sys.meta_path.insert(0, Hook(LOG_MODULE, lambda module: rotate_sooner(module, int(rotate_bytes))))


install()
