"""How far shipping is, as others read it: what has not gone out yet must stay."""

from __future__ import annotations

import pytest

from collector.core.messages import FileKind
from collector.errors import DamagedError, InUseError
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder, part_path
from collector.storage.shipped import (
    ShipProgress,
    must_stay,
    read_progress,
    ship_folder,
    shipping_lock,
    write_progress,
)

URL = "s3://lake/raw"
PROGRESS = ShipProgress(url=URL, block=20, rows_entry=7)


def path(kind=FileKind.HITS, last=20):
    return part_path(kind, "s", "00112233445566ff", first=1, last=last, share=1, hour=490_000)


@pytest.fixture
def state(tmp_path):
    return StateFolder(tmp_path)


def test_it_is_read_back_as_it_was_written(state):
    with shipping_lock(DISK, state):
        assert read_progress(DISK, state) is None
        write_progress(DISK, state, PROGRESS)
        assert read_progress(DISK, state) == PROGRESS


def test_a_damaged_one_says_that_it_may_go(state):
    """It is only a note: without it everything is looked at again."""
    with shipping_lock(DISK, state):
        (ship_folder(state) / "progress").write_bytes(b'{"url": 5}')
    with pytest.raises(DamagedError, match="remove it: shipping looks at every part again"):
        read_progress(DISK, state)


def test_one_process_ships(state):
    """The second is told who does it; when the first is gone it may."""
    with (
        shipping_lock(DISK, state),
        pytest.raises(InUseError, match="another process ships"),
        shipping_lock(DISK, state),
    ):
        pass
    with shipping_lock(DISK, state):
        pass


@pytest.mark.parametrize(
    ("part", "progress", "url", "in_place", "stays"),
    [
        (path(), None, "", False, ""),
        (path(), PROGRESS, URL, False, ""),
        (path(last=21), PROGRESS, URL, False, "not shipped"),
        (path(FileKind.CONNECTIONS, 7), PROGRESS, URL, False, ""),
        (path(FileKind.CONNECTIONS, 8), PROGRESS, URL, False, "not shipped"),
        (path(FileKind.REJECTS, 21), PROGRESS, URL, False, "not shipped"),
        (path(), None, URL, False, "not shipped"),
        (path(), PROGRESS, "s3://other", False, "not shipped"),
        (path(), None, "", True, "a table refers to it"),
        (path(FileKind.REJECTS), None, "", True, ""),
        ("hits/v=1/compact-ab.parquet", PROGRESS, URL, False, "not shipped"),
    ],
)
def test_a_part_stays_until_it_is_out(part, progress, url, in_place, stays):
    """In the store of the settings of now; and for good where a table's files are the parts themselves."""
    assert stays in must_stay(part, progress, url=url, table_in_place=in_place)
    assert bool(stays) == bool(must_stay(part, progress, url=url, table_in_place=in_place))
