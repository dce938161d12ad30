"""A batch and its shares: who runs which of its blocks, and how far each of them is.

Used by ``core.batching`` alone to decide, by others to look at. Invariant: every block of a batch is in
exactly one of its shares.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from collector.core.messages import Block, BlockDone, Staged, Totals


@dataclass(frozen=True, slots=True)
class LostShare:
    """What a dead decoder had in hand: these blocks run again, what this attempt staged is of no use."""

    batch: int
    share: int
    attempt: int
    blocks: tuple[int, ...]


@dataclass(slots=True)
class Share:
    """The blocks of a batch that one decoder runs and stages together.

    A block moves from ``waiting`` to ``asking`` (handed out), to ``answered`` (its claims are), to
    ``done``.
    """

    number: int
    owner: int | None
    attempt: int = 1
    blocks: dict[int, Block] = field(default_factory=dict)
    waiting: deque[int] = field(default_factory=deque)
    asking: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    done: dict[int, BlockDone] = field(default_factory=dict)
    counts: Totals = field(default_factory=Totals)
    stage_ordered: bool = False
    staged: Staged | None = None

    @property
    def in_hand(self) -> int:
        return len(self.asking) + len(self.answered)

    @property
    def all_done(self) -> bool:
        return len(self.done) == len(self.blocks)

    def start_again(self) -> None:
        """Its staged files are gone or unknown: all of it runs again, under other staged names."""
        self.owner = None
        self.attempt += 1
        self.waiting = deque(self.blocks)
        self.asking.clear()
        self.answered.clear()
        self.done.clear()
        self.counts = Totals()
        self.stage_ordered = False
        self.staged = None

    def finished(self, message: BlockDone) -> None:
        block = self.blocks[message.seq]
        self.asking.discard(block.seq)
        self.answered.discard(block.seq)
        self.done[block.seq] = message
        self.counts += Totals(block.records, message.rows, message.resends, message.rejects)


@dataclass(slots=True)
class Batch:
    """A contiguous range of blocks that is committed together."""

    first: int
    opened_at_s: float
    last: int = 0
    bytes: int = 0
    closed: bool = False
    committing: bool = False
    hours: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    """Blocks whose claims have had their answer, which holds if they run again."""
    shares: list[Share] = field(default_factory=list)
    share_of: dict[int, Share] = field(default_factory=dict)
    held_us: tuple[int, int] = (0, 0)
    before: Totals = field(default_factory=Totals)
    """Running totals up to the batch before; set when the first share of this one is staged."""

    def add(self, block: Block, share: Share) -> None:
        share.blocks[block.seq] = block
        share.asking.add(block.seq)
        self.share_of[block.seq] = share
        self.last = block.seq
        self.bytes += block.length
        self.held_us = (self.held_us[0] if block.seq > self.first else block.held_us, block.held_us)

    def start_again(self, share: Share) -> LostShare:
        """Says what this attempt had."""
        lost = LostShare(self.first, share.number, share.attempt, tuple(share.blocks))
        share.start_again()
        return lost

    def unanswered(self) -> bool:
        return len(self.answered) < len(self.share_of)

    def all_done(self) -> bool:
        return all(share.all_done for share in self.shares)

    def all_staged(self) -> bool:
        return all(share.staged is not None for share in self.shares)

    def counts(self) -> Totals:
        return sum((share.counts for share in self.shares), Totals())

    def blocks(self) -> Iterator[tuple[Block, BlockDone]]:
        """Every block with what became of it, in order."""
        for seq in range(self.first, self.last + 1):
            share = self.share_of[seq]
            yield share.blocks[seq], share.done[seq]
