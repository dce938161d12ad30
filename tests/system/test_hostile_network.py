"""Services that are hostile on the wire, under whole collectors: what they send, and when they stop."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from harness import PATIENCE_S, ROOT, wait_until
from reconnect_rig import PATH, assert_waited, await_words, waits_said

from collector.core.reconnect_table import JITTER
from collector.events import EVENTS
from collector.simulator.requestlog import floor_violations
from collector.simulator.scenario import Cut, How, Resend, Rule
from collector.simulator.settings import SimulatorSettings
from tests.reader.hostile_server import (
    LAST_CHUNK,
    STREAM_HEAD,
    HostileServer,
    Peer,
    Script,
    answering,
    chunked,
    head,
)

HITS = [b'{"hitIdHigh":5,"hitIdLow":%d,"pageName":"page %d \xe2\x82\xac"}' % (n, n) for n in range(40)]


@dataclass
class RawService:
    """Plays the scripts one request after the other, the last one for ever, and notes when streams were
    held. Stands in for a simulator."""

    scripts: list[Script]
    held_s: list[tuple[float, float]] = field(default_factory=list)
    """From the request to the end of its answer."""
    settings: SimulatorSettings = field(default_factory=SimulatorSettings)
    url: str = ""

    def play(self, peer: Peer) -> None:
        began_s = time.monotonic()
        self.scripts[min(len(self.held_s), len(self.scripts) - 1)](peer)
        self.held_s.append((began_s, time.monotonic()))

    def gaps_s(self) -> list[float]:
        return [later[0] - before[1] for before, later in itertools.pairwise(self.held_s)]


@contextmanager
def raw_service(*scripts: Script) -> Iterator[RawService]:
    service = RawService(list(scripts))
    with HostileServer(service.play) as server:
        service.url = server.url(PATH)
        yield service


def sending(answer: bytes) -> Script:
    """Then open and silent."""

    def script(peer: Peer) -> None:
        peer.send(answer)
        peer.until_closed()

    return script


holding = sending(STREAM_HEAD + chunked(gzip.compress(b"\r\n".join(HITS) + b"\r\n")))
"""Every hit."""


# ---------------------------------------------------------------- cuts and resends


def test_a_stream_cut_again_and_again(make_collector):
    """In its headers, a chunk's size, the gzip header, a record, the trailer; closed and reset. Each
    connection brings the same hits again: each is a row once, each break a gap, and the waits grow."""
    stream = STREAM_HEAD + chunked(gzip.compress(b"\r\n".join(HITS) + b"\r\n"), 50) + LAST_CHUNK
    cuts = (
        30,
        len(STREAM_HEAD) + 1,
        len(STREAM_HEAD) + 9,
        len(stream) // 2,
        len(stream) - 30,
        len(stream) - 2,
    )
    scripts = [answering(stream[:cut], rst=bool(number % 2)) for number, cut in enumerate(cuts)]
    with raw_service(*scripts, holding) as service:
        collector = make_collector(service, wait_s=0.2, **{"run.decoders": 1, "log.format": "json"})
        collector.start()
        wait_until(lambda: len(collector.events("connection.opened")) == len(cuts), "the last connection")
        wait_until(lambda: collector.rows() == len(HITS), "every hit")
        assert collector.drain() == 0, collector.log
    assert_waited(service.gaps_s(), (1, 1.5, 2.25, 3, 3, 3), 0.2, collector.log)
    rows = collector.table(columns=["hitIdLow", "pageName"]).to_pylist()
    assert sorted((int(row["hitIdLow"]), row["pageName"]) for row in rows) == [
        (n, f"page {n} €") for n in range(len(HITS))
    ]
    totals = collector.ledger().totals
    assert totals.resends == totals.records - len(HITS) > 0
    assert len(collector.events("gap.recorded")) == len(cuts) - 1
    assert {event["outcome"] for event in collector.events("connection.lost")} == {"lost"}


def test_resend_storms_after_each_reconnect_and_across_restarts(make_service, make_collector):
    """Each connection sends its last hits five times over, breaks off, or outlives its collector: every
    hit is a row once, and every resend is counted."""
    total = 4000
    storm = Resend(after_hits=300, last=300, times=5)
    service = make_service(
        total=total,
        hits_per_second=3000,
        ghost_s=0.2,
        rules=(Rule(requests="1-2", resend=storm, cut=Cut(how=How.FIN, after_hits=2500)), Rule(resend=storm)),
    )
    collector = make_collector(service, wait_s=0.4, **{"run.decoders": 1})
    collector.start()
    wait_until(lambda: len(service.requests) >= 2 and service.requests[1].hits > 500, "a second storm")
    collector.kill_all()
    collector.start()
    wait_until(lambda: len(service.requests) >= 3 and service.requests[-1].hits > 500, "a third storm")
    assert collector.drain() == 0, collector.log
    assert collector.run("--stop-after-hits", str(total)) == 0, collector.log
    collector.assert_complete(total)
    collector.assert_tidy()
    totals = collector.ledger().totals
    assert totals.rows == total
    assert totals.resends == totals.records - total > 1000


@pytest.mark.matrix
def test_200_then_close_hundreds_of_times(make_service, make_collector):
    """The wait grows to 3x and stays there: a 200 alone clears nothing. The floor is kept throughout."""
    wait_s, times = 0.05, 300
    service = make_service(
        ghost_s=0, rules=(Rule(requests=f"1-{times}", cut=Cut(how=How.FIN, after_hits=1)),)
    )
    collector = make_collector(service, wait_s=wait_s, **{"run.decoders": 1})
    collector.start()
    wait_until(lambda: len(service.requests) > times, "the last of them", patience_s=300)
    assert collector.drain() == 0, collector.log
    waits = (1, 1.5, 2.25, *[3] * (times - 3))
    requests = service.requests
    gaps = [after.at_s - before.closed_s for before, after in itertools.pairwise(requests[: times + 1])]
    assert_waited(gaps, waits, wait_s, collector.log)
    assert floor_violations(requests, wait_s) == []
    assert collector.doubled() == {}


# ---------------------------------------------------------------- nothing comes


def test_a_host_that_does_not_exist(tmp_path, make_collector):
    """Nothing was reached, so 60 s are not waited for but a twelfth of them; a drain ends it at once."""
    service = RawService([], url="https://stream.invalid/api/1/stream/demo-stream")
    collector = make_collector(service, wait_s=60, **{"run.decoders": 1})
    collector.start()
    await_words(collector, "outcome=unreached")
    await_words(collector, "connection.waited")
    assert collector.drain() == 0, collector.log
    assert all(4 <= said_s <= 5 * (1 + JITTER) for said_s in waits_said(collector)), collector.log


@pytest.mark.matrix
def test_a_service_that_never_answers(make_collector):
    """The request was sent and no status came, within a minute: a stream may have been held, so 1x."""
    asked = threading.Event()

    def silent(peer: Peer) -> None:
        asked.set()
        peer.until_closed()

    with raw_service(silent, holding) as service:
        collector = make_collector(service, wait_s=2.0, **{"run.decoders": 1})
        collector.start()
        assert asked.wait(PATIENCE_S)
        wait_until(lambda: "connection.opened" in collector.log, "the second request", patience_s=120)
        assert collector.drain() == 0, collector.log
    assert "outcome=no_status" in collector.log
    ((began_s, ended_s), *_) = service.held_s
    assert 59 < ended_s - began_s < 75
    assert_waited(service.gaps_s()[:1], (1,), 2.0, collector.log)


# ---------------------------------------------------------------- foreign text

FORGED = (
    '\n2026-01-01T00:00:00.000000Z ERROR   attention.needed reason=forged\r\n{"event": "attention.needed"}'
)
POISON = FORGED + "\x1b[2J\x1b]0;forged\x07\u2028\u202e\x00 simulator-token simulator-key"
AS_HEADER = POISON.replace("\n", "\x0b").replace("\r", "\x85").replace("\0", "").encode("latin-1", "replace")


def speaking(status: str, *headers: bytes, body: bytes = b"") -> Script:
    begin = head(status, f"Content-Length: {len(body)}")[:-2]
    return answering(begin + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body)


def hostile_answers() -> list[Script]:
    """Foreign text at every place that reaches a log line or a row."""
    said = json.dumps({"error_description": POISON}).encode()
    packed = gzip.compress(b"\r\n".join(HITS[:10]) + b"\r\n")
    return [
        speaking("302 Found", b"Location: https://evil.example/" + AS_HEADER),
        speaking("302 Found", b"Location: file:///etc/passwd"),
        speaking("302 Found", b"Location: https://user:secret@127.0.0.1/x"),
        speaking("503 Busy", b"Retry-After: " + AS_HEADER, body=said),
        speaking("500 \x1b[31m forged", b"X-Other: " + AS_HEADER, body=gzip.compress(said)),
        speaking("429 Slow", body=b'{"error":{"message":' + json.dumps(POISON).encode() + b"}}"),
        answering(AS_HEADER + b"\r\n\r\n"),
        sending(STREAM_HEAD + chunked(packed + POISON.encode())),
        answering(STREAM_HEAD + chunked(packed) + AS_HEADER + b"\r\n"),
    ]


def events_of(form: str, log: str) -> list[str]:
    if form == "json":
        return [json.loads(line)["event"] for line in log.splitlines()]
    found = [re.match(r"\d{4}-\S+Z [A-Z]+ +(\S+)( |$)", line) for line in log.splitlines()]
    return [match[1] if match else "" for match in found]


@pytest.mark.parametrize("form", ["console", pytest.param("json", marks=pytest.mark.matrix)])
def test_foreign_text_forges_nothing(form, make_collector):
    """Headers, reason phrases, bodies and gzip trailers with line ends, escapes, fake lines and our own
    token in them: the log has one line for each event, all printable; no file has the token."""
    scripts = hostile_answers()
    with raw_service(*scripts, holding) as service:
        collector = make_collector(service, wait_s=0.1, **{"run.decoders": 1, "log.format": form})
        collector.start()
        wait_until(lambda: len(service.held_s) == len(scripts), "every answer")
        wait_until(lambda: collector.rows() == len(HITS), "every hit")
        assert collector.drain() == 0, collector.log
    log = collector.log
    assert set(events_of(form, log)) <= set(EVENTS), log
    assert all(line.isprintable() for line in log.split("\n")), log
    attention = events_of(form, log).count("attention.needed")
    assert attention <= 1, "not ready after five busy answers is the only one there may be"
    assert "secret@" not in log
    assert "***" in log, "what the service echoed of our token was seen, and masked"
    rows = collector.table("connections").to_pylist()
    texts = [text for row in rows for text in row.values() if isinstance(text, str)]
    assert any("gzip member" in text for text in texts)
    assert all(text.isprintable() for text in texts)
    files = [path for path in collector.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if b"simulator-token" in path.read_bytes()]


@pytest.mark.parametrize("name", ["../../x", "x" * 300, "a\nb\x1b[31m", "NUL"])
def test_a_hostile_stream_name_makes_nothing(name, tmp_path):
    """Exit 2 with the setting's name, printable, and no folder anywhere; a NUL too, from a file."""
    output = tmp_path / "inner" / "output"
    command = [sys.executable, "-m", "collector", "run", "--output", str(output)]
    command += ["--url", "http://127.0.0.1:9/api/1/stream/..%2f..%2fx"]
    if name == "NUL":
        (tmp_path / "settings.toml").write_text('[stream]\nname = "a\\u0000b"\n')
        command += ["--config", str(tmp_path / "settings.toml")]
    else:
        command += [f"--stream={name}"]
    before = {path.name for path in tmp_path.iterdir()}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2, done.stderr
    assert "stream.name" in done.stderr
    assert all(line.isprintable() for line in done.stderr.split("\n"))
    assert {path.name for path in tmp_path.iterdir()} == before
