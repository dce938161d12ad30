"""Every line of the reconnect table, through the policy."""

from __future__ import annotations

import math

import pytest
from reconnect_shell import WAIT_S, Shell, closed, status

from collector.core.messages import Outcome
from collector.core.reconnect import ReconnectSettings
from collector.core.reconnect_events import (
    Event,
    Exit,
    GetToken,
    Loud,
    SendRequest,
    SyncRecord,
    TokenFailed,
    TokenReady,
)
from collector.core.reconnect_table import (
    JITTER,
    LONGEST_RETRY_AFTER_S,
    STATUS_ROWS,
    TRANSITIONS,
    WAITS,
    Phase,
    Row,
    Signal,
    row_of,
    wait_for,
)
from collector.core.remedies import TokenFailure
from collector.errors import ExitCode

NO_TOKEN = TokenFailed(TokenFailure.NETWORK, "timed out")


@pytest.mark.parametrize(
    "outcome", [Outcome.LOST, Outcome.ENDED, Outcome.STALLED, Outcome.NO_STATUS, Outcome.READER_DIED]
)
def test_lost_stream_waits_within_the_backfill(outcome: Outcome) -> None:
    """A lost stream, or no status: 1x, then x1.5 to 3x."""
    assert Shell().waits(closed(outcome), 5) == pytest.approx([1, 1.5, 2.25, 3, 3])


@pytest.mark.parametrize("code", [409, 503])
def test_busy_waits_within_the_backfill(code: int) -> None:
    """409 and 503: 1x, x1.5 to 3x."""
    assert Shell().waits(status(code), 5) == pytest.approx([1, 1.5, 2.25, 3, 3])


def test_409_and_503_share_a_counter() -> None:
    """One counter for each row of the table, not for each status."""
    shell = Shell()
    shell.waits(status(409), 2)
    assert shell.waits(status(503), 1) == pytest.approx([2.25])


def test_not_ready_after_five_busy_answers_in_a_row() -> None:
    """Five answers of 409 or 503 in a row: not ready, and loud, until a stream opens."""
    shell = Shell()
    shell.waits(status(409), 4)
    assert not shell.state.refused_too_often
    shell.waits(status(503), 1)
    assert shell.state.refused_too_often
    assert "close it, or wait" not in shell.wait_until().words  # it is the 503 that speaks
    assert any(isinstance(action, Loud) for action in shell.actions)
    shell.stream(1)
    assert not shell.state.refused_too_often


def test_409_says_what_to_do() -> None:
    """The wait after a 409 carries the remedy in words, and what the service said."""
    shell = Shell()
    shell.waits(status(409, error_description="maxConnections differ"), 1)
    words = shell.wait_until().words
    assert "another client is connected (409)" in words
    assert "maxConnections differ" in words
    assert "close it, or wait" in words


@pytest.mark.parametrize("code", [500, 502, 504, 418, 204, 304, 402, 599])
def test_other_statuses_double(code: int) -> None:
    """500 and every status not named: 1x, x2 to 15x."""
    assert Shell().waits(status(code), 6) == pytest.approx([1, 2, 4, 8, 15, 15])


@pytest.mark.parametrize("code", [401, 403])
def test_refused_token_is_renewed_and_tried_at_once(code: int) -> None:
    """401, 403: a new token and one retry at once, part of the same attempt."""
    shell = Shell()
    shell.request()
    assert shell.step(status(code)) == (GetToken(renew=True),)
    shell.now += 0.5
    sync, send = shell.step(TokenReady())
    assert isinstance(sync, SyncRecord)
    assert send == SendRequest(reset=None)
    assert shell.sent == [1000.0, 1000.5]


@pytest.mark.parametrize("code", [401, 403])
def test_token_refused_twice_doubles(code: int) -> None:
    """401, 403 after the retry: 1x, x2 to 15x, each with a new token."""
    shell = Shell()
    shell.request()
    shell.step(status(code))
    waits = shell.waits(status(code), 6)
    assert waits == pytest.approx([1, 2, 4, 8, 15, 15])
    assert shell.state.token_refused


def test_retry_at_once_is_there_again_after_another_answer() -> None:
    """The retry is one for each spell of 401 and 403: any other answer ends the spell."""
    shell = Shell()
    shell.request()
    shell.step(status(401))
    shell.waits(status(401), 1)
    shell.waits(status(503), 1)
    shell.request()
    assert shell.step(status(401)) == (GetToken(renew=True),)


def test_retry_after_on_a_401_is_obeyed() -> None:
    """With a ``Retry-After`` nothing is retried at once."""
    shell = Shell()
    assert shell.waits(status(401, retry_after_s=300.0), 1) == pytest.approx([5])
    assert shell.state.token_refused


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("on_refusal", ["exit", "retry"])
def test_static_token_refused_ends_at_once(code: int, on_refusal: str) -> None:
    """401, 403 with a static token: exit 3 at once."""
    settings = ReconnectSettings(WAIT_S, on_refusal=on_refusal, static_token=True)  # type: ignore[arg-type]
    shell = Shell(settings)
    shell.request()
    shell.step(status(code))
    assert shell.exit().code == ExitCode.REFUSED
    assert shell.state.phase is Phase.REFUSED
    assert len(shell.sent) == 1


def test_unreached_token_endpoint_waits_briefly() -> None:
    """Token endpoint, network or 5xx: 1/12x, x2 to 1x."""
    shell = Shell()
    waits = []
    for _ in range(6):
        shell.advance(shell.waited() * WAIT_S)
        assert shell.state.phase is Phase.TOKEN
        shell.step(NO_TOKEN)
        waits.append(shell.waited())
    assert waits == pytest.approx([1 / 12, 1 / 6, 1 / 3, 2 / 3, 1, 1])
    assert not shell.sent


@pytest.mark.parametrize("on_refusal", ["exit", "retry"])
def test_invalid_client_ends(on_refusal: str) -> None:
    """Token endpoint, invalid client: exit 3."""
    shell = Shell(ReconnectSettings(WAIT_S, on_refusal=on_refusal))  # type: ignore[arg-type]
    shell.advance(0)
    shell.step(TokenFailed(TokenFailure.INVALID_CLIENT, "invalid_client"))
    assert shell.exit().code == ExitCode.REFUSED
    assert "LIVESTREAM_CLIENT_SECRET" in shell.exit().words


def test_untrusted_token_endpoint_waits_long() -> None:
    """A certificate that is not trusted is the same thing at the token endpoint: 15x, loud."""
    shell = Shell()
    shell.advance(0)
    shell.step(TokenFailed(TokenFailure.UNTRUSTED, "self-signed"))
    assert shell.waited() == pytest.approx(15)
    assert isinstance(shell.last(Loud), Loud)


def test_unreached_waits_briefly() -> None:
    """DNS, refused, unreachable, TLS cut short: 1/12x, x2 to 1x."""
    waits = Shell().waits(closed(Outcome.UNREACHED), 6)
    assert waits == pytest.approx([1 / 12, 1 / 6, 1 / 3, 2 / 3, 1, 1])


def test_untrusted_waits_long_and_is_loud() -> None:
    """Certificate not trusted: 15x every time, loud."""
    shell = Shell()
    assert shell.waits(closed(Outcome.UNTRUSTED), 3) == pytest.approx([15, 15, 15])
    assert sum(isinstance(action, Loud) for action in shell.actions) == 3


def test_redirect_that_fails_doubles() -> None:
    """A redirect that is forbidden, loops, leads nowhere or fails: 1x, x2 to 15x."""
    assert Shell().waits(closed(Outcome.REDIRECT), 6) == pytest.approx([1, 2, 4, 8, 15, 15])


def test_throttled_doubles_without_retry_after() -> None:
    """429 without ``Retry-After``: 1x, x2 to 15x."""
    assert Shell().waits(status(429), 6) == pytest.approx([1, 2, 4, 8, 15, 15])


@pytest.mark.parametrize(
    ("event", "wait_s"),
    [
        (status(429, retry_after_s=600.0), 600),
        (status(429, retry_after_s=5.0), 60),
        (status(429, retry_after_s=0.0), 60),
        (status(429, retry_after_s=1e12), 3600),
        (status(429, retry_after_s=math.inf), 3600),
        (status(429, retry_after_s=math.nan), 60),
        (status(503, retry_after_s=120.0), 120),
        (status(409, retry_after_s=1.0), 60),
        (status(500, retry_after_s=90.0), 90),
        (closed(Outcome.REDIRECT, retry_after_s=90.0), 90),
    ],
)
def test_retry_after_is_the_larger_of_it_and_the_rule(event: Event, wait_s: float) -> None:
    """429 or any ``Retry-After``: the larger of it and the rule, at most 3600 s."""
    assert Shell().waits(event, 1) == pytest.approx([wait_s / WAIT_S])


def test_retry_after_from_the_token_endpoint_is_obeyed() -> None:
    """Any ``Retry-After`` counts, the token endpoint's too."""
    shell = Shell()
    shell.advance(0)
    shell.step(TokenFailed(TokenFailure.NETWORK, "429", retry_after_s=120.0))
    assert shell.waited() == pytest.approx(2)


def test_long_rule_is_not_cut_by_the_limit_on_retry_after() -> None:
    """The 3600 s limit what the service asks for; they never shorten the rule."""
    shell = Shell(ReconnectSettings(600.0))
    assert shell.waits(closed(Outcome.UNTRUSTED, retry_after_s=1e9), 1) == pytest.approx([15])


@pytest.mark.parametrize("code", [400, 404, 405, 406, 424, 505])
def test_refusals_end(code: int) -> None:
    """400, 404, 405, 406, 424, 505: exit 3 with the status, what the service said, and the remedy."""
    shell = Shell()
    shell.request()
    sync, end = shell.step(status(code, error_description="no such thing"))
    assert isinstance(sync, SyncRecord)
    assert isinstance(end, Exit)
    assert end.code == ExitCode.REFUSED
    assert f"({code})" in end.words
    assert "no such thing" in end.words
    assert shell.policy.next_tick_s(shell.state) == math.inf


@pytest.mark.parametrize("code", [400, 404, 405, 406, 424, 505])
def test_refusals_are_retried_on_request(code: int) -> None:
    """``on_refusal = "retry"``: every 15x."""
    shell = Shell(ReconnectSettings(WAIT_S, on_refusal="retry"))
    assert shell.waits(status(code), 3) == pytest.approx([15, 15, 15])


def test_refused_settings_wait_longer_from_the_second_time() -> None:
    """Started again with the same settings after exit 3: 1x first, 15x from the second time."""
    shell = Shell(ReconnectSettings(WAIT_S, fingerprint="one"))
    waits = []
    for _ in range(4):
        shell.request()
        shell.step(status(404))
        assert shell.state.phase is Phase.REFUSED
        shell.now += 1
        shell.start()
        waits.append(shell.waited() * WAIT_S + 1)
    assert waits == pytest.approx([60, 900, 900, 900])


def test_other_settings_do_not_wait_for_a_refusal() -> None:
    """Started again with other settings, a refusal is forgotten, and so is its counter."""
    shell = Shell(ReconnectSettings(WAIT_S, fingerprint="one"))
    for fingerprint in ("one", "two", "three"):
        shell.settings = ReconnectSettings(WAIT_S, fingerprint=fingerprint)
        shell.start()
        assert shell.waited() <= 0
        shell.request()
        shell.step(status(404))
    shell.start()
    assert shell.waited() == pytest.approx(1)


def test_a_clean_stop_waits_once() -> None:
    """Closed by ourselves: 1x, however often."""
    assert Shell().waits(closed(Outcome.DRAINED), 3) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("row", list(Row))
def test_every_row_has_bounded_waits(row: Row) -> None:
    """However often a row is hit, its wait is between its first and its cap, and jitter only adds."""
    for count in (0, 1, 2, 5, 100, 10**6):
        least = wait_for(row, count, WAIT_S, 0.0)
        assert WAITS[row].first * WAIT_S <= least <= WAITS[row].cap * WAIT_S
        assert least <= wait_for(row, count, WAIT_S, 0.999) <= least * (1 + JITTER)


def test_jitter_keeps_retry_after_within_its_limit() -> None:
    """Jitter is added to what the service asked for, but not beyond the limit."""
    assert wait_for(Row.THROTTLED, 0, WAIT_S, 0.5, 1000.0) == pytest.approx(1050)
    assert wait_for(Row.THROTTLED, 0, WAIT_S, 0.5, 3500.0) == LONGEST_RETRY_AFTER_S


def test_every_outcome_has_a_row() -> None:
    """Nothing a reader can report is without a rule."""
    for outcome in Outcome:
        for code in range(100, 600) if outcome is Outcome.STATUS else (0,):
            assert row_of(closed(outcome, status=code)) in WAITS
    assert set(WAITS) == set(Row)
    assert set(STATUS_ROWS.values()) <= set(Row)


def test_every_phase_has_its_transitions() -> None:
    """The table is complete: every phase is in it, every signal is used, every phase can be reached."""
    assert set(TRANSITIONS) == set(Phase)
    assert {signal for row in TRANSITIONS.values() for signal in row} == set(Signal)
    reached = {Phase.WAITING}
    for _ in Phase:
        reached |= {target for phase in reached for target in TRANSITIONS[phase].values()}
    assert reached == set(Phase)
