"""What a running collector answers about itself: at its page's address, by the socket in its state folder."""

from __future__ import annotations

import http.client
import json
import stat
from urllib.parse import urlsplit

import msgspec
import pytest
from harness import Collector, Service, wait_until
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from collector.commands.asking import ask
from collector.coordinator import page
from collector.core.connection import ConnectionState
from collector.core.status import Status
from collector.metrics import METRICS
from collector.simulator.settings import SimulatorSettings
from collector.storage.fs import DISK
from collector.storage.lastword import read_last_word
from collector.storage.layout import StateFolder

CANARY = "simulator-token"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One collector that reads, for every question that changes nothing."""
    service = Service(SimulatorSettings(seed=7, hits_per_second=500.0, heartbeat_s=0.2))
    folder = tmp_path_factory.mktemp("a" * 90)  # its socket's path is longer than an address may be
    settings = {"status.listen": "127.0.0.1:0", "log.format": "json", "parts.max_age_s": 0.5}
    collector = Collector(service, folder, settings=settings)
    collector.start()
    wait_until(lambda: collector.events("page.opened") and collector.rows(), "the page, and rows")
    wait_until(lambda: looked_since(collector), "the once-a-second look at the timeline")
    yield collector
    if collector.process.poll() is None:
        collector.kill_all()
    service.close()


def looked_since(collector: Collector) -> bool:
    status = msgspec.json.decode(ask(collector.state, "/status.json"), type=Status)
    return bool(status.timeline and status.totals.rows and status.disk.total_bytes)


def address(collector: Collector) -> tuple[str, int]:
    parts = urlsplit(collector.events("page.opened")[-1]["url"])
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def get(collector: Collector, path: str, method: str = "GET", **headers: str):
    """Status, headers and body."""
    connection = http.client.HTTPConnection(*address(collector), timeout=10)
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_both_doors_give_the_same_status(running):
    """As typed JSON: streaming, ready, counting; the socket is the user's own, however long its path is."""
    by_tcp = msgspec.json.decode(get(running, "/status.json")[2], type=Status)
    by_socket = msgspec.json.decode(ask(running.state, "/status.json"), type=Status)
    for status in (by_tcp, by_socket):
        assert status.connection.state is ConnectionState.STREAMING
        assert status.ready
        assert status.totals.rows > 0
        assert status.sentence.startswith("Reading since ")
        assert [child.name for child in status.children] == ["reader", "decoder 1", "decoder 2"]
        assert status.timeline[-1].number == 1
        assert status.disk.total_bytes > status.disk.free_bytes > 0
    assert len(str(running.state / "status.sock")) > 107
    assert stat.S_IMODE((running.state / "status.sock").lstat().st_mode) == 0o600


def test_the_pages_files_are_served_under_their_rules(running):
    """Each with type and headers; a HEAD has no body."""
    for path, file in page.files().items():
        status, headers, body = get(running, path)
        assert (status, body) == (200, file.body)
        assert headers["Content-Type"] == f"{file.content_type}; charset=utf-8"
        assert page.HEADERS.items() <= headers.items()
    assert get(running, "/", "HEAD")[2] == b""
    assert get(running, "/none")[0] == 404


def test_a_status_comes_every_second(running):
    """As server-sent events."""
    connection = http.client.HTTPConnection(*address(running), timeout=10)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    said = []
    while len(said) < 3:
        line = response.readline()
        if line.startswith(b"data: "):
            said.append(msgspec.json.decode(line[6:], type=Status))
    connection.close()
    assert said[0].at_us < said[1].at_us < said[2].at_us


def test_health_and_readiness(running):
    """In a word each."""
    assert get(running, "/healthz")[::2] == (200, b"alive\n")
    assert get(running, "/readyz")[::2] == (200, b"ready\n")


def test_every_metric_of_the_catalogue_is_there(running):
    """In OpenMetrics for who asks for it, in the older form for others."""
    accept = "application/openmetrics-text; version=1.0.0"
    status, headers, body = get(running, "/metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    named = {name.removesuffix("_total") for name in METRICS}
    assert set(families) == named
    status = msgspec.json.decode(get(running, "/status.json")[2], type=Status)
    absent = {name for name, family in families.items() if not family.samples}
    assert absent == {
        name.removesuffix("_total") for name, kind in METRICS.items() if not list(kind.read(status))
    }
    _, headers, body = get(running, "/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    assert all(f"# HELP {name} ".encode() in body for name in METRICS)


def test_nothing_can_be_changed(running):
    """No method but GET and HEAD."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        status, headers, _ = get(running, "/status.json", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", "["]
)
def test_a_name_that_was_made_to_lead_here_is_refused(running, host):
    """DNS rebinding: somebody else's page shall not read this one."""
    assert get(running, "/status.json", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9464", "127.0.0.1:1", "[::1]:9464", "127.1.2.3"])
def test_this_machines_own_names_are_answered(running, host):
    """Whatever port a tunnel gives them."""
    assert get(running, "/healthz", Host=host)[0] == 200


def test_recent_events_are_for_the_state_folders_user(running):
    """By the socket, not by TCP."""
    assert get(running, "/recent-events.json")[0] == 404
    events = json.loads(ask(running.state, "/recent-events.json"))
    assert [event["event"] for event in events[:1]] == ["run.started"]
    assert ask(running.state, "/no-such-path") is None


def test_no_secret_is_in_any_answer(running):
    """Nor in the log."""
    paths = [*page.files(), "/status.json", "/metrics", "/readyz"]
    said = [get(running, path)[2] for path in paths]
    said += [ask(running.state, "/recent-events.json"), running.log.encode()]
    assert not any(CANARY.encode() in text for text in said)


def test_a_run_leaves_its_last_word_and_no_socket(make_service, make_collector):
    """Its status, with code and reason; the next start takes it away; a killed run leaves none."""
    service = make_service()
    collector = make_collector(service)
    assert collector.run("--stop-after-hits", "1000") == 0
    state = StateFolder(collector.state)
    word = read_last_word(DISK, state)
    assert word is not None
    assert word.stopped is not None
    assert (word.stopped.exit_code, word.stopped.reason) == (0, "--stop-after-hits 1000")
    assert word.sentence.startswith("Stopped at ")
    assert word.totals.rows >= 1000
    assert stat.S_IMODE(state.last_word.stat().st_mode) == 0o600
    assert not state.socket.exists()
    collector.start()
    wait_until(state.socket.exists, "the socket")
    assert not state.last_word.exists()
    collector.kill_all()
    assert state.socket.exists()
    assert ask(collector.state, "/status.json") is None
    state.last_word.write_bytes(b"\xff damaged")
    collector.start()
    wait_until(lambda: ask(collector.state, "/status.json"), "the next run in the place of the killed one")
    assert collector.drain() == 0, collector.log
    assert ask(collector.state, "/status.json") is None


def test_a_port_that_is_taken_costs_the_page_alone(running, make_service, make_collector):
    """One warning; intake and socket are there."""
    host, port = address(running)
    service = make_service()
    collector = make_collector(service, **{"status.listen": f"{host}:{port}", "log.format": "json"})
    collector.start()
    wait_until(lambda: collector.rows() and collector.events("page.opened"), "rows")
    (failed,) = collector.events("page.failed")
    assert (failed["level"], failed["where"]) == ("warning", f"{host}:{port}")
    assert msgspec.json.decode(ask(collector.state, "/status.json"), type=Status).ready
    assert collector.drain() == 0
