"""What a bundle tells of the folders: names and numbers, never what is in a record.

The invariant: whatever is damaged is described as far as it can be read.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from collector.commands.status import earliest_s, resumed_now
from collector.commands.terminal import size_text
from collector.core.entries import Checkpoint, Entry
from collector.core.messages import FileKind
from collector.errors import CollectorError
from collector.escaping import printable
from collector.settings import Settings
from collector.storage.commitlog import acknowledged_entry, archives, read_log, readable_appends
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder

MOST_ENTRIES: Final = 200
MOST_ARCHIVES: Final = 4
MOST_LINES: Final = 5000
_LONGEST_TEXT: Final = 300


# ---------------------------------------------------------------- the commit log


def commit_log(settings: Settings) -> str:
    """Its files, what they hold by kind, the newest entries in brief."""
    state = StateFolder(settings.state.folder)
    sealed = archives(DISK, state.archive)
    lines = [f"{len(sealed)} sealed archives, of which the newest {MOST_ARCHIVES} are read"]
    newest: deque[str] = deque(maxlen=MOST_ENTRIES)
    kinds: Counter[str] = Counter()
    files = [(archive.path, archive.last) for archive in sealed[-MOST_ARCHIVES:]]
    files.append((state.commit_log, acknowledged_entry(DISK, state.commit_log)))
    lines += [_file_of_log(path, acknowledged, kinds, newest) for path, acknowledged in files]
    lines += ["", "Entries by kind:", *(f"{count:>9,} {kind}" for kind, count in sorted(kinds.items()))]
    return "\n".join([*lines, "", f"The newest {len(newest)}:", *newest])


def _file_of_log(path: Path, acknowledged: int, kinds: Counter[str], newest: deque[str]) -> str:
    """In a line, with its damage."""
    first = last = 0
    try:
        data = DISK.read_file(path)
        for append in readable_appends(data, path):
            first, last = first or append.first, append.last
            for number, entry in enumerate(append.entries, append.first):
                kinds[type(entry).__name__] += 1
                newest.append(f"{number} {brief(entry)}")
        fault = _damage(data, path, acknowledged)
    except (CollectorError, OSError) as error:
        return f"{path.name}: {error}"
    return f"{path.name}: {size_text(len(data))}, entries {first} to {last}{fault and f'; DAMAGED: {fault}'}"


def _damage(data: bytes, path: Path, acknowledged: int) -> str:
    try:
        deque(read_log(data, path, acknowledged=acknowledged), maxlen=0)
    except CollectorError as error:
        return str(error)
    return ""


def brief(entry: Entry) -> str:
    """Its kind and fields; of lists their length, of a checkpoint no more than its totals."""
    if isinstance(entry, Checkpoint):
        return f"Checkpoint totals={entry.totals} last_block={entry.last_block}"
    fields = {name: _brief(getattr(entry, name)) for name in entry.__struct_fields__}
    return f"{type(entry).__name__} " + " ".join(f"{name}={value}" for name, value in fields.items())


def _brief(value: Any) -> str:
    match value:
        case bytes():
            return value.hex()
        case str():
            return repr(printable(str(value), _LONGEST_TEXT))
        case tuple() | list() if not all(isinstance(item, int) for item in value):
            return f"[{len(value)}]"
        case msgspec.Struct():
            inner = (f"{name}={_brief(getattr(value, name))}" for name in value.__struct_fields__)
            return f"({' '.join(inner)})"
        case _:
            return printable(str(value), _LONGEST_TEXT)


# ---------------------------------------------------------------- the floor


def floor(settings: Settings) -> str:
    """The record, and what a start now would make of it."""
    record, resumed, now_s = resumed_now(StateFolder(settings.state.folder), settings.reconnect.wait_s)
    wait_s = max(0.0, earliest_s(resumed, settings.reconnect.wait_s) - now_s)
    said = f"A start now would send its request after {wait_s:.1f} s: {resumed.words}."
    if record is None:
        return said
    held_s = record.held_until_s
    held = "no stream was held" if held_s is None else f"one was held until {held_s - record.written_s:+.1f}"
    lines = (
        f"written {_time(record.written_us / 1e6)}; in seconds from then on:",
        f"{held}; one may be open still: {record.open}",
        f"the wait lasts until {record.not_before_s - record.written_s:+.1f}: {record.cause or 'none'}",
        f"counters: {record.counters}",
    )
    return "\n".join([*lines, "", said])


# ---------------------------------------------------------------- folders


def state_folder(settings: Settings) -> str:
    """Every file, the first few thousand of them."""
    return "\n".join(_limited(_listing(settings.state.folder)))


def output_folder(settings: Settings) -> str:
    """Itself, then each folder of parts in a line, the newest first."""
    output = settings.output.folder
    lines = [
        _described(output),
        *(_described(output / kind) for kind in FileKind if (output / kind).exists()),
    ]
    folders = []
    for kind in (FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS):
        for folder, _, names in os.walk(output / kind):
            if names:
                sizes = [_size(os.path.join(folder, name)) for name in names]
                folders.append(
                    f"{os.path.relpath(folder, output)}: {len(names)} files, {size_text(sum(sizes))}"
                )
    return "\n".join([*lines, "", *_limited(iter(sorted(folders, reverse=True)))])


def _listing(folder: Path) -> Iterator[str]:
    yield _described(folder)
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            yield _described(Path(place, name))


def _described(path: Path) -> str:
    try:
        about = os.lstat(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    owner = f"{about.st_uid}:{about.st_gid}"
    return f"{stat.filemode(about.st_mode)} {owner:<11} {about.st_size:>13,} {_time(about.st_mtime)} {path}"


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:  # gone meanwhile
        return 0


def _limited(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number == MOST_LINES:
            yield f"... more than {MOST_LINES} lines: the rest is left out"
            return
        yield line


def _time(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
