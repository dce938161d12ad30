"""Random faults under load for as long as wanted: ``scripts/soak --minutes N --seed S``.

A simulated service in a process of its own sends hits at a rate, the collector takes them, and every
few seconds something befalls one of its processes, the service or the disk. Parts are verified, retired
and removed as they come, so that the disk does not fill. In the end it is quiet, everything is
drained, the oracle judges, and a table says what happened. Exit code 1: an invariant is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import secrets
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import oracle
import trustme
import uvloop
from faults.plan import RUNNING, Fault, Faults, named
from harness import PATIENCE_S, ROOT, Collector

from collector.simulator.hits import Timeline
from collector.simulator.requestlog import Request
from collector.simulator.scenario import Answer, BadGzip, Members, Resend, Rule
from collector.simulator.server import Simulator
from collector.simulator.settings import SimulatorSettings
from collector.storage.fs import DISK
from collector.storage.segments import SEGMENT_HEADER_BYTES, MappedSegment, list_segments, space_of

TICK_S = 0.1
SAMPLE_S = 5.0
RETIRE_S = 5.0
VERIFY_S = 45.0
KEPT_PARTS = 20
"""Of the newest, so that there is always something to verify."""

QUIET_S = 5.0
OVERLAP_S = 6.0
CAUGHT_UP_S = 6.0
"""No block waits for its commit longer than this, when nothing befalls them: three times ``max_age_s``."""
WAIT_S = 0.8
DEATHS_A_MINUTE = 4
"""Of one kind of child: one more than five, and the collector gives up, as it should."""

STRIKES_AT_START = 0.15
"""So often a fault comes although the last one is not over: in a recovery, in a start."""

FLAT_S = 180.0
"""A shorter run has too few samples to say that anything grows."""

MIB = 1 << 20


# ---------------------------------------------------------------- the service, in its own process


def serve(given: dict[str, Any]) -> None:
    """``--serve``: the simulator until it is terminated; prints its URL."""
    draw = random.Random(given["seed"])
    settings = SimulatorSettings(
        seed=given["seed"],
        hits_per_second=given["rate"],
        token=given["token"],
        tls_cert=Path(given["folder"], "cert.pem"),
        tls_key=Path(given["folder"], "key.pem"),
        overlap_s=OVERLAP_S,
        ghost_s=WAIT_S * 1.2,
        backfill_window_s=600.0,
        heartbeat_s=0.5,
        control=True,
        rules=tuple(moods(draw)),
    )

    async def run() -> None:
        source = oracle.SpoiledHits(
            given["seed"], Timeline(start_s=given["start_s"], step_us=given["step_us"])
        )
        simulator = await Simulator.start(settings, source)
        production = simulator._production
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(
            signal.SIGUSR1, lambda: setattr(production, "total", production.by(time.monotonic()))
        )
        print(simulator.url, flush=True)
        await asyncio.Event().wait()

    uvloop.run(run())


def moods(draw: random.Random) -> list[Rule]:
    """Requests by number that get something else than a stream, or an odd one."""
    kinds = {
        "409": lambda: Rule(answer=Answer(409)),
        "503": lambda: Rule(answer=Answer(503)),
        "500": lambda: Rule(answer=Answer(500)),
        "crc": lambda: Rule(bad_gzip=BadGzip(kind="crc", after_s=1.0)),
        "garbage": lambda: Rule(bad_gzip=BadGzip(kind="garbage", after_s=1.0)),
        "resend": lambda: Rule(resend=Resend(after_hits=2000, last=500, times=2)),
        "members": lambda: Rule(members=Members(every_hits=700, inside_record=True, empty=True)),
    }
    numbers: dict[str, list[int]] = defaultdict(list)
    for number in range(2, 5000):
        if draw.random() < 0.25:
            numbers[draw.choice(list(kinds))].append(number)
    return [
        msgspec.structs.replace(kinds[kind](), requests=",".join(map(str, found)))
        for kind, found in numbers.items()
    ]


class RemoteService:
    """The simulator's process; looks like ``harness.Service`` to a collector."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, token: str) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        self._context = ssl.create_default_context(cafile=str(self.ca_file))
        start_s, step_us = int(time.time()), max(1, int(1e6 / arguments.rate))
        given = {
            "seed": arguments.seed, "rate": arguments.rate, "token": token, "folder": str(folder),
            "start_s": start_s, "step_us": step_us,
        }  # fmt: skip
        self.hits = oracle.SpoiledHits(arguments.seed, Timeline(start_s=start_s, step_us=step_us))
        self.settings = SimulatorSettings(seed=arguments.seed)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", json.dumps(given)], stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the simulator did not start"

    def make_no_more(self) -> None:
        """The stream stays open and becomes silent once everything is sent."""
        self._process.send_signal(signal.SIGUSR1)

    def cut(self, how: str) -> int:
        """How many streams. A clean end waits for its reader, which may be stopped: that is one, too."""
        try:
            return self._ask(f"cut?how={how}", method="POST", patience_s=1.0)["cut"]
        except TimeoutError:
            return 1

    @property
    def sent(self) -> int:
        return self._ask("state")["sent"]

    @property
    def requests(self) -> list[Request]:
        return [Request(**request) for request in self._ask("state")["requests"]]

    def _ask(self, what: str, method: str = "GET", patience_s: float = PATIENCE_S) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url.partition('/api/')[0]}/control/{what}", method=method)
        with urllib.request.urlopen(request, timeout=patience_s, context=self._context) as answer:
            return json.load(answer)

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE_S)


# ---------------------------------------------------------------- what can befall it


LASTING = [
    named(name).fault("ENOSPC", sticky=True)
    for name in (
        "journal append", "segment allocated", "part written", "ids written", "intent appended",
        "committed appended", "hits published", "ids merge written",
    )
]  # fmt: skip
BROKEN = [
    named(name).fault(effect)
    for effect in ("EIO", "EROFS")
    for name in ("journal append", "segment named", "part written", "intent appended", "hits published")
] + [
    named(name).fault("EIO")
    for name in ("journal sync", "intent synced", "committed synced", "floor written", "floor synced")
]
UNSYNCED = [named(name).fault("EIO") for name in ("part synced", "ids synced")]
SLOW = [
    named(name).fault("delay", delay_s=delay_s)
    for name, delay_s in (
        ("journal sync", 2.0),
        ("part synced", 3.0),
        ("intent synced", 3.0),
        ("floor synced", 1.0),
    )
]
KILLS = [
    point.fault(effect, when)
    for point in RUNNING
    for effect in ("kill", "kill_all")
    for when in ("before", "after")
]


@dataclass
class Sampled:
    """Of one role over the whole run: (seconds since the start, bytes, descriptors)."""

    points: list[tuple[float, int, int]] = field(default_factory=list)

    def quarter(self, last: bool, of: int, length_s: float) -> float:
        """The median over the first or the last quarter of the run."""
        edge_s = length_s * (0.75 if last else 0.25)
        chosen = [point[of] for point in self.points if (point[0] >= edge_s if last else point[0] < edge_s)]
        return statistics.median(chosen) if chosen else 0.0


class Soak:
    """One run of it: ``tick`` again and again, and a fault whenever one is due."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.draw = random.Random(arguments.seed)
        self.canary = f"canary-{secrets.token_hex(8)}"
        self.service = RemoteService(arguments, folder, self.canary)
        settings = {
            "log.format": "json",
            "tls.ca_file": str(self.service.ca_file),
            "run.decoders": 2,
            "parts.max_age_s": 2,
            "journal.segment_bytes": "8 MiB",
            "journal.max_record_bytes": "1 MiB",
            "journal.max_bytes": "1 GiB",
        }
        (folder / "collector").mkdir()
        self.collector = Collector(self.service, folder / "collector", wait_s=WAIT_S, settings=settings)
        self.faults = Faults(folder / "faults", rotate_bytes=200_000)
        for fault in [*LASTING, *BROKEN, *UNSYNCED, *SLOW, *KILLS]:
            self.faults.add(fault, armed=False)
        self.tally = oracle.Tally(self.service.hits, sampled_rows=20, seed=arguments.seed)
        self.applied: Counter[str] = Counter()
        self.effective: Counter[str] = Counter()
        self.recoveries_s: list[float] = []
        self.ends: Counter[int] = Counter()
        self.samples: dict[str, Sampled] = defaultdict(Sampled)
        self.verified = 0
        self.retired = 0
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._due: dict[str, float] = {}
        self._deaths: dict[str, list[float]] = defaultdict(list)
        self._started_s = 0.0
        self._started_us = 0
        self._waits_for_block = False
        self._verifying: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        self._committed = 0
        self._excused: set[int] = set()
        self._quiet = False
        self._began_s = time.monotonic()
        self._stopped: set[int] = set()
        self._ready: set[int] = set()
        """Children that came up: one that never did ends the collector."""

    # ------------------------------------------------------------ the clock

    def run(self) -> None:
        try:
            self._run()
        finally:
            self.report()

    def _run(self) -> None:
        self.start()
        end_s = self._began_s + self.arguments.minutes * 60
        next_s = self._began_s + QUIET_S
        while time.monotonic() < end_s:
            self.tick()
            if time.monotonic() < next_s:
                continue
            if not self._waits_for_block or self.draw.random() < STRIKES_AT_START:
                self.strike()
            next_s = time.monotonic() + self.draw.uniform(1.0, 7.0)
        self.settle()

    def tick(self) -> None:
        time.sleep(TICK_S)
        now_s = time.monotonic()
        for due in [due for due in self._later if due[0] <= now_s]:
            self._later.remove(due)
            due[1]()
        if self.collector.process.poll() is not None:
            self.ended(self.collector.process.returncode)
        self._read_log()
        self._see_first_block()
        for what, interval_s in ((self.sample, SAMPLE_S), (self.retire, RETIRE_S), (self.verify, VERIFY_S)):
            if now_s >= self._due.get(what.__name__, now_s + interval_s):
                what()
            if now_s >= self._due.setdefault(what.__name__, now_s + interval_s):
                self._due[what.__name__] = time.monotonic() + interval_s

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + delay_s, act))

    # ------------------------------------------------------------ the collector

    def start(self) -> None:
        credentials = {"LIVESTREAM_TOKEN": self.canary, "LIVESTREAM_CLIENT_ID": "simulator-key"}
        self._started_s, self._started_us = time.monotonic(), time.time_ns() // 1000
        self._waits_for_block = True
        self._excused = set()
        self._stopped = set()
        self.collector.start(environment=credentials | self.faults.environment())

    def ended(self, code: int) -> None:
        """By a fault of ours, or it is a defect."""
        self.ends[code] += 1
        fired = [
            f
            for f in self.faults.faults
            for at in self.faults.firings(f)
            if at.at_s * 1e6 >= self._started_us
        ]
        allowed = set(self._excused)
        for fault in fired:
            if fault.effect == "kill_all" or (fault.effect == "kill" and fault.process == "coordinator"):
                allowed.add(-signal.SIGKILL)
            if fault in BROKEN or fault in LASTING:  # a start on a full disk ends, too
                allowed.add(4)
        recent = [at for ats in self._deaths.values() for at in ats if time.monotonic() - at < 60]
        if len(recent) + len([f for f in fired if f in KILLS]) > DEATHS_A_MINUTE:
            allowed.add(6)
        assert code in allowed, f"it ended with {code}, allowed was {allowed}; its log ends:\n{self.tail()}"
        self.start()

    def tail(self) -> str:
        return "\n".join(self.collector.log.splitlines()[-25:])

    def _see_first_block(self) -> None:
        """How long after its start the collector sealed its first block: what it waits for included."""
        journal = self.collector.state / "journal"
        if not self._waits_for_block or not journal.exists():
            return
        newest = max((at for _, at in collected(journal, newest=2)), default=0)
        if newest >= self._started_us:
            self.recoveries_s.append((newest - self._started_us) / 1e6)
            self._waits_for_block = False

    # ------------------------------------------------------------ faults

    def strike(self) -> None:
        kinds: list[tuple[Callable[[], str | None], int]] = [
            (self.kill_child, 4), (self.kill_coordinator, 2), (self.kill_everything, 2), (self.stop, 3),
            (self.cut, 3), (self.fill, 4), (self.breaks, 2), (self.cannot_sync, 1), (self.is_slow, 2),
            (self.kill_at_step, 4),
        ]  # fmt: skip
        (act,) = self.draw.choices([act for act, _ in kinds], [weight for _, weight in kinds])
        name = act()
        if name is not None:
            self.applied[name] += 1

    def kill_child(self) -> str | None:
        name = self.draw.choice(["reader", "decoder"])
        return f"{name} killed" if self._kill(name) else None

    def _kill(self, name: str) -> bool:
        now_s = time.monotonic()
        self._deaths[name] = [at for at in self._deaths[name] if now_s - at < 60]
        pids = [pid for pid in self.collector.pids(name) if pid in self._ready]
        if not pids or len(self._deaths[name]) >= DEATHS_A_MINUTE:
            return False
        self._deaths[name].append(now_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.draw.choice(pids), signal.SIGKILL)
        return True

    def kill_coordinator(self) -> str:
        self._excused.add(-signal.SIGKILL)
        self.collector.process.kill()
        return "coordinator killed"

    def kill_everything(self) -> str:
        self._excused.add(-signal.SIGKILL)
        self.collector.kill_all()
        return "everything killed"

    def stop(self) -> str | None:
        name = self.draw.choice(["coordinator", "reader", "decoder"])
        pids = [self.collector.process.pid] if name == "coordinator" else self.collector.pids(name)
        if not pids:
            return None
        pid = self.draw.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._stopped.add(pid)
        self.after(self.draw.uniform(0.5, 3.0), lambda: self._go_on(pid))
        return f"{name} stopped"

    def _go_on(self, pid: int) -> None:
        if pid in self._stopped:
            self._stopped.discard(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def cut(self) -> str | None:
        how = self.draw.choice(["rst", "fin", "clean"])
        return f"service cut ({how})" if self.service.cut(how) else None

    def fill(self) -> str:
        fault = self.draw.choice(LASTING)
        self.faults.arm(fault)
        self.after(self.draw.uniform(0.5, 3.0), lambda: self.faults.lift(fault))
        return "disk full"

    def breaks(self) -> str:
        self._arm(self.draw.choice(BROKEN))
        return "disk broken"

    def cannot_sync(self) -> str:
        self._arm(self.draw.choice(UNSYNCED))
        return "staged file not synced"

    def is_slow(self) -> str:
        self._arm(self.draw.choice(SLOW))
        return "disk slow"

    def kill_at_step(self) -> str:
        self._arm(self.draw.choice(KILLS))
        return "killed at a step"

    def _arm(self, fault: Fault) -> None:
        """For a while: some steps are rare."""
        self.faults.arm(fault)
        self.after(10.0, lambda: self.faults.lift(fault))

    def fired(self) -> dict[str, tuple[int, int]]:
        """Firings, and how many different faults they were; of a lasting one each call that met it counts."""
        groups = {
            "disk full": LASTING,
            "disk broken": BROKEN,
            "staged file not synced": UNSYNCED,
            "disk slow": SLOW,
            "killed at a step": KILLS,
        }
        counts = {name: [self.faults.fired(fault) for fault in found] for name, found in groups.items()}
        return {name: (sum(found), sum(map(bool, found))) for name, found in counts.items()}

    # ------------------------------------------------------------ meanwhile

    def sample(self) -> None:
        if time.monotonic() - self._started_s < SAMPLE_S:
            return  # they have not opened everything yet
        at_s = time.monotonic() - self._began_s
        pids = {"coordinator": self.collector.process.pid, **self.collector.children()}
        for name, pid in pids.items():
            with contextlib.suppress(OSError, KeyError):
                status = Path(f"/proc/{pid}/status").read_text()
                sizes = dict(line.split(":", 1) for line in status.splitlines())
                used = sum(int(sizes[kind].split()[0]) * 1024 for kind in ("RssAnon", "RssShmem"))
                descriptors = len(os.listdir(f"/proc/{pid}/fd"))
                self.samples[name.split()[0]].points.append((at_s, used, descriptors))
                own = self.collector.process.pid
                oracle.assert_no_secret_in_processes([pid], self.canary, own_pid=own)

    def retire(self) -> None:
        """Verify the oldest parts by themselves, say that they go, remove them."""
        parts = sorted(
            path
            for kind in ("hits", "rejects")
            for path in (self.collector.output / kind).rglob("*.parquet")
            if first_block(path) <= self._committed
        )
        parts = sorted(parts, key=first_block)[:-KEPT_PARTS]
        if not parts:
            return
        for path in parts:
            self.tally.take(path, path.relative_to(self.collector.output).parts[0])
        files = [
            {"path": str(path.relative_to(self.collector.output)), "sha256": DISK.sha256(path).hex()}
            for path in parts
        ]
        record = {"files": files, "reason": "soak", "replaced_by": []}
        name = f"soak-{self.retired:08d}.json"
        DISK.write_file_durably(self.collector.state / "retired" / name, msgspec.json.encode(record))
        for path in parts:
            path.unlink()
        self.retired += len(parts)

    def _read_log(self) -> None:
        """Which batches are committed, so that their parts may go; which children came up."""
        path = self.collector.folder / "log.txt"
        with open(path, "rb") as log:
            log.seek(self._log_offset)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        self._log_offset += whole
        for line in text[:whole].splitlines():
            if b'"batch.committed"' in line:
                self._committed = max(self._committed, json.loads(line)["last"])
            elif b'"child.started"' in line:
                self._ready.add(json.loads(line)["pid"])

    def verify(self) -> None:
        """Beside the running collector; judged when it is done."""
        if self._verifying is not None:
            if self._verifying.poll() is None:
                return
            self._verified()
        command = [sys.executable, "-m", "collector", "verify", "--output", str(self.collector.output)]
        command += ["--state", str(self.collector.state)]
        with open(self.faults.folder / "verify.txt", "wb") as said:
            self._verifying = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)

    def _verified(self) -> None:
        assert self._verifying is not None
        code = self._verifying.wait(PATIENCE_S * 10)
        said = (self.faults.folder / "verify.txt").read_text()
        assert code == 0, f"I5: verify beside the collector ends with {code}:\n{said}"
        self.verified += 1
        self._verifying = None

    # ------------------------------------------------------------ the end

    def settle(self) -> None:
        """No more faults: everything is made good, drained and judged."""
        for fault in self.faults.faults:
            self.faults.lift(fault)
        for pid in list(self._stopped):
            self._go_on(pid)
        until_s = time.monotonic() + QUIET_S
        while time.monotonic() < until_s:
            self.tick()
        self.service.make_no_more()
        patience_s = time.monotonic() + 300 + self.arguments.minutes * 60
        sent, since_s = -1, time.monotonic()
        while time.monotonic() - since_s < QUIET_S:
            assert time.monotonic() < patience_s, f"I7: it does not catch up\n{self.tail()}"
            self.tick()
            if self.behind_s() > CAUGHT_UP_S or self.service.sent != sent:
                sent, since_s = self.service.sent, time.monotonic()
        newest = self.service.sent - 2  # the last line may be spoiled
        assert self.collector.drain() == 0, self.tail()
        (drained,) = self.collector.events("drain.ended")[-1:]
        assert drained["left_blocks"] == 0, "it had caught up"
        if self._verifying is not None:
            self._verified()
        oracle.judge(self.collector, self.service.requests, self.tally, fresh=newest, canary=self.canary)
        oracle.assert_missing_is_said(self.tally, self.service.requests, most=5 * round(self.arguments.rate))
        self._assert_flat()

    def behind_s(self) -> float:
        """How long the oldest block that is in no commit has waited for one; infinite in a recovery."""
        if self._waits_for_block:
            return math.inf
        waiting = [
            collected_us
            for number, collected_us in collected(self.collector.state / "journal")
            if number > self._committed
        ]
        return time.time() - min(waiting) / 1e6 if waiting else 0.0

    def _assert_flat(self) -> None:
        length_s = time.monotonic() - self._began_s
        if length_s < FLAT_S:
            return
        for name, sampled in self.samples.items():
            before, after = (sampled.quarter(last, 1, length_s) for last in (False, True))
            assert after <= before * 1.3 + 64 * MIB, f"memory of the {name} went from {before} to {after}"
            before, after = (sampled.quarter(last, 2, length_s) for last in (False, True))
            assert after <= before + 16, f"descriptors of the {name} went from {before} to {after}"

    def report(self) -> None:
        length_s = time.monotonic() - self._began_s
        totals = oracle.ledger_of(self.collector.state).totals
        missing = sum(last - first + 1 for first, last in self.tally.missing())
        verified, compared = f"verify ran {self.verified} times beside it", self.tally.compared
        print(f"seed {self.arguments.seed}, {self.arguments.rate:.0f} hits a second, {length_s:.0f} s")
        with contextlib.suppress(OSError):
            print(f"hits sent     {self.service.sent:>12,}  over {len(self.service.requests):,} requests")
        print(f"accepted      {totals.records:>12,}  records, {totals.resends:,} of them resends")
        print(f"rows          {totals.rows:>12,}  and {totals.rejects:,} rejects")
        print(f"missing       {missing:>12,}  hits that were sent and never accepted")
        print(f"compared      {compared:>12,}  rows, value by value; {verified}")
        print(f"retired       {self.retired:>12,}  parts")
        fired = self.fired()
        for name, count in sorted(self.applied.items()):
            seen = ", fired {} times, {} different ones".format(*fired[name]) if name in fired else ""
            print(f"  {name:24} {count:>5}{seen}")
        ends = ", ".join(f"{count} with {code}" for code, count in sorted(self.ends.items()))
        print(f"ends by exit code: {ends or 'none'}")
        if self.recoveries_s:
            median_s, longest_s = statistics.median(self.recoveries_s), max(self.recoveries_s)
            starts = f"{len(self.recoveries_s)} starts; the floor alone is {WAIT_S} s"
            print(f"start to first block: median {median_s:.2f} s, longest {longest_s:.2f} s ({starts})")
        for name, sampled in sorted(self.samples.items()):
            for what, of, unit in (("memory, MiB", 1, MIB), ("descriptors", 2, 1)):
                before, after = (sampled.quarter(last, of, length_s) / unit for last in (False, True))
                print(f"  {name:12} {what:12} {before:6.0f} in the first quarter, {after:6.0f} in the last")

    def close(self) -> None:
        for pid in list(self._stopped):
            self._go_on(pid)
        if self.collector.process is not None and self.collector.process.poll() is None:
            self.collector.kill_all()
        if self._verifying is not None and self._verifying.poll() is None:
            self._verifying.kill()
            self._verifying.wait()
        self.service.close()
        self.tally.close()


def first_block(path: Path) -> int:
    """Of a part, by its name."""
    return int(path.stem.split("-")[2])


def collected(journal: Path, newest: int = 0) -> list[tuple[int, int]]:
    """(number, when it was sealed, us) of each block in the journal, or in its newest segments only."""
    found = []
    for number in list_segments(DISK, journal).used[-newest:]:
        with contextlib.suppress(FileNotFoundError):
            segment = MappedSegment(DISK, journal, number)
            offset = SEGMENT_HEADER_BYTES
            while (header := segment.header_at(offset)) is not None:
                found.append((header.seq, header.collected_at_us))
                offset += space_of(header.length)
            segment.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--rate", type=float, default=5000.0, help="hits a second")
    parser.add_argument("--folder", help="where to work; default: the system's temporary folder")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(json.loads(arguments.serve))
        return 0
    print(f"seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="livestream-soak-", dir=arguments.folder))
    soak = Soak(arguments, folder)
    try:
        soak.run()
    except Exception:  # noqa: BLE001 - whatever it is, what was seen until then is told
        traceback.print_exc()
        return 1
    else:
        shutil.rmtree(folder / "collector")
        return 0
    finally:
        soak.close()
        print(f"it worked in {folder}")


if __name__ == "__main__":
    sys.exit(main())
