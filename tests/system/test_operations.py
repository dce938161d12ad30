"""The page for whoever is paged shows what is really seen: each of its cases is played, line by line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
import typer
from harness import ROOT, Collector, Service, wait_until
from reconnect_rig import OAUTH, await_requests, await_words
from test_fault_limits import SmallDisk

from collector.cli import app
from collector.explanations import find
from collector.simulator.scenario import load
from collector.simulator.settings import Resume, SimulatorSettings
from collector.storage.fs import DISK
from collector.storage.journal_survey import surveyed

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SCENARIOS = ROOT / "docs" / "scenarios"
SERVICE = ("file", "api_key", "tls_cert", "tls_key")
"""Settings of the service that no scenario has; all others are the collector's."""


class Case:
    """A scenario's service and a collector beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service: Service | None = None
        self.collector: Collector | None = None
        self.close_after: list[Callable[[], None]] = []

    def play(self, scenario: str, *, start: bool = True, **settings: object) -> Collector:
        played = load(SCENARIOS / f"{scenario}.toml")
        service = dict(played.service)
        if "resume" in service:
            service["resume"] = Resume(service["resume"])
        more = {name: settings.pop(name) for name in SERVICE if name in settings}
        usual = {"hits_per_second": 1000.0, "seed": 7, "heartbeat_s": 0.2, "rules": played.rules}
        self.service = Service(SimulatorSettings(**{**usual, **service, **more}))
        self.collector = Collector(
            self.service, self.folder, wait_s=0.4, settings={"run.decoders": 1, **settings}
        )
        if start:
            self.collector.start()
        return self.collector

    def seen(self) -> str:
        """The log, with the folders of the page."""
        assert self.collector is not None
        log = self.collector.log
        for output in (self.collector.output, self.folder / "small" / "output"):
            log = log.replace(str(output), "/data")
        return log

    def close(self) -> None:
        if self.collector is not None and self.collector.process is not None:
            if self.collector.process.poll() is None:
                self.collector.kill_all()
            print(self.collector.log)
        if self.service is not None:
            self.service.close()
        for close in self.close_after:
            close()


@pytest.fixture
def case(tmp_path: Path):
    case = Case(tmp_path)
    yield case
    case.close()


def another_client(case: Case) -> None:
    collector = case.play("another-client")
    await_words(collector, "connection.opened")


def unavailable(case: Case) -> None:
    collector = case.play("unavailable")
    await_words(collector, "connection.opened")


def token_expired(case: Case) -> None:
    collector = case.play("token-expired")
    assert collector.wait() == 3


def token_endpoint(case: Case) -> None:
    collector = case.play("token-endpoint-down", start=False, api_key="simulator-client")
    assert case.service is not None
    collector.settings["auth.token_url"] = case.service.simulator.token_url
    collector.start(environment=OAUTH)
    await_words(collector, "connection.opened")


def not_reached(case: Case) -> None:
    collector = case.play("steady", start=False)
    service, case.service = case.service, None
    gone = SimpleNamespace(url=service.url, settings=service.settings)
    service.close()
    collector.service = gone
    collector.start()
    await_words(collector, "connection.waited", 2)


def untrusted(case: Case) -> None:
    key, certificate = case.folder / "key.pem", case.folder / "cert.pem"
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(certificate)
    collector = case.play("steady", tls_cert=certificate, tls_key=key)
    await_words(collector, "attention.needed")
    await_words(collector, "connection.waited")
    assert case.service.requests == []


def cut(case: Case) -> None:
    collector = case.play("cut")
    await_words(collector, "connection.opened", 2)
    assert collector.drain() == 0


def quiet(case: Case) -> None:
    collector = case.play("quiet", **{"reconnect.idle_timeout_s": 1})
    await_requests(collector, 2)
    await_words(collector, "connection.opened", 2)


def rejects(case: Case) -> None:
    file = case.folder / "not-hits.jsonl"
    file.write_text('{"broken":\n' * 300)
    collector = case.play("steady", file=file)
    await_words(collector, "rejects.alarm")
    await_words(collector, "rejects.seen")


def disk_full(case: Case) -> None:
    disk = SmallDisk(case.folder / "small", 192 << 20)
    case.close_after.append(disk.close)
    room = {"journal.max_bytes": "64 MiB", "journal.segment_bytes": "1 MiB"}
    collector = case.play("steady", start=False, **room)
    collector.elsewhere = disk.folder / "output"
    collector.start()
    wait_until(lambda: collector.rows() > 0, "rows")
    disk.fill()
    await_words(collector, 'storage.full what="a part"')
    await_words(collector, "connection.paused")
    disk.free()
    await_words(collector, "connection.resumed")


def killed(case: Case) -> None:
    collector = case.play("steady")
    wait_until(lambda: collector.rows() > 0, "rows")
    collector.kill_all()
    collector.start()
    await_words(collector, "connection.opened", 2)


def decoder_killed(case: Case) -> None:
    collector = case.play("steady")
    wait_until(lambda: collector.rows() > 0, "rows")
    (pid,) = collector.pids("decoder")
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    await_words(collector, "child.started", 3)


def damaged(case: Case) -> None:
    collector = case.play("steady", **{"parts.max_age_s": 3600})
    await_words(collector, "connection.opened")
    journal = collector.state / "journal"
    assert case.service is not None
    wait_until(lambda: case.service.sent > 2000, "some blocks")
    collector.kill_all()
    with surveyed(DISK, journal, after_seq=0) as survey:
        victim = survey.kept[0]
        path, offset = victim.segment.path, victim.offset
        assert max(at.header.synced_seq for at in survey.kept) >= victim.header.seq
    content = bytearray(path.read_bytes())
    content[offset + 80] ^= 1
    path.write_bytes(content)
    assert collector.run() == 4
    collector.start("--accept-journal-loss")
    await_words(collector, "journal.lost")


def in_use(case: Case) -> None:
    collector = case.play("steady")
    await_words(collector, "connection.opened")
    first = collector.process
    assert collector.run() == 5
    collector.process = first


CASES: dict[str, Callable[[Case], None]] = {
    "409: another client is connected": another_client,
    "503 for a long time": unavailable,
    "401: the token has expired": token_expired,
    "The token endpoint fails": token_endpoint,
    "The service is not reached": not_reached,
    "The certificate is not trusted": untrusted,
    "The connection is cut": cut,
    "No hits": quiet,
    "Many rejects": rejects,
    "The disk is full": disk_full,
    "The collector was killed": killed,
    "A decoder dies": decoder_killed,
    "The journal is damaged": damaged,
    "The state folder is in use": in_use,
}


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def plain(text: str) -> str:
    """Without what differs from run to run: numbers and times."""
    return re.sub(r"[0-9][0-9TZ.,:-]*", "N", text)


def test_the_page_has_these_cases():
    """Every case is played, and every scenario is of use."""
    titles = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert [title for title in titles if title in CASES] == list(CASES)
    linked = set(re.findall(r"\(scenarios/([a-z-]+)\.toml\)", PAGE))
    assert linked == {path.stem for path in SCENARIOS.glob("*.toml")}


@pytest.mark.parametrize("title", CASES)
def test_what_the_page_shows_is_what_is_seen(title, case):
    """Each line that it shows, but for numbers and times, and the cause in the sentence."""
    CASES[title](case)
    shown = re.findall(r"```text\n(.*?)```", section(title), re.DOTALL)
    lines = [line for block in shown for line in block.splitlines()]
    assert lines
    seen = [plain(line) for line in case.seen().splitlines()]
    for line in lines:
        pattern = ".*".join(re.escape(part) for part in plain(line).split("..."))
        assert any(re.fullmatch(pattern, one) for one in seen), line
    for sentence in re.findall(r"^> Waiting .*?: (.*)$", section(title), re.MULTILINE):
        assert plain(sentence).rstrip(".") in "\n".join(seen).replace('\\"', '"')


def test_a_start_without_room_says_so(case):
    """Once, with both figures: no request is sent, and nothing else in the log would say why."""
    collector = case.play("steady", **{"journal.reserve_bytes": "16 TiB", "log.format": "json"})
    await_words(collector, "storage.full")
    await_words(collector, "child.started", 2)
    assert collector.drain() == 0
    (full,) = collector.events("storage.full")
    assert "journal.reserve_bytes is 17,592,186,044,416" in full["reason"]
    assert case.service.requests == []


def test_the_last_line_of_a_refused_run_says_why(case):
    """Not that nothing was left to read."""
    collector = case.play("token-expired", **{"log.format": "json"})
    assert collector.wait() == 3
    (stopped,) = collector.events("run.stopped")
    assert stopped["reason"].startswith("the service does not accept the token (401)")


def test_the_page_names_only_what_there_is():
    """Commands, and codes to look up."""
    commands = typer.main.get_command(app).commands
    assert set(re.findall(r"livestream-collector ([a-z-]+)", PAGE)) <= set(commands)
    for code in re.findall(r"livestream-collector explain ([^`)\n]+)", PAGE):
        assert code == "CODE" or find(code), code
