"""What the service says to a request by itself, before any slot is asked for.

The simulator's process runs it. Invariant: a request passes only if it is as the documentation wants it.
*Source* Adobe analytics-2.0-apis, guides/endpoints/livestream: index, troubleshooting.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import time

from collector.simulator.exchange import Head, Reply, error
from collector.simulator.requestlog import Request
from collector.simulator.settings import SimulatorSettings
from collector.simulator.slots import Reset
from collector.simulator.tokens import PATH as TOKEN_PATH
from collector.simulator.tokens import Tokens


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request that arrived whole."""

    head: Head
    request: Request
    body: str

    @property
    def max_connections(self) -> int:
        """After ``Gate.refusal`` found nothing wrong."""
        return int((self.head.values("maxConnections") or ["1"])[0])

    @property
    def reset(self) -> Reset | None:
        """After ``Gate.refusal`` found nothing wrong."""
        values = self.head.values("reset")
        return Reset(values[0]) if values else None


class Gate:
    """Everything that can be wrong with a request."""

    def __init__(self, settings: SimulatorSettings, tokens: Tokens) -> None:
        self._settings = settings
        self._tokens = tokens
        self._enabled_from_s = float("inf") if settings.needs_enabling else 0.0
        self.second_port = 0
        """Where a redirect leads."""

    def endpoint(self, path: str) -> str:
        """Which counter a request belongs to: ``stream``, ``token``, ``enable`` or ``other``."""
        if path == TOKEN_PATH:
            return "token"
        if path.startswith("/api/2/enable/"):
            return "enable"
        return "stream" if path.startswith(("/api/1/stream/", "/api/2/stream/")) else "other"

    def refusal(self, asked: Asked) -> Reply | None:
        """What is wrong with a request; ``None``: nothing."""
        head, endpoint = asked.head, asked.request.endpoint
        if head.version != "HTTP/1.1":
            return error(505, f"{head.version} is not supported, use HTTP/1.1")
        if head.method != ("POST" if endpoint == "token" else "GET"):
            return error(405, f"{head.method} is not allowed")
        if endpoint == "token":
            return None
        if endpoint == "other" or head.path.rpartition("/")[2] != self._settings.stream:
            return error(404, "no such stream")
        return self._refuse_headers(head, asked.request) or (
            self._refuse_parameters(head) if endpoint == "stream" else None
        )

    def answer(self, asked: Asked) -> Reply:
        """What the token and enable endpoints answer."""
        if asked.request.endpoint == "token":
            status, body = self._tokens.answer(asked.body, time.monotonic())
            return Reply(status, json.dumps(body), {"Cache-Control": "no-store"}, str(body.get("error", "")))
        self._enabled_from_s = min(self._enabled_from_s, time.monotonic() + self._settings.enable_after_s)
        return Reply(200, json.dumps({"status": "enabled", "stream": self._settings.stream}))

    def _refuse_headers(self, head: Head, request: Request) -> Reply | None:
        if request.endpoint == "stream" and self._settings.redirect and request.port != self.second_port:
            scheme = "https" if self._settings.tls_cert else "http"
            query = f"?{head.query}" if head.query else ""
            location = f"{scheme}://127.0.0.1:{self.second_port}{head.path}{query}"
            return Reply(302, "", {"Location": location}, "the stream is at another endpoint")
        if not _accepts_gzip(head.headers.get("accept-encoding", "")):
            return error(406, "Accept-Encoding: gzip is required")
        key = head.headers.get("x-api-key", "")
        if self._settings.api_key is not None and not _same(key, self._settings.api_key):
            return error(401, "x-api-key is missing or invalid")
        if not self._tokens.accepts(head.headers.get("authorization", ""), time.monotonic()):
            return error(401, "the access token is missing, invalid or expired")
        return None

    def _refuse_parameters(self, head: Head) -> Reply | None:
        connections = head.values("maxConnections") or ["1"]
        if len(connections) > 1 or connections[0] not in tuple("12345678"):
            return error(400, f"maxConnections is {','.join(connections)!r}, must be 1 to 8")
        reset = head.values("reset")
        if len(reset) > 1 or (reset and reset[0] not in tuple(Reset)):
            return error(400, f"reset is {','.join(reset)!r}, must be one of {', '.join(Reset)}")
        if time.monotonic() < self._enabled_from_s:
            path = f"/api/2/enable/{self._settings.stream}"
            return error(
                424, f"the stream is not enabled for the latest API: GET {path}, or contact Customer Care"
            )
        return None


def _accepts_gzip(header: str) -> bool:
    """*Source* RFC 9110, 12.5.3."""
    for item in header.lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
