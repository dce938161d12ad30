"""The journal's segments: bounded, recycled, never freed while they hold an uncommitted block."""

from __future__ import annotations

from collector.core.messages import Block
from collector.core.segments import Segments


def block(seq: int, segment: int) -> Block:
    return Block(seq, segment, 0, 10, 1, 1, 0, 0, 0)


def segments(**changes) -> Segments:
    return Segments(**{"segment_bytes": 100, "max_bytes": 300, "next_segment": 1, **changes})


def wanting(**changes) -> Segments:
    return segments(wanted=True, **changes)


def test_nothing_is_granted_that_was_not_asked_for():
    """Credit is given on request only."""
    assert segments().grant(10_000, 0) is None


def test_grants_stop_at_the_bound_and_go_on_after_a_commit():
    """The journal never grows past ``max_bytes``; freed segments are recycled."""
    journal = wanting()
    for seq in (1, 2, 3):
        journal.wanted = True
        grant = journal.grant(10_000, 0)
        assert grant is not None
        assert (grant.segment, grant.recycled) == (seq, None)
        journal.accepted(block(seq, grant.segment))
    journal.wanted = True
    assert journal.grant(10_000, 0) is None
    assert journal.committed(1).keep == (1,)
    grant = journal.grant(10_000, 0)
    assert grant is not None
    assert (grant.segment, grant.recycled) == (4, 1)


def test_the_disk_reserve_counts_for_new_segments_only():
    """Recycling takes no room on the disk, so it goes on below the reserve."""
    assert wanting().grant(150, 100) is None
    assert wanting(free=[9]).grant(100, 100) is not None


def test_the_segment_being_written_is_not_freed():
    """Its last block may be committed while the reader still writes to it."""
    journal = segments()
    journal.accepted(block(1, 1))
    assert journal.committed(1).keep == ()
    assert journal.committed(1, all_read=True).keep == (1,)


def test_a_segment_with_an_uncommitted_block_is_not_freed():
    """Segments are free only when every block in them is committed."""
    journal = segments()
    for seq, segment in ((1, 1), (2, 1), (3, 2)):
        journal.accepted(block(seq, segment))
    assert journal.committed(1).keep == ()
    assert journal.committed(2).keep == (1,)


def test_more_free_segments_than_are_kept_are_deleted():
    """An idle collector does not hold the journal's high-water mark on disk."""
    journal = segments(max_bytes=1000)
    for seq in range(1, 7):
        journal.accepted(block(seq, seq))
    freed = journal.committed(5)
    assert (freed.keep, freed.delete) == ((1, 2), (3, 4, 5))


def test_a_refused_segment_is_wanted_again():
    """A full disk at the moment of making it is waited out."""
    journal = wanting()
    grant = journal.grant(10_000, 0)
    assert grant is not None
    journal.refused(grant.segment)
    assert journal.wanted
    assert journal.used_bytes == 0
