"""Requests as text, answers as bytes: the HTTP/1.1 the simulator needs.

The simulator's process runs it. Invariant: every answer says ``Connection: close`` and its length.
*Source* RFC 9112.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http
import json
from urllib.parse import parse_qs

from msgspec import UNSET

from collector.simulator.scenario import Rule
from collector.simulator.wire import MAX_HEAD_BYTES, ClientGone, Wire

_PAD_EVERY_S = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """A request line and its headers, their names in lower case."""

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]

    def values(self, name: str) -> list[str]:
        """Of a query parameter."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [])


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no stream."""

    status: int
    body: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    description: str = ""


def error(status: int, description: str) -> Reply:
    """An answer in the service's shape."""
    reason = http.HTTPStatus(status).phrase
    body = json.dumps({"error": reason, "error_description": description})
    return Reply(status, body, description=description)


def parse_head(raw: bytes) -> Head:
    """*Raises* ``ValueError``: not a request."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise ValueError("not an HTTP request")
    path, _, query = parts[1].partition("?")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("a header line without a colon")
        headers[name.strip().lower()] = value.strip()
    return Head(parts[0], path, query, parts[2], headers)


async def read_body(wire: Wire, head: Head, rest: bytes) -> bytes:
    """The body by its ``Content-Length``. *Raises* ``ClientGone``."""
    length = head.headers.get("content-length", "0")
    wanted = min(int(length), MAX_HEAD_BYTES) if length.isdecimal() else 0
    while len(rest) < wanted:
        more = await wire.receive()
        if not more:
            raise ClientGone("closed before a whole request")
        rest += more
    return rest[:wanted]


def encode_reply(reply: Reply) -> bytes:
    """The whole answer; the scenario's own headers stand before ours."""
    body = reply.body.encode()
    given = {name.lower() for name in reply.headers}
    ours = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    headers = reply.headers | {name: value for name, value in ours.items() if name.lower() not in given}
    lines = [f"HTTP/1.1 {reply.status} {_reason(reply.status)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


async def send_slowly(wire: Wire, data: bytes, rule: Rule) -> None:
    """Send an answer's beginning as the rule's ``slow_headers`` say. *Raises* as ``Wire.send``."""
    slow = rule.slow_headers
    if slow is UNSET:
        await wire.send(data)
        return
    await asyncio.sleep(slow.delay_s)
    wire.bytes_per_second = None if slow.bytes_per_second is UNSET else slow.bytes_per_second
    if slow.endless:
        await _send_endless_headers(wire, data)
    head, end, body = data.partition(b"\r\n\r\n")
    await wire.send(head + end)
    wire.bytes_per_second = None
    await wire.send(body)


async def _send_endless_headers(wire: Wire, data: bytes) -> None:
    await wire.send(data.partition(b"\r\n")[0] + b"\r\n")
    number = 0
    while True:
        number += 1
        await wire.send(b"X-Padding-%d: %s\r\n" % (number, b"x" * 200))
        await asyncio.sleep(_PAD_EVERY_S)


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
