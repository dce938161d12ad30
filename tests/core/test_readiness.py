"""Ready, or every reason why not."""

from __future__ import annotations

import pytest

from collector.core.connection import ConnectionState, ConnectionView
from collector.core.messages import BlockDone
from collector.core.readiness import not_ready
from collector.core.rejects import RejectsWatch


def view(state: ConnectionState, *, ready: bool = True) -> ConnectionView:
    return ConnectionView(state, 0.0, "the cause", ready=ready)


def alarmed() -> RejectsWatch:
    watch = RejectsWatch()
    watch.block_done(0.0, BlockDone(1, 0, 0, 100, 0, 0, (), 0, {"not json": 100}))
    return watch


@pytest.mark.parametrize(
    "state", [ConnectionState.STREAMING, ConnectionState.WAITING, ConnectionState.REQUESTING]
)
def test_streaming_and_waiting_out_the_floor_is_the_work(state):
    """A disconnect that is waited out makes nobody get up."""
    assert not_ready(view(state), rejects=RejectsWatch(), journal_full=False) == []


def test_no_connection_is_needed_for_saved_files():
    """``decode`` has none."""
    assert not_ready(None, rejects=RejectsWatch(), journal_full=False) == []


@pytest.mark.parametrize(
    ("connection", "reason"),
    [
        (view(ConnectionState.STARTING), "starting: the cause"),
        (view(ConnectionState.REFUSED), "refused: the cause"),
        (view(ConnectionState.WAITING, ready=False), "waiting: the cause"),
    ],
)
def test_recovery_and_refusals_are_named_with_their_cause(connection, reason):
    """Recovery, a refusal for good, and being refused again and again."""
    assert not_ready(connection, rejects=RejectsWatch(), journal_full=False) == [reason]


def test_every_reason_is_given_at_once():
    """A full journal and the rejects do not hide each other, and both are in words."""
    full, rejects = not_ready(view(ConnectionState.STREAMING), rejects=alarmed(), journal_full=True)
    assert "no room" in full
    assert rejects.startswith("100.0 % of the records")
    assert "not json (100)" in rejects
