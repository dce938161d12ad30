"""``status``: what a real collector is doing, and what it left behind, however it ended."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys

from harness import ROOT, Collector, wait_until


def status(collector: Collector, *arguments: str, **environment: str) -> str:
    """What it prints. It exits 0."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "status", "--output", str(collector.output), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def on_a_terminal(collector: Collector, **environment: str) -> str:
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-m", "collector", "status", "--output", str(collector.output)],
        cwd=ROOT,
        stdout=theirs,
        env=clean | {"TERM": "xterm"} | environment,
        check=True,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        return terminal.read1().decode()


def test_a_life_of_a_collector(make_service, make_collector):
    """Nothing yet, reading, hung, killed with work in hand, drained: each is said, with what to expect."""
    service = make_service(hits_per_second=500.0)
    collector = make_collector(service, **{"parts.max_age_s": 3600})
    collector.output.mkdir(parents=True)
    assert status(collector).startswith("No collector runs, and none has run here yet.")

    collector.start()
    wait_until(lambda: json.loads(status(collector, "--json")).get("hits_per_s"), "hits")
    text = status(collector)
    assert re.match(r"Reading since \d\d:\d\d UTC, \d+ hits/s, nothing lost\.\n\nStream      ", text)
    assert "\nConnection  1 to 127.0.0.1, open for " in text
    assert "\x1b" not in text
    assert "\x1b[1;32mReading since" in on_a_terminal(collector)
    assert "\x1b" not in on_a_terminal(collector, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(collector, TERM="dumb")

    collector.process.send_signal(signal.SIGSTOP)
    assert status(collector).startswith(
        f"Process {collector.process.pid} has the state folder and does not answer"
    )
    collector.process.send_signal(signal.SIGCONT)
    assert json.loads(status(collector, "--json"))["running"]

    wait_until(lambda: json.loads(status(collector, "--json"))["journal"]["waiting_records"], "records")
    collector.kill_all()
    text = status(collector, "--set", "reconnect.wait_s=60")
    assert text.startswith(
        "No collector runs. The last one left no word: it was killed, or its host went down."
    )
    assert re.search(r"\nJournal       [\d,]+ records are accepted and not committed yet", text)
    assert re.search(r"\nNext request  not before .* UTC \(in \d+ s\)", text)
    left = json.loads(status(collector, "--json"))
    assert not left["running"]
    assert left["journal"]["records"] > 0

    collector.start()
    wait_until(lambda: json.loads(status(collector, "--json"))["running"], "the next run")
    assert collector.drain() == 0, collector.log
    text = status(collector)
    assert re.match(r"No collector runs\. Stopped at \d\d:\d\d UTC with exit code 0: SIGTERM\.\n", text)
    assert "\nJournal       empty: all that was accepted is committed\n" in text


def test_a_refused_run_and_a_failed_start_say_why(make_service, make_collector):
    """With exit code, reason and what explains it."""
    service = make_service()
    collector = make_collector(service)
    refused = {"LIVESTREAM_TOKEN": "another-token", "LIVESTREAM_CLIENT_ID": "simulator-key"}
    collector.start(environment=refused)
    assert collector.wait() == 3
    text = status(collector)
    assert "with exit code 3: the service does not accept the token (401)" in text
    assert "\nMore          livestream-collector explain exit 3\n" in text
    assert "another-token" not in text + status(collector, "--json")
    (collector.state / "commit.log").write_bytes(b"damaged")
    assert collector.run() == 4
    text = status(collector)
    assert "with exit code 4: " in text
    assert re.search(r"\nFault +/.*commit\.log: its header", text)


def test_several_streams_are_listed(make_service, make_collector):
    """A sentence each; --stream chooses one."""
    service = make_service()
    collector = make_collector(service)
    assert collector.run("--stop-after-hits", "1") == 0
    assert collector.run("--stop-after-hits", "1", "--stream", "other") == 0
    text = status(collector)
    assert re.search(rf"^{service.settings.stream}\n  No collector runs\. Stopped at ", text, re.MULTILINE)
    assert re.search(r"^other\n  No collector runs\. Stopped at ", text, re.MULTILINE)
    assert len(json.loads(status(collector, "--json"))) == 2
    assert "\nState         " in status(collector, "--stream", "other")


def test_once_privacy_is_on_no_reject_is_quoted_any_more(make_service, make_collector, tmp_path):
    """Nor one of the run before, which quoted it."""
    (tmp_path / "lines.jsonl").write_bytes(b"canary-value\n" * 3)
    service = make_service(file=tmp_path / "lines.jsonl")
    collector = make_collector(service)
    collector.start()
    wait_until(lambda: "canary-value" in status(collector), "the reject")
    assert "not an object" in status(collector)
    assert collector.drain() == 0
    last_word = collector.state / "last-word.json"
    assert "canary-value" in last_word.read_text()
    collector.start("--set", "privacy.drop=ip")
    wait_until(lambda: json.loads(status(collector, "--json")).get("at_us"), "the next run")
    told = json.loads(status(collector, "--json"))
    assert len(told["rejects"]) == 3
    assert "canary" not in json.dumps(told)
    assert collector.drain() == 0
    assert "canary" not in last_word.read_text()
