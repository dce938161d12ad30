"""What the tests of the reconnect table share: waiting for requests, judging their times, closed doors."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from harness import Collector, Service, wait_until

from collector.core.reconnect_table import JITTER
from collector.simulator.requestlog import Request
from collector.simulator.settings import SimulatorSettings

SLACK_S = 2.0
"""How late a request may come on a busy machine. Never early: the lower bounds are exact."""

OAUTH = {"LIVESTREAM_CLIENT_ID": "simulator-client", "LIVESTREAM_CLIENT_SECRET": "simulator-secret"}
"""For a service made with ``api_key="simulator-client"``."""

START_S = 15.0
"""How late it may come where a process must start in between."""

PATH = "/api/1/stream/demo-stream"


def requests_of(service: Service, endpoint: str = "stream") -> list[Request]:
    return [request for request in service.requests if request.endpoint == endpoint]


def await_requests(collector: Collector, count: int, endpoint: str = "stream") -> list[Request]:
    """The first ``count`` requests, each answered, while the collector runs."""

    def there() -> bool:
        assert collector.process is not None
        assert collector.process.poll() is None, collector.log
        found = requests_of(collector.service, endpoint)
        return len(found) >= count and found[count - 1].status is not None

    wait_until(there, f"{count} requests for a {endpoint}")
    return requests_of(collector.service, endpoint)[:count]


def count_words(collector: Collector, words: str) -> int:
    """How often the log has them; ``|`` between several."""
    return sum(collector.log.count(one) for one in words.split("|"))


def await_words(collector: Collector, words: str, times: int = 1) -> None:
    wait_until(lambda: count_words(collector, words) >= times, f"{words!r} in the log {times} times")


def gaps_s(requests: Sequence[Request]) -> list[float]:
    """From the end of each request, a stream's or the answer's, to the next, by the service's own clock."""
    return [
        after.at_s - (before.closed_s if before.is_stream and before.closed_s else before.at_s)
        for before, after in itertools.pairwise(requests)
    ]


def assert_waited(
    gaps: Sequence[float], waits: Sequence[float], wait_s: float, log: str, slack_s: float = SLACK_S
) -> None:
    """Each gap is its wait, in multiples of ``wait_s``, or up to the jitter more. A wait of 0: at once."""
    assert len(gaps) == len(waits)
    for number, (gap_s, wait) in enumerate(zip(gaps, waits, strict=True)):
        least_s = wait * wait_s
        most_s = least_s * (1 + JITTER) + slack_s if wait else wait_s
        assert least_s <= gap_s < most_s, f"gap {number + 1} of {gaps} is not {wait} x {wait_s}\n{log}"


def waits_said(collector: Collector) -> list[float]:
    """The waits the collector announced. Units: seconds."""
    return [float(said) for said in re.findall(r"connection\.waited .*wait_s=([0-9.]+)", collector.log)]


class Placeholder:
    """A port at which nothing listens, kept from everybody else."""

    settings = SimulatorSettings()

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{PATH}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@dataclass
class Door:
    """Notes who knocks, and shuts the connection: at once, or after a TLS handshake with ``context``."""

    context: ssl.SSLContext | None = None
    knocks_s: list[float] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    """What came after a handshake."""
    settings: SimulatorSettings = field(default_factory=SimulatorSettings)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}{PATH}"

    def await_knocks(self, count: int) -> list[float]:
        """The gaps between the first ``count``."""
        wait_until(lambda: len(self.knocks_s) >= count, f"{count} knocks")
        times_s = self.knocks_s[:count]
        return [after - before for before, after in itertools.pairwise(times_s)]

    def _answer(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.knocks_s.append(time.monotonic())
            with peer:
                self._shake_hands(peer)

    def _shake_hands(self, peer: socket.socket) -> None:
        if self.context is None:
            return
        peer.settimeout(5)
        with contextlib.suppress(OSError), self.context.wrap_socket(peer, server_side=True) as encrypted:
            self.heard += encrypted.recv(65536)
