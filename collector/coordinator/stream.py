"""The live stream as transport: the thin shell around the reconnect policy.

Runs in the coordinator. ``core.reconnect`` decides; here events are put in order, actions carried
out one after the other, and a record is durable before what comes after it. Invariant: nothing
else in the collector sends a request.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from collector.coordinator.clock import boottime_s, now_us
from collector.coordinator.committer import Committer, StorageThread
from collector.coordinator.intake import Intake
from collector.coordinator.token_source import TokenError, TokenSource
from collector.core import connection as connections
from collector.core.entries import ConnectionClosed, ConnectionOpened
from collector.core.floor_record import FloorRecord, stamped
from collector.core.ledger import LogState
from collector.core.messages import Closed, Connect, Opened, Outcome, Progress
from collector.core.proxy import Proxy
from collector.core.reconnect import Policy, State
from collector.core.reconnect_events import (
    Action,
    Disconnect,
    DrainWanted,
    Event,
    Exit,
    Full,
    GetToken,
    Loud,
    Room,
    SendRequest,
    StreamOpened,
    SyncRecord,
    Tick,
    TokenReady,
    WaitUntil,
)
from collector.core.reconnect_table import row_of
from collector.core.remedies import CODES, closed_in_words
from collector.core.status import Token
from collector.escaping import without_secrets
from collector.settings import Settings
from collector.storage.floor import FloorFile
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder
from collector.telemetry import log

LONGEST_SLEEP_S: Final = 3600.0
RESET_VALUES: Final = frozenset({"smallest", "largest", "earliest", "latest"})
RESET_BYTES: Final = 100
"""Read of a request: more than any of these words."""


@dataclass(slots=True)
class OpenConnection:
    """What is known of the request under way."""

    number: int
    opened: bool = False
    stalled: bool = False
    host: str = ""
    bytes_received: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True)
class Before:
    """The newest connection that brought a stream; number 0: none yet.

    Known here and not only from the ledger, which learns of it when a disk that may be slow has it.
    """

    number: int
    closed_us: int
    closed_s: float | None = None
    """The same by CLOCK_BOOTTIME, which does not jump; ``None``: an earlier run closed it."""


def _newest(ledger: LogState) -> Before:
    opened = [at for at in ledger.connections.values() if at.opened is not None]
    if not opened:
        return Before(0, 0)
    newest = max(opened, key=lambda at: at.number)
    return Before(newest.number, newest.closed.closed_at_us if newest.closed is not None else 0)


class Stream:
    """One request at a time, whenever the policy says so. A ``Transport`` of the intake."""

    def __init__(
        self,
        *,
        settings: Settings,
        api_key: str,
        tokens: TokenSource,
        policy: Policy,
        floor: FloorFile[FloorRecord],
        floor_thread: StorageThread,
        intake: Intake,
        committer: Committer,
        disk: Disk,
        state_folder: StateFolder,
        proxy: Proxy | None = None,
    ) -> None:
        self._settings = settings
        self._api_key = api_key
        self._tokens = tokens
        self._proxy = proxy
        self._policy = policy
        self._floor = floor
        self._floor_thread = floor_thread
        self._intake = intake
        self._committer = committer
        self._disk = disk
        self._reset_request = state_folder.reset_request
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = True  # until the reader is ready
        self._attempts: dict[str, int] = {}
        self._reset = False
        idle = settings.reconnect.idle_timeout_s
        self._silence = connections.Silence(None if idle == "auto" else float(idle))
        self._token = ""
        self._started_s = boottime_s()
        self.state: State | None = None
        """``None``: the policy has not begun."""
        self.open: OpenConnection | None = None
        self._before = _newest(committer.ledger)
        self._code = ""

    # ------------------------------------------------------------ the loop

    async def run(self, state: State, actions: tuple[Action, ...]) -> Exit:
        """Until the policy ends it. *Raises* ``StorageError`` when a record cannot be written."""
        self.state = state
        exit_ = await self._carry_out_all(actions)
        while exit_ is None:
            event = await self._next_event(state)
            state, actions = self._policy.step(state, event, boottime_s(), random.random())  # noqa: S311
            self.state = state
            exit_ = await self._carry_out_all(actions)
        return exit_

    def view(self) -> connections.ConnectionView:
        if self.state is None:
            return connections.starting(self._started_s)
        return connections.view(self._policy, self.state)

    @property
    def code(self) -> str:
        """What ``explain`` says more about, of the last request's end or of the wait a start found."""
        if self._code or self.state is None or self.state.row is None:
            return self._code
        return CODES[self.state.row]

    @property
    def token(self) -> Token:
        """How it authenticates."""
        return Token(kind=self._tokens.kind, expires_us=self._tokens.expires_us or 0)

    def drain(self) -> None:
        """Close the connection, or send none any more. ``run`` then returns."""
        self._tell(DrainWanted())

    def _tell(self, event: Event) -> None:
        self._events.put_nowait(event)

    async def _next_event(self, state: State) -> Event:
        due_s = min(self._policy.next_tick_s(state) - boottime_s(), LONGEST_SLEEP_S)
        if due_s <= 0 and self._events.empty():
            return Tick()
        try:
            async with asyncio.timeout(max(due_s, 0.0)):
                return await self._events.get()
        except TimeoutError:
            return Tick()

    async def _carry_out_all(self, actions: tuple[Action, ...]) -> Exit | None:
        for action in actions:
            if isinstance(action, Exit):
                return action
            await self._carry_out(action)
        return None

    async def _carry_out(self, action: Action) -> None:
        match action:
            case SyncRecord(record):
                stamp = stamped(record, now_us())
                await self._floor_thread.run(lambda: self._floor.write(stamp))
            case GetToken(renew):
                task = asyncio.create_task(self._get_token(renew=renew))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case SendRequest(reset):
                await self._send_request(reset)
            case Disconnect():
                self._intake.disconnect()
            case WaitUntil(at_s, _, words):
                log("connection.waited", reason=words, wait_s=max(0.0, at_s - boottime_s()))
            case Loud(words):
                log("attention.needed", reason=words)

    # ------------------------------------------------------------ a request

    async def _get_token(self, *, renew: bool) -> None:
        try:
            self._token = await self._tokens.get(renew=renew)
            self._tell(TokenReady(await self._floor_thread.run(self._stored_reset)))
        except TokenError as error:
            log("token.failed", reason=str(error), status=error.status)
            self._code = error.failure.value
            self._tell(error.event())
        except Exception as error:  # noqa: BLE001 - whatever it is ends the collector, not just this task
            self._committer.failed(error)

    def _stored_reset(self) -> str | None:
        try:
            text = self._disk.read_file(self._reset_request, RESET_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        if text in RESET_VALUES:
            return text
        log("attention.needed", reason=f"{self._reset_request} asks for a reset that is none: {text}")
        return None

    async def _send_request(self, reset: str | None) -> None:
        number = max(self._committer.ledger.next_connection, self._before.number + 1)
        self._reset = reset is not None
        if reset is not None:
            await self._floor_thread.run(self._forget_reset)
            log("reset.consumed", value=reset, connection=number)
        self.open = OpenConnection(number)
        log("connection.requested", connection=number, host=urlsplit(self._settings.stream.url).hostname)
        self._intake.connect(
            Connect(
                connection=number,
                url=request_url(self._settings.stream.url, self._settings.stream.max_connections, reset),
                token=self._token,
                api_key=self._api_key,
                allowed_hosts=self._settings.stream.allowed_hosts,
                idle_timeout_s=self._silence.longest_s(),
                held_us=self._intake.held_us,
                proxy=self._proxy,
            )
        )

    def _forget_reset(self) -> None:
        self._disk.unlink(self._reset_request)
        self._disk.fsync_folder(self._reset_request.parent)

    # ------------------------------------------------------------ Transport

    def reader_ready(self) -> None:
        self._set_full(full=self._intake.starved)

    def reader_gone(self) -> None:
        """No request without a reader; what it held is said by ``closed``."""
        self._set_full(full=True)

    def opened(self, message: Opened) -> None:
        assert self.open is not None  # noqa: S101 - the reader opens only what was asked for
        self.open.opened = True
        self.open.host = message.host
        before = self._before
        wait_us = max(0, message.at_us - before.closed_us) if before.closed_us else 0
        if before.closed_s is not None:
            wait_us = round((boottime_s() - before.closed_s) * 1e6)
        log(
            "connection.opened",
            connection=message.connection,
            host=message.host,
            hops=message.hops,
            wait_s=wait_us / 1e6,
        )
        self._committer.append_soon(
            ConnectionOpened(
                connection=message.connection,
                opened_us=message.at_us,
                wait_us=wait_us,
                attempts=self._attempts,
                after=before.number,
                reset=self._reset,
            )
        )
        self._attempts = {}
        self._silence.opened(boottime_s())
        self._tell(StreamOpened())

    def progressed(self, message: Progress) -> None:
        if self.open is None or message.connection != self.open.number:
            self._set_full(full=self._intake.starved)
            return
        self.open.bytes_received, self.open.records = message.bytes_received, message.records
        self._set_full(full=message.paused)
        now_s = boottime_s()
        self._silence.progressed(
            now_s, bytes_received=message.bytes_received, records=message.records, paused=message.paused
        )
        if self.open.opened and not message.paused and self._silence.stalled(now_s) and not self.open.stalled:
            self.open.stalled = True
            self._intake.disconnect()

    def closed(self, message: Closed) -> None:
        if self.open is not None and self.open.stalled and message.outcome is Outcome.DRAINED:
            message = msgspec.structs.replace(
                message, outcome=Outcome.STALLED, detail=f"no byte came for {self._silence.limit_s():.0f} s"
            )
        message = msgspec.structs.replace(  # the service may echo what it was sent
            message,
            detail=without_secrets(message.detail),
            error_description=without_secrets(message.error_description),
        )
        self._log_closed(message)
        self._code = str(message.status) if message.outcome is Outcome.STATUS else message.outcome.value
        if self.open is not None and self.open.opened:
            self._before = Before(message.connection, message.closed_at_us, boottime_s())
            self._silence.closed(message.bytes_received)
            self._committer.append_soon(ConnectionClosed(closed=message, held_us=self._intake.held_us))
        else:
            row = row_of(message).value
            self._attempts[row] = self._attempts.get(row, 0) + 1
        self.open = None
        self._tell(message)

    def _log_closed(self, message: Closed) -> None:
        event = "connection.closed" if message.outcome is Outcome.DRAINED else "connection.lost"
        if message.outcome is Outcome.STATUS:
            log(
                "connection.refused",
                connection=message.connection,
                status=message.status,
                detail=closed_in_words(message),
                retry_after_s=message.retry_after_s,
            )
            return
        log(
            event,
            connection=message.connection,
            outcome=message.outcome,
            detail=message.detail,
            bytes_received=message.bytes_received,
            records=message.records,
            cut_bytes=message.cut_bytes,
        )

    def _set_full(self, *, full: bool) -> None:
        if full != self._full:
            self._full = full
            self._tell(Full() if full else Room())


def request_url(url: str, max_connections: int, reset: str | None) -> str:
    """The configured URL with its own query kept, ``maxConnections`` always, ``reset`` when asked for."""
    parts = urlsplit(url)
    query = {"maxConnections": str(max_connections)} | ({} if reset is None else {"reset": reset})
    joined = "&".join(filter(None, (parts.query, urlencode(query))))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, joined, ""))
