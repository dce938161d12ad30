"""What a run stands on: whose state folder it is, and what a crash left in it."""

from __future__ import annotations

import pytest

from collector.coordinator.foundation import lay_foundation
from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    GapSeen,
    Intent,
)
from collector.core.messages import Closed, Outcome, Totals
from collector.errors import ConfigurationError, InUseError
from collector.settings import Purpose, load_settings
from collector.storage.fs import DISK
from collector.storage.journal import JournalWriter
from collector.storage.layout import StateFolder

URL = "http://127.0.0.1:1/api/1/stream/shop"


def settings(folder, url=URL, **options):
    return load_settings(
        Purpose.RUN, options={"stream.url": url, "output.folder": str(folder / "output"), **options}
    )


def accept(state: StateFolder, connection: int, blocks: int, journal=None) -> None:
    """Durable blocks of a connection, as a reader leaves them."""
    journal = JournalWriter(DISK, journal or state.journal, next_seq=1, segment_bytes=1 << 20)
    journal.add_segment(1)
    for number in range(blocks):
        journal.append(
            b'{"a":1}\n',
            records=1,
            connection=connection,
            flags=0,
            collected_at_us=1000 + number,
            held_us=number,
        )
    journal.sync()
    journal.close()


def test_blocks_of_a_connection_the_log_never_heard_of_keep_their_number(tmp_path):
    """The reader was faster than the log: the connection is entered, its number not used again."""
    with lay_foundation(settings(tmp_path)) as fresh:
        assert fresh.ledger.next_connection == 1
        accept(fresh.state, connection=1, blocks=3)
    with lay_foundation(settings(tmp_path)) as again:
        connection = again.ledger.connections[1]
        assert connection.opened is not None
        assert connection.opened.opened_us == 1000
        assert connection.closed is not None
        assert connection.closed.records == 3
        assert again.ledger.next_connection == 2
        assert again.accepted_records == 3
        assert [block.seq for block in again.journal_found.blocks] == [1, 2, 3]


def test_a_state_folder_is_of_one_stream(tmp_path):
    """Another name or another last path segment is refused; another host is not another stream."""
    with lay_foundation(settings(tmp_path)):
        pass
    state = {"state.folder": str(tmp_path / "output/.state/shop")}
    with (
        pytest.raises(ConfigurationError, match="'shop'"),
        lay_foundation(settings(tmp_path, **state, **{"stream.name": "other"})),
    ):
        pass
    with (
        pytest.raises(ConfigurationError, match="'shop'"),
        lay_foundation(settings(tmp_path, URL + "-2", **state, **{"stream.name": "shop"})),
    ):
        pass
    with lay_foundation(settings(tmp_path, URL.replace("127.0.0.1", "localhost"))):
        pass


def test_a_folder_in_use_is_refused(tmp_path):
    """One collector at a time."""
    with lay_foundation(settings(tmp_path)), pytest.raises(InUseError), lay_foundation(settings(tmp_path)):
        pass


def test_a_refusal_is_remembered_by_all_that_it_may_be_about(tmp_path):
    """The fingerprint changes with stream, authentication and TLS settings, not with how parts are cut."""
    prints = []
    for options in ({}, {"parts.max_age_s": "5"}, {"stream.max_connections": "2"}):
        with lay_foundation(settings(tmp_path, **options)) as foundation:
            prints.append(foundation.fingerprint)
    assert prints[0] == prints[1] != prints[2]


# ---------------------------------------------------------------- journals


MEMORY = {
    "journal.durability": "memory",
    "journal.segment_bytes": "1 MiB",
    "journal.max_record_bytes": "65536",
}


@pytest.fixture
def in_memory(tmp_path):
    """Settings with the journal in /dev/shm, which is gone after the test."""
    journals = []

    def lay():
        return lay_foundation(settings(tmp_path, **MEMORY))

    yield lay, journals
    for journal in journals:
        if journal.exists():
            DISK.remove_folder(journal)


def test_a_journal_that_went_with_the_memory_is_told(tmp_path, in_memory):
    """An unknown loss, and a row of ``connections`` for the time since the newest committed block."""
    lay, journals = in_memory
    with lay() as fresh:
        journals.append(fresh.journal)
        append(fresh, ConnectionOpened(1, 1000, 0, {}, 0))
        block = BlockCount(1, 1, 1, 1, 0, 0, 5000)
        append(fresh, Intent(1, 1, (), (block,), Totals(), (0, 0)), Committed(1, 1, 6000))
    DISK.remove_folder(journals[0])  # as a restart of the host does
    with lay() as again:
        assert (again.journal_found.next_seq, again.ledger.lost_blocks) == (2, 0)
        (gap,) = again.ledger.gaps.values()
        assert (gap.connection, gap.began_us, gap.lost, gap.suspected) == (1, 5000, True, "likely")
        assert "blocks after block 1 may have been accepted" in gap.detail
    with lay() as once_more:
        assert len(once_more.ledger.gaps) == 1


@pytest.mark.parametrize("to", ["memory", "disk"])
def test_blocks_under_the_other_durability_are_not_forgotten(tmp_path, in_memory, to):
    """The setting is refused while blocks lie in the other journal, and taken once they are committed."""
    _, journals = in_memory
    before, after = (settings(tmp_path), settings(tmp_path, **MEMORY))
    if to == "disk":
        before, after = after, before
    with lay_foundation(before) as first:
        journals.append(first.journal if to == "disk" else tmp_path / "none")
        accept(first.state, connection=1, blocks=2, journal=first.journal)
    with (
        pytest.raises(ConfigurationError, match="start and drain once with that setting"),
        lay_foundation(after),
    ):
        pass
    with lay_foundation(before) as drained:
        blocks = tuple(BlockCount(seq, 1, 1, 1, 0, 0, 5) for seq in (1, 2))
        append(drained, Intent(1, 2, (), blocks, Totals(), (0, 0)), Committed(1, 2, 9))
    with lay_foundation(after) as changed:
        journals.append(changed.journal if to == "memory" else tmp_path / "none")
        assert changed.journal_found.next_seq == 3
    assert not journals[0].exists()


def test_a_forgotten_connection_is_not_opened_again(tmp_path):
    """All rows of it are written; a block of it that a clock left behind does not begin it anew."""
    with lay_foundation(settings(tmp_path)) as fresh:
        accept(fresh.state, connection=1, blocks=1)
        hour = 3_600_000_000
        for number in (1, 2):
            append(fresh, ConnectionOpened(number, number * hour, 0, {}, number - 1))
            append(fresh, ConnectionClosed(Closed(number, Outcome.ENDED, "", number * hour + 1), 0))
        append(fresh, GapSeen(1, 1, 2, "ended", "", "no", ""))
        entry = fresh.ledger.last_entry
        append(fresh, ConnectionsIntent(1, entry, (), ((1, hour), (2, 2 * hour)), (entry,)))
        append(fresh, ConnectionsCommitted(1, entry))
        assert fresh.ledger.forgotten_connection == 1
    with lay_foundation(settings(tmp_path)) as again:
        assert list(again.ledger.connections) == [2]


def append(foundation, *entries):
    for entry in entries:
        foundation.ledger.fold(foundation.commit_log.append(entry), entry)
