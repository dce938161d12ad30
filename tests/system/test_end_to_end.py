"""One connection in, Parquet out: the whole job on real sockets, processes and files."""

from __future__ import annotations

import signal
import time

import pytest
from harness import wait_until

from collector.simulator.scenario import parse

TOTAL = 3000


def test_every_hit_of_a_stream_is_a_row_once(make_service, make_collector):
    """A stream without trouble: all hits, no other, one connection, tidy folders, exit 0."""
    service = make_service(total=TOTAL)
    collector = make_collector(service)
    assert collector.run("--stop-after-hits", str(TOTAL)) == 0, collector.log
    collector.assert_complete(TOTAL)
    collector.assert_tidy()
    assert len(service.requests) == 1


def test_a_cut_connection_is_waited_out_and_its_overlap_dropped(make_service, make_collector):
    """After a reset the next request comes a floor later; what the service sends again is dropped."""
    service = make_service(total=TOTAL)
    collector = make_collector(service)
    collector.start("--stop-after-hits", str(TOTAL))
    wait_until(lambda: service.sent > TOTAL // 3, "a third of the hits")
    assert service.cut("rst") == 1
    assert collector.wait() == 0, collector.log
    collector.assert_complete(TOTAL)
    collector.assert_tidy()
    assert len(service.requests) >= 2
    assert collector.ledger().totals.resends > 0


def test_connections_say_what_happened(make_service, make_collector):
    """One row per connection and hour, one per gap, and the hits add up."""
    service = make_service(total=TOTAL)
    collector = make_collector(service)
    collector.start("--stop-after-hits", str(TOTAL))
    wait_until(lambda: service.sent > TOTAL // 3, "a third of the hits")
    service.cut("fin")
    assert collector.wait() == 0, collector.log
    rows = collector.table("connections").to_pylist()
    connections = [row for row in rows if row["kind"] == "connection"]
    (gap,) = [row for row in rows if row["kind"] == "gap"]
    assert sum(row["hits"] for row in connections) == TOTAL
    assert gap["reason"] == "lost"
    assert gap["suspected_gap"] == "no"
    assert (gap["ended_at"] - gap["began_at"]).total_seconds() >= collector.wait_s


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_drains_and_a_restart_goes_on(make_service, make_collector, name):
    """The first signal drains and exits 0; the next run waits out the floor and misses nothing."""
    service = make_service(total=TOTAL)
    collector = make_collector(service, **{"parts.max_age_s": 30})
    collector.start()
    wait_until(lambda: service.sent > TOTAL // 2, "half of the hits")
    collector.process.send_signal(getattr(signal, name))
    assert collector.wait() == 0, collector.log
    committed = collector.rows()
    assert committed > 0, "what was in hand is committed by the drain"
    collector.settings["parts.max_age_s"] = 0.5
    assert collector.run("--stop-after-hits", str(TOTAL)) == 0, collector.log
    collector.assert_complete(TOTAL)
    collector.assert_tidy()


def test_enough_rows_already_means_no_request(make_service, make_collector):
    """--stop-after-hits counts earlier runs: recover, exit 0, leave the service alone."""
    service = make_service(total=100)
    collector = make_collector(service)
    assert collector.run("--stop-after-hits", "100") == 0, collector.log
    asked = len(service.requests)
    assert collector.run("--stop-after-hits", "100") == 0, collector.log
    assert len(service.requests) == asked


def test_a_second_collector_is_refused_at_once(make_service, make_collector):
    """The state folder has one owner: exit 5, and the first is undisturbed."""
    service = make_service(total=TOTAL)
    first = make_collector(service)
    first.start()
    wait_until(lambda: service.sent > 0, "the stream to begin")
    second = make_collector(service)
    second.folder = first.folder
    assert second.run() == 5
    wait_until(lambda: first.rows() == TOTAL, "every hit")
    assert first.drain() == 0, first.log
    first.assert_complete(TOTAL)


def test_another_stream_does_not_get_this_state_folder(make_service, make_collector):
    """A state folder made for one stream is refused for another: exit 2, with both names."""
    service = make_service(total=10)
    collector = make_collector(service)
    assert collector.run("--stop-after-hits", "10") == 0, collector.log
    assert collector.run("--state", str(collector.state), "--stream", "other") == 2
    assert "demo-stream" in collector.log.splitlines()[-1]


@pytest.mark.parametrize("mode", ["0644", "0600"])
def test_parts_have_the_mode_that_was_asked_for(make_service, make_collector, mode):
    """``output.mode`` is that of every visible file, whatever the umask; the state folder is ours alone."""
    service = make_service(total=100)
    collector = make_collector(service, **{"output.mode": mode})
    assert collector.run("--stop-after-hits", "100") == 0, collector.log
    visible = [
        path for kind in ("hits", "connections") for path in (collector.output / kind).rglob("*.parquet")
    ]
    assert {f"{path.stat().st_mode & 0o7777:04o}" for path in visible} == {mode}
    state = [path for path in collector.state.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o077 for path in [collector.state, *state]} == {0}


def test_a_run_ends_after_its_seconds(make_service, make_collector):
    """However far it has come: a drain, exit 0."""
    collector = make_collector(make_service(total=0))
    assert collector.run("--stop-after", "0.5") == 0, collector.log
    assert 'reason="--stop-after 0.5"' in collector.log


def test_a_silent_stream_is_held(make_service, make_collector):
    """No hits and only signs of life: the connection stays, nothing is written, a drain is clean."""
    service = make_service(total=0)
    collector = make_collector(service)
    collector.start()
    wait_until(lambda: "connection.opened" in collector.log, "the stream to begin")
    time.sleep(5 * service.settings.heartbeat_s)  # nothing must happen
    assert collector.drain() == 0, collector.log
    assert len(service.requests) == 1
    assert collector.rows() == 0
    collector.assert_tidy()


def test_no_secret_is_in_any_file_argument_or_child(make_service, make_collector, tmp_path):
    """The token reaches the reader through its channel alone, and a service that echoes it is masked."""
    canary = "canary-2f6b1d3c9a"
    body = f'{{"error_description": "no {canary}"}}'
    rules = parse(f"[[rule]]\nrequests = '1'\nanswer = {{ status = 409, body = '{body}' }}").rules
    service = make_service(total=TOTAL, token=canary, rules=rules)
    collector = make_collector(service)
    collector.start(environment={"LIVESTREAM_TOKEN": canary, "LIVESTREAM_CLIENT_ID": "simulator-key"})
    wait_until(lambda: service.sent > 500, "some hits")
    for pid in collector.children().values():
        for where in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{where}", "rb") as text:
                assert canary.encode() not in text.read()
    assert collector.drain() == 0, collector.log
    for path in collector.folder.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path
    assert "no ***" in collector.log
