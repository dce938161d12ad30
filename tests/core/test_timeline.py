"""The timeline: every connection and gap that the ledger knew, in the words of its rules."""

from __future__ import annotations

from collector.core.entries import ConnectionClosed, ConnectionOpened, GapSeen, Made
from collector.core.ledger import LogState
from collector.core.messages import Closed, Outcome
from collector.core.status import Stretch
from collector.core.timeline import MOST_STRETCHES, Timeline

S_US = 1_000_000
NOW_US = 1_000 * S_US


def ledger(*entries) -> LogState:
    state = LogState()
    for number, entry in enumerate((Made("0" * 16, "web", "web", 0), *entries), 1):
        state.fold(number, entry)
    return state


def opened(number: int, at_s: int, *, wait_s: int = 0, reset: bool = False) -> ConnectionOpened:
    return ConnectionOpened(number, at_s * S_US, wait_s * S_US, {}, number - 1, reset)


def closed(number: int, at_s: int, outcome: Outcome = Outcome.LOST, records: int = 5) -> ConnectionClosed:
    return ConnectionClosed(Closed(number, outcome, "cut", at_s * S_US, records=records), 0)


def told(*entries, earlier=()) -> list[tuple]:
    timeline = Timeline(earlier)
    timeline.look(ledger(*entries), NOW_US)
    return [
        (at.kind, at.number, at.began_us // S_US, at.ended_us // S_US, at.suspected)
        for at in timeline.stretches()
    ]


def test_an_open_connection_has_no_end():
    """And nothing is a gap before the first."""
    assert told(opened(1, 100)) == [("connection", 1, 100, 0, "")]


def test_a_gap_that_lasts_is_shown_while_it_lasts():
    """As it seems by its own rules: the longer, the likelier."""
    lost = (opened(1, 100), closed(1, 900))
    assert told(*lost)[1] == ("gap", 2, 900, 0, "possible")
    assert told(opened(1, 100), closed(1, 600))[1] == ("gap", 2, 600, 0, "likely")
    assert told(opened(1, 100), closed(1, 900, Outcome.ENDED))[1] == ("gap", 2, 900, 0, "no")


def test_a_gap_is_over_with_the_next_connection_and_keeps_its_verdict():
    """What the ledger says once it is judged counts."""
    entries = (opened(1, 100), closed(1, 800), opened(2, 870, wait_s=70))
    assert told(*entries)[1] == ("gap", 2, 800, 870, "possible")
    judged = GapSeen(1, 800 * S_US, 870 * S_US, "lost", "cut", "no", "12 resends show it")
    assert told(*entries, judged)[1] == ("gap", 2, 800, 870, "no")
    assert told(opened(1, 100), closed(1, 800), opened(2, 870, reset=True))[1][4] == "likely"


def test_what_the_journal_lost_is_a_gap_of_its_own():
    """Beside the connection it lies in."""
    lost = GapSeen(1, 300 * S_US, 310 * S_US, "journal_lost", "", "likely", "gone", lost=True)
    assert told(opened(1, 100), lost) == [("connection", 1, 100, 0, ""), ("gap", 1, 300, 310, "likely")]


def test_what_the_ledger_forgets_is_kept():
    """As far as there is room: the newest."""
    timeline = Timeline([Stretch(kind="connection", number=1, began_us=1, ended_us=2)])
    timeline.look(ledger(opened(2, 100)), NOW_US)
    timeline.look(ledger(opened(3, 200)), NOW_US)
    assert [at.number for at in timeline.stretches()] == [1, 2, 3]
    for number in range(4, 300):
        timeline.look(ledger(opened(number, number * 100)), NOW_US)
    assert len(timeline.stretches()) == MOST_STRETCHES
    assert timeline.stretches()[-1].number == 299


def test_what_an_earlier_run_left_open_is_not_taken_over():
    """The ledger knows how it ended."""
    assert told(opened(2, 100), earlier=[Stretch(kind="connection", number=1, began_us=1)]) == [
        ("connection", 2, 100, 0, "")
    ]


def test_a_clock_that_went_back_gives_no_negative_stretch():
    """It ends where it began."""
    assert ("connection", 1, 500, 500, "") in told(opened(1, 500), closed(1, 400))
