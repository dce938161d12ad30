from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collector.core import resends
from collector.core.resends import U64, Claims, Mask, ResendIndex, key_of, owner_of

IDS = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=60)


def u64(values: list[int]) -> U64:
    return np.array(values, np.uint64)


def lines_of(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32)


class CommittedIds:
    """The runs, as a plain set."""

    def __init__(self) -> None:
        self.ids: set[tuple[int, int]] = set()

    def contains(self, key: U64, low: U64) -> Mask:
        pairs = zip(key.tolist(), low.tolist(), strict=True)
        return np.array([pair in self.ids for pair in pairs], np.bool_)

    def add(self, ids: list[tuple[int, int]]) -> None:
        high, low = u64([a for a, _ in ids]), u64([b for _, b in ids])
        self.ids |= set(zip(key_of(high, low).tolist(), low.tolist(), strict=True))


def ask(index: ResendIndex, batch: int, seq: int, ids: list[tuple[int, int]]) -> list[int]:
    high, low = u64([a for a, _ in ids]), u64([b for _, b in ids])
    drop = index.answer(batch, seq, high, low, lines_of(len(ids)))
    assert drop.dtype == np.uint32
    return drop.tolist()


# ---------------------------------------------------------------- keys


@given(IDS, st.integers(0, 2**64 - 1))
def test_keys_and_ids_are_one_to_one(ids: list[tuple[int, int]], low: int) -> None:
    """With the low half the same, different high halves have different keys."""
    highs = sorted({high for high, _ in ids})
    keys = key_of(u64(highs), u64([low] * len(highs)))
    assert len(set(keys.tolist())) == len(highs)


def test_keys_are_uniform_even_for_counting_ids() -> None:
    """Ids that only count up fill every bucket about equally."""
    count = np.arange(1 << 16, dtype=np.uint64)
    for key in (key_of(count, count * 0), key_of(count * 0, count), key_of(count, count)):
        filled = np.bincount((key >> np.uint64(56)).astype(np.int64), minlength=256)
        assert filled.min() > 150
        assert filled.max() < 370


# ---------------------------------------------------------------- one batch


def test_the_first_to_ask_keeps_the_hit() -> None:
    """The second block with the same id is told that it is a resend."""
    index = ResendIndex(CommittedIds())
    assert ask(index, 1, 1, [(1, 1), (2, 2)]) == []
    assert ask(index, 1, 2, [(3, 3), (2, 2)]) == [1]


def test_a_block_run_again_gets_the_same_answer() -> None:
    """Its decoder died: the hits it kept are still its own, its resends still resends."""
    index = ResendIndex(CommittedIds())
    ask(index, 1, 1, [(1, 1)])
    for _ in range(2):
        assert ask(index, 1, 2, [(1, 1), (2, 2), (2, 2)]) == [0, 2]


def test_of_a_repeat_inside_a_block_the_first_line_keeps() -> None:
    """Also when it comes three times, and next to others."""
    index = ResendIndex(CommittedIds())
    assert ask(index, 1, 1, [(1, 1), (2, 2), (1, 1), (3, 3), (1, 1), (2, 2)]) == [2, 4, 5]


def test_ids_that_share_one_half_are_different_hits() -> None:
    """Both halves make an id."""
    index = ResendIndex(CommittedIds())
    assert ask(index, 1, 1, [(1, 1), (1, 2), (2, 1), (2, 2)]) == []


def test_ids_whose_keys_collide_are_told_apart() -> None:
    """Two ids with the same key differ in their low half, within a call and between calls."""
    claims = Claims()
    key = u64([7, 7, 7, 7])
    low = u64([3, 4, 3, 5])
    assert claims.add(key, low, owner_of(1, lines_of(4))).tolist() == [False, False, True, False]
    owners = claims.owners(u64([7, 7, 7]), u64([5, 6, 4]))
    third, _, first = owner_of(1, np.array([3, 0, 1], np.int32)).tolist()
    assert owners.tolist() == [third, 0, first]


def test_zero_is_an_id_like_any_other() -> None:
    """Empty slots hold zeros."""
    claims = Claims()
    assert claims.owners(u64([0]), u64([0])).tolist() == [0]
    assert claims.add(u64([0, 0]), u64([0, 0]), owner_of(0, lines_of(2))).tolist() == [False, True]
    assert claims.owners(u64([0]), u64([0])).tolist() == [1]


def test_full_buckets_overflow_and_wrap_around() -> None:
    """A hundred ids that all belong into the last bucket are all found again."""
    claims = Claims(room_for=1000)
    low = np.arange(100, dtype=np.uint64)
    key = ~np.zeros(100, np.uint64)
    owner = owner_of(5, lines_of(100))
    for part in (slice(0, 7), slice(7, 30), slice(30, 100)):
        assert not claims.add(key[part], low[part], owner[part]).any()
    assert claims.owners(key, low).tolist() == owner.tolist()
    assert claims.owners(key[:1], low[:1] + np.uint64(100)).tolist() == [0]


@settings(max_examples=20, deadline=None)
@given(st.lists(arrays(np.uint64, st.integers(0, 3000), elements=st.integers(0, 5000)), max_size=6))
def test_claims_grow_without_forgetting(calls: list[U64]) -> None:
    """Against a dict, over several doublings, with repeats within and between calls."""
    claims, model = Claims(room_for=1), {}
    for seq, low in enumerate(calls, 1):
        key = key_of(np.zeros(len(low), np.uint64), low)
        owner = owner_of(seq, lines_of(len(low)))
        new = np.array([value not in model for value in low.tolist()], np.bool_)
        claims.add(key[new], low[new], owner[new])
        for value, line_owner in zip(low.tolist(), owner.tolist(), strict=True):
            model.setdefault(value, line_owner)
    values = u64(list(model))
    assert claims.owners(key_of(values * 0, values), values).tolist() == list(model.values())
    assert len(claims) == len(model)


def test_a_table_is_as_large_as_the_batch_before_needed() -> None:
    """So that a busy stream does not grow every table from nothing, nor holds twice what it needs."""
    index = ResendIndex(CommittedIds())
    count = 2 * resends.LEAST_ROOM
    ask(index, 1, 1, [(i, i) for i in range(count)])
    index.drop_batch(1)
    ask(index, 2, 2, [(1, 99)])
    room = len(index._claims[2]._used) * resends.SLOTS * resends.FULLEST
    assert count * 1.05 < room < count * 1.2


# ---------------------------------------------------------------- several batches


def test_committed_ids_are_resends_from_then_on() -> None:
    """The runs take over what the claims knew."""
    runs = CommittedIds()
    index = ResendIndex(runs)
    ask(index, 1, 1, [(1, 1)])
    runs.add([(1, 1)])
    index.drop_batch(1)
    assert ask(index, 2, 2, [(1, 1), (2, 2)]) == [0]
    assert index.held == 1


def test_claims_of_every_uncommitted_batch_count() -> None:
    """The batch before, still being staged, and the one after, when a block of this one runs again."""
    index = ResendIndex(CommittedIds())
    ask(index, 1, 1, [(1, 1)])
    assert ask(index, 2, 2, [(1, 1), (2, 2)]) == [0]
    assert ask(index, 1, 1, [(1, 1)]) == []


def test_void_forgets_every_claim() -> None:
    """After a claim that must not stand, every uncommitted block asks anew."""
    index = ResendIndex(CommittedIds())
    ask(index, 1, 1, [(1, 1)])
    index.void()
    assert ask(index, 1, 2, [(1, 1)]) == []
    assert ask(index, 1, 1, [(1, 1)]) == [0]


def test_batches_that_are_being_committed_keep_their_claims() -> None:
    """They are decided: what is a resend of one of their hits stays one."""
    index = ResendIndex(CommittedIds())
    ask(index, 1, 1, [(1, 1)])
    ask(index, 2, 2, [(2, 2)])
    index.void({1})
    assert ask(index, 3, 3, [(1, 1), (2, 2)]) == [0]


def test_an_owner_is_known_by_block_and_line() -> None:
    """A line holds the id it kept; one that was told resend, or was not asked about, holds none."""
    index = ResendIndex(CommittedIds())
    ask(index, 1, 1, [(1, 1), (2, 2)])
    ask(index, 2, 9, [(1, 1), (3, 3)])
    held = {(seq, line) for seq in (1, 9) for line in range(5) if index.holds(seq, line)}
    assert held == {(1, 0), (1, 1), (9, 1)}
    index.drop_batch(1)
    assert not index.holds(1, 0)


def test_dropping_a_batch_without_claims_is_fine() -> None:
    """A batch of rejects alone never asked."""
    ResendIndex(CommittedIds()).drop_batch(5)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_each_id_is_kept_exactly_once_in_any_history(data: st.DataObject) -> None:
    """Blocks ask, ask again after a death, batches commit: one line in all keeps each id."""
    runs = CommittedIds()
    index = ResendIndex(runs)
    blocks: dict[int, list[tuple[int, int]]] = {}
    answers: dict[int, list[int]] = {}
    batch_of: dict[int, int] = {}
    oldest, newest = 1, 1
    ids = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6)
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["block", "block", "again", "next", "commit"]))
        uncommitted = [seq for seq, batch in batch_of.items() if batch >= oldest]
        if what == "block":
            seq = len(blocks) + 1
            blocks[seq], batch_of[seq] = data.draw(ids), newest
            answers[seq] = ask(index, newest, seq, blocks[seq])
        elif what == "again" and uncommitted:
            seq = data.draw(st.sampled_from(uncommitted))
            assert ask(index, batch_of[seq], seq, blocks[seq]) == answers[seq]
        elif what == "next":
            newest += 1
        elif what == "commit" and oldest < newest:
            for seq in (seq for seq in uncommitted if batch_of[seq] == oldest):
                runs.add([i for n, i in enumerate(blocks[seq]) if n not in answers[seq]])
            index.drop_batch(oldest)
            oldest += 1
    kept = [i for seq, found in blocks.items() for n, i in enumerate(found) if n not in answers[seq]]
    assert len(kept) == len(set(kept))
    assert set(kept) == {i for found in blocks.values() for i in found}
