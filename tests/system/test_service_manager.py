"""What a service manager hears of a real collector, through a socket that stands in for systemd's."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
from harness import PATIENCE_S, wait_until

from collector.errors import ExitCode


class Manager:
    """Gives the socket, keeps what is said on it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[str] = []
        """In order: a message of several fields is one text for each."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "NOTIFY_SOCKET": self.address,
            "LIVESTREAM_TOKEN": "simulator-token",
            "LIVESTREAM_CLIENT_ID": "simulator-key",
        }

    def listen(self, for_s: float) -> list[str]:
        """What comes within this time."""
        until = time.monotonic() + for_s
        before = len(self.heard)
        while (left_s := until - time.monotonic()) > 0:
            self._receive(left_s)
        return self.heard[before:]

    def listen_until(self, beginning: str) -> str:
        """Until something that begins so is said; gives it whole."""
        until = time.monotonic() + PATIENCE_S
        seen = 0
        while True:
            for text in self.heard[seen:]:
                if text.startswith(beginning):
                    return text
            seen = len(self.heard)
            assert time.monotonic() < until, f"{beginning} was not said, only {self.heard}"
            self._receive(1.0)

    def names(self) -> list[str]:
        """What kinds of things were said, each at its first time."""
        return list(dict.fromkeys(text.partition("=")[0] for text in self.heard))

    def _receive(self, timeout_s: float) -> None:
        self.socket.settimeout(timeout_s)
        try:
            self.heard += self.socket.recv(65536).decode().split("\n")
        except TimeoutError:
            return


@pytest.fixture
def make_manager():
    managers = []

    def make(address: object) -> Manager:
        managers.append(Manager(str(address)))
        return managers[-1]

    yield make
    for manager in managers:
        manager.socket.close()


@pytest.fixture
def manager(make_manager, tmp_path):
    return make_manager(tmp_path / "notify")


@pytest.mark.parametrize("form", ["{}", "@{}"], ids=["path", "abstract"])
def test_ready_then_how_it_is_then_stopping(form, make_manager, make_service, make_collector, tmp_path):
    """Ready once the last run is recovered, life and state while it runs, STOPPING as the drain begins."""
    manager = make_manager(form.format(tmp_path / "notify"))
    collector = make_collector(make_service(hits_per_second=500.0))
    collector.start(environment=manager.environment | {"WATCHDOG_USEC": "400000"})
    manager.listen_until("READY=1")
    manager.listen_until("WATCHDOG=1")
    manager.listen_until("STATUS=Reading since")
    collector.process.terminate()
    manager.listen_until("STOPPING=1")
    assert collector.wait() == ExitCode.DONE
    assert manager.listen_until("STATUS=Ended") == "STATUS=Ended with exit code 0"
    assert manager.heard[0] == "STATUS=Starting: the work of the last run is taken up"
    assert manager.heard.count("READY=1") == manager.heard.count("STOPPING=1") == 1
    order = [name for name in manager.names() if name in {"EXTEND_TIMEOUT_USEC", "READY", "STOPPING"}]
    assert order == ["EXTEND_TIMEOUT_USEC", "READY", "STOPPING"]


def test_ready_although_the_service_is_not_reached(manager, make_service, make_collector):
    """A start is done when intake has begun: a service that is away for hours makes no failed start."""
    collector = make_collector(make_service())
    nobody = "http://127.0.0.1:1/api/1/stream/demo-stream"
    collector.start("--url", nobody, environment=manager.environment)
    manager.listen_until("READY=1")
    assert "not reached" in manager.listen_until("STATUS=Waiting")
    assert collector.drain() == ExitCode.DONE


def test_a_reload_is_announced(manager, make_service, make_collector):
    """SIGHUP: RELOADING, then READY again, so that `systemctl reload` is seen to have been heard."""
    collector = make_collector(make_service())
    collector.start(environment=manager.environment)
    manager.listen_until("STATUS=Reading since")
    manager.heard.clear()
    collector.process.send_signal(signal.SIGHUP)
    manager.listen_until("READY=1")
    assert [name for name in manager.names() if name != "STATUS"] == ["RELOADING", "MONOTONIC_USEC", "READY"]
    assert collector.drain() == ExitCode.DONE


def test_a_stopped_coordinator_gives_no_sign_of_life(manager, make_service, make_collector):
    """Life is shown by the event loop: while it does not turn there is none, and it comes back with it."""
    collector = make_collector(make_service())
    collector.start(environment=manager.environment | {"WATCHDOG_USEC": "200000"})
    manager.listen_until("READY=1")
    manager.listen_until("WATCHDOG=1")
    collector.process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{collector.process.pid}/stat")
    wait_until(lambda: b") T " in stat.read_bytes(), "it to be stopped")
    manager.listen(0.1)  # what was under way
    assert manager.listen(0.5) == []
    collector.process.send_signal(signal.SIGCONT)
    manager.heard.clear()
    manager.listen_until("WATCHDOG=1")
    assert collector.drain() == ExitCode.DONE


def test_what_is_for_the_coordinator_alone(manager, make_service, make_collector):
    """A watchdog of another process is not answered, and no child could speak in the collector's name."""
    collector = make_collector(make_service())
    collector.start(environment=manager.environment | {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    manager.listen_until("STATUS=Reading since")
    wait_until(lambda: len(collector.children()) == 3, "the children to run")
    for pid in collector.children().values():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PATH=" in environment
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment
    assert collector.drain() == ExitCode.DONE
    manager.listen_until("STATUS=Ended")
    assert "WATCHDOG=1" not in manager.heard


def test_the_last_word_says_why_it_ended(manager, make_service, make_collector):
    """`systemctl status` of a collector that left for good has the reason, with every secret masked."""
    collector = make_collector(make_service())
    collector.start(environment=manager.environment | {"LIVESTREAM_TOKEN": "not-the-one-that-it-wants"})
    assert collector.wait() == ExitCode.REFUSED
    last = manager.listen_until("STATUS=Ended")
    assert last.startswith("STATUS=Ended with exit code 3: the service does not accept the token (401)")
    assert "not-the-one" not in "".join(manager.heard)


def test_a_manager_that_does_not_keep_up_harms_nothing(manager, make_service, make_collector):
    """Its socket is full: what finds no room is left out, and nothing waits for it."""
    collector = make_collector(make_service(hits_per_second=2000.0, total=500))
    collector.start("--stop-after-hits", "500", environment=manager.environment | {"WATCHDOG_USEC": "2000"})
    assert collector.wait() == ExitCode.DONE
    assert "STATUS=Ended with exit code 0" not in manager.listen(0.2)
    collector.assert_complete(500)
