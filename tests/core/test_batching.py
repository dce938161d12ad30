"""Batching: which decoder runs which block, and when a batch may be committed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.core.batching import MAX_HOURS, Batch, Batching, BatchLimits, Commit, LostShare, Order
from collector.core.messages import Block, BlockDone, Decode, NoSpace, Stage, Staged, Totals
from collector.errors import ProtocolError

LIMITS = BatchLimits(max_age_s=60, max_bytes=1000)


def block(seq: int, *, length: int = 10, records: int = 5) -> Block:
    return Block(seq, 1, 0, length, records, 1, 0, 0, seq * 1_000_000)


def done(seq: int, *, rows: int = 3, resends: int = 1, rejects: int = 1, hours=(1,)) -> BlockDone:
    return BlockDone(seq, rows, resends, rejects, 0, 0, tuple(hours), 0)


def fresh(decoders: int = 2, limits: BatchLimits = LIMITS) -> Batching:
    batching = Batching(limits, Totals(), (0, 0))
    for decoder in range(1, decoders + 1):
        batching.decoder_ready(decoder)
    return batching


def decodes(orders) -> list[tuple[int, int]]:
    return [
        (o.decoder, o.message.block.seq)
        for o in orders
        if isinstance(o, Order) and isinstance(o.message, Decode)
    ]


def stages(orders) -> list[tuple[int, Stage]]:
    return [(o.decoder, o.message) for o in orders if isinstance(o, Order) and isinstance(o.message, Stage)]


def commits(orders) -> list[Batch]:
    return [order.batch for order in orders if isinstance(order, Commit)]


def staged(stage: Stage, counts: Totals) -> Staged:
    return Staged(stage.batch, stage.share, stage.attempt, (), counts.rows, counts.resends, counts.rejects)


def test_a_quiet_stream_keeps_one_decoder():
    """Blocks that come one by one all go to the first decoder, so a batch is one part."""
    batching = fresh()
    for seq in range(1, 6):
        batching.accepted(block(seq))
        assert decodes(batching.orders(0)) == [(1, seq)]
        batching.block_done(done(seq))


def test_a_busy_stream_uses_every_decoder():
    """Blocks that come together are spread, two in the hands of each."""
    batching = fresh()
    for seq in range(1, 7):
        batching.accepted(block(seq))
    assert decodes(batching.orders(0)) == [(1, 1), (2, 2), (1, 3), (2, 4)]


def test_a_batch_closes_by_age_and_is_committed_when_every_share_is_staged():
    """Every decoder that got blocks stages; the commit waits for the last of them."""
    batching = fresh()
    for seq in (1, 2):
        batching.accepted(block(seq))
    batching.orders(0)
    batching.block_done(done(1))
    batching.block_done(done(2))
    assert stages(batching.orders(59)) == []
    orders = stages(batching.orders(60))
    assert [(decoder, stage.share, stage.shares, stage.last) for decoder, stage in orders] == [
        (1, 1, 2, 2),
        (2, 2, 2, 2),
    ]
    batching.staged(staged(orders[0][1], Totals(5, 3, 1, 1)))
    assert commits(batching.orders(60)) == []
    batching.staged(staged(orders[1][1], Totals(5, 3, 1, 1)))
    (batch,) = commits(batching.orders(60))
    assert batch.counts() == Totals(10, 6, 2, 2)
    batching.committed(batch)
    assert batching.idle


def test_a_full_journal_makes_no_small_batches_of_blocks_that_wait():
    """While decoders have something to do, a batch is closed for room only once it is half a journal."""
    batching = fresh(decoders=1)
    for seq in range(1, 21):
        batching.accepted(block(seq))
    batching.full_journal_bytes = 120
    found = []
    while orders := batching.orders(0):
        for _, seq in decodes(orders):
            batching.answered(seq)
            batching.block_done(done(seq))
        found += [(stage.batch, stage.last) for _, stage in stages(orders)]
    assert found == [(1, 6), (7, 12)], "and no more than two wait for their commit"


def test_a_full_journal_commits_what_there_is_once_nothing_waits():
    """The reader waits for room and nothing more will come: the batch is closed, however small it is."""
    batching = fresh(decoders=1)
    for seq in (1, 2):
        batching.accepted(block(seq))
    batching.orders(0)
    for seq in (1, 2):
        batching.block_done(done(seq))
    assert stages(batching.orders(0)) == []
    batching.full_journal_bytes = 1000
    assert [stage.last for _, stage in stages(batching.orders(0))] == [2]


def test_the_next_batch_waits_for_the_answers_of_this_one():
    """No block of the next batch is handed out while a claim of this one has no answer."""
    batching = fresh(limits=BatchLimits(60, 10))
    for seq in (1, 2):
        batching.accepted(block(seq))
    assert decodes(batching.orders(0)) == [(1, 1)]
    assert decodes(batching.orders(1)) == []
    batching.answered(1)
    assert decodes(batching.orders(1)) == [(2, 2)]


def test_running_totals_go_from_batch_to_batch():
    """A share's metadata carries the totals up to the batch before, known once that one is done."""
    batching = fresh(decoders=1, limits=BatchLimits(60, 10))
    for seq in (1, 2):
        batching.accepted(block(seq))
    batching.orders(0)
    batching.answered(1)
    batching.orders(0)
    batching.block_done(done(2))
    assert stages(batching.orders(0)) == [], "the second batch is done before the first"
    batching.block_done(done(1))
    first, second = (stage for _, stage in stages(batching.orders(0)))
    assert (first.before, second.before) == (Totals(), Totals(5, 3, 1, 1))
    assert second.batch_before == (1, 1)


def test_a_dead_decoder_takes_only_its_unstaged_share():
    """What its peer staged stays staged; its own blocks run again under the next attempt."""
    batching = fresh()
    for seq in (1, 2):
        batching.accepted(block(seq))
    batching.orders(0)
    batching.block_done(done(1))
    batching.block_done(done(2))
    batching.close()
    (_, first), (_, second) = stages(batching.orders(0))
    batching.staged(staged(first, Totals(5, 3, 1, 1)))
    assert batching.decoder_died(1) == ()
    assert batching.decoder_died(2) == (LostShare(1, 2, 1, (2,)),)
    assert batching.orders(0) == []
    batching.decoder_ready(3)
    (order,) = batching.orders(0)
    assert (order.decoder, order.message.block.seq, order.message.share, order.message.attempt) == (
        3,
        2,
        2,
        2,
    )
    batching.block_done(done(2))
    ((_, again),) = stages(batching.orders(0))
    assert again.attempt == 2
    with pytest.raises(ProtocolError, match="attempt"):
        batching.staged(staged(second, Totals(5, 3, 1, 1)))
    batching.staged(staged(again, Totals(5, 3, 1, 1)))
    assert len(commits(batching.orders(0))) == 1


def test_a_share_without_room_runs_again_when_there_is_some():
    """NoSpace holds everything back; nothing is lost, and the share's next attempt starts over."""
    batching = fresh(decoders=1)
    batching.accepted(block(1))
    batching.orders(0)
    batching.no_space(NoSpace(1, 1, 1, "disk full"))
    assert batching.orders(0) == []
    batching.held = False
    (order,) = batching.orders(0)
    assert (order.message.block.seq, order.message.attempt) == (1, 2)


def test_a_batch_closes_when_it_touches_too_many_hours():
    """Every hour is an open file, so their number is bounded."""
    batching = fresh(decoders=1)
    batching.accepted(block(1))
    batching.orders(0)
    batching.block_done(done(1, hours=range(MAX_HOURS + 1)))
    assert len(stages(batching.orders(0))) == 1


def test_a_block_that_does_not_add_up_is_refused():
    """records = rows + resends + rejects for every block, or it is a defect of ours."""
    batching = fresh(decoders=1)
    batching.accepted(block(1))
    batching.orders(0)
    with pytest.raises(ProtocolError, match="5 records"):
        batching.block_done(done(1, rows=4))


def test_a_batch_never_spans_lost_blocks():
    """It closes before the hole, whether the block behind it waits already or comes later."""
    batching = fresh(decoders=1)
    for seq in (1, 2, 5):
        batching.accepted(block(seq))
    assert decodes(batching.orders(0)) == [(1, 1), (1, 2)]
    for seq in (1, 2):
        batching.block_done(done(seq))
    orders = batching.orders(0)
    ((_, first),) = stages(orders)
    assert (first.batch, first.last) == (1, 2)
    assert decodes(orders) == [(1, 5)]
    batching.block_done(done(5))
    batching.accepted(block(9))
    ((_, second),) = stages(batching.orders(0))
    assert (second.batch, second.last, second.batch_before) == (5, 5, (1, 2))
    assert [b.seq for b in batching.left()] == [1, 2, 5, 9]


def test_what_is_left_counts_blocks_on_both_sides_of_a_hole():
    """``left`` and ``blocks`` go by the blocks there are."""
    batching = fresh(decoders=1)
    for seq in (1, 4, 5):
        batching.accepted(block(seq))
    batching.orders(0)
    assert [b.seq for b in batching.left()] == [1, 4, 5]
    batching.block_done(done(1))
    ((_, stage),) = stages(batching.orders(0))
    batching.staged(staged(stage, Totals(5, 3, 1, 1)))
    (batch,) = commits(batching.orders(0))
    assert [b.seq for b, _ in batch.blocks()] == [1]
    batching.committed(batch)
    assert [b.seq for b in batching.left()] == [4, 5]


def two_batches() -> tuple[Batching, Batch]:
    """The first is being committed, the second is staged, the third open; one block each, one decoder."""
    batching = fresh(decoders=1, limits=BatchLimits(60, 10))
    for seq in (1, 2, 3):
        batching.accepted(block(seq))
    committing = []
    for _ in range(10):
        for order in batching.orders(0):
            if isinstance(order, Commit):
                committing.append(order.batch)
            elif isinstance(order.message, Stage):
                counts = batching.batch_of(order.message.batch).shares[0].counts
                batching.staged(staged(order.message, counts))
            else:
                batching.answered(order.message.block.seq)
                if order.message.block.seq < 3:
                    batching.block_done(done(order.message.block.seq))
    return batching, committing[0]


def test_void_starts_all_again_but_what_is_being_committed():
    """Staged shares too; its decoders are of no use any more; the commit goes on."""
    batching, committing = two_batches()
    assert batching.void() == (LostShare(2, 1, 1, (2,)),)
    assert batching.committing() == {1}
    assert batching.orders(0) == []
    batching.decoder_ready(2)
    (order,) = batching.orders(0)
    assert (order.message.block.seq, order.message.attempt) == (2, 2)
    batching.committed(committing)
    batching.block_done(done(2))
    ((_, stage),) = stages(batching.orders(0))
    batching.staged(staged(stage, Totals(5, 3, 1, 1)))
    (batch,) = commits(batching.orders(0))
    assert (batch.first, batch.before) == (2, Totals(5, 3, 1, 1))


def test_after_a_void_batches_ask_in_order_again():
    """No block of the next batch is handed out, nor a new one into it, until this one has its answers."""
    batching = fresh(decoders=2, limits=BatchLimits(60, 10))
    for seq in (1, 2, 3):
        batching.accepted(block(seq))
    batching.orders(0)
    batching.answered(1)
    assert decodes(batching.orders(0)) == [(2, 2)]
    assert {lost.blocks for lost in batching.void()} == {(1,), (2,)}
    for decoder in (3, 4):
        batching.decoder_ready(decoder)
    assert decodes(batching.orders(0)) == [(3, 1)]
    batching.answered(1)
    assert decodes(batching.orders(0)) == [(4, 2)]


def test_a_share_that_runs_again_holds_nobody_up():
    """Its claims have had their answers, which hold: the next batch opens while it is done again."""
    batching = fresh(decoders=2, limits=BatchLimits(60, 10))
    for seq in (1, 2):
        batching.accepted(block(seq))
    batching.orders(0)
    batching.answered(1)
    batching.decoder_died(1)
    assert decodes(batching.orders(0)) == [(2, 1), (2, 2)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 40))
def test_every_block_is_committed_once_in_order_whatever_dies(seed: int, decoders: int, blocks: int):
    """Any interleaving of work, deaths and full disks commits every block once, batches contiguous."""
    chance = random.Random(seed)
    batching = fresh(decoders=decoders, limits=BatchLimits(5, 35))
    alive = set(range(1, decoders + 1))
    next_decoder, now = decoders + 1, 0.0
    in_hand: dict[int, list] = {decoder: [] for decoder in alive}
    ranges, deaths = [], 0
    left = list(range(1, blocks + 1))
    for _ in range(100_000):
        if not left and batching.idle:
            break
        now += chance.random()
        if not left:
            batching.close()
        if left and chance.random() < 0.5:
            batching.accepted(block(left.pop(0)))
        batching.held = False
        for order in batching.orders(now):
            if isinstance(order, Commit):
                ranges.append((order.batch.first, order.batch.last))
                assert [b.seq for b, _ in order.batch.blocks()] == list(
                    range(order.batch.first, order.batch.last + 1)
                )
                batching.committed(order.batch)
            else:
                in_hand[order.decoder].append(order.message)
        decoder = chance.choice(sorted(alive))
        if chance.random() < 0.1 and deaths < 50:
            deaths += 1
            alive.remove(decoder)
            del in_hand[decoder]
            batching.decoder_died(decoder)
            alive.add(next_decoder)
            in_hand[next_decoder] = []
            batching.decoder_ready(next_decoder)
            next_decoder += 1
            continue
        if not in_hand[decoder]:
            continue
        message = in_hand[decoder].pop(0)
        if isinstance(message, Stage):
            share = batching.batch_of(message.batch).shares[message.share - 1]
            if chance.random() < 0.1:
                batching.no_space(NoSpace(message.batch, message.share, message.attempt, "full"))
            else:
                batching.staged(staged(message, share.counts))
        elif chance.random() < 0.3:
            batching.answered(message.block.seq)
            in_hand[decoder].insert(0, message)
        else:
            batching.block_done(done(message.block.seq))
    assert [seq for first, last in ranges for seq in range(first, last + 1)] == list(range(1, blocks + 1))


# ---------------------------------------------------------------- decoders that are replaced


def test_a_retired_decoder_finishes_what_it_has_and_gets_no_new_batch():
    """The open batch closes, so that nothing of the next one goes through old hands."""
    batching = fresh(decoders=2)
    for seq in (1, 2, 3):
        batching.accepted(block(seq))
    assert decodes(batching.orders(0)) == [(1, 1), (2, 2), (1, 3)]
    batching.retire([1, 2])
    batching.accepted(block(4))
    assert batching.orders(0) == []
    for seq in (1, 2, 3):
        batching.block_done(done(seq))
    orders = batching.orders(0)
    assert [decoder for decoder, _ in stages(orders)] == [1, 2]
    assert decodes(orders) == []
    assert not batching.is_free(1)
    for _, stage in stages(orders):
        counts = Totals(0, 6, 2, 2) if stage.share == 1 else Totals(0, 3, 1, 1)
        batching.staged(staged(stage, counts))
    assert batching.is_free(1)
    assert batching.is_free(2)
    assert len(commits(batching.orders(0))) == 1
    batching.decoder_ready(3)
    assert decodes(batching.orders(0)) == [(3, 4)]


def test_a_share_of_a_retired_decoder_that_dies_goes_to_a_new_one():
    """Even while its batch is the old one: a share is run whole, by one."""
    batching = fresh(decoders=2)
    for seq in (1, 2):
        batching.accepted(block(seq))
    batching.orders(0)
    batching.retire([1, 2])
    batching.decoder_died(1)
    assert batching.orders(0) == []
    batching.decoder_ready(3)
    assert decodes(batching.orders(0)) == [(3, 1)]


def test_retiring_nobody_closes_nothing():
    """More decoders are no reason for a smaller part."""
    batching = fresh(decoders=1)
    batching.accepted(block(1))
    batching.orders(0)
    batching.retire([])
    batching.block_done(done(1))
    assert batching.orders(0) == []
