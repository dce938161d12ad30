"""The service's own record of every request, and what it says about the client's manners.

Written by the simulator's process, read by whoever judges a client. Invariant: times are the
server's; no token and no key is ever in a record.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from collector.errors import ConfigurationError

_SECRET_HEADERS = ("authorization", "x-api-key", "cookie", "proxy-authorization")


@dataclasses.dataclass(slots=True)
class Request:
    """One request. Times called ``*_s`` are CLOCK_MONOTONIC of the machine, ``at_wall_s`` is Unix time."""

    number: int
    """From 1, per endpoint."""
    endpoint: str
    at_s: float
    at_wall_s: float
    port: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Without those that carry secrets."""
    secrets: tuple[str, ...]
    """Names of the headers left out."""
    status: int | None = None
    description: str = ""
    """Why it was refused."""
    opened_s: float | None = None
    """When the 200 of a stream was sent."""
    closed_s: float | None = None
    ended: str | None = None
    """In words."""
    slot: int | None = None
    first_hit: int | None = None
    last_hit: int | None = None
    hits: int = 0
    """Sent, resends included."""
    sent_bytes: int = 0
    """Of the whole response, before TLS."""

    @property
    def is_stream(self) -> bool:
        """Whether it opened a stream."""
        return self.opened_s is not None


def make(
    number: int, endpoint: str, port: int, line: tuple[str, str, str], headers: dict[str, str]
) -> Request:
    """The record of a request that has just arrived. ``line``: method, path, query."""
    method, path, query = line
    return Request(
        number=number,
        endpoint=endpoint,
        at_s=time.monotonic(),
        at_wall_s=time.time(),
        port=port,
        method=method,
        path=path,
        query=query,
        headers={name: value for name, value in headers.items() if name not in _SECRET_HEADERS},
        secrets=tuple(name for name in headers if name in _SECRET_HEADERS),
    )


class RequestLog:
    """All requests in memory, and as JSON lines in a file if given. *Raises* ``ConfigurationError``."""

    def __init__(self, path: Path | None) -> None:
        self.requests: list[Request] = []
        self._counts: dict[str, int] = {}
        self._descriptor: int | None = None
        if path is not None:
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise ConfigurationError(f"log file {path} cannot be opened: {error}") from error

    def number(self, endpoint: str) -> int:
        """The next request number of an endpoint, from 1."""
        self._counts[endpoint] = self._counts.get(endpoint, 0) + 1
        return self._counts[endpoint]

    def write(self, event: str, request: Request) -> None:
        """One line: ``event`` is ``answered`` or ``ended``."""
        if self._descriptor is not None:
            line = msgspec.json.encode({"event": event} | dataclasses.asdict(request))
            os.write(self._descriptor, line + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def floor_violations(requests: Iterable[Request], wait_s: float) -> list[tuple[Request, Request, float]]:
    """Stream requests that came within ``wait_s`` of the last moment another one held the stream.

    Each as (stream held, request, seconds between; 0 while it was still held). A request that was
    redirected is judged like any other, the hop it leads to as well.
    """
    stream = sorted((it for it in requests if it.endpoint == "stream"), key=lambda it: it.at_s)
    found: list[tuple[Request, Request, float]] = []
    for held in stream:
        if not held.is_stream:
            continue
        end = float("inf") if held.closed_s is None else held.closed_s
        later = (it for it in stream if it is not held and it.at_s > held.at_s)
        found.extend((held, it, max(it.at_s - end, 0.0)) for it in later if it.at_s - end < wait_s)
    return found


def held_together(requests: Iterable[Request]) -> list[tuple[Request, Request]]:
    """Pairs of streams that were open at the same time."""
    streams = sorted((it for it in requests if it.is_stream), key=lambda it: it.opened_s or 0.0)
    return [
        (earlier, later)
        for position, later in enumerate(streams)
        for earlier in streams[:position]
        if earlier.closed_s is None or (later.opened_s or 0.0) < earlier.closed_s
    ]
