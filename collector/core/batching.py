"""Which decoder runs which block, when a batch closes, and when it can be committed.

The coordinator feeds what happened and carries out the orders that ``orders`` gives back. The
invariants: batches are contiguous and committed in order, and none spans blocks that were written off
as lost; a share has one owner at a time; a block of the next batch is handed out only once every block
of this one has had the answer to its claims, so no decoder ever waits on another batch; the death of a
decoder takes only its unstaged shares.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from collector.core.messages import Block, BlockDone, Decode, NoSpace, Stage, Staged, Totals
from collector.core.shares import Batch, LostShare, Share
from collector.errors import ProtocolError

__all__ = ["Batch", "BatchLimits", "Batching", "Commit", "LostShare", "Order", "Share"]

DECODER_DEPTH: Final = 2
"""Blocks one decoder holds at a time: it decodes the second while the first one's claims are answered."""

MAX_CLOSED_BATCHES: Final = 2
"""Closed batches that may wait for their commit before no more blocks are handed out."""

MAX_HOURS: Final = 24
"""A batch that touches more hours than this closes: every hour is an open file in every share."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    max_age_s: float
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Order:
    """Send this message to this decoder."""

    decoder: int
    message: Decode | Stage


@dataclass(frozen=True, slots=True)
class Commit:
    """Every share is staged and it is this batch's turn. Report ``committed`` when it is."""

    batch: Batch


class Batching:
    """Pure: the only clock is ``now_s``, any monotonic second count."""

    def __init__(self, limits: BatchLimits, before: Totals, batch_before: tuple[int, int]) -> None:
        self.limits = limits
        self._before = before
        self._batch_before = batch_before
        self._waiting: deque[Block] = deque()
        self._batches: deque[Batch] = deque()
        self._decoders: set[int] = set()
        self.held = False
        """Nothing new is handed out or staged: the disk is full."""
        self.full_journal_bytes = 0
        """The journal's size where it has no room left for the reader, 0 where it has."""

    # ------------------------------------------------------------ what is known

    @property
    def waiting_blocks(self) -> int:
        return len(self._waiting)

    @property
    def uncommitted_blocks(self) -> int:
        return len(self._waiting) + sum(len(batch.share_of) for batch in self._batches)

    @property
    def idle(self) -> bool:
        """Every accepted block is committed."""
        return not self._waiting and not self._batches

    def oldest_uncommitted(self) -> Block | None:
        if self._batches:
            batch = self._batches[0]
            return batch.share_of[batch.first].blocks[batch.first]
        return self._waiting[0] if self._waiting else None

    def left(self) -> list[Block]:
        """Accepted blocks that are not committed, in order."""
        in_batches = [
            batch.share_of[seq].blocks[seq]
            for batch in self._batches
            for seq in range(batch.first, batch.last + 1)
        ]
        return [*in_batches, *self._waiting]

    def batch_of(self, seq: int) -> Batch:
        for batch in self._batches:
            if batch.first <= seq <= batch.last:
                return batch
        raise ProtocolError(f"block {seq} is in no open batch")

    def next_close_s(self) -> float | None:
        """When the open batch is old enough to close; ``None`` while none is open."""
        batch = self._open()
        return None if batch is None else batch.opened_at_s + self.limits.max_age_s

    # ------------------------------------------------------------ what happened

    def accepted(self, block: Block) -> None:
        self._waiting.append(block)

    def decoder_ready(self, decoder: int) -> None:
        self._decoders.add(decoder)

    def retire(self, decoders: Iterable[int]) -> None:
        """They finish what they have, and get nothing of a batch that begins from now on."""
        if retired := self._decoders.intersection(decoders):
            self._decoders -= retired
            self.close()

    def is_ready(self, decoder: int) -> bool:
        """It gets blocks."""
        return decoder in self._decoders

    def is_free(self, decoder: int) -> bool:
        """Whatever it had in hand is staged."""
        return all(share.owner != decoder for share in self._unstaged())

    def decoder_died(self, decoder: int) -> tuple[LostShare, ...]:
        """Its unstaged shares go to others."""
        self._decoders.discard(decoder)
        lost = [
            (batch, share)
            for batch in self._batches
            for share in batch.shares
            if share.owner == decoder and share.staged is None
        ]
        return tuple(batch.start_again(share) for batch, share in lost)

    def void(self) -> tuple[LostShare, ...]:
        """All that is not being committed starts again, and its claims are asked anew.

        The decoders are forgotten: whatever they still say is of no use.
        """
        self._decoders.clear()
        voided = [batch for batch in self._batches if not batch.committing]
        for batch in voided:
            batch.answered.clear()
        return tuple(batch.start_again(share) for batch in voided for share in batch.shares)

    def committing(self) -> set[int]:
        """First blocks of the batches whose commit has begun."""
        return {batch.first for batch in self._batches if batch.committing}

    def no_space(self, message: NoSpace) -> None:
        self._share(message.batch, message.share, message.attempt).start_again()
        self.held = True

    def answered(self, seq: int) -> None:
        batch = self.batch_of(seq)
        batch.answered.add(seq)
        share = batch.share_of[seq]
        if seq in share.asking:
            share.asking.discard(seq)
            share.answered.add(seq)

    def block_done(self, message: BlockDone) -> None:
        batch = self.batch_of(message.seq)
        share = batch.share_of[message.seq]
        block = share.blocks[message.seq]
        if block.records != message.rows + message.resends + message.rejects:
            raise ProtocolError(
                f"block {block.seq} has {block.records} records, but its decoder counted {message.rows} rows"
                f" + {message.resends} resends + {message.rejects} rejects"
            )
        share.finished(message)
        batch.answered.add(message.seq)
        batch.hours.update(message.hours)

    def staged(self, message: Staged) -> None:
        share = self._share(message.batch, message.share, message.attempt)
        counts = share.counts
        if (message.rows, message.resends, message.rejects) != (counts.rows, counts.resends, counts.rejects):
            raise ProtocolError(
                f"share {share.number} of batch {message.batch} staged {message.rows} rows,"
                f" {message.resends} resends, {message.rejects} rejects, but its blocks add up to {counts}"
            )
        share.staged = message

    def committed(self, batch: Batch) -> None:
        if self._batches[0] is not batch:
            raise ProtocolError(f"batch {batch.first} was committed before batch {self._batches[0].first}")
        self._batches.popleft()
        self._before = self._before + batch.counts()
        self._batch_before = (batch.first, batch.last)

    def close(self) -> None:
        """Close the open batch now, whatever its age."""
        if (batch := self._open()) is not None:
            batch.closed = True

    # ------------------------------------------------------------ what to do

    def orders(self, now_s: float) -> list[Order | Commit]:
        """All that can be done now. Calling it again without news gives nothing."""
        self._close_if_due(now_s)
        if self.held:
            return list(self._commits())
        return [*self._hand_out(now_s), *self._stages(), *self._commits()]

    def _hand_out(self, now_s: float) -> Iterator[Order]:
        yield from self._hand_out_again()
        while (decoder := self._least_busy()) is not None:
            batch = self._batch_for_next_block(now_s)
            if batch is None:
                return
            block = self._waiting.popleft()
            share = self._share_for(batch, decoder)
            batch.add(block, share)
            yield Order(decoder, Decode(block, batch.first, share.number, share.attempt))
            self._close_if_due(now_s)

    def _hand_out_again(self) -> Iterator[Order]:
        """Shares that lost their decoder come first, each with one new owner."""
        for batch in self._may_run():
            for share in batch.shares:
                if share.waiting and share.owner is None:
                    share.owner = self._least_busy()
                while share.waiting and share.owner is not None and self._load(share.owner) < DECODER_DEPTH:
                    block = share.blocks[share.waiting.popleft()]
                    share.asking.add(block.seq)
                    yield Order(share.owner, Decode(block, batch.first, share.number, share.attempt))

    def _batch_for_next_block(self, now_s: float) -> Batch | None:
        if not self._waiting:
            return None
        if (batch := self._open()) is not None:
            return batch if self._may_run()[-1] is batch else None
        if len(self._batches) >= MAX_CLOSED_BATCHES or any(batch.unanswered() for batch in self._batches):
            return None
        batch = Batch(first=self._waiting[0].seq, opened_at_s=now_s)
        self._batches.append(batch)
        return batch

    def _may_run(self) -> list[Batch]:
        """Up to the first one that has blocks without an answer."""
        found: list[Batch] = []
        for batch in self._batches:
            found.append(batch)
            if batch.unanswered():
                break
        return found

    def _share_for(self, batch: Batch, decoder: int) -> Share:
        for share in batch.shares:
            if share.owner == decoder:
                return share
        share = Share(number=len(batch.shares) + 1, owner=decoder)
        batch.shares.append(share)
        return share

    def _stages(self) -> Iterator[Order]:
        before, batch_before = self._before, self._batch_before
        for batch in self._batches:
            if not batch.closed:
                return
            batch.before = before
            for share in batch.shares:
                if share.owner is None or share.stage_ordered or not share.all_done:
                    continue
                share.stage_ordered = True
                yield Order(share.owner, self._stage(batch, share, before, batch_before))
            if not batch.all_done():
                return
            before, batch_before = before + batch.counts(), (batch.first, batch.last)

    def _stage(self, batch: Batch, share: Share, before: Totals, batch_before: tuple[int, int]) -> Stage:
        return Stage(
            batch=batch.first,
            last=batch.last,
            share=share.number,
            attempt=share.attempt,
            shares=len(batch.shares),
            before=before,
            batch_before=batch_before,
            held_us=batch.held_us,
        )

    def _commits(self) -> Iterator[Commit]:
        if not self._batches:
            return
        batch = self._batches[0]
        if batch.closed and not batch.committing and batch.all_staged():
            batch.committing = True
            yield Commit(batch)

    def _close_if_due(self, now_s: float) -> None:
        batch = self._open()
        if batch is None:
            return
        old = now_s - batch.opened_at_s >= self.limits.max_age_s
        hole = bool(self._waiting) and self._waiting[0].seq != batch.last + 1 and batch.last > 0
        large = batch.bytes >= self.limits.max_bytes or len(batch.hours) > MAX_HOURS
        if old or hole or large or self._makes_room(batch):
            batch.closed = True

    def _makes_room(self, batch: Batch) -> bool:
        """Only a commit does. Many small ones would make many small parts, so blocks are waited for."""
        if not self.full_journal_bytes:
            return False
        return not self._waiting or batch.bytes >= self.full_journal_bytes // 2

    # ------------------------------------------------------------ looking things up

    def _open(self) -> Batch | None:
        return self._batches[-1] if self._batches and not self._batches[-1].closed else None

    def _unstaged(self) -> Iterator[Share]:
        return (share for batch in self._batches for share in batch.shares if share.staged is None)

    def _load(self, decoder: int) -> int:
        return sum(share.in_hand for share in self._unstaged() if share.owner == decoder)

    def _least_busy(self) -> int | None:
        """The lowest number wins a tie, so a quiet stream keeps one decoder and one part."""
        free = [
            (load, decoder) for decoder in self._decoders if (load := self._load(decoder)) < DECODER_DEPTH
        ]
        return min(free)[1] if free else None

    def _share(self, batch: int, number: int, attempt: int) -> Share:
        share = self.batch_of(batch).shares[number - 1]
        if share.attempt != attempt:
            raise ProtocolError(
                f"share {number} of batch {batch} is at attempt {share.attempt}, not {attempt}"
            )
        return share
