"""What the log makes ready to go: each delivery once, in order, and where to begin again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.entries import (
    Committed,
    ConnectionsCommitted,
    ConnectionsIntent,
    ConnectionsVoid,
    Intent,
    Made,
    Note,
    Retired,
    ShareStaged,
    Void,
)
from collector.core.messages import FileKind, StagedFile, Totals
from collector.core.shipping import (
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    SHIP_FAILURES,
    Deliveries,
    ShipFailure,
    retry_delay_s,
)


def file(kind: FileKind, number: int) -> StagedFile:
    return StagedFile(kind, "", f"{kind}/part-{number}.parquet", 10, b"h" * 32, 1)


def batch(first: int, last: int) -> list:
    files = tuple(file(kind, first) for kind in (FileKind.HITS, FileKind.IDS, FileKind.RESENDS))
    intent = Intent(first, last, (ShareStaged(1, 1, 0, 0, files),), (), Totals(), (0, 0))
    return [intent, Committed(first, last, first * 100)]


def rows(first: int, last: int) -> list:
    files = (file(FileKind.CONNECTIONS, first),)
    return [ConnectionsIntent(first, last, files, (), ()), ConnectionsCommitted(first, last)]


def fed(entries, begin=1, deliveries=None):
    deliveries = deliveries or Deliveries()
    numbered = enumerate(entries, begin)
    found = [deliveries.fold(number, entry) for number, entry in numbered]
    return [delivery for delivery in found if delivery is not None]


def test_a_delivery_is_what_was_committed_and_is_visible():
    """Ids and resends stay in the state folder; what was only decided is not there yet."""
    found = fed([Made("i", "s", "s", 1), *batch(1, 4), Note("k", "t"), *batch(5, 5)[:1]])
    assert [(each.entry, each.begun, each.first, each.last) for each in found] == [(3, 2, 1, 4)]
    assert [each.kind for each in found[0].files] == [FileKind.HITS]
    assert (found[0].at_us, found[0].size, found[0].is_batch) == (100, 10, True)


def test_what_was_undone_never_goes_out():
    """VOID takes the batch back, and its rows of connections likewise."""
    undone = [batch(1, 4)[0], Void(1, 4, "r", 1), rows(2, 3)[0], ConnectionsVoid(2, 3, "r", 1)]
    assert fed([*undone, Committed(1, 4, 1), ConnectionsCommitted(2, 3)]) == []
    assert [each.last for each in fed([*undone, *batch(1, 9)])] == [9]


@given(st.data())
def test_reading_from_where_it_is_told_to_misses_nothing(data):
    """Wherever a batch and rows of connections are interleaved: the rest comes, whole."""
    entries, batches, lines = [], [], []
    for number in range(data.draw(st.integers(1, 5))):
        batches += batch(number * 10 + 1, number * 10 + 9)
        lines += rows(number + 1, number + 1)
    queues = [batches, lines, [Retired((), "r", (), 1)] * 3]
    while any(queues):
        queue = data.draw(st.sampled_from([each for each in queues if each]))
        entries.append(queue.pop(0))
    everything = fed(entries)
    stop = data.draw(st.integers(0, len(entries)))
    deliveries = Deliveries()
    before = fed(entries[:stop], deliveries=deliveries)
    begin = deliveries.begin(stop)
    after = [each for each in fed(entries[begin - 1 :], begin) if each.entry > stop]
    known = {each.entry: each for each in [*before, *after]}
    assert [(each.entry, each.files) for each in known.values()] == [
        (each.entry, each.files) for each in everything
    ]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_retries_wait_longer_up_to_a_bound(failures, chance):
    """Chance only adds, so that many collectors do not come at once."""
    delay = retry_delay_s(failures, chance)
    assert FIRST_RETRY_S <= delay <= LONGEST_RETRY_S * 1.25
    assert retry_delay_s(failures + 1, chance) >= delay


@pytest.mark.parametrize("failure", ShipFailure)
def test_every_failure_has_its_words(failure):
    assert SHIP_FAILURES[failure].do.endswith(".")
