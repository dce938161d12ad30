"""What the policy does in order: the record before the request, the hold, drain, full, restart."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest
from reconnect_shell import BOOT, WAIT_S, Shell, closed, status

from collector.core.floor_record import FloorRecord, held_until_us, stamped
from collector.core.messages import Outcome
from collector.core.reconnect import Policy, ReconnectSettings, State
from collector.core.reconnect_events import (
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
    TokenFailed,
    TokenReady,
    WaitUntil,
)
from collector.core.reconnect_table import Phase, Row
from collector.core.remedies import TokenFailure
from collector.errors import ExitCode, ProtocolError

OTHER_BOOT = "00000000-1111-2222-3333-444444444444"
LOST = closed(Outcome.LOST)
DRAINED = closed(Outcome.DRAINED)


# ---------------------------------------------------------------- the record


def test_first_start_connects_at_once() -> None:
    """No floor file: connect at once."""
    shell = Shell()
    assert shell.step(Tick()) == (GetToken(renew=False),)


def test_record_is_synced_before_the_request() -> None:
    """Before a request the record says that a stream may be held until a third of the floor from now."""
    shell = Shell()
    shell.step(Tick())
    sync, send = shell.step(TokenReady())
    assert isinstance(sync, SyncRecord)
    assert send == SendRequest(reset=None)
    assert sync.record.open
    assert sync.record.held_until_s == shell.now + WAIT_S / 3


def test_record_stays_ahead_while_streaming() -> None:
    """While streaming the record is renewed every sixth of the floor, a third of it ahead."""
    shell = Shell()
    shell.stream(0)
    for _ in range(5):
        shell.advance(WAIT_S / 6)
        assert shell.record is not None
        assert shell.record.written_s == pytest.approx(shell.now)
        assert shell.record.held_until_s == pytest.approx(shell.now + WAIT_S / 3)


@pytest.mark.parametrize("event", [None, Full(), DrainWanted()])
def test_record_stays_ahead_in_every_phase_that_may_hold(event: Full | DrainWanted | None) -> None:
    """Requesting, paused and draining hold a stream as much as streaming does."""
    shell = Shell()
    shell.request()
    if event is not None:
        shell.step(StreamOpened())
        shell.step(event)
    shell.advance(WAIT_S)
    assert shell.record is not None
    assert shell.record.written_s >= shell.now - WAIT_S / 6


def test_clean_close_writes_the_true_end() -> None:
    """At a close the true end replaces the one kept ahead."""
    shell = Shell()
    shell.stream(7)
    shell.step(LOST)
    assert shell.record is not None
    assert not shell.record.open
    assert shell.record.held_until_s == shell.now


@pytest.mark.parametrize("outcome", [Outcome.NO_STATUS, Outcome.REDIRECT, Outcome.LOST, Outcome.READER_DIED])
def test_request_that_may_have_held_counts_as_held(outcome: Outcome) -> None:
    """A request that reached the service and got no refusal may have held a stream until its end."""
    shell = Shell()
    shell.request()
    shell.now += 9
    shell.step(closed(outcome))
    assert shell.record is not None
    assert shell.record.held_until_s == shell.now


@pytest.mark.parametrize("outcome", [Outcome.UNREACHED, Outcome.UNTRUSTED, Outcome.STATUS])
def test_request_that_held_nothing_leaves_the_last_end(outcome: Outcome) -> None:
    """A request that cannot have held a stream does not move the last moment one was held."""
    shell = Shell()
    shell.stream(7)
    shell.step(LOST)
    ended_s = shell.now
    shell.request()
    shell.step(closed(outcome, status=500))
    assert shell.record is not None
    assert shell.record.held_until_s == ended_s


def test_short_wait_does_not_undercut_the_floor() -> None:
    """A row with a wait below the floor still waits out the floor after a held stream."""
    shell = Shell()
    shell.stream(7)
    shell.step(LOST)
    shell.now += 1
    shell.settings = replace(shell.settings, wait_s=2 * WAIT_S)
    shell.start()
    assert shell.waited() * 2 * WAIT_S == pytest.approx(2 * WAIT_S - 1)


def test_largest_record_fits_its_slot() -> None:
    """The record with every counter and the longest texts fits a 512-byte slot with room for its frame."""
    record = FloorRecord(
        boot_id=BOOT,
        written_s=1e9 + 0.123,
        held_until_s=1e9 + 0.456,
        not_before_s=1e9 + 0.789,
        open=True,
        cause=max((row.value for row in Row), key=len),
        counters={row.value: 10**6 for row in Row},
        settings="f" * 64,
        written_us=2 * 10**15,
    )
    assert len(msgspec.msgpack.encode(record)) <= 440
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=FloorRecord) == record


def test_recorded_end_as_wall_time() -> None:
    """The end of a connection that a crash left open can be told in wall time."""
    shell = Shell()
    shell.stream(0)
    assert shell.record is not None
    record = stamped(shell.record, 1_000_000_000_000_000)
    assert held_until_us(record) == 1_000_000_000_000_000 + 20_000_000
    assert held_until_us(msgspec.structs.replace(record, held_until_s=None)) == 0


# ---------------------------------------------------------------- a start after a run


def test_clean_stop_counts() -> None:
    """A restart after a clean stop waits out the rest of the floor, and says so."""
    shell = Shell()
    shell.stream(500)
    assert shell.step(DrainWanted()) == (Disconnect(),)
    sync, end = shell.step(DRAINED)
    assert isinstance(sync, SyncRecord)
    assert isinstance(end, Exit)
    assert end.code == ExitCode.DONE
    shell.now += 20
    shell.start()
    assert shell.waited() * WAIT_S == pytest.approx(40)
    assert "goes on: the collector closed its connection" in shell.wait_until().words


def test_clean_stop_long_ago_connects_at_once() -> None:
    """The floor is over: no wait."""
    shell = Shell()
    shell.stream(500)
    shell.step(DrainWanted())
    shell.step(DRAINED)
    shell.now += 500
    shell.actions.clear()
    shell.start()
    assert shell.waited() <= 0
    assert not shell.actions


def test_crash_waits_too_long_never_too_short() -> None:
    """After a crash while streaming: not before the recorded end and the floor."""
    shell = Shell()
    shell.stream(95)
    shell.now += 1
    recorded = shell.record
    assert recorded is not None
    assert recorded.held_until_s is not None
    shell.start()
    assert shell.policy.earliest_s(shell.state) == recorded.held_until_s + WAIT_S


def test_stale_record_of_a_crash_gives_the_full_floor() -> None:
    """A coordinator stopped for long leaves its record stale: the stream may have been held until now."""
    shell = Shell()
    shell.stream(95)
    shell.now += 10 * WAIT_S
    shell.start()
    assert shell.waited() == pytest.approx(1)


def test_crash_loop_waits_once() -> None:
    """Starts that crash while waiting go on with the same wait: no starving, no request too early."""
    shell = Shell()
    shell.stream(95)
    shell.now += 10 * WAIT_S
    shell.start()
    due_s = shell.policy.earliest_s(shell.state)
    while shell.now < due_s - 5:
        shell.now += 5
        shell.start()
        assert shell.policy.earliest_s(shell.state) == due_s
    assert len(shell.sent) == 1


def test_crash_loop_after_a_lost_stream_keeps_the_longer_wait() -> None:
    """A crash does not shorten the wait of the table, nor forget its counter."""
    shell = Shell()
    shell.waits(LOST, 3)
    due_s = shell.policy.earliest_s(shell.state)
    shell.now += 10
    shell.start()
    assert shell.policy.earliest_s(shell.state) == due_s
    assert shell.waits(LOST, 1) == pytest.approx([3])


def test_orphans_give_the_full_floor() -> None:
    """Children of the last run that had to be ended may have held a stream until now."""
    shell = Shell()
    shell.stream(95)
    shell.step(DrainWanted())
    shell.step(DRAINED)
    shell.now += 500
    shell.orphaned = True
    shell.start()
    assert shell.waited() == pytest.approx(1)


def test_reboot_gives_the_full_floor() -> None:
    """Another boot id: the full floor from now, written at once, however old the clean stop is."""
    shell = Shell()
    shell.stream(95)
    shell.step(DrainWanted())
    shell.step(DRAINED)
    shell.boot, shell.now = OTHER_BOOT, 3.0
    shell.start()
    assert shell.policy.earliest_s(shell.state) == 3.0 + WAIT_S
    assert shell.record is not None
    assert shell.record.boot_id == OTHER_BOOT
    shell.now += 30
    shell.start()
    assert shell.policy.earliest_s(shell.state) == 3.0 + WAIT_S


def test_reboot_keeps_a_longer_wait() -> None:
    """A wait of the table that is longer than the floor begins again after a reboot; counters are kept."""
    shell = Shell()
    shell.waits(status(500), 3)
    shell.boot, shell.now = OTHER_BOOT, 3.0
    shell.start()
    assert shell.waited() == pytest.approx(4)
    assert shell.waits(status(500), 1) == pytest.approx([8])


def test_clock_that_went_back_within_a_boot_gives_the_full_floor() -> None:
    """A record from the future of this boot (a restored machine) is not believed."""
    shell = Shell(now=5000)
    shell.stream(95)
    shell.step(LOST)
    shell.now = 100
    shell.start()
    assert shell.policy.earliest_s(shell.state) == 100 + WAIT_S


def test_unreadable_record_gives_the_full_floor() -> None:
    """A floor file without a valid slot: the full floor, loud, and once only."""
    shell = Shell(existed=True)
    assert shell.waited() == pytest.approx(1)
    assert isinstance(shell.last(Loud), Loud)
    shell.now += 30
    shell.start()
    assert shell.waited() == pytest.approx(0.5)


def test_untrusted_wait_is_over_with_other_settings() -> None:
    """Another CA file is another start; a certificate refused before says nothing about it."""
    shell = Shell(ReconnectSettings(WAIT_S, fingerprint="one"))
    shell.waits(closed(Outcome.UNTRUSTED), 1)
    shell.start()
    assert shell.waited() == pytest.approx(15)
    shell.settings = ReconnectSettings(WAIT_S, fingerprint="two")
    shell.start()
    assert shell.waited() <= 0


def test_other_settings_do_not_shorten_the_floor() -> None:
    """Other settings forget the refusal, not the stream held before it."""
    shell = Shell(ReconnectSettings(WAIT_S, fingerprint="one"))
    shell.stream(100)
    shell.step(LOST)
    shell.request()
    shell.step(status(404))
    assert shell.record is not None
    shell.record = msgspec.structs.replace(shell.record, held_until_s=shell.now - 10)
    shell.settings = ReconnectSettings(WAIT_S, fingerprint="two")
    shell.start()
    assert shell.waited() * WAIT_S == pytest.approx(50)
    assert "held shortly before" in shell.wait_until().words


def test_rows_of_a_newer_version_are_left_out() -> None:
    """A record with a row this version does not know still gives its wait."""
    shell = Shell()
    shell.waits(LOST, 1)
    assert shell.record is not None
    shell.record = msgspec.structs.replace(shell.record, counters={"lost": 2, "sunspots": 9})
    shell.start()
    assert shell.state.counters == {Row.LOST: 2}


# ---------------------------------------------------------------- counters


def test_200_does_not_reset_counters() -> None:
    """200 then close, again and again: the waits grow."""
    shell = Shell()
    waits = []
    for _ in range(4):
        shell.stream(1)
        shell.step(LOST)
        waits.append(shell.waited())
    assert waits == pytest.approx([1, 1.5, 2.25, 3])


@pytest.mark.parametrize("ticking", [True, False])
@pytest.mark.parametrize(("seconds", "wait"), [(5 * WAIT_S - 1, 2.25), (5 * WAIT_S, 1)])
def test_healthy_streaming_resets_counters(seconds: float, wait: float, ticking: bool) -> None:
    """Streaming for 5x the floor clears the counters, whether a tick saw it or only the close."""
    shell = Shell()
    shell.waits(LOST, 2)
    shell.stream(0)
    if ticking:
        shell.advance(seconds)
    else:
        shell.now += seconds
    shell.step(LOST)
    assert shell.waited() == pytest.approx(wait)


def test_cleared_counters_become_durable() -> None:
    """A crash after the counters were cleared does not bring them back."""
    shell = Shell()
    shell.waits(status(500), 3)
    shell.stream(6 * WAIT_S)
    assert shell.record is not None
    assert shell.record.counters == {}


def test_paused_time_is_not_healthy() -> None:
    """Time without a flow proves nothing; streaming before and after a pause adds up."""
    shell = Shell()
    shell.waits(LOST, 2)
    shell.stream(3 * WAIT_S)
    shell.step(Full())
    shell.advance(10 * WAIT_S)
    assert shell.state.counters
    shell.step(Room())
    shell.advance(1 * WAIT_S)
    assert shell.state.counters
    shell.advance(1 * WAIT_S)
    assert not shell.state.counters


def test_rows_count_apart() -> None:
    """One counter for each row."""
    shell = Shell()
    shell.waits(status(500), 3)
    assert shell.waits(LOST, 1) == pytest.approx([1])
    assert shell.waits(status(500), 1) == pytest.approx([8])


# ---------------------------------------------------------------- full, drain, reset, token


def test_no_request_while_full() -> None:
    """While there is no room nothing is asked for; with room again, at once."""
    shell = Shell()
    shell.stream(1)
    shell.step(LOST)
    shell.step(Full())
    assert shell.policy.next_tick_s(shell.state) == math.inf
    shell.now += 1000
    assert shell.step(Tick()) == ()
    shell.step(Room())
    assert shell.step(Tick()) == (GetToken(renew=False),)


def test_start_without_room_waits_for_it() -> None:
    """A start whose shell is not ready to take a stream sends nothing before there is room."""
    policy = Policy(ReconnectSettings(WAIT_S))
    state, _ = policy.start(None, existed=False, boot_id=BOOT, now=1.0, full=True)
    assert policy.step(state, Tick(), 2.0, 0.0) == (state, ())
    state, _ = policy.step(state, Room(), 3.0, 0.0)
    assert policy.step(state, Tick(), 3.0, 0.0)[1] == (GetToken(renew=False),)


def test_full_while_the_token_is_got_sends_nothing() -> None:
    """Room is looked at again at the last moment."""
    shell = Shell()
    shell.step(Tick())
    shell.step(Full())
    assert shell.step(TokenReady()) == ()
    assert shell.state.phase is Phase.WAITING
    shell.step(Room())
    shell.request()
    assert len(shell.sent) == 1


def test_stream_that_opens_while_full_is_paused() -> None:
    """Room went away between request and answer."""
    shell = Shell()
    shell.request()
    shell.step(Full())
    shell.step(StreamOpened())
    assert shell.state.phase is Phase.PAUSED


def test_reset_is_sent_once() -> None:
    """The one-shot request goes into one request; nothing else ever sends reset."""
    shell = Shell()
    shell.step(Tick())
    _, send = shell.step(TokenReady(reset="largest"))
    assert send == SendRequest(reset="largest")
    shell.step(status(401))
    _, send = shell.step(TokenReady())
    assert send == SendRequest(reset=None)
    for event in (status(409), LOST, closed(Outcome.REDIRECT), status(503)):
        shell.step(event)
        shell.request()
        assert shell.last(SendRequest) == SendRequest(reset=None)


@pytest.mark.parametrize("after_401", [False, True])
def test_drain_without_a_stream_ends_at_once(after_401: bool) -> None:
    """Waiting or getting a token: there is nothing to close, and the record says so."""
    shell = Shell()
    if after_401:
        shell.request()
        shell.step(status(401))
    sync, end = shell.step(DrainWanted())
    assert isinstance(sync, SyncRecord)
    assert not sync.record.open
    assert isinstance(end, Exit)
    assert end.code == ExitCode.DONE
    assert shell.step(DrainWanted()) == ()
    assert shell.step(Tick()) == ()


def test_late_answer_about_a_token_sends_nothing() -> None:
    """What comes after the end changes nothing."""
    for answer in (
        TokenReady(),
        TokenFailed(TokenFailure.NETWORK, ""),
        TokenFailed(TokenFailure.INVALID_CLIENT, ""),
    ):
        shell = Shell()
        shell.step(Tick())
        shell.step(DrainWanted())
        assert shell.step(answer) == ()
        assert shell.state.phase is Phase.STOPPED


@pytest.mark.parametrize("event", [LOST, status(404), status(401), status(503), closed(Outcome.READER_DIED)])
def test_drain_ends_however_the_request_ends(event: Event) -> None:
    """Told to stop is 0, whatever the service says meanwhile, but its wait is kept for the next start."""
    shell = Shell()
    shell.request()
    shell.step(DrainWanted())
    shell.step(event)
    assert shell.state.phase is Phase.STOPPED
    assert shell.exit().code == ExitCode.DONE
    shell.start()
    assert shell.waited() >= 1


def test_token_failure_after_a_401_keeps_the_retry_waiting() -> None:
    """The new token cannot be had: the row of the token endpoint, then the retry with a new one."""
    shell = Shell()
    shell.request()
    shell.step(status(401))
    shell.step(TokenFailed(TokenFailure.NETWORK, "timed out"))
    assert shell.waited() == pytest.approx(1 / 12)
    shell.advance(WAIT_S / 12)
    assert shell.last(GetToken) == GetToken(renew=True)


def test_wait_is_synced_before_it_is_told() -> None:
    """A wait is durable before anything else happens, so that a crash keeps it."""
    shell = Shell()
    shell.request()
    sync, wait = shell.step(LOST)
    assert isinstance(sync, SyncRecord)
    assert wait == WaitUntil(shell.now + WAIT_S, Row.LOST, shell.state.words)
    assert sync.record.not_before_s == shell.now + WAIT_S


# ---------------------------------------------------------------- the table of transitions

NEVER = [
    *((phase, StreamOpened()) for phase in (Phase.WAITING, Phase.TOKEN, Phase.STREAMING, Phase.PAUSED)),
    *((phase, TokenReady()) for phase in (Phase.WAITING, Phase.REQUESTING, Phase.STREAMING, Phase.DRAINING)),
    *((phase, LOST) for phase in (Phase.TOKEN, Phase.REFUSED, Phase.STOPPED)),
    *((phase, status(401)) for phase in (Phase.WAITING, Phase.STREAMING, Phase.PAUSED)),
    *((phase, status(404)) for phase in (Phase.WAITING, Phase.STREAMING, Phase.PAUSED)),
]


@pytest.mark.parametrize(("phase", "event"), NEVER)
def test_unknown_pairs_are_a_defect(phase: Phase, event: Event) -> None:
    """An event that cannot come in a phase is our own mistake, and says which."""
    policy = Policy(ReconnectSettings(WAIT_S))
    state = State(phase=phase, since_s=0, boot_id=BOOT, held_s=None, not_before_s=0, row=None, words="")
    with pytest.raises(ProtocolError, match=phase.value):
        policy.step(state, event, 1.0, 0.0)
