"""Real processes that hang, are stopped or choke on a record: what is ended, and what is left alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from fault_rig import Rig
from faults.plan import Fault
from harness import ROOT, Collector, Service, wait_until

from collector.simulator.hits import Hits

LIMIT_S = 3
"""The least that can be set."""

POISON = ["crash", "crash", "crash", "abort", "abort", "panic", "fail", "fail", "fail", "hang"]
"""Whoever dies of seven of these dies more often than the restart limit allows; one catches itself."""

CREDENTIALS = {"LIVESTREAM_TOKEN": "simulator-token", "LIVESTREAM_CLIENT_ID": "simulator-key"}


@pytest.fixture
def make(make_collector):
    """Collectors whose log can be read by ``events``."""
    usual = {"log.format": "json", "run.decoders": 1, "run.heartbeat_limit_s": LIMIT_S}
    return lambda service, **settings: make_collector(service, **{**usual, **settings})


def started(collector: Collector, name: str) -> int:
    """The pid of the newest one."""
    pids = [event["pid"] for event in collector.events("child.started") if event["name"] == name]
    return pids[-1] if pids else 0


def assert_nobody_left(collector: Collector) -> None:
    wait_until(lambda: not collector.left_processes(), "every process to end", 2.0)


# ---------------------------------------------------------------- hung


def test_a_stopped_reader_and_a_stopped_decoder_are_replaced(make_service, make):
    """Silent for the limit: SIGABRT, which a stopped process does not hear, then SIGKILL. Nothing is lost."""
    service: Service = make_service(total=None, overlap_s=30.0)
    collector = make(service)
    collector.start()
    wait_until(lambda: service.sent > 500 and started(collector, "decoder 1"), "some hits")
    for name in ("reader", "decoder 1"):
        os.kill(started(collector, name), signal.SIGSTOP)
    wait_until(lambda: len(collector.events("child.died")) == 2, "both to be ended")
    hung = {event["name"]: event for event in collector.events("child.hung")}
    assert set(hung) == {"reader", "decoder 1"}
    assert all(event["silent_s"] >= LIMIT_S for event in hung.values())
    assert {event["how"] for event in collector.events("child.died")} == {"signal SIGKILL, it hung"}
    newest = service.sent
    wait_until(lambda: collector.rows() > newest, "all that was sent until now to be rows")
    assert collector.drain() == 0, collector.log
    collector.assert_complete(collector.rows())
    collector.assert_tidy()
    assert_nobody_left(collector)


def test_nobody_dies_because_the_coordinator_was_stopped(make_service, make):
    """Twice the limit: its children were silent towards it, but nobody was there to hear them."""
    service: Service = make_service(total=None, hits_per_second=500.0)
    collector = make(service)
    collector.start()
    wait_until(lambda: collector.rows() > 0, "some rows")
    os.kill(collector.process.pid, signal.SIGSTOP)
    time.sleep(2 * LIMIT_S)
    os.kill(collector.process.pid, signal.SIGCONT)
    newest = service.sent
    wait_until(lambda: collector.rows() > newest, "all that was sent until now to be rows")
    time.sleep(2.0)  # two looks
    assert collector.drain() == 0, collector.log
    assert collector.events("child.hung") == []
    assert collector.events("child.died") == []
    assert len(service.requests) == 1
    collector.assert_complete(collector.rows())
    assert_nobody_left(collector)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("process", "call", "path", "said"),
    [
        ("reader", "pwritev", "*/journal/*", True),
        ("reader", "fdatasync", "*/journal/*", False),  # in its second thread: the loop is not held up
        ("decoder", "write", "*/staging/*", True),
        ("decoder", "fsync", "*/staging/*", True),
    ],
)
def test_a_slow_disk_kills_nobody(tmp_path, process, call, path, said):
    """A call that takes twice the limit is reported where a child waits for it, and that is all."""
    rig = Rig(tmp_path, settings={"run.heartbeat_limit_s": LIMIT_S})
    fault = rig.add(Fault("slow", process, call, path, effect="delay", delay_s=2.0 * LIMIT_S), armed=False)
    try:
        rig.start()
        rig.until_rows(1)
        rig.faults.arm(fault)
        rig.wait_until(lambda: rig.faults.fired(fault), "the delay")
        newest = rig.service.sent
        rig.until_rows(newest)
        assert rig.collector.drain() == 0, rig.collector.log
    finally:
        rig.close()
    slow = [(event["name"].split()[0], event["phase"]) for event in rig.collector.events("child.slow")]
    assert slow == [(process, "disk")] * said
    assert rig.collector.events("child.died") == []


# ---------------------------------------------------------------- poison


def poisoned_file(path: Path, seed: int, total: int, poison: list[str]) -> dict[int, bytes]:
    """Hits, and among the first ones those with something in them that decoders cannot bear."""
    lines = Hits(seed).lines(0, total)
    spoiled = {}
    for number, effect in enumerate(poison):
        at = 20 + 7 * number
        lines[at] = lines[at][:-1] + b',"zip":"poison:' + effect.encode() + b'"}'
        spoiled[at] = lines[at]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return spoiled


def start_poisoned(collector: Collector, rows: int, more: dict[str, str] | None = None) -> Collector:
    path = os.pathsep.join([str(ROOT / "tests" / "system" / "poison"), str(ROOT)])
    collector.start(
        "--stop-after-hits", str(rows), environment={**CREDENTIALS, **(more or {}), "PYTHONPATH": path}
    )
    return collector


def test_records_that_kill_decoders_become_rejects(make_service, make, tmp_path):
    """Each exactly one, with its raw bytes and how it was found out; all others are rows; it goes on.

    No death of these counts against the restart limit, of which there would be too many.
    """
    total = 1500
    spoiled = poisoned_file(tmp_path / "hits.jsonl", 7, total, POISON)
    service = make_service(file=tmp_path / "hits.jsonl", hits_per_second=0.0)
    collector = start_poisoned(make(service), total - len(spoiled))
    assert collector.wait() == 0, collector.log

    assert collector.missing(total) == sorted(spoiled)
    assert collector.doubled() == {}
    rejects = collector.table("rejects").to_pylist()
    assert sorted(reject["raw"] for reject in rejects) == sorted(spoiled.values())
    reasons = {reject["raw"].rpartition(b"poison:")[2][:-2].decode(): reject["reason"] for reject in rejects}
    assert reasons == {
        "crash": "poison: the decoder died of it (signal SIGSEGV)",
        "abort": "poison: the decoder died of it (signal SIGABRT)",
        "panic": "poison: the decoder died of it (exit code 1)",
        "fail": "poison: decoding it failed (ValueError)",
        "hang": "poison: the decoder died of it (signal SIGABRT, it hung)",
    }
    deaths = collector.events("child.died")
    fatal = [effect for effect in POISON if effect != "fail"]
    assert len(fatal) < len(deaths) <= 2 * len(fatal), "one for each, and one for each block of them"
    assert all(death["delay_s"] == 0 for death in deaths)
    (hung,) = collector.events("child.hung")
    assert hung["phase"] == "decoding"
    assert "in hang" in collector.log, "it said where it hung"
    assert "WHAT AN EXCEPTION SAYS" not in collector.log
    assert len(service.requests) == 1
    collector.assert_tidy()
    assert_nobody_left(collector)


@pytest.mark.matrix
def test_a_record_that_eats_all_memory_becomes_a_reject(make_service, make, tmp_path):
    """Want of memory may be anybody's fault: these deaths count, and it takes one more of them."""
    total = 600
    spoiled = poisoned_file(tmp_path / "hits.jsonl", 7, total, ["eat"])
    collector = start_poisoned(
        make(make_service(file=tmp_path / "hits.jsonl", hits_per_second=0.0)), total - 1
    )
    assert collector.wait() == 0, collector.log
    assert collector.missing(total) == sorted(spoiled)
    (reject,) = collector.table("rejects").to_pylist()
    assert reject["raw"] in spoiled.values()
    assert reject["reason"] == "poison: the decoder died of it (exit code 12, out of memory)"
    assert [death["delay_s"] for death in collector.events("child.died")] == [0, 0.1, 0.2]
    assert_nobody_left(collector)


@pytest.mark.matrix
def test_a_resend_of_what_became_a_reject_is_a_row(make_service, make, tmp_path):
    """A record claims its id, its decoder is killed, the next one dies of the record: no claim stands.

    Had they stood, the good record with that id would have been dropped for one that is no hit.
    """
    total, at, again = 400, 20, 100
    spoiled = poisoned_file(tmp_path / "hits.jsonl", 7, total, ["later"])
    lines = (tmp_path / "hits.jsonl").read_bytes().splitlines()
    lines[again] = Hits(7).lines(at, 1)[0]
    (tmp_path / "hits.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    met = tmp_path / "met"
    collector = make(
        make_service(file=tmp_path / "hits.jsonl", hits_per_second=0.0), **{"parts.max_age_s": 8}
    )
    start_poisoned(collector, total - 2, {"LIVESTREAM_TEST_POISON_MET": str(met)})
    wait_until(met.exists, "the first decoder to get over it")
    first = started(collector, "decoder 1")
    wait_until(lambda: is_idle(first), "its claims to be answered")
    os.kill(first, signal.SIGKILL)
    assert collector.wait() == 0, collector.log
    (void,) = collector.events("batch.voided")
    assert (void["block"], void["line"]) == (1, at)
    (reject,) = collector.table("rejects").to_pylist()
    assert (reject["collector_line"], reject["raw"]) == (at, spoiled[at])
    assert collector.hits()[at] == 1
    assert collector.missing(total) == [again], "whose place the resend took"
    assert collector.doubled() == {}
    assert_nobody_left(collector)


def is_idle(pid: int) -> bool:
    """Nothing but a heartbeat in half a second."""
    schedule = Path(f"/proc/{pid}/schedstat")
    before_ns = int(schedule.read_text().split()[0])
    time.sleep(0.5)
    return int(schedule.read_text().split()[0]) - before_ns < 2_000_000


@pytest.mark.matrix
def test_a_child_that_hangs_before_it_is_up_ends_the_start(make_service, make, tmp_path):
    """It is given half a minute, says where it is, and is not tried again: exit 6."""
    (tmp_path / "arro3.py").write_text("while True:\n    pass\n")
    collector = make(make_service())
    collector.start(environment={**CREDENTIALS, "PYTHONPATH": str(tmp_path)})
    assert collector.wait() == 6, collector.log
    (hung,) = collector.events("child.hung")
    assert (hung["name"], hung["phase"]) == ("decoder 1", "starting")
    assert "decoder 1 cannot start (last: signal SIGABRT, it hung)" in collector.log
    assert "arro3.py" in collector.log, "where it hung"
    assert_nobody_left(collector)
