"""One collector with faults against one service, from the first hit to the oracle's verdict."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import oracle
import pyarrow.parquet as pq
from faults.plan import Fault, Faults
from harness import Collector, Service, wait_until

from collector.simulator.hits import Timeline
from collector.simulator.scenario import Resend, Rule
from collector.simulator.settings import SimulatorSettings

HITS_PER_SECOND = 1500.0
START_S = 1_795_000_000
SETTINGS = {
    "log.format": "json",
    "run.decoders": 2,
    "parts.max_age_s": 0.2,
    "journal.segment_bytes": "384 KiB",
    "journal.max_record_bytes": "256 KiB",
}
"""So that every step comes again several times a second."""


class Rig:
    """A stream with resends and rejects in it; ``finish`` waits for a fresh hit, drains and judges."""

    def __init__(
        self, folder: Path, *, settings: dict | None = None, output: Path | None = None, **service
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.canary = f"canary-{secrets.token_hex(8)}"
        usual = {
            "seed": 7,
            "hits_per_second": HITS_PER_SECOND,
            "start_s": START_S,
            "ghost_s": 0.4,
            "overlap_s": 3.0,
            "heartbeat_s": 0.2,
            "token": self.canary,
            "rules": (Rule(resend=Resend(after_hits=600, last=50)),),
        }
        simulated = SimulatorSettings(**{**usual, **service})
        self.hits = oracle.SpoiledHits(simulated.seed, Timeline(start_s=START_S))
        self.service = Service(simulated, self.hits)
        self.collector = Collector(self.service, folder, settings={**SETTINGS, **(settings or {})})
        self.collector.elsewhere = output
        self.faults = Faults(folder / "faults")

    def close(self) -> None:
        if self.collector.process is not None and self.collector.process.poll() is None:
            self.collector.kill_all()
        self.service.close()
        print(self.collector.log)

    def add(self, fault: Fault, *, armed: bool = True) -> Fault:
        return self.faults.add(fault, armed=armed)

    def environment(self) -> dict[str, str]:
        credentials = {"LIVESTREAM_TOKEN": self.canary, "LIVESTREAM_CLIENT_ID": "simulator-key"}
        return credentials | self.faults.environment()

    def start(self, *arguments: str) -> None:
        self.collector.start(*arguments, environment=self.environment())

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """While the collector runs."""
        process = self.collector.process

        def met() -> bool:
            if condition():
                return True
            assert process.poll() is None, f"the collector ended with {process.returncode}, no {what}"
            return False

        wait_until(met, what)

    def until_rows(self, rows: int) -> None:
        self.wait_until(lambda: self.collector.rows() >= rows, f"{rows} rows")

    def until_fired(self, fault: Fault, times: int = 1) -> None:
        """Which may be the collector's end."""

        def fired() -> bool:
            over = self.collector.process.poll() is not None
            done = self.faults.fired(fault) >= times
            assert done or not over, f"the collector ended, {fault.name} never fired"
            return done

        wait_until(fired, f"{fault.name} to fire")

    def ends(self, code: int) -> None:
        assert self.collector.wait() == code, self.collector.log
        wait_until(lambda: not self.collector.left_processes(), "every process to end", oracle.ENDS_WITHIN_S)

    def finish(self, *, tally: oracle.Tally | None = None) -> oracle.Tally:
        """Faults are over and the collector runs."""
        fresh = self.service.sent
        self.until_rows(fresh + 1)
        process = self.collector.process
        oracle.assert_no_secret_in_processes(
            [process.pid, *self.collector.children().values()], self.canary, own_pid=process.pid
        )
        assert self.collector.drain() == 0, self.collector.log
        tally = tally or oracle.Tally(self.hits)
        try:
            oracle.judge(self.collector, self.service.requests, tally, fresh=fresh, canary=self.canary)
        finally:
            tally.close()
        assert tally.compared
        assert tally.missing() == [], "the service went back far enough"
        return tally

    def assert_nothing_partial(self) -> None:
        """Whatever is visible while the fault lasts is a whole part."""
        for path in filter(oracle.is_visible, self.collector.output.rglob("*")):
            pq.ParquetFile(path).close()
