"""A shell for the reconnect policy without a network: its clock and the service's answers are the test's."""

from __future__ import annotations

from dataclasses import dataclass, field

from collector.core.floor_record import FloorRecord
from collector.core.messages import Closed, Outcome
from collector.core.reconnect import Policy, ReconnectSettings, State
from collector.core.reconnect_events import (
    Action,
    Event,
    Exit,
    GetToken,
    SendRequest,
    StreamOpened,
    SyncRecord,
    Tick,
    TokenReady,
    WaitUntil,
)
from collector.core.reconnect_table import Phase

WAIT_S = 60.0
BOOT = "6f1c1e4e-0c3a-4d0e-9d1e-2f1b7c0a9d11"


def closed(outcome: Outcome, **more: object) -> Closed:
    return Closed(connection=1, outcome=outcome, detail="", closed_at_us=0, **more)  # type: ignore[arg-type]


def status(code: int, **more: object) -> Closed:
    return closed(Outcome.STATUS, status=code, **more)


@dataclass
class Shell:
    """Does what the policy says; ``sent`` has the time of every request."""

    settings: ReconnectSettings = field(default_factory=lambda: ReconnectSettings(WAIT_S))
    record: FloorRecord | None = None
    existed: bool = False
    now: float = 1000.0
    boot: str = BOOT
    jitter: float = 0.0
    orphaned: bool = False
    sent: list[float] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.policy = Policy(self.settings)
        self.state, actions = self.policy.start(
            self.record, existed=self.existed, boot_id=self.boot, now=self.now, orphaned=self.orphaned
        )
        self.carry_out(actions)

    def step(self, event: Event) -> tuple[Action, ...]:
        self.state, actions = self.policy.step(self.state, event, self.now, self.jitter)
        self.carry_out(actions)
        return actions

    def carry_out(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            self.actions.append(action)
            match action:
                case SyncRecord(record):
                    self.record, self.existed = record, True
                case SendRequest():
                    self.sent.append(self.now)

    def advance(self, seconds: float) -> None:
        """Time passes, with every tick that is due on the way."""
        end = self.now + seconds
        while (due := self.policy.next_tick_s(self.state)) <= end:
            self.now = max(self.now, due)
            before = self.state
            self.step(Tick())
            if self.state == before:
                raise AssertionError("a tick that was due changed nothing")
        self.now = end

    def request(self) -> None:
        """Wait as long as the policy says, get a token, and the request is out."""
        if self.state.phase is Phase.WAITING:
            self.now = max(self.now, self.policy.next_tick_s(self.state))
            assert GetToken(renew=self.state.token_refused) in self.step(Tick())
        self.step(TokenReady())
        assert self.state.phase is Phase.REQUESTING

    def stream(self, seconds: float) -> None:
        self.request()
        self.step(StreamOpened())
        self.advance(seconds)

    def waited(self) -> float:
        """How long from now until the next request may be sent, in multiples of ``wait_s``."""
        return (self.policy.earliest_s(self.state) - self.now) / self.settings.wait_s

    def waits(self, event: Event, times: int) -> list[float]:
        """The waits after that many requests in a row that all end in ``event``."""
        found = []
        for _ in range(times):
            self.request()
            self.step(event)
            found.append(self.waited())
        return found

    def last(self, kind: type) -> Action:
        return next(action for action in reversed(self.actions) if isinstance(action, kind))

    def exit(self) -> Exit:
        found = self.last(Exit)
        assert isinstance(found, Exit)
        return found

    def wait_until(self) -> WaitUntil:
        found = self.last(WaitUntil)
        assert isinstance(found, WaitUntil)
        return found
