"""What a run stands on: whose state folder it is, and what a crash left in it."""

from __future__ import annotations

import pytest

from collector.coordinator.foundation import lay_foundation
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


def accept(state: StateFolder, connection: int, blocks: int) -> None:
    """Durable blocks of a connection, as a reader leaves them."""
    journal = JournalWriter(DISK, state.journal, next_seq=1, segment_bytes=1 << 20)
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
