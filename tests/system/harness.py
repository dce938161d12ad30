"""The whole collector as processes against the simulator, and an independent look at what came out.

The service's own log judges the requests; the Parquet, read by pyarrow alone, judges the hits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from collector.core.entries import Entry
from collector.core.ledger import LogState
from collector.simulator.hits import indices_of
from collector.simulator.requestlog import Request, floor_violations, held_together
from collector.simulator.server import Simulator
from collector.simulator.settings import SimulatorSettings
from collector.simulator.slots import Source
from collector.storage.archive import all_entries
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""A guard, far above what anything here takes."""


def wait_until(
    condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.02
) -> None:
    """Polls a fact of another process that cannot be awaited."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s in vain: {what}"
        time.sleep(pause_s)


class Service:
    """The simulator on a thread of its own."""

    def __init__(self, settings: SimulatorSettings, source: Source | None = None) -> None:
        self.settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.simulator: Simulator = self._call(Simulator.start(settings, source))

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    @property
    def url(self) -> str:
        return self.simulator.url

    @property
    def requests(self) -> list[Request]:
        return list(self.simulator.requests)

    @property
    def sent(self) -> int:
        return self.simulator.hits_sent

    def make_more(self, hits: int) -> None:
        """So many above ``total``: for a test that must not depend on how much has come until it acts."""
        production = self.simulator._production

        async def make() -> None:  # in the service's own thread
            production.total = production.end + hits

        self._call(make())

    @property
    def made(self) -> int:
        """How many hits there are to be sent by now, of those that have a ``total``."""
        return self.simulator._production.end

    def cut(self, how: str = "rst") -> int:
        return self._call(self.simulator.cut(how))

    def end_after(self, more: int, *, least: int = 0) -> int:
        """Gives an endless stream its end, ``more`` hits from now; says how many hits that makes."""
        return self._call(self._end_after(more, least))

    async def _end_after(self, more: int, least: int) -> int:
        production = self.simulator._production
        assert production.total is None, "it has an end"
        production.total = max(production.by(time.monotonic()) + more, least)
        return production.total

    def close(self) -> None:
        self._call(self.simulator.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Collector:
    """One ``run`` after the other over the same folders."""

    service: Service
    folder: Path
    wait_s: float = 0.6
    settings: dict[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    elsewhere: Path | None = None
    """Where the output is, if not in the folder."""

    @property
    def output(self) -> Path:
        return self.elsewhere or self.folder / "output"

    @property
    def state(self) -> Path:
        return self.output / ".state" / self.service.settings.stream

    @property
    def log(self) -> str:
        path = self.folder / "log.txt"
        return path.read_text() if path.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of an event over all runs; they must be written with ``log.format`` json."""
        lines = self.log.rpartition("\n")[0].splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in found if event["event"] == name]

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "collector", "run", "--url", self.service.url]
        command += ["--output", str(self.output)]
        settings = {
            "reconnect.wait_s": self.wait_s,
            "parts.max_age_s": 0.5,
            "journal.reserve_bytes": 0,
            "status.listen": "off",
            **self.settings,
        }
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        command += arguments  # last: what a test says counts
        credentials = {"LIVESTREAM_TOKEN": "simulator-token", "LIVESTREAM_CLIENT_ID": "simulator-key"}
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", *command[1:]],
                cwd=ROOT,
                stderr=log,
                stdout=log,
                env=os.environ | (environment or credentials),
            )

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        assert self.process is not None
        return self.process.wait(patience_s)

    def run(self, *arguments: str) -> int:
        self.start(*arguments)
        return self.wait()

    def drain(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.wait()

    def kill_all(self, *, stack: bool = False) -> None:
        """SIGKILL to the coordinator and every child, as close together as a signal allows.

        ``stack``: first have the coordinator, which should have ended, write what it does into its log.
        """
        assert self.process is not None
        pids = [self.process.pid, *self.children().values()]
        if stack:
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pid in pids[1:]:
            wait_until(lambda pid=pid: not _alive(pid), f"process {pid} to be gone")

    def children(self) -> dict[str, int]:
        """pid by what it is; several decoders are numbered by their pid's order."""
        assert self.process is not None
        found: dict[str, int] = {}
        for pid in sorted(_children_of(self.process.pid)):
            name = "reader" if b"collector.reader.process" in _command_line(pid) else "decoder"
            found[name if name == "reader" else f"decoder {len(found)}-{pid}"] = pid
        return found

    def pids(self, name: str) -> list[int]:
        return [pid for child, pid in self.children().items() if child.startswith(name)]

    def left_processes(self) -> list[int]:
        """I6: whatever still runs on this state folder, a child of whomever."""
        names = {
            str(self.output).encode(),
            *(event["instance"].encode() for event in self.events("run.started")),
        }
        pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid in pids if _alive(pid) and any(name in _command_line(pid) for name in names)]

    def ledger(self) -> LogState:
        """Of the commit log as it is on disk, whoever writes it."""
        state = LogState()
        for number, entry in self.entries():
            state.fold(number, entry)
        return state

    def entries(self) -> list[tuple[int, Entry]]:
        return list(all_entries(DISK, StateFolder(self.state)))

    def rows(self) -> int:
        """Committed so far."""
        return self.ledger().totals.rows if (self.state / "commit.log").exists() else 0

    # ------------------------------------------------------------ what came out

    def table(self, kind: str = "hits", columns: list[str] | None = None):
        """All committed rows; ``None`` before the first part: its folders are there a moment earlier."""
        folder = self.output / kind
        if next(folder.rglob("*.parquet"), None) is None:
            return None
        return pq.read_table(folder, columns=columns, partitioning=None)

    def last_words(self) -> str:
        """The reason it gave at its end, which is followed by where more is said about it."""
        reason, more = self.log.splitlines()[-2:]
        assert more == f"(more: livestream-collector explain {self.process.returncode})"
        return reason

    def hits(self) -> Counter[int]:
        """How often each hit of the simulator, by its number, is a row."""
        table = self.table(columns=["hitIdHigh", "hitIdLow"])
        if table is None:
            return Counter()
        high, low = (
            np.array([int(value) for value in table[name].to_pylist()], dtype=np.uint64)
            for name in ("hitIdHigh", "hitIdLow")
        )
        return Counter(indices_of(self.service.settings.seed, high, low).tolist())

    def missing(self, total: int) -> list[int]:
        hits = self.hits()
        return [index for index in range(total) if index not in hits]

    def doubled(self) -> dict[int, int]:
        return {index: count for index, count in self.hits().items() if count > 1}

    def invented(self, total: int) -> list[int]:
        return [index for index in self.hits() if not 0 <= index < total]

    def assert_complete(self, total: int) -> None:
        """I1, I3: every hit that was sent is a row, once, and no other."""
        assert self.missing(total) == []
        assert self.doubled() == {}
        assert self.invented(total) == []

    def assert_tidy(self) -> None:
        """I4, I6, I9: only whole parts are visible, nothing is left over, the service was left in peace."""
        visible = [path for path in self.output.rglob("*") if path.is_file() and ".state" not in path.parts]
        assert all(path.suffix == ".parquet" for path in visible), visible
        for path in visible:
            pq.ParquetFile(path).close()
        assert list((self.state / "staging").iterdir()) == []
        assert floor_violations(self.service.requests, self.wait_s) == []
        assert held_together(self.service.requests) == []


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    return False


def _children_of(parent: int) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == parent and fields[0] != b"Z":
                yield int(entry)


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
