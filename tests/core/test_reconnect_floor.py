"""No sequence of events, crashes and reboots breaks the floor."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reconnect_shell import closed, status

from collector.core.floor_record import FloorRecord
from collector.core.messages import Closed, Outcome
from collector.core.reconnect import Policy, ReconnectSettings, State
from collector.core.reconnect_events import (
    Action,
    DrainWanted,
    Event,
    Full,
    GetToken,
    Room,
    SendRequest,
    StreamOpened,
    SyncRecord,
    Tick,
    TokenFailed,
    TokenReady,
    WaitUntil,
)
from collector.core.reconnect_table import HEALTHY_MULTIPLE, JITTER, WAITS, Phase
from collector.core.remedies import TokenFailure

WAITS_S = [30.0, 60.0, 120.0]
"""Of the settings, which may change between runs: the floor is the one of the run that sends."""

SLACK_S = 1e-6
"""For sums of floats; not of the policy."""

STREAM_ENDS = [Outcome.LOST, Outcome.ENDED, Outcome.STALLED, Outcome.READER_DIED]
REQUEST_ENDS = [
    *STREAM_ENDS,
    Outcome.NO_STATUS,
    Outcome.REDIRECT,
    Outcome.UNREACHED,
    Outcome.UNTRUSTED,
    Outcome.STATUS,
]
HOLDS_NOTHING = {Outcome.UNREACHED, Outcome.UNTRUSTED, Outcome.STATUS}
STATUSES = st.sampled_from([204, 400, 401, 403, 404, 409, 418, 429, 500, 503, 505])
SECONDS = st.one_of(
    st.sampled_from([0.0, 0.01, 1.0, 5.0, 10.0, 20.0, 29.99, 59.99, 60.0, 119.99, 300.0]),
    st.floats(0, 2000),
)
DOWN_S = st.sampled_from([0.0, 1.0, 10.0, 25.0, 61.0, 300.0])
RETRY_AFTER = st.one_of(st.none(), st.floats(0, 1e6))
JITTERS = st.floats(0, 1, exclude_max=True)


class World(RuleBasedStateMachine):
    """The service's view: true time that never restarts, and when a stream may have been held.

    The policy sees only CLOCK_BOOTTIME, which restarts, and whatever record was last synced.
    """

    @initialize(
        wait_s=st.sampled_from(WAITS_S),
        on_refusal=st.sampled_from(["exit", "retry"]),
        static=st.booleans(),
        uptime_s=st.floats(0, 1e6),
    )
    def begin(
        self, wait_s: float, on_refusal: Literal["exit", "retry"], static: bool, uptime_s: float
    ) -> None:
        self.settings = ReconnectSettings(wait_s, on_refusal, static, "a")
        self.true_s = 0.0
        self.booted_s = -uptime_s
        self.boot = 1
        self.record: FloorRecord | None = None
        self.existed = False
        self.held_s: float | None = None
        self.start()

    # ------------------------------------------------------------ the shell

    @property
    def now(self) -> float:
        return self.true_s - self.booted_s

    def start(self, *, orphaned: bool = False) -> None:
        self.policy = Policy(self.settings)
        self.requested = self.opened = self.token_wanted = self.retry_allowed = self.full = False
        self.retried = False
        self.flowed_s = 0.0
        self.state: State
        self.state, actions = self.policy.start(
            self.record, existed=self.existed, boot_id=f"boot-{self.boot}", now=self.now, orphaned=orphaned
        )
        self.counts = Counter(self.state.counters)
        self.carry_out(actions)

    def step(self, event: Event, random: float = 0.0, *, crash_before: int | None = None) -> None:
        """``crash_before``: everything dies before the action with this index is carried out."""
        self.state, actions = self.policy.step(self.state, event, self.now, random)
        self.carry_out(actions[:crash_before])
        if crash_before is not None:
            self.start()

    def carry_out(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case SyncRecord(record):
                    self.record, self.existed = record, True
                case GetToken():
                    self.token_wanted = True
                case SendRequest():
                    self.send()
                case WaitUntil(at_s):
                    assert at_s >= self.now - SLACK_S
                case _:
                    pass

    def send(self) -> None:
        assert not self.requested, "two requests at once"
        assert not self.full, "a request while there is no room"
        if self.held_s is not None and not self.retry_allowed:
            assert self.true_s - self.held_s >= self.settings.wait_s - SLACK_S, "a request inside the floor"
        assert self.record is not None
        assert self.record.open, "a request without its record"
        assert self.record.held_until_s is not None
        assert self.record.held_until_s > self.now
        self.requested = True
        self.retry_allowed = False

    def hold(self) -> None:
        """If a stream may be held, it is held until now."""
        if self.requested:
            self.held_s = self.true_s

    def pass_time(self, seconds: float) -> None:
        healthy_s = HEALTHY_MULTIPLE * self.settings.wait_s
        if abs(self.flowed_s + seconds - healthy_s) < 0.001:
            seconds += 0.001  # sums of floats must not decide whether it was long enough
        self.true_s += seconds
        if self.opened and self.state.phase is Phase.STREAMING:
            self.flowed_s += seconds

    # ------------------------------------------------------------ time

    @rule(seconds=SECONDS)
    def time_passes_unseen(self, seconds: float) -> None:
        """A busy or stopped coordinator sees no tick at all."""
        self.pass_time(seconds)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        end_s = self.true_s + seconds
        while (due_s := self.policy.next_tick_s(self.state) + self.booted_s) < end_s:
            self.pass_time(max(due_s - self.true_s, 0.0) + 0.001)
            self.step(Tick())
        self.pass_time(max(end_s - self.true_s, 0.0))

    @rule()
    def everyone_hurries(self) -> None:
        """Whatever can be sent without waiting is sent."""
        self.step(Tick())
        self.get_token()

    @precondition(lambda self: self.state.phase is Phase.WAITING and not self.full)
    @rule(early_s=st.sampled_from([0.0, 0.0, 0.0, 0.001, 1.0]))
    def request_is_due(self, early_s: float) -> None:
        due_s = self.policy.next_tick_s(self.state)
        self.pass_time(max(due_s - self.now - early_s, 0.0))
        self.everyone_hurries()

    # ------------------------------------------------------------ answers

    def get_token(self, crash_before: int | None = None) -> None:
        if self.token_wanted:
            self.token_wanted = False
            self.step(TokenReady(), crash_before=crash_before)

    @rule(crash_before=st.sampled_from([None, None, 0, 1]))
    def token_ready(self, crash_before: int | None) -> None:
        self.get_token(crash_before)

    @precondition(lambda self: self.token_wanted)
    @rule(failure=st.sampled_from(TokenFailure), random=JITTERS, retry_after_s=RETRY_AFTER)
    def token_failed(self, failure: TokenFailure, random: float, retry_after_s: float | None) -> None:
        self.token_wanted = self.retry_allowed = False
        self.step(TokenFailed(failure, "", retry_after_s), random)
        self.check_wait(retry_after_s)

    @precondition(lambda self: self.requested and not self.opened)
    @rule(seconds=SECONDS)
    def stream_opens(self, seconds: float) -> None:
        self.opened = True
        self.retried = False
        self.flowed_s = 0.0
        self.step(StreamOpened())
        self.pass_time(seconds)

    @precondition(lambda self: self.opened)
    @rule(outcome=st.sampled_from(STREAM_ENDS), random=JITTERS, crash_before=st.sampled_from([None, None, 0]))
    def stream_ends(self, outcome: Outcome, random: float, crash_before: int | None) -> None:
        self.end(closed(outcome), random, crash_before)

    @precondition(lambda self: self.state.phase is Phase.WAITING and not self.full)
    @rule(seconds=SECONDS, outcome=st.sampled_from(STREAM_ENDS), random=JITTERS)
    def a_whole_connection(self, seconds: float, outcome: Outcome, random: float) -> None:
        self.request_is_due(0.0)
        if self.requested:
            self.stream_opens(seconds)
            self.end(closed(outcome), random)

    @precondition(lambda self: self.requested and not self.opened)
    @rule(
        outcome=st.sampled_from(REQUEST_ENDS),
        code=STATUSES,
        retry_after_s=RETRY_AFTER,
        random=JITTERS,
        crash_before=st.sampled_from([None, None, None, 0]),
    )
    def request_ends(
        self,
        outcome: Outcome,
        code: int,
        retry_after_s: float | None,
        random: float,
        crash_before: int | None,
    ) -> None:
        with_status = outcome is Outcome.STATUS
        event = status(code, retry_after_s=retry_after_s) if with_status else closed(outcome)
        self.end(event, random, crash_before)

    def end(self, event: Closed, random: float, crash_before: int | None = None) -> None:
        if self.opened or event.outcome not in HOLDS_NOTHING:
            self.hold()
        if self.flowed_s >= HEALTHY_MULTIPLE * self.settings.wait_s - SLACK_S:
            self.counts.clear()
        self.requested = self.opened = False
        self.flowed_s = 0.0
        token_refused = event.status in {401, 403}
        self.retry_allowed = token_refused and not self.settings.static_token and not self.retried
        self.retried = token_refused
        self.step(event, random, crash_before=crash_before)
        if crash_before is None:
            self.check_wait(event.retry_after_s)

    def check_wait(self, retry_after_s: float | None) -> None:
        """Each wait is the one of its row's count; only healthy streaming clears a count."""
        if self.state.phase is Phase.TOKEN:
            return
        row, wait_s = self.state.row, self.settings.wait_s
        assert row is not None
        rule_s = WAITS[row].multiple(self.counts[row]) * wait_s
        longest_s = max(rule_s * (1 + JITTER), min((retry_after_s or 0.0) * (1 + JITTER), 3600))
        assert rule_s - SLACK_S <= self.state.not_before_s - self.now <= longest_s + SLACK_S
        self.counts[row] += 1

    # ------------------------------------------------------------ the outside

    @rule(full=st.booleans())
    def room_changes(self, full: bool) -> None:
        self.full = full
        self.step(Full() if full else Room())

    @rule()
    def drain(self) -> None:
        self.token_wanted = False
        self.step(DrainWanted())

    @precondition(lambda self: self.state.phase in {Phase.STOPPED, Phase.REFUSED})
    @rule(down_s=DOWN_S, wait_s=st.sampled_from(WAITS_S), fingerprint=st.sampled_from("ab"))
    def it_is_started_again(self, down_s: float, wait_s: float, fingerprint: str) -> None:
        self.true_s += down_s
        self.settings = replace(self.settings, wait_s=wait_s, fingerprint=fingerprint)
        self.start()
        self.everyone_hurries()

    # ------------------------------------------------------------ faults

    @rule(
        down_s=DOWN_S,
        kind=st.sampled_from(["kill", "kill", "orphan", "reboot", "damage"]),
        uptime_s=st.floats(0, 1e7),
        wait_s=st.sampled_from(WAITS_S),
    )
    def everything_dies(self, down_s: float, kind: str, uptime_s: float, wait_s: float) -> None:
        """Killed (the reader perhaps later), rebooted to any uptime, or with its record damaged."""
        if kind == "orphan":
            self.true_s += down_s
        self.hold()
        self.requested = False
        if kind != "orphan":
            self.true_s += down_s
        if kind == "reboot":
            self.boot += 1
            self.booted_s = self.true_s - uptime_s
        if kind == "damage":
            self.record = None
        self.settings = replace(self.settings, wait_s=wait_s)
        self.start(orphaned=kind == "orphan")
        self.everyone_hurries()

    # ------------------------------------------------------------ always

    @invariant()
    def shell_and_policy_agree(self) -> None:
        if hasattr(self, "state"):
            assert self.state.holding == self.requested
            assert self.state.full == self.full


TestFloor = World.TestCase
TestFloor.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
