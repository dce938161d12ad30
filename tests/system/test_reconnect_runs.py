"""The lines of the reconnect table that need a token endpoint, a certificate, closed doors or another run."""

from __future__ import annotations

import email.utils
import os
import signal
import ssl
import subprocess
import sys
import time

import pytest
import trustme
from harness import ROOT, Service, wait_until
from reconnect_rig import (
    OAUTH,
    START_S,
    Door,
    Placeholder,
    assert_waited,
    await_requests,
    await_words,
    count_words,
    gaps_s,
    requests_of,
    waits_said,
)

from collector.core.messages import Outcome
from collector.core.reconnect_table import JITTER
from collector.core.remedies import OUTCOMES, TOKENS, TokenFailure
from collector.simulator.requestlog import floor_violations, held_together
from collector.simulator.scenario import Answer, Cut, Rule
from collector.simulator.settings import SimulatorSettings

BRIEFLY = (1 / 12, 1 / 6, 1 / 3)
"""Where nothing was reached."""

UNTRUSTED = 15


@pytest.fixture
def make_oauth(make_service, make_collector):
    """A service with a token endpoint, and a collector that gets its tokens there."""

    def make(*, wait_s: float, token_url: str = "", **settings):
        service = make_service(api_key="simulator-client", token=None, **settings)
        url = token_url or service.simulator.token_url
        return service, make_collector(service, wait_s=wait_s, **{"auth.token_url": url, "run.decoders": 1})

    return make


def start_oauth(collector, **more: str) -> None:
    collector.start(environment=OAUTH | more)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(("status", "waits"), [(401, (0, 1, 2)), (403, (0,))])
def test_a_refused_token_is_renewed_and_tried_at_once(status, waits, make_oauth):
    """A new token and one retry at once; then 1x, growing, each with a new token."""
    refused = Rule(requests=f"1-{len(waits)}", answer=Answer(status, "no such token"))
    service, collector = make_oauth(wait_s=1.0, rules=(refused,))
    start_oauth(collector)
    requests = await_requests(collector, len(waits) + 1)
    assert_waited(gaps_s(requests), waits, 1.0, collector.log)
    assert requests[-1].status == 200
    assert len(requests_of(service, "token")) == len(requests)


def test_expiry_while_streaming_changes_nothing(make_oauth):
    """The stream goes on with a token that has expired; the next request has a new one."""
    service, collector = make_oauth(wait_s=0.6, token_expires_s=1, hits_per_second=100)
    start_oauth(collector)
    (held,) = await_requests(collector, 1)
    wait_until(lambda: held.hits > 200, "two seconds of hits")
    assert len(requests_of(service)) == 1
    service.cut("rst")
    requests = await_requests(collector, 2)
    assert [request.status for request in requests] == [200, 200]
    assert_waited(gaps_s(requests), (1,), 0.6, collector.log)
    assert len(requests_of(service, "token")) >= 2


def test_a_token_endpoint_that_fails_is_asked_again_soon(make_oauth):
    """5xx: 1/12x, x2; the service itself hears nothing before there is a token."""
    service, collector = make_oauth(
        wait_s=2.0, rules=(Rule(endpoint="token", requests="1-3", answer=Answer(500)),)
    )
    start_oauth(collector)
    (request,) = await_requests(collector, 1)
    asked = requests_of(service, "token")
    assert_waited(gaps_s(asked), BRIEFLY, 2.0, collector.log)
    assert request.at_s > asked[-1].at_s
    assert "no token could be had from the token endpoint" in collector.log


def test_a_token_endpoint_that_is_not_there(make_oauth):
    """Nothing was reached: 1/12x, x2, and no request to the service."""
    with Placeholder() as nowhere:
        service, collector = make_oauth(wait_s=4.0, token_url=nowhere.url)
        start_oauth(collector)
        await_words(collector, "connection.waited", 3)
    assert_announced(waits_said(collector)[:3], BRIEFLY, 4.0)
    assert service.requests == []


def test_a_client_the_token_endpoint_refuses(make_oauth):
    """Exit 3 with the remedy after one question; the service itself hears nothing."""
    service, collector = make_oauth(wait_s=0.6)
    start_oauth(collector, LIVESTREAM_CLIENT_SECRET="rotated-long-ago")
    assert collector.wait() == 3, collector.log
    assert [request.endpoint for request in service.requests] == ["token"]
    last_words = collector.last_words()
    assert "invalid_client: invalid client_secret parameter" in last_words
    assert TOKENS[TokenFailure.INVALID_CLIENT].do in last_words
    assert "rotated-long-ago" not in collector.log


# ---------------------------------------------------------------- nothing reached


def assert_announced(said_s, waits, wait_s: float) -> None:
    """What the log says of each wait: what is left of it a moment, the syncing of a record, later."""
    for one_s, wait in zip(said_s, waits, strict=True):
        assert 0.5 * wait * wait_s <= one_s <= wait * wait_s * (1 + JITTER) + 0.001, said_s


def test_a_port_at_which_nothing_listens(make_collector):
    """Nothing was reached, so the service is tried again after 1/12x, x2; then it is there."""
    with Placeholder() as nowhere:
        collector = make_collector(nowhere, wait_s=4.0, **{"run.decoders": 1})
        collector.start()
        await_words(collector, "outcome=unreached", 3)
        service = Service(SimulatorSettings(port=nowhere.port))
    try:
        collector.service = service
        came_s = time.monotonic()
        (request,) = await_requests(collector, 1)
        assert request.at_s - came_s < 4.0 / 3 * (1 + JITTER) + 2.0, collector.log
        assert_announced(waits_said(collector), BRIEFLY, 4.0)
    finally:
        collector.kill_all()
        service.close()


def test_tls_that_is_cut_short(make_collector):
    """No request was sent, so none was held: 1/12x, x2."""
    with Door() as door:
        collector = make_collector(door, wait_s=2.0, **{"run.decoders": 1})
        collector.start()
        assert_waited(door.await_knocks(4), BRIEFLY, 2.0, collector.log)
    assert "outcome=unreached" in collector.log


# ---------------------------------------------------------------- certificates


def context_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_a_certificate_that_is_not_trusted(make_collector):
    """15x, loud, and no byte of a request is sent, however often."""
    with Door(context_of(trustme.CA())) as door:
        collector = make_collector(door, wait_s=0.2, **{"run.decoders": 1})
        collector.start()
        assert_waited(door.await_knocks(2), (UNTRUSTED,), 0.2, collector.log)
        await_words(collector, "attention.needed", 2)
        assert door.heard == b""
    assert OUTCOMES[Outcome.UNTRUSTED].means in collector.log


def test_naming_the_authority_cures_it(make_service, make_collector, tmp_path):
    """With ``tls.ca_file`` the next start does not wait the 15x out, and the stream is read over TLS."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    key, certificate, ca_file = (tmp_path / name for name in ("key.pem", "cert.pem", "ca.pem"))
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(certificate)
    authority.cert_pem.write_to_path(ca_file)
    service = make_service(total=100, tls_cert=certificate, tls_key=key)
    collector = make_collector(service, wait_s=2.0)
    collector.start()
    await_words(collector, "attention.needed")
    refused_s = time.monotonic()
    assert collector.drain() == 0, collector.log
    assert service.requests == []
    assert collector.run("--stop-after-hits", "100", "--set", f"tls.ca_file={ca_file}") == 0, collector.log
    collector.assert_complete(100)
    assert service.requests[0].at_s - refused_s < UNTRUSTED * 2.0


# ---------------------------------------------------------------- Retry-After as a date


def test_a_date_in_retry_after_is_waited_for(make_service, make_collector):
    """No request before the moment the service named, by the service's wall clock."""
    date_s = int(time.time()) + 8
    named = Answer(503, "maintenance", {"Retry-After": email.utils.formatdate(date_s, usegmt=True)})
    service = make_service(rules=(Rule(requests="1", answer=named),))
    collector = make_collector(service, wait_s=0.3, **{"run.decoders": 1})
    collector.start()
    requests = await_requests(collector, 2)
    assert requests[0].at_wall_s < date_s - 1, "the test was too slow to ask in time"
    assert requests[1].at_wall_s >= date_s
    assert requests[1].status == 200


# ---------------------------------------------------------------- one run after the other


def test_the_same_refusal_again_waits_longer_and_other_settings_cure_it(make_service, make_collector):
    """Started again: 1x first, 15x from the second time; a start with other settings does not wait it out."""
    service = make_service(rules=(Rule(requests="1-3", answer=Answer(400)),))
    collector = make_collector(service, wait_s=0.4, **{"run.decoders": 1})
    for _ in range(3):
        assert collector.run() == 3, collector.log
    assert_waited(gaps_s(service.requests), (1, 15), 0.4, collector.log, START_S)
    collector.settings["stream.max_connections"] = 2
    collector.start()
    requests = await_requests(collector, 4)
    assert gaps_s(requests)[-1] < 15 * 0.4
    assert [request.query for request in requests[2:]] == ["maxConnections=1", "maxConnections=2"]


def test_the_first_restart_after_a_refusal_waits_too(make_service, make_collector):
    """A service manager that restarts at once does not reach the service within ``wait_s``."""
    service = make_service(rules=(Rule(answer=Answer(404)),))
    collector = make_collector(service, wait_s=2.5, **{"run.decoders": 1})
    assert [collector.run(), collector.run()] == [3, 3], collector.log
    assert_waited(gaps_s(service.requests), (1,), 2.5, collector.log, START_S)


def test_on_refusal_retry_asks_every_15x(make_service, make_collector):
    """``reconnect.on_refusal = "retry"``: no exit, 15x each time, loud."""
    service = make_service(rules=(Rule(requests="1", answer=Answer(404)),))
    collector = make_collector(service, wait_s=0.2, **{"run.decoders": 1, "reconnect.on_refusal": "retry"})
    collector.start()
    requests = await_requests(collector, 2)
    assert_waited(gaps_s(requests), (15,), 0.2, collector.log)
    assert "attention.needed" in collector.log


def test_a_clean_stop_counts(make_service, make_collector):
    """A restart right after a drain waits out the rest of the floor, and says so."""
    service = make_service(hits_per_second=100)
    collector = make_collector(service, wait_s=5.0, **{"run.decoders": 1})
    collector.start()
    await_requests(collector, 1)
    assert collector.drain() == 0, collector.log
    assert "connection.waited" not in collector.log
    collector.start()
    assert_waited(gaps_s(await_requests(collector, 2)), (1,), 5.0, collector.log, START_S)
    assert "the collector closed its connection" in collector.log
    assert floor_violations(service.requests, 5.0) == []


def test_a_crash_loop_never_reaches_the_service_inside_the_floor(make_service, make_collector):
    """SIGKILL of everything, at every stage, with restarts at once: the floor holds, and it gets through."""
    service = make_service(hits_per_second=100)
    collector = make_collector(service, wait_s=1.5, **{"run.decoders": 1})
    early = "connection.waited|connection.opened"  # a slow start may have waited the floor out
    for stage in ("child.started", "connection.requested", early, early, "connection.opened", early):
        before = count_words(collector, stage)
        collector.start()
        await_words(collector, stage, before + 1)
        collector.kill_all()
    asked = len(service.requests)
    collector.start()
    await_requests(collector, asked + 1)
    assert floor_violations(service.requests, 1.5) == []
    assert held_together(service.requests) == []


def test_counters_are_cleared_by_healthy_streaming_alone(make_service, make_collector):
    """After 5x of streaming the next loss waits 1x again; a 200 that is lost at once clears nothing."""
    at_once, healthy = Cut(after_hits=10), Cut(after_s=6 * 0.3)
    service = make_service(
        ghost_s=0.2,
        hits_per_second=100,
        rules=(Rule(requests="1-2", cut=at_once), Rule(requests="3", cut=healthy)),
    )
    collector = make_collector(service, wait_s=0.3, **{"run.decoders": 1})
    collector.start()
    requests = await_requests(collector, 4)
    assert_waited(gaps_s(requests), (1, 1.5, 1), 0.3, collector.log)
    assert_announced(waits_said(collector), (1, 1.5, 1), 0.3)


def test_a_pause_for_want_of_room_is_no_stall(make_service, make_collector):
    """A full journal stops the transfer for longer than ``idle_timeout_s``; the one connection lives on."""
    total = 4000
    mib = 1 << 20
    small = {"journal.max_bytes": 5 * mib, "journal.segment_bytes": 2 * mib, "journal.max_record_bytes": mib}
    service = make_service(total=total, hits_per_second=4000, heartbeat_s=0.1)
    collector = make_collector(service, **small, **{"run.decoders": 1, "reconnect.idle_timeout_s": 0.7})
    collector.start("--stop-after-hits", str(total))
    await_words(collector, 'name="decoder 1"')
    (decoder,) = collector.pids("decoder")
    os.kill(decoder, signal.SIGSTOP)
    await_words(collector, "connection.paused")
    time.sleep(3 * 0.7)  # nothing must happen
    assert "connection.resumed" not in collector.log
    os.kill(decoder, signal.SIGCONT)
    assert collector.wait() == 0, collector.log
    assert "outcome=stalled" not in collector.log
    assert len(service.requests) == 1
    collector.assert_complete(total)


# ---------------------------------------------------------------- reset


def test_reset_is_sent_once(make_service, make_collector):
    """Asked for by the command, it goes with the next request, and with no other before or after."""
    service = make_service(hits_per_second=100, rules=(Rule(requests="2", cut=Cut(after_hits=10)),))
    collector = make_collector(service, **{"run.decoders": 1})
    collector.start()
    await_requests(collector, 1)
    assert collector.drain() == 0, collector.log
    reset = [sys.executable, "-m", "collector", "reset", "latest", "--output", str(collector.output)]
    subprocess.run(reset, cwd=ROOT, check=True, capture_output=True)
    collector.start()
    requests = await_requests(collector, 3)
    plain = "maxConnections=1"
    assert [request.query for request in requests] == [plain, f"{plain}&reset=latest", plain]
    assert floor_violations(service.requests, collector.wait_s) == []
