"""Attempts against real sockets, in one process."""

from __future__ import annotations

import dataclasses
import selectors
import time
from collections.abc import Callable

import certifi

from collector.core.framing import Framer
from collector.core.messages import Connect
from collector.reader.attempt import Attempt, Verdict
from collector.reader.inflate import Inflater
from collector.reader.transport import Options

ALLOWED = ("127.0.0.1", "localhost")


@dataclasses.dataclass
class Result:
    """What came of an attempt."""

    verdict: Verdict
    attempt: Attempt
    raw: bytes
    elapsed_s: float

    def lines(self) -> list[bytes]:
        """The whole records of the body."""
        inflater, framer = Inflater(), Framer(1 << 20)
        inflater.push(self.raw)
        while piece := inflater.pull():
            framer.feed(piece)
        frame = framer.seal()
        return frame.payload.splitlines() if frame else []


def order_for(url: str, *, idle_timeout_s: float = 5.0, allowed_hosts: tuple[str, ...] = ALLOWED) -> Connect:
    return Connect(1, url, "the-token", "the-key", allowed_hosts, idle_timeout_s, 0)


def options(**changes: object) -> Options:
    return dataclasses.replace(Options(certifi.where(), 2.0, 2.0), **changes)  # type: ignore[arg-type]


def drive(
    attempt: Attempt, selector: selectors.BaseSelector, until: Callable[[], bool], guard_s: float = 20.0
) -> bytes:
    """Turn the loop until ``until``; gives the body's bytes."""
    raw = b""
    guard = time.monotonic() + guard_s
    while not until():
        now = time.monotonic()
        assert now < guard, "the attempt did not get there in time"
        deadline = guard if attempt.deadline is None else min(attempt.deadline, guard)
        for key, events in selector.select(max(0.0, deadline - now)):
            key.data(events)
        attempt.tick(time.monotonic())
        raw += attempt.take()
    return raw


def run_attempt(order: Connect, with_options: Options | None = None) -> Result:
    """One attempt to its verdict."""
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        attempt = Attempt(order, with_options or options(), selector)
        raw = drive(attempt, selector, lambda: attempt.verdict is not None)
        assert attempt.verdict is not None
        assert not selector.get_map(), "a finished attempt watches no socket"
        return Result(attempt.verdict, attempt, raw, time.monotonic() - began)
