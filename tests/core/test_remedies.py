"""Words for people: nothing the service can say is without them."""

from __future__ import annotations

import pytest
from reconnect_shell import closed, status

from collector.core.messages import Outcome
from collector.core.reconnect_table import STATUS_ROWS, Row
from collector.core.remedies import (
    OUTCOMES,
    ROWS,
    STATUSES,
    TOKENS,
    Remedy,
    TokenFailure,
    closed_in_words,
    for_closed,
    for_status,
    token_in_words,
)

ALL = [*STATUSES.values(), *OUTCOMES.values(), *TOKENS.values()]


def test_nothing_is_without_words() -> None:
    """Every documented status, outcome, token failure and row has its words."""
    assert set(STATUSES) == {302, 400, 401, 403, 404, 405, 406, 409, 424, 429, 500, 503, 505}
    assert set(STATUS_ROWS) <= set(STATUSES)
    assert set(OUTCOMES) == set(Outcome)
    assert set(TOKENS) == set(TokenFailure)
    assert set(ROWS) == set(Row)


@pytest.mark.parametrize("remedy", ALL, ids=lambda remedy: remedy.means)
def test_words_make_sentences(remedy: Remedy) -> None:
    """What it means goes on into a sentence; causes are named; what to do is whole sentences."""
    assert remedy.means[0].islower()
    assert not remedy.means.endswith(".")
    assert remedy.causes
    assert remedy.do[0].isupper()
    assert remedy.do.endswith(".")


@pytest.mark.parametrize("code", list(STATUSES))
def test_status_is_named(code: int) -> None:
    """The number is in the words, so that it can be searched for."""
    assert f"({code})" in for_status(code).means


def test_unknown_status_is_named() -> None:
    """A status nobody documented is told with its number too."""
    assert "(599)" in closed_in_words(status(599))


def test_what_the_service_said_is_quoted() -> None:
    """``error_description`` comes before our own detail."""
    assert '"too many"' in closed_in_words(status(409, error_description="too many"))
    assert for_closed(closed(Outcome.LOST)) is OUTCOMES[Outcome.LOST]
    assert '"timed out"' in token_in_words(TokenFailure.NETWORK, "timed out")


def test_reset_is_named_as_a_loss() -> None:
    """Nobody is told to send reset without being told what it costs."""
    assert "can lose data" in STATUSES[503].do
