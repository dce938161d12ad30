"""Every line of the reconnect table that one service and one run show, by the service's own log."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field

import msgspec
import pytest
from reconnect_rig import assert_waited, await_requests, gaps_s, requests_of

from collector.core.remedies import STATUSES
from collector.simulator.requestlog import floor_violations, held_together
from collector.simulator.scenario import Answer, BadGzip, Cut, How, Redirect, Rule, Stall

WAIT_S = 0.3
GHOST_S = 0.2
"""Gone before the next request, so that each line shows itself alone."""


@dataclass(frozen=True)
class Line:
    """What happens to the first requests, one ``Rule`` after the other and over again, and the waits then."""

    name: str
    waits: tuple[float, ...]
    """Multiples of ``WAIT_S``. The request after the last one gets its stream."""
    says: tuple[str, ...]
    happens: tuple[Rule, ...]
    settings: dict[str, object] = field(default_factory=dict)

    def rules(self) -> tuple[Rule, ...]:
        turns = range(len(self.waits))
        return tuple(
            msgspec.structs.replace(self.happens[turn % len(self.happens)], requests=str(turn + 1))
            for turn in turns
        )


def answer(status: int, description: str = "", **headers: str) -> Rule:
    body = json.dumps({"error_description": description}) if description else ""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Rule(answer=Answer(status, body, sent))


def cut(how: How, **more: object) -> Rule:
    return Rule(cut=Cut(how=how, after_hits=50, **more))


def bad_gzip(kind: str) -> Rule:
    """Then quiet, so that the service is idle when the client goes, however late, and notes it at once."""
    return Rule(bad_gzip=BadGzip(after_hits=50, kind=kind), stall=Stall(after_hits=50))


ONCE = (1,)

LINES = [
    Line("clean end", ONCE, ("the service ended the connection",), (cut(How.CLEAN),)),
    Line("EOF", ONCE, ("outcome=lost",), (cut(How.FIN),)),
    Line("EOF inside gzip", ONCE, ("outcome=lost",), (cut(How.FIN, where="mid-gzip"),)),
    Line("reset", (1, 1.5, 2.25, 3, 3), ("reset by peer",), (cut(How.RST, where="mid-record"),)),
    Line("wrong CRC", ONCE, ("gzip stream is damaged",), (bad_gzip("crc"),)),
    Line("garbage", ONCE, ("gzip stream is damaged",), (bad_gzip("garbage"),)),
    Line(
        "stall",
        ONCE,
        ("outcome=stalled", "nothing came for so long"),
        (Rule(stall=Stall(after_hits=50)),),
        {"reconnect.idle_timeout_s": 0.5},
    ),
    Line("200 that is no gzip", ONCE, ("outcome=lost",), (Rule(answer=Answer(200, "<html>hello</html>")),)),
    Line("no status", (1, 1.5), ("outcome=no_status",), (cut(How.RST, after_bytes=0),)),
    Line("half a status", ONCE, ("outcome=no_status",), (cut(How.FIN, after_bytes=7),)),
    Line(
        "409 and 503 have one counter",
        (1, 1.5, 2.25, 3, 3),
        (
            "another client is connected (409)",
            "close it, or wait",
            "clients disagree",
            "cannot serve the stream now (503)",
            "no hits",
            "attention.needed",
        ),
        (answer(409, "clients disagree on maxConnections"), answer(503, "no hits")),
    ),
    Line("500", (1, 2, 4), ("the service failed (500)", "out of order"), (answer(500, "out of order"),)),
    Line("unnamed status", (1, 2), ("not known to give (418)", "teapot"), (answer(418, "teapot"),)),
    Line(
        "429, the larger of rule and Retry-After",
        (1, 2 / WAIT_S, 4),
        ("too many requests were made (429)", "retry_after_s=2"),
        (answer(429), answer(429, Retry_After="2"), answer(429, Retry_After="1")),
    ),
    Line(
        "Retry-After on others",
        (1 / WAIT_S, 1),
        ("(503)", "(500)"),
        (answer(503, Retry_After="1"), answer(500, Retry_After="0")),
    ),
    Line(
        "redirect that cannot be followed",
        (1, 2, 4),
        ("without Location", "loops", "not allowed"),
        tuple(
            Rule(redirect=it)
            for it in (Redirect(), Redirect("?maxConnections=1"), Redirect("https://evil.example/"))
        ),
    ),
    Line("later hop fails", ONCE, ("redirect",), (Rule(redirect=Redirect("http://127.0.0.1:1/x")),)),
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_line(line, make_service, make_collector):
    """The waits of this line, in the service's log; its words, in ours; then the stream goes on."""
    service = make_service(ghost_s=GHOST_S, rules=line.rules())
    collector = make_collector(service, wait_s=WAIT_S, **{"run.decoders": 1, **line.settings})
    collector.start()
    requests = await_requests(collector, len(line.waits) + 1)
    assert_waited(gaps_s(requests), line.waits, WAIT_S, collector.log)
    assert requests[-1].status == 200
    assert [words for words in line.says if words not in collector.log] == [], collector.log
    assert floor_violations(service.requests, WAIT_S) == []
    assert held_together(service.requests) == []


@pytest.mark.parametrize("status", [400, 404, 405, 406, 424, 505])
def test_a_refusal_that_waiting_does_not_cure(status, make_service, make_collector):
    """One request, then exit 3 with the status, what the service said, and the remedy."""
    service = make_service(rules=(answer(status, "it is like that"),))
    collector = make_collector(service, wait_s=WAIT_S)
    assert collector.run() == 3, collector.log
    assert len(service.requests) == 1
    last_words = collector.last_words()
    for words in (f"({status})", "it is like that", STATUSES[status].do):
        assert words in last_words


@pytest.mark.parametrize("status", [401, 403])
def test_a_static_token_that_is_refused(status, make_service, make_collector):
    """There is no new one to be had: one request, then exit 3."""
    service = make_service(rules=(answer(status, "token expired"),))
    collector = make_collector(service, wait_s=WAIT_S)
    assert collector.run() == 3, collector.log
    assert len(service.requests) == 1
    last_words = collector.last_words()
    assert f"({status})" in last_words
    assert "token expired" in last_words


def test_a_redirect_is_part_of_the_attempt(make_service, make_collector):
    """The hop follows at once with all headers again; after a loss the attempt starts at the original URL."""
    service = make_service(redirect=True, rules=(Rule(requests="2", cut=Cut(after_hits=50)),))
    collector = make_collector(service)
    collector.start()
    requests = await_requests(collector, 4)
    first, second = service.simulator.ports
    assert [(request.status, request.port) for request in requests] == [(302, first), (200, second)] * 2
    for request in requests:
        assert set(request.secrets) == {"authorization", "x-api-key"}
        assert request.headers["accept-encoding"] == "gzip"
        assert request.query == "maxConnections=1"
    assert_waited(gaps_s(requests), (0, 1, 0), collector.wait_s, collector.log)


def test_a_ghost_is_waited_out(make_service, make_collector):
    """The slot of a broken connection stays taken, and asking prolongs it: the growing wait gets in."""
    service = make_service(ghost_s=1.72, rules=(Rule(requests="1", cut=Cut(after_hits=50)),))
    collector = make_collector(service, wait_s=1.2)
    collector.start()
    requests = await_requests(collector, 4)
    assert [request.status for request in requests] == [200, 409, 503, 200]
    assert_waited(gaps_s(requests), (1, 1, 1.5), 1.2, collector.log)


def test_a_killed_reader_is_a_lost_stream(make_service, make_collector):
    """The service sees a reset; the next reader asks after the wait of a lost stream."""
    service = make_service(ghost_s=GHOST_S, hits_per_second=100)
    collector = make_collector(service, wait_s=WAIT_S)
    collector.start()
    for count in (1, 2):
        await_requests(collector, count)
        (reader,) = collector.pids("reader")
        os.kill(reader, signal.SIGKILL)
    requests = await_requests(collector, 3)
    assert_waited(gaps_s(requests), (1, 1.5), WAIT_S, collector.log)
    assert "the process that holds the connection died" in collector.log
    assert held_together(requests_of(service)) == []
