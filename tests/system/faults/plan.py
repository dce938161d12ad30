"""Faults as tests write them down: which call of which process, and what becomes of it.

``sitecustomize`` carries them out in the processes; this side arms them and reads whether they fired.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

INJECTION = Path(__file__).parent


@dataclass(frozen=True)
class Fault:
    name: str
    process: str
    """``coordinator``, ``reader``, ``decoder``, ``shipper``; ``*``: any."""
    call: str
    """A method of ``storage.fs.Disk``, or several with ``|``; ``create``: an ``open`` that makes a file;
    ``*``: all that change the disk."""
    path: str = "*"
    """Glob on the whole path; of a rename on ``source -> target``. ``*`` matches slashes too."""
    effect: str = "kill"
    """``kill``, ``kill_all``, ``stop``, ``delay``, ``short`` (half is written); an errno's name: half is
    written, then it is raised."""
    when: str = "before"
    nth: int = 1
    """The call that matches, counted while it is armed, by each process for itself."""
    content: str = ""
    """Of what is written, or was last written before a sync."""
    sticky: bool = False
    """At every call from the nth on, until it is lifted."""
    delay_s: float = 0.0


class Firing(NamedTuple):
    at_s: float
    """Unix time."""
    process: str
    pid: int
    call: str
    subject: str


@dataclass
class Faults:
    """Faults of one collector and their control files."""

    folder: Path
    faults: list[Fault] = field(default_factory=list)
    rotate_bytes: int = 8_000
    """Of the commit log, so that it rotates while a test looks."""

    def add(self, fault: Fault, *, armed: bool = True) -> Fault:
        """Known to every process that is started from now on."""
        self.folder.mkdir(exist_ok=True)
        self.faults.append(fault)
        if armed:
            self.arm(fault)
        return fault

    def arm(self, fault: Fault) -> None:
        self._armed(fault).touch()

    def lift(self, fault: Fault) -> None:
        self._armed(fault).unlink(missing_ok=True)

    def is_armed(self, fault: Fault) -> bool:
        return self._armed(fault).exists()

    def firings(self, fault: Fault) -> list[Firing]:
        path = self.folder / f"{fault.name}.fired"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [line.split(" ", 4) for line in lines]
        return [Firing(float(at), process, int(pid), call, rest) for at, process, pid, call, rest in found]

    def fired(self, fault: Fault) -> int:
        return len(self.firings(fault))

    def environment(self) -> dict[str, str]:
        """To be added to a collector's."""
        given = [asdict(fault) | {"folder": str(self.folder)} for fault in self.faults]
        paths = [str(INJECTION), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "LIVESTREAM_TEST_FAULTS": json.dumps(given),
            "LIVESTREAM_TEST_ROTATE_BYTES": str(self.rotate_bytes),
            "PYTHONPATH": os.pathsep.join(paths),
        }

    def _armed(self, fault: Fault) -> Path:
        return self.folder / f"{fault.name}.armed"


class Point(NamedTuple):
    """A step of the way from the socket to a committed part, as the disk sees it."""

    name: str
    process: str
    call: str
    path: str
    content: str = ""

    def fault(self, effect: str, when: str = "before", **more) -> Fault:
        name = f"{effect}-{when}-{self.name}".replace(" ", "-")
        return Fault(
            name, self.process, self.call, self.path, effect=effect, when=when, content=self.content, **more
        )


_INTENT, _COMMITTED = "\xa6Intent", "\xa9Committed"
_CONNECTIONS_INTENT, _CONNECTIONS_COMMITTED = "ConnectionsIntent", "ConnectionsCommitted"

JOURNAL = (
    Point("journal append", "reader", "pwritev", "*/journal/0*.segment"),
    Point("journal sync", "reader", "fdatasync", "*/journal/0*.segment"),
)
SEGMENT = (
    Point("segment header", "reader", "pwritev", "*/journal/free-*.segment"),
    Point("segment allocated", "reader", "allocate", "*/journal/free-*.segment"),
    Point("segment synced", "reader", "fsync", "*/journal/free-*.segment"),
    Point("segment named", "reader", "rename_noreplace", "*/journal/free-*.segment -> *"),
    Point("segment folder synced", "reader", "fsync", "*/journal"),
)
STAGING = (
    Point("part created", "decoder", "create", "*/staging/*.parquet"),
    Point("part written", "decoder", "write", "*/staging/*.parquet"),
    Point("part synced", "decoder", "fsync", "*/staging/*.parquet"),
    Point("part reopened", "decoder", "map_read_only", "*/staging/*.parquet"),
    Point("ids written", "decoder", "pwritev", "*/staging/*.run"),
    Point("ids synced", "decoder", "fsync", "*/staging/*.run"),
    Point("staging synced", "decoder", "fsync", "*/staging"),
)
LOG = (
    Point("intent appended", "coordinator", "pwritev", "*/commit.log", _INTENT),
    Point("intent synced", "coordinator", "fdatasync", "*/commit.log", _INTENT),
    Point("committed appended", "coordinator", "pwritev", "*/commit.log", _COMMITTED),
    Point("committed synced", "coordinator", "fdatasync", "*/commit.log", _COMMITTED),
)
SHIPPING = (
    Point("progress written", "shipper", "rename", "*/ship/.progress.new -> *"),
    Point("removal told", "shipper", "rename", "*/retired/.shipped-*.json.new -> *"),
    Point("local part removed", "shipper", "unlink", "*/hits/v=1/*"),
)
"""The upload comes before the first, the table's commit between the two."""

PUBLISHING = (
    Point("hits published", "coordinator", "rename_noreplace", "*-hits-* -> *"),
    Point("rejects published", "coordinator", "rename_noreplace", "*-rejects-* -> *"),
    Point("ids published", "coordinator", "rename_noreplace", "*-ids.run -> *"),
    Point("resends published", "coordinator", "rename_noreplace", "*-resends-* -> *"),
    Point("hour folder made", "coordinator", "make_folder", "*/hits/v=1/*"),
    Point("hour folder synced", "coordinator", "fsync", "*/hits/v=1/*/hour=*"),
)
AFTERWARDS = (
    Point("segment freed", "coordinator", "rename", "*/journal/0*.segment -> *"),
    Point("segment deleted", "coordinator", "unlink", "*/journal/free-*.segment"),
    Point("ids merge created", "coordinator", "create", "*/ids/*.new"),
    Point("ids merge written", "coordinator", "pwritev", "*/ids/*.new"),
    Point("ids merge synced", "coordinator", "fsync", "*/ids/*.new"),
    Point("ids merged", "coordinator", "rename", "*/ids/*.new -> *"),
    Point("merged ids removed", "coordinator", "unlink", "*/ids/*.run"),
)
FLOOR = (
    Point("floor made", "coordinator", "rename", "*/.floor.new -> *"),
    Point("floor written", "coordinator", "pwritev", "*/floor"),
    Point("floor synced", "coordinator", "fdatasync", "*/floor"),
)
CONNECTIONS = (
    Point("connections staged", "decoder", "fsync", "*/staging/*-connections-*"),
    Point("connections intent appended", "coordinator", "pwritev", "*/commit.log", _CONNECTIONS_INTENT),
    Point("connections intent synced", "coordinator", "fdatasync", "*/commit.log", _CONNECTIONS_INTENT),
    Point("connections published", "coordinator", "rename_noreplace", "*-connections-* -> *"),
    Point("connections committed appended", "coordinator", "pwritev", "*/commit.log", _CONNECTIONS_COMMITTED),
    Point("connections committed synced", "coordinator", "fdatasync", "*/commit.log", _CONNECTIONS_COMMITTED),
)
ROTATION = (
    Point("archive written", "coordinator", "write", "*/archive/.*.new"),
    Point("archive synced", "coordinator", "fsync", "*/archive/.*.new"),
    Point("archive named", "coordinator", "rename", "*/archive/.*.new -> *"),
    Point("archive folder synced", "coordinator", "fsync", "*/archive"),
    Point("log written anew", "coordinator", "write", "*/.commit.log.new"),
    Point("log synced anew", "coordinator", "fsync", "*/.commit.log.new"),
    Point("log replaced", "coordinator", "rename", "*/.commit.log.new -> *"),
)
RUNNING = (*JOURNAL, *SEGMENT, *STAGING, *LOG, *PUBLISHING, *AFTERWARDS, *FLOOR)
"""What happens all the time, from the start on. ``ROTATION`` comes later, ``CONNECTIONS`` in a drain."""


def named(name: str) -> Point:
    return next(point for point in (*RUNNING, *ROTATION, *CONNECTIONS) if point.name == name)


def sticky(fault: Fault) -> Fault:
    return replace(fault, name=f"sticky-{fault.name}", sticky=True)
