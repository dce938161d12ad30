"""The simulated service: listens on loopback, answers every documented way, keeps the record.

``livestream-collector simulate``, the demo and in-process tests run it, on asyncio or uvloop.
Invariant: every request that arrived whole is in ``requests`` before its answer is sent.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import socket
import ssl
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

from msgspec import UNSET

from collector.errors import ConfigurationError
from collector.simulator import requestlog
from collector.simulator.exchange import Head, Reply, encode_reply, error, parse_head, read_body, send_slowly
from collector.simulator.hits import Hits, Timeline
from collector.simulator.questions import Asked, Gate
from collector.simulator.requestlog import Request, RequestLog
from collector.simulator.saved import SavedLines
from collector.simulator.scenario import NO_RULE, How, Rule
from collector.simulator.settings import SimulatorSettings
from collector.simulator.slots import Production, Refused, Slot, Slots, Source
from collector.simulator.stream import Stream
from collector.simulator.tokens import PATH as TOKEN_PATH
from collector.simulator.tokens import Tokens
from collector.simulator.wire import ClientGone, LimitReached, Wire

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Encoding: gzip\r\n"
    b"Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\nConnection: keep-alive\r\n\r\n"
)


@dataclasses.dataclass(slots=True)
class _Held:
    """A stream that is open, and the way to end it from outside."""

    stream: Stream
    request: Request
    command: asyncio.Future[How]
    ended: asyncio.Event


class Simulator:
    """One simulated service.

    ``async with Simulator(settings) as service`` or ``service = await Simulator.start(settings)`` and
    ``await service.close()``. *Raises* ``ConfigurationError`` for a port, file or certificate it cannot use.
    """

    def __init__(self, settings: SimulatorSettings, source: Source | None = None) -> None:
        """``source`` stands in for the hits that the settings describe."""
        self.settings = settings
        self.source: Source = source or _source(settings)
        self._context = _tls_context(settings)
        self._production = Production(settings.hits_per_second, _total(settings, self.source))
        self._slots = Slots(settings, self._production, self.source)
        self._tokens = Tokens(settings)
        self._gate = Gate(settings, self._tokens)
        self._log = RequestLog(settings.log)
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: list[_Held] = []
        self._started_s = 0.0

    @classmethod
    async def start(cls, settings: SimulatorSettings, source: Source | None = None) -> Self:
        """A service that listens."""
        return await cls(settings, source).__aenter__()

    async def __aenter__(self) -> Self:
        self._started_s = time.monotonic()
        self._listeners.append(_listen(self.settings.port))
        if self.settings.redirect:
            self._listeners.append(_listen(0))
        self._gate.second_port = self.ports[-1]
        for listener in self._listeners:
            self._spawn(self._accept(listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def ports(self) -> list[int]:
        """The first port, and the second if redirects go there."""
        return [listener.getsockname()[1] for listener in self._listeners]

    @property
    def url(self) -> str:
        """Of the stream."""
        return f"{self._origin}/api/1/stream/{self.settings.stream}"

    @property
    def token_url(self) -> str:
        """Of the token endpoint."""
        return self._origin + TOKEN_PATH

    @property
    def control_url(self) -> str:
        """Of the control endpoint, without its last segment."""
        return self._origin + "/control"

    @property
    def _origin(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.ports[0]}"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order of arrival."""
        return self._log.requests

    @property
    def hits_sent(self) -> int:
        """Distinct hits handed to a socket so far."""
        return self._slots.distinct

    @property
    def holding(self) -> int:
        """Streams open now."""
        return len(self._held)

    async def cut(self, how: How | str = How.RST) -> int:
        """End every open stream; how many there were. ``rst`` throws away what is in flight."""
        held = list(self._held)
        for it in held:
            if How(how) is How.CLEAN:
                it.stream.end()
            elif not it.command.done():
                it.command.set_result(How(how))
        await asyncio.gather(*(it.ended.wait() for it in held))
        return len(held)

    async def close(self) -> None:
        """Stop listening and end everything; may be called again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        self._log.close()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(listener)
            task = self._spawn(self._serve(accepted, listener.getsockname()[1]))
            # Cancelled before its first step, it would never come to close the socket itself.
            task.add_done_callback(functools.partial(_close, accepted))

    async def _serve(self, accepted: socket.socket, port: int) -> None:
        wire = Wire(accepted, self._context)
        try:
            await wire.handshake()
            await self._answer(wire, port)
        except (ClientGone, OSError, ssl.SSLError):
            pass  # it is in the record; there is nobody to tell
        finally:
            wire.close()

    async def _answer(self, wire: Wire, port: int) -> None:
        try:
            raw, rest = await wire.head()
            head = parse_head(raw)
        except ValueError as fault:
            await self._reply(wire, error(400, str(fault)))
            return
        if head.path.startswith("/control/") and self.settings.control:
            await self._reply(wire, await self._control(head))
            return
        request = self._arrived(head, port)
        body = await read_body(wire, head, rest) if head.method == "POST" else b""
        rule = self._rule(request)
        try:
            await self._decide(wire, Asked(head, request, body.decode("utf-8", "surrogateescape")), rule)
        finally:
            request.sent_bytes = wire.sent_bytes
            request.closed_s = request.closed_s or time.monotonic()
            request.ended = request.ended or "answered"
            self._log.write("ended", request)

    def _arrived(self, head: Head, port: int) -> Request:
        endpoint = self._gate.endpoint(head.path)
        line = (head.method, head.path, head.query)
        request = requestlog.make(self._log.number(endpoint), endpoint, port, line, head.headers)
        self._log.requests.append(request)
        return request

    def _rule(self, request: Request) -> Rule:
        elapsed_s = request.at_s - self._started_s
        found = (it for it in self.settings.rules if it.matches(request.endpoint, request.number, elapsed_s))
        return next(found, NO_RULE)

    async def _decide(self, wire: Wire, asked: Asked, rule: Rule) -> None:
        """The scenario first, then what the service would say by itself."""
        if rule.cut is not UNSET and rule.cut.after_bytes is not UNSET:
            wire.limit_bytes = rule.cut.after_bytes
        reply = _scripted(rule) or self._gate.refusal(asked)
        if reply is None and asked.request.endpoint == "stream":
            slot = self._slots.ask(time.monotonic(), asked.max_connections, asked.reset)
            if not isinstance(slot, Refused):
                await self._hold(wire, asked.request, rule, slot)
                return
            reply = error(slot.status, slot.description)
        await self._reply(wire, reply or self._gate.answer(asked), asked.request, rule)

    async def _reply(
        self, wire: Wire, reply: Reply, request: Request | None = None, rule: Rule = NO_RULE
    ) -> None:
        if request is not None:
            request.status, request.description = reply.status, reply.description
            self._log.write("answered", request)
        try:
            await send_slowly(wire, encode_reply(reply), rule)
        except LimitReached:
            await _break(wire, rule.cut.how if rule.cut is not UNSET else How.RST)
            return
        await wire.close_clean()

    async def _hold(self, wire: Wire, request: Request, rule: Rule, slot: Slot) -> None:
        """Stream until the scenario, ``cut``, the client or ``close`` ends it."""
        request.status, request.slot, request.opened_s = 200, slot.number, time.monotonic()
        self._log.write("answered", request)
        stream = Stream(
            wire,
            self._slots,
            slot,
            source=self.source,
            production=self._production,
            settings=self.settings,
            rule=rule,
            request=request,
            clock=time.monotonic,
        )
        held = _Held(stream, request, asyncio.get_running_loop().create_future(), asyncio.Event())
        self._held.append(held)
        how: How | str = "simulator closed"
        try:
            how = await self._until_ended(wire, held, rule)
        finally:
            # What is in the kernel still arrives in front of a FIN, and never after a reset.
            acknowledged = wire.sent_bytes - (0 if how == How.FIN else wire.unacknowledged())
            request.ended = how if how not in tuple(How) else f"server {How(how).value}"
            request.closed_s = time.monotonic()
            self._held.remove(held)
            self._slots.end(slot, request.closed_s, abrupt=how != How.CLEAN, acknowledged=acknowledged)
            held.ended.set()
        if how in tuple(How):
            await wire.send(stream.tail)
            await _break(wire, How(how))

    async def _until_ended(self, wire: Wire, held: _Held, rule: Rule) -> How | str:
        writer = asyncio.ensure_future(_stream(wire, held.stream, rule))
        watcher = asyncio.ensure_future(wire.until_gone())
        waiting: set[asyncio.Future[How] | asyncio.Future[str]] = {writer, watcher, held.command}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for it in (held.command, writer, watcher):
                if it.done():
                    return it.result()
        except ClientGone:
            pass
        finally:
            writer.cancel()
            watcher.cancel()
            await asyncio.gather(writer, watcher, return_exceptions=True)
        return "client reset"

    async def _control(self, head: Head) -> Reply:
        if head.path == "/control/state" and head.method == "GET":
            return Reply(200, json.dumps(self.state()))
        if head.path == "/control/cut" and head.method == "POST":
            how = head.values("how")[-1:] or ["rst"]
            if how[0] not in tuple(How):
                return error(400, f"how is {how[0]!r}, must be one of {', '.join(How)}")
            return Reply(200, json.dumps({"cut": await self.cut(how[0])}))
        return error(404, "control knows GET /control/state and POST /control/cut?how=rst|fin|clean")

    def state(self) -> dict[str, object]:
        """What ``/control/state`` answers."""
        timeline = dataclasses.asdict(self.source.timeline) if isinstance(self.source, Hits) else None
        return {
            "sent": self.hits_sent,
            "holding": self.holding,
            "seed": self.settings.seed,
            "timeline": timeline,
            "requests": [dataclasses.asdict(request) for request in self.requests],
        }


def _close(accepted: socket.socket, _: asyncio.Task[None]) -> None:
    accepted.close()


async def _stream(wire: Wire, stream: Stream, rule: Rule) -> How:
    try:
        await send_slowly(wire, _STREAM_HEAD, rule)
    except LimitReached:
        how = How.RST if rule.cut is UNSET else rule.cut.how
    else:
        how = await stream.run()
    if how is not How.CLEAN:  # the client is to have all that was meant to come before the cut
        await wire.drain()
    return how


async def _break(wire: Wire, how: How) -> None:
    match how:
        case How.CLEAN:
            await wire.close_clean()
        case How.FIN:
            await wire.close_fin()
        case How.RST:
            wire.close_rst()


def _scripted(rule: Rule) -> Reply | None:
    if rule.answer is not UNSET:
        return Reply(rule.answer.status, rule.answer.body, dict(rule.answer.headers), "by the scenario")
    if rule.redirect is not UNSET:
        location = rule.redirect.location
        headers = {} if location is UNSET else {"Location": location}
        return Reply(rule.redirect.status, "", headers, "by the scenario")
    return None


def _source(settings: SimulatorSettings) -> Source:
    if settings.file is not None:
        return SavedLines(settings.file)
    rate = settings.hits_per_second or 10_000.0
    return Hits(
        settings.seed,
        Timeline(
            start_s=int(time.time()) if settings.start_s is None else settings.start_s,
            step_us=max(int(1e6 / rate), 1),
            hours=settings.hours,
            squeezed=settings.total or 100_000,
        ),
    )


def _total(settings: SimulatorSettings, source: Source) -> int | None:
    given = [total for total in (settings.total, source.total) if total is not None]
    return min(given, default=None)


def _tls_context(settings: SimulatorSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigurationError(f"certificate {settings.tls_cert} cannot be used: {fault}") from fault
    return context


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as fault:
        listener.close()
        raise ConfigurationError(f"port {port} cannot be listened on: {fault}") from fault
    listener.listen(128)
    return listener
