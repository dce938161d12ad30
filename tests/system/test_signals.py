"""The second signal: a drain that takes too long for somebody is ended at once, and nothing is lost by it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from harness import PATIENCE_S, ROOT, wait_until

from collector.simulator.hits import Hits, Timeline

TOTAL = 2000
SLOWLY = (
    *("--decoders", 1, "--set", "parts.max_age_s=0.1", "--set", "journal.segment_bytes=1MiB"),
    *("--set", "journal.max_record_bytes=64KiB", "--set", "journal.max_bytes=3MiB"),
)
"""A journal that is full at once: what is read waits for what is committed."""


def test_a_second_signal_ends_the_collector_at_once(make_service, make_collector):
    """128 + its number, no process left; the next run takes up what the drain had not finished."""
    service = make_service(total=TOTAL)
    collector = make_collector(service, **{"run.decoders": 1, "log.format": "json"})
    collector.start()
    wait_until(lambda: collector.rows() > 0, "a first batch")
    (decoder,) = collector.pids("decoder")
    os.kill(decoder, signal.SIGSTOP)  # so that the drain cannot end by itself
    collector.process.send_signal(signal.SIGTERM)
    wait_until(lambda: collector.events("drain.began"), "the drain")
    collector.process.send_signal(signal.SIGINT)
    assert collector.wait() == 128 + signal.SIGINT
    os.kill(decoder, signal.SIGCONT)
    wait_until(lambda: not collector.left_processes(), "the children to be gone")
    assert collector.run("--stop-after-hits", str(TOTAL)) == 0, collector.log
    collector.assert_complete(TOTAL)
    collector.assert_tidy()


class Decode:
    """One ``decode`` after the other of one file that is longer than its journal."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.lines = [line.strip() for line in Hits(3, Timeline(start_s=1_790_000_000)).lines(0, 4 * TOTAL)]
        self._file = folder / "hits.jsonl"
        self._file.write_bytes(b"\n".join(self.lines))
        self._log = folder / "log"
        self._log.touch()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["decode", self._file, "--output", self.output, "--log-format", "console", *SLOWLY]
        command += arguments
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "collector", *map(str, command)], cwd=ROOT, stdout=log, stderr=log
            )

    def said(self, event: str) -> int:
        return len(self.lines_of(event))

    def lines_of(self, event: str) -> list[str]:
        return [line for line in self._log.read_text().splitlines() if f" {event} " in line]

    def parts(self) -> set[Path]:
        return {*(self.output / "hits").rglob("*.parquet")}

    def rows(self) -> int:
        return sum(pq.read_metadata(part).num_rows for part in self.parts())


def test_decode_drains_at_a_signal_ends_at_the_second_and_goes_on(tmp_path):
    """Exit 0 and what was taken is committed; 143 at once; then the rest, each hit once."""
    decode = Decode(tmp_path)
    process = decode.start()
    wait_until(decode.parts, "a first batch")
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert decode.said("drain.ended") == 1
    committed = decode.rows()
    assert 0 < committed < len(decode.lines), "it was in the middle"

    seen = decode.parts()
    process = decode.start()
    wait_until(lambda: decode.parts() > seen, "a batch of the second run")
    decoder = _decoder_of(process.pid)
    os.kill(decoder, signal.SIGSTOP)
    process.terminate()
    wait_until(lambda: decode.said("drain.began") == 2, "the drain")
    process.terminate()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    os.kill(decoder, signal.SIGCONT)
    assert committed < decode.rows() < len(decode.lines), "it was in the middle"

    assert decode.start().wait(PATIENCE_S) == 0
    assert decode.rows() == len(decode.lines)
    columns = ["hitIdHigh", "hitIdLow"]
    ids = pq.read_table(decode.output / "hits", columns=columns, partitioning=None).to_pylist()
    assert len({tuple(row.values()) for row in ids}) == len(decode.lines)


def test_a_signal_also_hurries_a_decode_that_has_read_everything(tmp_path):
    """At most ``run.drain_s`` more for what is not committed, then exit 0; it stays in the journal."""
    decode = Decode(tmp_path)
    process = decode.start(
        *("--set", "journal.max_bytes=128MiB", "--set", "journal.durability=disk"),
        *("--set", "run.drain_s=0.5"),
    )
    wait_until(lambda: decode.said("child.started") == 2, "reader and decoder")
    decoder = _decoder_of(process.pid)
    os.kill(decoder, signal.SIGSTOP)
    wait_until(lambda: decode.said("file.read"), "the end of the file")
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert decode.said("drain.began") == 1
    with contextlib.suppress(ProcessLookupError):
        os.kill(decoder, signal.SIGCONT)
    assert decode.rows() < len(decode.lines)
    (ended,) = decode.lines_of("drain.ended")
    assert " left_blocks=0 " not in ended


def _decoder_of(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(
        int(pid) for pid in children if b"collector.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
