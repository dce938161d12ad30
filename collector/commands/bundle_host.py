"""What a bundle tells of the program and the machine: versions, limits, room. No names of people or hosts."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from collector import __version__
from collector.commands.terminal import size_text
from collector.settings import Settings
from collector.storage.layout import MEMORY_ROOT, StateFolder
from collector.storage.lock import holder

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_GROUP: Final = Path("/sys/fs/cgroup")
_GROUP_FILES: Final = ("memory.max", "memory.high", "memory.current", "cpu.max", "pids.max")
_MEMORY: Final = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Dirty")
_LIMITS: Final = {
    "open files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "locked memory": resource.RLIMIT_MEMLOCK,
    "file size": resource.RLIMIT_FSIZE,
    "core": resource.RLIMIT_CORE,
}


def versions() -> str:
    """The collector, Python, which twin decodes, curl and its TLS, every package it asks for."""
    from collector.decoder.kernel.library import absence  # noqa: PLC0415 - what it loads stays loaded
    from collector.reader.transport import CURL  # noqa: PLC0415 - curl takes a while

    lines = [
        f"livestream-collector {__version__}",
        f"Python {sys.version}",
        f"decoding: {absence() or 'the compiled kernel'}",
        CURL,
    ]
    return "\n".join([*lines, "", *_packages()])


def _packages() -> Iterator[str]:
    """Those that are declared, optional ones if they are there."""
    names = {
        match[0] for text in metadata.requires("livestream-collector") or () if (match := _NAME.match(text))
    }
    for name in sorted(names, key=str.lower):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} is not installed"


def host(settings: Settings) -> str:
    """System, cores, memory, control group, limits, disks."""
    lines = [
        f"{platform.system()} {platform.release()} {platform.machine()}, {' '.join(platform.libc_ver())}"
    ]
    lines += [
        _system(),
        f"user {os.geteuid()}, group {os.getegid()}",
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
    ]
    lines.append("load: " + " ".join(f"{load:.2f}" for load in os.getloadavg()))
    lines += [
        "",
        "Memory:",
        *_memory(),
        "",
        "Control group:",
        *_group(settings),
        "",
        "Limits:",
        *_limits(),
        "",
        "Disks:",
    ]
    places = {"output": settings.output.folder, "state": settings.state.folder, "memory": MEMORY_ROOT}
    return "\n".join([*lines, *(_disk(what, path) for what, path in places.items())])


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "a system of unknown name"


def _memory() -> Iterator[str]:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(_MEMORY):
            yield " ".join(line.split())


def _group(settings: Settings) -> Iterator[str]:
    """Of the collector if one runs, else of this command."""
    pid = holder(StateFolder(settings.state.folder)) or "self"
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    name = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    yield f"{name or 'the whole system'}, of {'the collector' if pid != 'self' else 'this command'}"
    for file in _GROUP_FILES:
        try:
            yield f"{file} {(_GROUP / name / file).read_text(encoding='ascii').strip()}"
        except OSError:
            yield f"{file} is not there"


def _limits() -> Iterator[str]:
    for name, what in _LIMITS.items():
        soft, hard = (
            "none" if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(what)
        )
        yield f"{name}: {soft} (at most {hard})"


def _disk(what: str, path: Path) -> str:
    try:
        used = shutil.disk_usage(path)
    except OSError as error:
        return f"{what}: {path}: {error.strerror}"
    about = os.statvfs(path)
    inodes = f"{about.f_favail:,} of {about.f_files:,} inodes"
    return f"{what}: {size_text(used.free)} free of {size_text(used.total)}, {inodes}; {_mounted(path)}"


def _mounted(path: Path) -> str:
    """Kind and options of the file system."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields, _, about = line.partition(" - ")
        if fields.split()[2] == wanted:
            return f"{about.split()[0]} {fields.split()[5]}"
    return "of a kind that is not told"
