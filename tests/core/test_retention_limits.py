"""What is beyond a limit: whole folders, oldest first, never what is not past or may not go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.messages import FileKind
from collector.core.retention import Limit, folder_end_us, is_of_interest, outdated

NOW = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)
NOW_US = round(NOW.timestamp()) * 1_000_000
DAY_US = 86_400_000_000


def folder_of(kind: FileKind, hours_ago: int) -> str:
    at = NOW - timedelta(hours=hours_ago)
    root = f"{kind}/v=1/stream=shop/date={at.date()}"
    return f"{root}/hour={at:%H}" if kind is FileKind.HITS else root


def everything(_: str) -> bool:
    return True


KINDS = st.sampled_from([FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS])
PATHS = st.builds(
    lambda kind, hours_ago, n: f"{folder_of(kind, hours_ago)}/part-{n}.parquet",
    KINDS,
    st.integers(-2, 90),
    st.integers(0, 3),
)
PARTS = st.dictionaries(PATHS, st.integers(1, 100))
LIMITS = st.dictionaries(
    KINDS, st.builds(Limit, st.none() | st.floats(0, 4), st.none() | st.integers(0, 2000))
)


@given(PARTS, LIMITS, st.sets(st.integers(0, 3)))
def test_exactly_what_is_beyond_a_limit_goes(parts, limits, needed):
    """Whatever there is: whole folders that are past, all of whose parts may go; every one that is too old;
    the oldest of the rest until the others fit, and not one more."""

    def may_go(path: str) -> bool:
        return int(path[-9]) not in needed

    found = outdated(parts, limits, NOW_US, may_go)
    interesting = {
        path: size
        for path, size in parts.items()
        for kind, limit in limits.items()
        if is_of_interest(kind, path.rpartition("/")[0], limit, NOW_US)
    }
    assert outdated(interesting, limits, NOW_US, may_go) == found
    gone = {path for each in found for path in each.paths}
    assert len(gone) == sum(len(each.paths) for each in found)
    assert all(each.size == sum(parts[path] for path in each.paths) for each in found)
    folders: dict[str, set[str]] = {}
    for path in parts:
        folders.setdefault(path.rpartition("/")[0], set()).add(path)
    for kind in FileKind:
        limit = limits.get(kind, Limit())
        mine = sorted((folder_end_us(kind, name), name) for name in folders if name.startswith(f"{kind}/"))
        left = sum(size for path, size in parts.items() if path.startswith(f"{kind}/"))
        for end_us, name in mine:
            size = sum(parts[path] for path in folders[name])
            too_old = limit.max_age_days is not None and end_us + round(limit.max_age_days * DAY_US) <= NOW_US
            too_many = limit.max_bytes is not None and left > limit.max_bytes
            goes = end_us <= NOW_US and (too_old or too_many) and all(map(may_go, folders[name]))
            assert folders[name] <= gone if goes else not folders[name] & gone
            left -= size if goes else 0


def test_an_age_counts_from_the_end_of_the_hour():
    """A day and an hour ago began what is a day old now, not before."""
    path = "hits/v=1/stream=shop/date=2026-11-27/hour=11/part.parquet"
    limits = {FileKind.HITS: Limit(max_age_days=1)}
    end_us = round(datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()) * 1_000_000
    assert outdated({path: 1}, limits, end_us - 1, everything) == []
    (found,) = outdated({path: 1}, limits, end_us, everything)
    assert (found.paths, found.reason) == ((path,), "retention.hits_max_age_days = 1")


def test_the_hour_that_is_going_on_stays_whatever_the_limit():
    """Its batches are still coming."""
    parts = {f"{folder_of(kind, 0)}/part.parquet": 10**12 for kind in FileKind}
    limits = dict.fromkeys(FileKind, Limit(0, 0))
    assert outdated(parts, limits, NOW_US, everything) == []


@pytest.mark.parametrize(
    "folder",
    [
        "hits/v=1/stream=shop/date=2026-11-27",
        "rejects/v=1/stream=shop/date=2026-11-27/hour=01",
        "hits/v=1/stream=shop/date=2026-02-30/hour=01",
        "hits/v=1/stream=shop/date=2026-11-27/hour=24",
        "hits/v=1/stream=shop/date=9999-12-31/hour=23",
        "hits/v=1/stream=shop",
        "hits",
        "",
    ],
)
def test_what_lies_in_no_folder_of_ours_is_not_ours_to_remove(folder):
    """Of no hour and no day, or of one that does not exist."""
    kind = FileKind(folder.partition("/")[0] or "hits")
    assert folder_end_us(kind, folder) is None
    assert outdated({f"{folder}/part.parquet": 1}, {kind: Limit(0, 0)}, NOW_US, everything) == []
