"""What the status page's addresses answer: files, events, status, health, metrics.

Runs in the coordinator, imported when it is to be served. The invariants: only GET and HEAD, and no request
changes anything; no secret is in any answer; one status is made and encoded per second, however many listen;
a listener that does not take it is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from collector.coordinator import page
from collector.coordinator.doors import Door
from collector.core.status import Status
from collector.escaping import defect_in_words
from collector.metrics import StatusCollector
from collector.settings_values import is_loopback
from collector.telemetry import log, recent

if TYPE_CHECKING:
    from collector.coordinator.process import Coordinator

TELL_S: Final = 1.0
MOST_LISTENERS: Final = 32
"""To events: half of a door's connections, so that the other half is there for questions."""

TAKEN_WITHIN_S: Final = 10.0
"""An event by a listener; the next ones are left out meanwhile."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listener:
    """The newest event for one who listens; those it did not take in time are passed over."""

    def __init__(self, event: bytes) -> None:
        self._event = event
        self._over = False
        self._news = asyncio.Event()
        self._news.set()

    def tell(self, event: bytes, *, last: bool = False) -> None:
        self._event, self._over = event, last
        self._news.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Until the last one."""
        over = False
        while not over:
            await self._news.wait()
            self._news.clear()
            over = self._over
            yield self._event


class Answers:
    """Makes the application. ``own_names``: this machine's own names alone are asked for by TCP."""

    def __init__(self, coordinator: Coordinator, *, own_names: bool) -> None:
        self._coordinator = coordinator
        self._own_names = own_names
        self._listeners: set[Listener] = set()
        self._defects: set[str] = set()
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(self._status))
        self.doors: list[Door] = []

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        for path, file in page.files().items():
            application.router.add_get(path, _file(file))
        for path, handler in (
            ("/events", self._events),
            ("/status.json", self._status_json),
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/metrics", self._metrics),
            ("/recent-events.json", self._recent_events),
        ):
            application.router.add_get(path, handler)
        application.on_response_prepare.append(_add_headers)
        return application

    def _status(self) -> Status:
        book = self._coordinator.status
        assert book is not None  # noqa: S101 - only what has a status is served
        return book.now()

    # ------------------------------------------------------------ before every answer

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        for door in self.doors:
            door.asks(request.protocol)
        try:
            return self._refusal(request) or await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - a defect here must end nothing
            self._say(error)
            return _text(500, "a defect of the collector: its log has more; the intake goes on\n")
        finally:
            for door in self.doors:
                door.answered(request.protocol)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.method not in {"GET", "HEAD"}:
            return _text(405, "nothing can be changed here: GET and HEAD only\n", Allow="GET, HEAD")
        hosts = request.headers.getall("Host", [])
        if self._own_names and _by_tcp(request) and not all(map(_is_own_name, hosts)):
            # A page of somebody else's, whose name was made to lead here, shall not read it (DNS rebinding).
            return _text(
                403,
                "this page listens on this machine alone, so it answers to localhost, 127.0.0.1 and [::1]"
                " only; to reach it by another name set status.listen to an address of that name\n",
            )
        return None

    def _say(self, error: Exception) -> None:
        """Each kind once."""
        if (kind := type(error).__name__) not in self._defects:
            self._defects.add(kind)
            log("attention.needed", reason=f"the status page has a defect: {defect_in_words(error)}")

    # ------------------------------------------------------------ events

    async def keep_telling(self) -> None:
        """A status a second to all who listen, until cancelled."""
        while True:
            await asyncio.sleep(TELL_S)
            self._tell()

    def end(self) -> None:
        """How it ended is the last that all who listen hear."""
        self._tell(last=True)

    def _tell(self, *, last: bool = False) -> None:
        try:
            event = self._event() if self._listeners else b""
        except Exception as error:  # noqa: BLE001 - a defect here must not take the page away
            self._say(error)
            event = b": no status now\n\n"
        for listener in self._listeners:
            listener.tell(event, last=last)

    def _event(self) -> bytes:
        return b"data: " + msgspec.json.encode(self._status()) + b"\n\n"

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if len(self._listeners) >= MOST_LISTENERS:
            return _text(503, f"{MOST_LISTENERS} listen already\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        listener = Listener(self._event())
        self._listeners.add(listener)
        try:
            async for event in listener.events():
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    await response.write(event)
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._listeners.discard(listener)
        return response

    # ------------------------------------------------------------ questions

    async def _status_json(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._status()), content_type="application/json")

    async def _healthz(self, _: web.Request) -> web.Response:
        """That it answers at all is the answer."""
        return _text(200, "alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._coordinator.not_ready()
        return _text(503, "".join(f"{reason}\n" for reason in reasons)) if reasons else _text(200, "ready\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _recent_events(self, request: web.Request) -> web.Response:
        """For who may enter the state folder alone."""
        if _by_tcp(request):
            return _text(404, "by the socket in the state folder only\n")
        return web.Response(body=msgspec.json.encode(recent()), content_type="application/json")


def _file(file: page.PageFile) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=file.body, content_type=file.content_type, charset="utf-8")

    return answer


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Whatever the answer."""
    response.headers.update(page.HEADERS)
    response.headers["Server"] = "livestream-collector"


def _text(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=text, headers=headers)


def _by_tcp(request: web.Request) -> bool:
    """A Unix socket's name is no tuple."""
    transport = request.transport
    return transport is None or isinstance(transport.get_extra_info("sockname"), tuple)


def _is_own_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(f"//[{name}]" if ":" in name else f"//{name}")
    except ValueError:
        return False
