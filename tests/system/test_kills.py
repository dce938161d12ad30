"""SIGKILL of every process, alone and together, at any moment: nothing missing, nothing doubled."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import PATIENCE_S, ROOT, Collector, Service, wait_until

from collector.core.entries import Intent
from collector.simulator.hits import Hits
from collector.simulator.requestlog import floor_violations, held_together
from collector.simulator.settings import Resume
from collector.storage.fs import DISK
from collector.storage.layout import below_state
from collector.storage.lock import identity_of
from collector.storage.segments import (
    BLOCK_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    BlockHeader,
    MappedSegment,
    list_segments,
    space_of,
)

HITS_PER_SECOND = 2000
TOTAL = 6000
MEMORY = Path("/dev/shm")
ENDS_WITHIN_S = 2.0
"""An orphaned child, by itself."""

IN_FLIGHT_S = 1.0
"""Of hits: 0.2 s until a block is sealed, its sync, and what sockets hold at a rate they keep up with."""

HITS_AT_A_TIME = 100
"""So many more are made, at that rate, whenever all that were made have been sent."""

LIMIT = 5
"""Deaths of one child in a minute; the next one ends the collector."""


@pytest.fixture
def overlapping(make_service) -> Callable[..., Service]:
    """Services that go back well before a break, as the real one does."""
    return lambda **settings: make_service(**{"total": TOTAL, "overlap_s": 3.0, **settings})


@pytest.fixture
def make(make_collector) -> Callable[..., Collector]:
    """Collectors whose log can be read by ``events``, with one decoder where a test is not about them."""
    usual = {"log.format": "json", "run.decoders": 1}
    return lambda service, **settings: make_collector(service, **{**usual, **settings})


# ---------------------------------------------------------------- seen from outside


def ready_decoders(collector: Collector) -> list[int]:
    """The one started first before the others: it gets the blocks while it keeps up."""
    started = {event["pid"] for event in collector.events("child.started")}
    alive = {pid: identity_of(pid) for pid in collector.pids("decoder") if pid in started}
    return sorted((pid for pid, it in alive.items() if it), key=lambda pid: (alive[pid].start, pid))


def placed_blocks(journal: Path) -> Iterator[tuple[Path, int, BlockHeader]]:
    """Every whole block of the journal with where it is, whoever writes it."""
    for number in list_segments(DISK, journal).used if journal.exists() else ():
        with contextlib.suppress(FileNotFoundError):  # freed meanwhile
            segment = MappedSegment(DISK, journal, number)
            offset = SEGMENT_HEADER_BYTES
            while (header := segment.block_at(offset)) is not None:
                yield segment.path, offset, header
                offset += space_of(header.length)
            segment.close()


def records_in(journal: Path) -> int:
    return sum(header.records for _, _, header in placed_blocks(journal))


def durable_seq(journal: Path) -> int:
    return max((header.synced_seq for _, _, header in placed_blocks(journal)), default=0)


def intents(collector: Collector) -> dict[int, Intent]:
    return {entry.batch: entry for _, entry in collector.entries() if isinstance(entry, Intent)}


def attempt_of(staged: str) -> int:
    """Staged names are BATCH-SHARE-ATTEMPT-..."""
    return int(staged.split("-")[2])


def assert_nobody_left(collector: Collector) -> None:
    wait_until(lambda: not collector.left_processes(), "every process to end", ENDS_WITHIN_S)


def finish(collector: Collector, total: int = TOTAL) -> None:
    """Run until all hits are rows, then judge everything."""
    assert collector.run("--stop-after-hits", str(total)) == 0, collector.log
    collector.assert_complete(total)
    collector.assert_tidy()
    assert_nobody_left(collector)


# ---------------------------------------------------------------- decoders


def open_batch_held_by_first_decoder(collector: Collector) -> tuple[int, int]:
    """The batch that has just opened, and the decoder that has a block of it.

    The block after a committed batch opens the next one and goes to the decoder started first.
    """
    commits = len(collector.events("batch.committed"))
    wait_until(lambda: len(collector.events("batch.committed")) > commits, "a batch to be committed")
    batch = collector.events("batch.committed")[-1]["last"] + 1
    wait_until(lambda: durable_seq(collector.state / "journal") >= batch, f"block {batch} to be accepted")
    return batch, ready_decoders(collector)[0]


def kill_decoder(collector: Collector, pid: int) -> int:
    """How many blocks its death made run again."""
    deaths = len(collector.events("child.died"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(collector.events("child.died")) > deaths, "the death to be noticed")
    death = collector.events("child.died")[-1]
    assert death["how"] == "signal SIGKILL"
    return death["blocks_again"]


def peers_staged(collector: Collector, batch: int) -> dict[str, bytes]:
    """Hashes of what shares other than the first have staged, once all of it is whole."""
    names = [name for name in os.listdir(collector.state / "staging") if name.startswith(f"{batch}-")]
    others = [name for name in names if not name.startswith(f"{batch}-1-")]
    if not any(name.endswith(".run") for name in others):  # written last
        return {}
    for name in others:
        if name.endswith(".parquet"):
            pq.ParquetFile(collector.state / "staging" / name).close()
    return {
        name: hashlib.sha256((collector.state / "staging" / name).read_bytes()).digest() for name in others
    }


def test_ten_decoders_die_in_one_run(overlapping, make):
    """Each holds blocks of an open batch, the last one dies after its peer has staged.

    What a dead decoder held runs again, what its peer staged is used, and the connection notices nothing.
    """
    service = overlapping(total=None, hits_per_second=1000)
    collector = make(service, **{"run.decoders": 3, "parts.max_age_s": 1.0})
    collector.start()
    deaths = []
    for _ in range(9):
        wait_until(lambda: len(ready_decoders(collector)) == 3, "three decoders")
        batch, victim = open_batch_held_by_first_decoder(collector)
        killed_us = time.time_ns() // 1000
        deaths.append((batch, killed_us, kill_decoder(collector, victim)))

    batch, victim = open_batch_held_by_first_decoder(collector)
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: peers_staged(collector, batch), "its peer to stage")
    staged = peers_staged(collector, batch)
    assert collector.ledger().last_batch[1] < batch, "nothing of this batch is decided"
    assert kill_decoder(collector, victim) > 0
    wait_until(lambda: batch in intents(collector), "the batch to be decided")
    assert collector.drain() == 0, collector.log

    decided = intents(collector)
    for batch_open, killed_us, blocks_again in deaths:
        assert blocks_again > 0
        assert decided[batch_open].blocks[0].collected_at_us < killed_us
        assert decided[batch_open].blocks[-1].collected_at_us > killed_us, "it was open: it took more blocks"
        assert any(
            attempt_of(file.staged) > 1 for share in decided[batch_open].shares for file in share.files
        )
    files = {file.staged: file for share in decided[batch].shares for file in share.files}
    assert {name: files[name].sha256 for name in staged} == staged
    assert {attempt_of(name) for name in files if name.startswith(f"{batch}-1-")} == {2}

    assert len(service.requests) == 1
    collector.assert_complete(collector.rows())
    assert collector.rows() > 9 * 1000
    collector.assert_tidy()
    assert_nobody_left(collector)


def test_a_decoder_that_keeps_dying_ends_the_collector(overlapping, make):
    """After five deaths in a minute the sixth is exit 6; what was accepted waits for the next run."""
    service = overlapping()
    collector = make(service)
    kill_whoever_starts(collector, "decoder 1")
    finish(collector)


def test_a_reader_that_keeps_dying_ends_the_collector(overlapping, make):
    """The same for the reader; the floor holds through all of it."""
    service = overlapping()
    collector = make(service)
    kill_whoever_starts(collector, "reader")
    assert floor_violations(service.requests, collector.wait_s) == []
    assert held_together(service.requests) == []


def kill_whoever_starts(collector: Collector, name: str) -> None:
    collector.start()
    for killed in range(LIMIT + 1):
        wait_until(lambda killed=killed: len(starts(collector, name)) > killed, f"{name} to start")
        os.kill(starts(collector, name)[-1], signal.SIGKILL)
    assert collector.wait() == 6, collector.log
    assert "keeps failing" in collector.log
    assert len(starts(collector, name)) == LIMIT + 1
    assert_nobody_left(collector)


def starts(collector: Collector, name: str) -> list[int]:
    return [event["pid"] for event in collector.events("child.started") if event["name"] == name]


@pytest.mark.parametrize(("name", "needs"), [("decoder 1", "arro3"), ("reader", "pycurl")])
def test_a_child_that_cannot_start_ends_the_start(overlapping, make, tmp_path, name, needs):
    """A broken installation: exit 6 at the first try, with the child's own words above."""
    service = overlapping()
    collector = make(service)
    (tmp_path / f"{needs}.py").write_text("raise ImportError('broken on purpose')\n")
    credentials = {"LIVESTREAM_TOKEN": "simulator-token", "LIVESTREAM_CLIENT_ID": "simulator-key"}
    collector.start(environment={**credentials, "PYTHONPATH": str(tmp_path)})
    assert collector.wait() == 6, collector.log
    assert starts(collector, name) == []
    assert collector.log.count("ImportError: broken on purpose") == 1
    assert collector.events("child.died") == []
    assert f"{name} cannot start (last: exit code 1)" in collector.log
    collector.assert_tidy()
    assert_nobody_left(collector)


# ---------------------------------------------------------------- the reader, the coordinator, everything


def test_the_reader_dies_twice(overlapping, make):
    """The journal keeps what it had made durable, the service's overlap has the rest."""
    service = overlapping()
    collector = make(service, **{"journal.segment_bytes": "2 MiB", "run.decoders": 2})
    collector.start("--stop-after-hits", str(TOTAL))
    for part in (1, 2):
        wait_until(lambda part=part: service.sent > part * TOTAL // 4, "some hits")
        wait_until(lambda: service.simulator.holding, "a connection")
        os.kill(collector.pids("reader")[0], signal.SIGKILL)
        wait_until(lambda part=part: len(collector.events("child.died")) == part, "the death to be noticed")
    assert collector.wait() == 0, collector.log
    collector.assert_complete(TOTAL)
    collector.assert_tidy()
    assert_nobody_left(collector)
    assert len(service.requests) >= 3
    assert collector.ledger().totals.resends > 0


def test_everything_dies_twice(overlapping, make):
    """Coordinator and children at once; the next run goes on where the journal and the log stand."""
    service = overlapping()
    collector = make(service, **{"run.decoders": 2})
    for part in (1, 2):
        collector.start()
        wait_until(lambda part=part: service.sent > part * TOTAL // 4, "some hits")
        wait_until(lambda: service.simulator.holding, "a connection")
        collector.kill_all()
        assert_nobody_left(collector)
    finish(collector)


def test_the_coordinator_dies_alone(overlapping, make):
    """Its children end by themselves within two seconds, the reader with all that it had made durable."""
    service = overlapping()
    collector = make(service, wait_s=1.2, **{"run.decoders": 2})
    collector.start()
    wait_until(lambda: service.sent > TOTAL // 3, "some hits")
    collector.process.kill()
    collector.process.wait()
    assert_nobody_left(collector)
    finish(collector)


def commit_step(collector: Collector) -> str:
    """Where the commit of a batch stands; the coordinator must be stopped."""
    pending = collector.ledger().pending
    if pending is None:
        whole = any(path.suffix == ".run" for path in (collector.state / "staging").iterdir())
        return "staged" if whole else ""
    files = [file for share in pending.shares for file in share.files]
    finals = [
        (collector.state if below_state(file.kind) else collector.output) / file.final for file in files
    ]
    return "visible" if any(final.exists() for final in finals) else "decided"


def stop_at_step(collector: Collector, step: str) -> None:
    """SIGSTOP the coordinator within this step; it takes milliseconds, so several commits may pass."""
    staging, log = collector.state / "staging", collector.state / "commit.log"
    signs: dict[str, Callable[[], object]] = {
        "staged": lambda: {name for name in os.listdir(staging) if name.endswith(".run")},
        "decided": lambda: (bool(os.listdir(staging)), log.stat().st_size),
        "visible": lambda: len(os.listdir(staging)),
    }
    wait_until(lambda: collector.pids("decoder"), "decoders")
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        before = signs[step]()
        wait_until(lambda before=before: signs[step]() != before, f"a sign of {step}", pause_s=0.0002)
        os.kill(collector.process.pid, signal.SIGSTOP)
        if commit_step(collector) == step:
            return
        os.kill(collector.process.pid, signal.SIGCONT)
    pytest.fail(f"the coordinator was never caught in step {step}")


def stop_in_recovery(collector: Collector) -> None:
    """As soon as the run has the state folder."""
    lock = collector.state / "lock"
    wait_until(lambda: lock.read_text() == str(collector.process.pid), "the lock", pause_s=0.0005)
    os.kill(collector.process.pid, signal.SIGSTOP)


def test_everything_dies_at_any_moment(overlapping, make):
    """Crash after crash over one state folder: at each step of a commit, in the recovery, anywhere."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    service = overlapping(total=None, hits_per_second=600)
    collector = make(service, **{"journal.segment_bytes": "2 MiB", "run.decoders": 2})
    for step in ("any", "staged", "recovery", "decided", "recovery", "visible", "recovery", "any"):
        collector.start()
        match step:
            case "any":
                time.sleep(draw.uniform(0.2, 3.0))
            case "recovery":
                stop_in_recovery(collector)
            case _:
                stop_at_step(collector, step)
        assert collector.process.poll() is None, collector.log
        collector.kill_all()
        print(f"killed: {step}, {collector.rows()} rows committed")
        assert_nobody_left(collector)
    collector.start()
    newest = service.sent
    wait_until(lambda: collector.rows() > newest, "all that was sent until now to be rows")
    assert collector.drain() == 0, collector.log
    collector.assert_complete(collector.rows())
    collector.assert_tidy()
    assert_nobody_left(collector)


# ---------------------------------------------------------------- the journal after a death


def all_in_journal(service: Service, collector: Collector, total: int) -> None:
    """The coordinator hears of nothing while the reader makes everything durable; then both die."""
    collector.start()
    wait_until(lambda: service.sent, "the stream to begin")
    os.kill(collector.process.pid, signal.SIGSTOP)
    wait_until(lambda: records_in(collector.state / "journal") == total, "everything to be in the journal")
    collector.kill_all()
    assert_nobody_left(collector)
    assert collector.rows() == 0
    assert service.sent == total


def test_what_was_durable_but_never_reported_is_accepted(make_service, make):
    """The journal is the truth, not who had been told: the service sends none of it again."""
    service = make_service(total=2000, resume=Resume.LOSSY)
    collector = make(service)
    all_in_journal(service, collector, 2000)
    finish(collector, 2000)
    assert collector.ledger().totals.resends == 0


def test_a_torn_tail_is_cut(overlapping, make):
    """A block whose write was cut short was never accepted: it goes to quarantine and comes again."""
    service = overlapping(total=2000)
    collector = make(service)
    all_in_journal(service, collector, 2000)
    path, offset, header = list(placed_blocks(collector.state / "journal"))[-1]
    with open(path, "r+b") as segment:
        segment.seek(offset + BLOCK_HEADER_BYTES + header.length // 2)
        segment.write(bytes(header.length - header.length // 2))
    finish(collector, 2000)
    (quarantined,) = (collector.state / "quarantine").iterdir()
    assert BLOCK_HEADER_BYTES < quarantined.stat().st_size < space_of(header.length)
    assert len(collector.events("journal.cut")) == 1


def test_a_journal_in_memory_survives_every_process(make_service, make):
    """``durability = memory`` loses nothing when all processes die; when done, the memory is given back."""
    service = make_service(total=TOTAL, overlap_s=1.0)
    collector = make(service, **{"journal.durability": "memory", "parts.max_age_s": 30})
    for part in (1, 2):
        collector.start()
        wait_until(lambda part=part: service.sent > part * TOTAL // 3, "some hits")
        wait_until(lambda: service.simulator.holding, "a connection")
        collector.kill_all()
        assert_nobody_left(collector)
    journal = MEMORY / f"livestream-collector-{collector.ledger().instance}"
    assert records_in(journal) > TOTAL // 2
    assert collector.rows() == 0
    collector.settings["parts.max_age_s"] = 0.5
    finish(collector)
    assert not journal.exists()


# ---------------------------------------------------------------- loss, where the service does not go back


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """[1, 2, 3, 7] is 1 to 3 and 7 to 7."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@pytest.mark.parametrize("resume", [Resume.EXACT, Resume.LOSSY])
def test_loss_is_what_was_in_flight_and_is_said(make_service, make, resume):
    """A reset, a killed reader, everything killed: only the newest hits of a connection are missing, few,
    and where there are any, ``connections`` says so. "No" is said only where the service went back.

    The hits come while the test waits for something, and as long as it waits: so there are some behind each
    break, however slow this machine is. Of those at the end of a stream nobody would hear that they are lost.
    """
    service = make_service(total=0, resume=resume)
    collector = make(service)
    collector.start()
    flow_until(service, lambda: service.sent > 1000, "some hits")
    service.cut("rst")
    sent = service.sent
    flow_until(service, lambda: service.sent > sent + 2000 and service.simulator.holding, "more hits")
    kill_with_hits_in_its_socket(service, collector.pids("reader")[0])
    wait_until(lambda: len(service.requests) > 2 and service.simulator.holding, "the next connection")
    kill_all_with_blocks_undecided(service, collector)
    collector.start()
    sent = service.sent
    flow_until(service, lambda: service.sent > sent, "the stream to go on")
    total = service.made
    wait_until(lambda: total - 1 in collector.hits(), "the last hit to be a row")
    assert collector.drain() == 0, collector.log

    missing = ranges(collector.missing(total))
    print(f"missing {missing}")
    assert all(last - first < IN_FLIGHT_S * HITS_PER_SECOND for first, last in missing)
    assert collector.doubled() == {}
    assert collector.invented(total) == []
    rows = collector.table("connections").to_pylist()
    gaps = sorted((row for row in rows if row["kind"] == "gap"), key=lambda row: row["began_at"])
    assert [gap["reason"] for gap in gaps] == ["lost", "reader_died", "lost"]
    first_hits = [request.first_hit for request in service.requests if request.is_stream][1:]
    lossy = [any(last + 1 == first_hit for _, last in missing) for first_hit in first_hits]
    assert sum(lossy) == len(missing), "hits are missing only before a break"
    assert lossy[1], "the reader had hits in its socket when it was killed"
    for gap, is_lossy in zip(gaps, lossy, strict=True):
        assert gap["suspected_gap_rule"]
        assert gap["suspected_gap"] in ("possible", "likely") or not is_lossy, gap
        assert gap["suspected_gap"] in ("possible", "likely") or "went back" in gap["suspected_gap_rule"]
    collector.assert_tidy()
    assert_nobody_left(collector)


def flow_until(service: Service, condition: Callable[[], object], what: str) -> None:
    """Hits are made while somebody takes them, and no faster than usual: no break leaves a heap of them."""

    def reached() -> bool:
        if condition():
            return True
        if service.simulator.holding and service.sent == service.made:
            service.make_more(HITS_AT_A_TIME)
        return False

    wait_until(reached, what)


def kill_with_hits_in_its_socket(service: Service, reader: int) -> None:
    os.kill(reader, signal.SIGSTOP)
    sent = service.sent
    flow_until(service, lambda: service.sent > sent + 100, "hits that nobody reads")
    os.kill(reader, signal.SIGKILL)


def kill_all_with_blocks_undecided(service: Service, collector: Collector) -> None:
    """The coordinator stands still before: a fast one might have decided them all at each look."""
    os.kill(collector.process.pid, signal.SIGSTOP)
    decided, journal = collector.ledger().last_batch[1], collector.state / "journal"
    flow_until(service, lambda: durable_seq(journal) > decided, "more blocks")
    collector.kill_all()


# ---------------------------------------------------------------- saved files


class Decoding(Collector):
    """One ``decode`` after the other over the same folders."""

    @property
    def state(self) -> Path:
        return self.output / ".state" / "files.files"

    def start(self, *files: str) -> None:
        command = [sys.executable, "-m", "collector", "decode", *files, "--output", str(self.output)]
        settings = {
            "log.format": "json",
            "journal.reserve_bytes": 0,
            "journal.segment_bytes": "2 MiB",
            "journal.max_record_bytes": "1 MiB",
            "journal.max_bytes": "8 MiB",  # so that reading cannot run far ahead
            "parts.max_bytes": "4 MiB",
        }
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)


@pytest.fixture
def decoding(make_service, tmp_path) -> Iterator[Decoding]:
    """It asks no service; the one it has only says how hits are numbered."""
    collector = Decoding(make_service(), tmp_path)
    yield collector
    if collector.process is not None and collector.process.poll() is None:
        collector.kill_all()
    print(collector.log)


def save_hits(path: Path, seed: int, count: int) -> str:
    path.write_bytes(b"".join(line + b"\n" for line in Hits(seed).lines(0, count)))
    return str(path)


def test_decode_killed_in_the_middle_goes_on(decoding, tmp_path):
    """What is committed or in the journal is not read again, and nothing is missing or doubled."""
    total = 20_000
    saved = save_hits(tmp_path / "hits.jsonl", decoding.service.settings.seed, total)
    for run in (1, 2):
        before = decoding.rows()
        decoding.start(saved)
        wait_until(lambda before=before: decoding.rows() > before, "a batch to be committed")
        # which may have been in the journal, before the file is looked at
        wait_until(lambda run=run: len(decoding.events("file.opened")) == run, "the file to be opened")
        decoding.kill_all()
        assert before < decoding.rows() < total
        assert_nobody_left(decoding)
    decoding.start(saved)
    assert decoding.wait() == 0, decoding.log
    decoding.assert_complete(total)
    decoding.assert_tidy()
    assert_nobody_left(decoding)
    skipped = [event["skip_records"] for event in decoding.events("file.opened")]
    assert skipped[0] == 0
    assert 0 < skipped[1] <= skipped[2], "the second may have got no further than its journal"
    assert decoding.ledger().totals.resends == 0, "no record was read twice"


def test_decode_survives_its_children(decoding, tmp_path):
    """The reader killed, then a decoder: the run goes on by itself, every record is a row once."""
    total = 20_000
    saved = save_hits(tmp_path / "hits.jsonl", decoding.service.settings.seed, total)
    decoding.start(saved)
    for name in ("reader", "decoder"):
        before = decoding.rows()
        wait_until(lambda before=before: decoding.rows() > before, "a batch to be committed")
        os.kill(decoding.pids(name)[0], signal.SIGKILL)
    assert decoding.wait() == 0, decoding.log
    assert len(decoding.events("child.died")) == 2
    decoding.assert_complete(total)
    decoding.assert_tidy()
    assert_nobody_left(decoding)
    assert decoding.ledger().totals.resends == 0, "no record was read twice"


def test_decode_of_the_same_file_adds_nothing(decoding, tmp_path):
    """A file is known by its content, whatever it is called."""
    total = 2000
    saved = save_hits(tmp_path / "hits.jsonl", decoding.service.settings.seed, total)
    again = save_hits(tmp_path / "other-name.jsonl", decoding.service.settings.seed, total)
    for files in ([saved], [again, saved]):
        decoding.start(*files)
        assert decoding.wait() == 0, decoding.log
        decoding.assert_complete(total)
        assert decoding.ledger().totals.records == total
    decoding.assert_tidy()
    assert_nobody_left(decoding)
