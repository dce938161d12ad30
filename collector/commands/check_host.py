"""What ``check`` looks at on this machine: folders, room, size, clock, kernel, the status port.

Nothing is made or written: what is not there is judged by the folder it would be made in.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from collector.commands.checklist import Found, Mark, Step, cross, note, ok
from collector.commands.checkup import Checkup
from collector.commands.terminal import size_text
from collector.core.messages import FileKind
from collector.core.sizing import sizing
from collector.errors import ExitCode
from collector.storage.layout import MEMORY_ROOT, StateFolder
from collector.storage.lock import holder

_EARLIEST_S: Final = 1_735_689_600
"""2025-01-01: no clock is right that is behind the program."""

_TIMEX_BYTES: Final = 512
"""More than ``struct timex`` has anywhere."""

_TIME_ERROR: Final = 5
"""What adjtimex(2) gives for a clock that nothing disciplines."""

_LEAST_DAYS: Final = 7
_LEAST_JOURNAL_S: Final = 600


def _nearest(path: Path) -> Path:
    """The folder itself, or the one above it that is there."""
    return next(folder for folder in (path, *path.parents) if os.path.lexists(folder))


def _usable(path: Path) -> str:
    """Why files cannot be made there; empty: they can."""
    there = _nearest(path)
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"user {os.geteuid()} cannot write in {there}"
    return ""


def _output(checkup: Checkup) -> Found:
    output = checkup.settings.output.folder
    if fault := _usable(output):
        return cross(fault, "Give --output another folder, or change its owner or mode.", ExitCode.STORAGE)
    for link in (output / kind for kind in FileKind if (output / kind).is_symlink()):
        return cross(f"{link} is a symbolic link", "Parts are renamed into it: make --output the link.")
    return ok(f"{output}" if output.exists() else f"{output} (will be made)")


def _state(checkup: Checkup) -> Found:
    state, output = checkup.settings.state.folder, checkup.settings.output.folder
    if fault := _usable(state):
        return cross(fault, "Give --state another folder, or change its owner or mode.", ExitCode.STORAGE)
    there = _nearest(StateFolder(state).staging)
    if os.stat(there).st_dev != os.stat(_nearest(output)).st_dev:
        return cross(
            f"{there} and {output} are on different file systems",
            "A part becomes visible by a rename: give --state a folder on the output's file system.",
        )
    if not state.exists():
        return ok(f"{state} (will be made)")
    if os.stat(state).st_uid != os.geteuid():
        owner = os.stat(state).st_uid
        return cross(f"{state} belongs to user {owner}", f"Run as that user, not as {os.geteuid()}.")
    if (pid := holder(StateFolder(state))) is not None:
        return note(f"{state}: process {pid} collects there", "Another start ends with exit code 5.")
    return ok(f"{state}")


def _room(checkup: Checkup) -> Found:
    """On the disk, and in memory for a journal that is there."""
    settings = checkup.settings
    free, reserve = _free(_nearest(settings.output.folder)), settings.journal.reserve_bytes
    needed = reserve + 2 * settings.journal.segment_bytes
    said = f"{size_text(free)} free, {size_text(reserve)} of it in reserve"
    if free < needed:
        do = "Free some, or lower journal.reserve_bytes: below it the transfer is paused."
        return cross(f"{said}: no room to begin", do, ExitCode.STORAGE)
    if settings.journal.durability == "memory":
        least = 4 * settings.journal.segment_bytes + settings.journal.max_record_bytes
        shared = _free(MEMORY_ROOT)
        if shared * 0.8 < least:
            do = "Make it larger, or set journal.durability = disk."
            return cross(
                f"{MEMORY_ROOT} has {size_text(shared)}, a journal in memory needs {size_text(least)}", do
            )
        return ok(f"{said}; {size_text(shared)} in {MEMORY_ROOT} for the journal")
    if free < reserve + settings.journal.max_bytes:
        do = "Free some, or lower journal.max_bytes."
        return note(f"{said}: the journal cannot grow to its {size_text(settings.journal.max_bytes)}", do)
    return ok(said)


def _sized(checkup: Checkup) -> Found:
    if checkup.hits_per_s is None:
        do = "Give --hits-per-second R to have disk, memory and cores worked out."
        return Found(Mark.SKIPPED, "no rate given", do)
    settings = checkup.settings
    needs = sizing(
        checkup.hits_per_s,
        decoders=settings.run.decoders,
        journal_bytes=settings.journal.max_bytes,
        journal_in_memory=settings.journal.durability == "memory",
        window_s=settings.resends.window_s,
        kernel=settings.decode.kernel == "auto" and not _absence(),
    )
    cores, memory = len(os.sched_getaffinity(0)), _memory()
    days = _free(_nearest(settings.output.folder)) / max(needs.part_bytes_a_day, 1)
    said = (
        f"{checkup.hits_per_s:g} hits/s: {size_text(needs.part_bytes_a_day)} of Parquet a day "
        f"({days:,.0f} days of room),\n"
        f"{size_text(needs.memory_bytes)} of memory ({size_text(memory)} to have), "
        f"{needs.cores:.2f} of {cores} cores, a full journal in {needs.journal_s / 60:,.0f} min"
    )
    faults = list(
        filter(
            None,
            (
                "More memory, fewer run.decoders." if needs.memory_bytes > memory else "",
                "More cores: it would fall behind." if needs.cores > cores else "",
                "A larger disk." if days < 1 else "",
            ),
        )
    )
    if faults:
        return cross(said, " ".join(faults))
    hints = (
        "Less than a week of room: see to it that parts go elsewhere, or limit them: [retention]."
        if days < _LEAST_DAYS
        else "",
        "Raise journal.max_bytes: it bridges less than ten minutes."
        if needs.journal_s < _LEAST_JOURNAL_S
        else "",
        f"Raise resends.max_ids to {needs.ids}." if needs.ids > settings.resends.max_ids else "",
    )
    do = " ".join(filter(None, hints))
    return note(said, do) if do else ok(said)


def _clock(_: Checkup) -> Found:
    now_s = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < _EARLIEST_S:
        return cross(f"{said} cannot be", "Set the clock: certificates and the hours of parts depend on it.")
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _TIME_ERROR:
        return note(
            f"{said}, kept right by nothing", "Have NTP running: times in the parts come from this clock."
        )
    return ok(f"{said}, kept right by NTP" if state >= 0 else said)


def _absence() -> str:
    from collector.decoder.kernel.library import absence  # noqa: PLC0415 - what it loads stays loaded

    return absence()


def _kernel(checkup: Checkup) -> Found:
    if checkup.settings.decode.kernel == "off":
        return ok("decoding the plain way, as decode.kernel = off asks for")
    if absence := _absence():
        return note(f"decoding the plain way: {absence}", "The same rows, for about twice the CPU time.")
    return ok("decoding with the compiled kernel")


def _status(checkup: Checkup) -> Found:
    listen = checkup.settings.status.listen
    if listen == "off":
        return ok("off")
    host, _, port = listen.rpartition(":")
    try:
        for family, kind, _, _, address in socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        do = "Intake goes on without the page: free the port, or set status.listen."
        return note(f"{listen} cannot be had: {error.strerror}", do)
    return ok(f"{listen} is free")


def _free(folder: Path) -> int:
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


def _memory() -> int:
    """What this process may still get: of the machine, and of its control group."""
    return min([*_available(), *_group_left()], default=1 << 62)


def _available() -> Iterator[int]:
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        yield from (int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


def _group_left() -> Iterator[int]:
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((root / name).read_text()) for name in ("memory.max", "memory.current"))
        yield limit - used


HOST_STEPS: Final[Sequence[Step[Checkup]]] = (
    Step("output", ("settings",), _output),
    Step("state", ("settings", "output"), _state),
    Step("room", ("output",), _room),
    Step("size", ("output",), _sized),
    Step("clock", (), _clock),
    Step("kernel", ("settings",), _kernel),
    Step("status page", ("settings",), _status),
)
