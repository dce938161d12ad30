"""One attempt to hold a stream: a request, its redirects, and how it ended.

Runs in the reader's loop. The invariant: an attempt ends with exactly one ``Verdict``, whose
``outcome`` claims that nothing was reached only if no byte of a request can have been.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import selectors
import time
from typing import Final
from urllib.parse import urlsplit

from collector.core.messages import Connect, Outcome
from collector.core.retry_after import retry_after_s
from collector.errors import ConfigurationError
from collector.proxy import proxy_for
from collector.reader import redirect
from collector.reader.redirect import Forbidden, next_url
from collector.reader.response import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Head,
    error_description,
    escaped,
)
from collector.reader.transport import Ended, Options, Request

_HEADER_SAFE: Final = re.compile(r"[!-~]+")

_STREAM_STATUS: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended: the part of ``Closed`` that the network decides."""

    outcome: Outcome
    detail: str
    status: int = 0
    error_description: str = ""
    retry_after_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """A 200 came from this host after this many redirects."""

    host: str
    hops: int


class Attempt:
    """From the first request to the ``verdict``. ``take`` gives the stream's raw bytes as they come."""

    def __init__(self, order: Connect, options: Options, selector: selectors.BaseSelector) -> None:
        """*Raises* ``ConfigurationError`` for credentials that no header can carry."""
        if not (_HEADER_SAFE.fullmatch(order.token) and _HEADER_SAFE.fullmatch(order.api_key)):
            raise ConfigurationError(
                "the token or the client id is empty or holds characters that no HTTP header can carry"
            )
        self.verdict: Verdict | None = None
        self.stream: Stream | None = None
        self.bytes_received = 0
        self._order = order
        self._options = options
        self._selector = selector
        self._paused = False
        self._visited: list[str] = []
        self._chunks: list[bytes] = []
        self._give_up_at: float | None = None
        self._go_to(order.url)

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called at the latest."""
        deadlines = (self._request.deadline, None if self._paused else self._give_up_at)
        return None if self.verdict else min((at for at in deadlines if at is not None), default=None)

    def take(self) -> bytes:
        """The raw bytes since the last call."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)

    def tick(self, now: float) -> None:
        """Act on what curl did and on the time. Call it in every turn of the loop."""
        if self.verdict is None:
            self._request.tick(now)
        if self.verdict is None and self._request.ended is not None:
            self._on_end(self._request.ended)
        if (
            self.verdict is None
            and not self._paused
            and self._give_up_at is not None
            and self._give_up_at <= now
        ):
            self._on_timeout()

    def pause(self) -> None:
        """Take no more for now. A paused stream is never called stalled."""
        if not self._paused and self.verdict is None:
            self._paused = True
            self._request.pause()

    def resume(self) -> None:
        if self._paused and self.verdict is None:
            self._paused = False
            self._request.resume()
            if self.stream is not None:  # an answer that has not come has its own time
                self._heard()

    def close(self, verdict: Verdict) -> None:
        """End the attempt here, whatever it was doing; the first verdict stays."""
        if self.verdict is None:
            self.verdict = verdict
            self._request.close()

    # ------------------------------------------------ called from inside the request

    def on_sending(self) -> None:
        self._sent = True
        self._give_up_at = time.monotonic() + self._options.header_timeout_s

    def on_line(self, line: bytes) -> bool:
        if not self._head.add(line):
            self._gave_up = f"more than {MAX_HEAD_BYTES} bytes of headers"
            return False
        if self._head.complete and self.stream is None and self._head.status == _STREAM_STATUS:
            self.stream = Stream(urlsplit(self._visited[-1]).hostname or "", len(self._visited) - 1)
            self._heard()
        return not (self._head.complete and self._head.status in redirect.STATUSES)

    def on_body(self, data: bytes) -> bool:
        if self.stream is not None:
            self._chunks.append(data)
            self.bytes_received += len(data)
            self._heard()
            return True
        self._body += data
        return len(self._body) < MAX_BODY_BYTES

    # ------------------------------------------------ inside

    def _go_to(self, url: str) -> None:
        self._visited.append(url)
        self._head = Head()
        self._body = bytearray()
        self._sent = False
        self._gave_up = ""
        self._give_up_at = None
        credentials = (self._order.token, self._order.api_key)
        proxy = proxy_for(url, self._order.proxy)
        self._request = Request(url, credentials, self._options, self._selector, self, proxy=proxy)

    def _heard(self) -> None:
        self._give_up_at = time.monotonic() + self._order.idle_timeout_s

    def _on_end(self, ended: Ended) -> None:
        if self._head.complete and self._head.status in redirect.STATUSES:
            self._follow()
        else:
            self.close(self._verdict_on(ended.clean, ended.untrusted, self._gave_up or ended.words))

    def _follow(self) -> None:
        target = next_url(self._visited, self._head.get("location"), self._order.allowed_hosts)
        if isinstance(target, Forbidden):
            reason = f"{target.reason} (status {self._head.status} from {self._host})"
            self.close(Verdict(Outcome.REDIRECT, escaped(reason), self._head.status))
            return
        self._request.close()
        self._go_to(target)

    def _on_timeout(self) -> None:
        if self.stream is not None:
            words = f"nothing came for {self._order.idle_timeout_s:g} s"
            self.close(Verdict(Outcome.STALLED, words, _STREAM_STATUS))
        else:
            words = f"no complete answer within {self._options.header_timeout_s:g} s"
            self.close(self._verdict_on(clean=False, untrusted=False, words=words))

    def _verdict_on(self, clean: bool, untrusted: bool, words: str) -> Verdict:
        status = self._head.final_status
        words = f"{self._host}: {words}" if words else f"{self._host} ended the response"
        if status == _STREAM_STATUS:
            # curl takes an end within the headers for a clean one.
            outcome = Outcome.ENDED if clean and self._head.complete else Outcome.LOST
            return Verdict(outcome, escaped(words), status)
        if status and status not in redirect.STATUSES:
            return self._status_verdict(status)
        if untrusted:
            return Verdict(Outcome.UNTRUSTED, escaped(words))
        if len(self._visited) > 1 or status:
            return Verdict(Outcome.REDIRECT, escaped(f"after a redirect, {words}"), status)
        return Verdict(Outcome.NO_STATUS if self._sent else Outcome.UNREACHED, escaped(words))

    def _status_verdict(self, status: int) -> Verdict:
        now = dt.datetime.now(dt.UTC)
        return Verdict(
            Outcome.STATUS,
            f"{self._host} answered {status}",
            status,
            error_description(bytes(self._body)),
            retry_after_s(self._head.get("retry-after"), now),
        )

    @property
    def _host(self) -> str:
        return urlsplit(self._visited[-1]).netloc
