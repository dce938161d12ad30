"""Which hours are compacted: every hour is in one heap, and nothing undecided is ever touched."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from collector.core.compaction import (
    HOUR_US,
    HourFile,
    compact_names,
    compaction_id,
    files_wanted,
    is_closed,
    plan,
)

HOURS = st.integers(0, 12)


@st.composite
def hour_files(draw) -> HourFile:
    hour, number = draw(HOURS), draw(st.integers(0, 99))
    maker = draw(st.sampled_from(["aa", "bb", ""]))
    return HourFile(f"hits/{hour}/{maker}{number}", hour, bytes([number]) * 32, number + 1, 5, maker)


FILES = st.lists(hour_files(), max_size=30, unique_by=lambda file: file.path)


@given(FILES, st.sets(HOURS), st.integers(0, 15 * HOUR_US), st.integers(0, 3 * HOUR_US))
def test_every_hour_with_parts_is_in_one_heap(files, unsettled, now_us, lateness_us):
    """Due only where it is closed and settled; what is only looked through is beside one that is due."""
    found = plan(files, unsettled, now_us, lateness_us)
    with_parts = {file.hour for file in files if file.instance}
    assert {*found.due, *found.open, *found.unsettled} == with_parts
    assert len(found.due) + len(found.open) + len(found.unsettled) == len(with_parts)
    for hour in found.looked_at:
        assert is_closed(hour, now_us, lateness_us)
        assert hour not in unsettled
    for hour in found.beside:
        assert hour not in with_parts
        assert {hour - 1, hour + 1} & {*found.due}
        assert any(file.hour == hour for file in files)
    assert list(found.looked_at) == sorted({*found.due, *found.beside}, reverse=True)


@given(FILES, st.integers(0, 15 * HOUR_US))
def test_what_is_compacted_is_at_rest(files, now_us):
    """Where every file is a compaction's nothing is due."""
    done = [HourFile(file.path, file.hour, file.sha256, file.size, file.rows, "") for file in files]
    assert plan(done, set(), now_us, 0).looked_at == ()


@given(FILES.filter(bool), st.integers(1, 5), st.randoms())
def test_names_follow_from_the_inputs_alone(files, count, chance: random.Random):
    """In whatever order they come; another file, or other content, is another name."""
    shuffled = files[:]
    chance.shuffle(shuffled)
    names = compact_names(files, count)
    assert names == compact_names(shuffled, count)
    assert len({*names}) == count
    other = HourFile(files[0].path, files[0].hour, b"other" * 6 + b"xx", 1, 1, "")
    assert not {*names} & {*compact_names([other, *files[1:]], count)}
    assert not {*names} & {*compact_names([*files, other], count)}
    assert len(compaction_id(files)) == 16


@given(FILES, st.integers(1, 1000))
def test_an_hour_becomes_as_many_files_as_its_size_wants(files, target_bytes):
    """One at least; each of at most that size, were they equal."""
    wanted, size = files_wanted(files, target_bytes), sum(file.size for file in files)
    assert wanted >= 1
    assert size <= wanted * target_bytes
    assert wanted == 1 or size > (wanted - 1) * target_bytes


def test_an_hour_is_closed_when_it_has_been_over_for_long_enough():
    """To the microsecond."""
    assert not is_closed(5, 6 * HOUR_US + 9, 10)
    assert is_closed(5, 6 * HOUR_US + 10, 10)
