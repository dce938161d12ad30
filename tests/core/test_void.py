"""Batching, the resend index and poison together: each id is one row, whatever dies, fails or is voided."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.core.batching import Batching, BatchLimits, Commit
from collector.core.messages import Block, BlockDone, Decode, Staged, Totals
from collector.core.poison import Poison
from collector.core.resends import ResendIndex

LINES = 4


class Runs:
    """Ids of committed batches."""

    def __init__(self) -> None:
        self.ids: set[int] = set()

    def contains(self, key, low):
        return np.array([int(value) in self.ids for value in low], np.bool_)


class Run:
    """Decoders that take one message at a time, in any order; ids in ``lines`` by block."""

    def __init__(self, chance: random.Random, lines: dict[int, list[int]], poisonous: set) -> None:
        self.chance = chance
        self.lines = lines
        self.poisonous = poisonous
        """Found out only when they are decoded once too often, as when memory is short."""
        self.runs = Runs()
        self.index = ResendIndex(self.runs)
        self.batching = Batching(BatchLimits(3, 35), Totals(), (0, 0))
        self.poison = Poison()
        self.hands: dict[int, list] = {}
        self.kept: dict[int, list[tuple[int, int]]] = {}
        self.committed: list[tuple[int, int]] = []
        self.voids = 0
        self.next_decoder = 1
        for _ in range(2):
            self.start()

    def start(self) -> None:
        self.hands[self.next_decoder] = []
        self.batching.decoder_ready(self.next_decoder)
        self.next_decoder += 1

    def die(self, decoder: int) -> None:
        del self.hands[decoder]
        self.batching.decoder_died(decoder)
        self.start()

    def void(self) -> None:
        self.voids += 1
        self.batching.void()
        self.index.void(self.batching.committing())
        for decoder in list(self.hands):
            self.die(decoder)

    def orders(self, now_s: float) -> list[Commit]:
        orders = self.batching.orders(now_s)
        for order in orders:
            if not isinstance(order, Commit):
                message = order.message
                marked = self.poison.marked(message) if isinstance(message, Decode) else message
                self.hands[order.decoder].append(marked)
        return [order for order in orders if isinstance(order, Commit)]

    def commit(self, order: Commit) -> None:
        batch = order.batch
        for seq in range(batch.first, batch.last + 1):
            self.committed += self.kept[seq]
            self.runs.ids |= {self.lines[seq][line] for _, line in self.kept[seq]}
        self.batching.committed(batch)
        self.index.drop_batch(batch.first)
        self.poison.committed(batch.last)

    def work(self, decoder: int) -> None:
        if not self.hands[decoder]:
            return
        message = self.hands[decoder].pop(0)
        if isinstance(message, Decode):
            self.decode(message)
        else:
            counts = self.batching.batch_of(message.batch).shares[message.share - 1].counts
            told = (message.batch, message.share, message.attempt)
            self.batching.staged(Staged(*told, (), counts.rows, counts.resends, counts.rejects))

    def decode(self, order: Decode) -> None:
        seq = order.block.seq
        rejects = set(order.poison)
        for line in range(LINES):
            if (seq, line) in self.poisonous - {
                (seq, line) for line in rejects
            } and self.chance.random() < 0.4:
                self.poison.found(seq, {line: "it"})
                rejects.add(line)
                if self.index.holds(seq, line):
                    self.void()
                    return
        lines = np.array([line for line in range(LINES) if line not in rejects], np.int32)
        ids = np.array([self.lines[seq][line] for line in lines], np.uint64)
        batch = self.batching.batch_of(seq)
        drop = self.index.answer(batch.first, seq, np.zeros(len(ids), np.uint64), ids, lines)
        self.batching.answered(seq)
        self.kept[seq] = [(seq, int(line)) for at, line in enumerate(lines) if at not in drop]
        rows, resends = len(self.kept[seq]), len(drop)
        self.batching.block_done(BlockDone(seq, rows, resends, len(rejects), 0, 0, (1,), 0))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 16), st.integers(1, 12))
def test_every_id_that_is_on_a_good_line_is_one_row(seed: int, blocks: int, ids: int):
    """No hit is dropped as a resend of a line that became a reject, and none is a row twice."""
    chance = random.Random(seed)
    lines = {seq: [chance.randrange(ids) for _ in range(LINES)] for seq in range(1, blocks + 1)}
    poisonous = {(seq, line) for seq in lines for line in range(LINES) if chance.random() < 0.25}
    run = Run(chance, lines, poisonous)
    now_s, commits, left = 0.0, [], sorted(lines)
    for _ in range(20_000):
        if not left and run.batching.idle:
            break
        now_s += chance.random()
        if left and chance.random() < 0.5:
            run.batching.accepted(Block(left.pop(0), 1, 0, 10, LINES, 1, 0, 0, 0))
        if not left:
            run.batching.close()
        commits += run.orders(now_s)
        if commits and chance.random() < 0.05:  # others work while it is decided
            run.commit(commits.pop(0))
        decoder = chance.choice(sorted(run.hands))
        if chance.random() < 0.1:
            run.die(decoder)
        else:
            run.work(decoder)
    assert run.batching.idle
    kept = [lines[seq][line] for seq, line in run.committed]
    assert len(kept) == len(set(kept)), "a row twice"
    good = {lines[seq][line] for seq in lines for line in range(LINES) if (seq, line) not in poisonous}
    assert good <= set(kept), "dropped as a resend of a reject"
