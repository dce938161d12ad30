"""Accepted blocks in, committed batches out: the decoders, their claims and the batches' commits.

Runs in the coordinator. The decisions are ``core.batching``'s, ``core.resends``' and ``core.poison``'s;
here they are sent, awaited and survived.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial

import numpy as np

from collector.coordinator.children import decoder_name
from collector.coordinator.committer import STORAGE_RETRY_S, Committer
from collector.coordinator.supervisor import Child, delay_of_successor_s
from collector.core.batching import Batching, BatchLimits, Commit, LostShare
from collector.core.messages import (
    Block,
    BlockDone,
    Claims,
    Decode,
    Failed,
    FromDecoder,
    Keep,
    NoSpace,
    Poisoned,
    Ready,
    StageConnections,
    Staged,
)
from collector.core.poison import FORGIVEN_WINDOW_S, Blame, Poison
from collector.core.resends import ResendIndex
from collector.core.supervision import Death, RestartIntensity
from collector.errors import ChildFailedError, ChildReportedError
from collector.telemetry import log

StartDecoder = Callable[[str], Awaitable[Child[FromDecoder]]]


class Pipeline:
    """Feed it blocks with ``accepted``; ``run`` keeps the decoders alive until it is cancelled."""

    def __init__(
        self,
        *,
        limits: BatchLimits,
        decoders: int,
        start_decoder: StartDecoder,
        committer: Committer,
        index: ResendIndex,
        committed: Callable[[int], None],
        done: Callable[[BlockDone], None] = lambda _: None,
    ) -> None:
        self._start_decoder = start_decoder
        self._committer = committer
        self._index = index
        self._committed = committed
        self._done = done
        self._decoders = decoders
        self._numbers = itertools.count(1)
        self._slots: dict[int, int] = {}
        """Of every decoder, by its number; also of one that is being started."""
        self._kept: set[int] = set()
        """Slots that are filled again when their decoder dies."""
        self._old: set[int] = set()
        """Numbers of those that get no new batch."""
        self._news = asyncio.Event()
        self._came_up = False
        """A decoder did, so others can: one that dies at its first start is tried again."""
        self._group: asyncio.TaskGroup
        self._children: dict[int, Child[FromDecoder]] = {}
        self._meant_to_die: dict[int, list[LostShare]] = {}
        """With what they may have in the staging folder."""
        self._poison = Poison()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connections: asyncio.Future[Staged | NoSpace] | None = None
        self._connections_order: StageConnections | None = None
        self._connections_decoder: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._draining = False
        self._stopping = False
        self._over = False
        """A decoder ended the collector: nothing is ordered any more."""
        ledger = committer.ledger
        self.batching = Batching(limits, ledger.totals, ledger.last_batch)
        self.decoded_records = 0
        """Since this start; those of a share that ran again count twice."""
        self.plain = ""
        """Why the newest decoder works without the kernel; empty: it has it."""

    # ------------------------------------------------------------ from the rest of the coordinator

    async def run(self) -> None:
        """Until cancelled. *Raises* whatever ends the collector: a defect, storage, a failing child."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._fill_slots()
            await self._failure

    def _fill_slots(self) -> None:
        for slot in set(range(1, self._decoders + 1)) - self._kept:
            self._kept.add(slot)
            self._group.create_task(self._keep_decoder(slot))

    async def roll(self, decoders: int, *, everyone: bool) -> list[int]:
        """From now on so many, and with ``everyone`` others: one after the other, each when it is done.

        What an old one has in hand it finishes and stages; a batch that begins from now on is run by new ones
        alone. Returns when these are there, with the slots of those that it ended. One call at a time.
        """
        ended = []
        self._decoders = decoders
        old = {number: slot for number, slot in self._slots.items() if everyone or slot > decoders}
        self._old.update(old)
        self.batching.retire(old)
        self._fill_slots()
        self._pump()
        for number, slot in old.items():
            await self._until(partial(self._is_done, number))
            if (child := self._children.get(number)) is not None:
                self._meant_to_die.setdefault(number, [])
                child.kill()
                ended.append(slot)
            await self._until(partial(self._is_replaced, number, slot))
        return ended

    def _is_done(self, number: int) -> bool:
        if number not in self._slots:
            return True
        busy = self._connections_decoder == number or not self.batching.is_free(number)
        return number in self._children and not busy

    def _is_replaced(self, number: int, slot: int) -> bool:
        if number in self._slots:
            return False
        if slot > self._decoders:
            return slot not in self._kept
        return any(self.batching.is_ready(number) for number, at in self._slots.items() if at == slot)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    def accepted(self, blocks: tuple[Block, ...]) -> None:
        for block in blocks:
            self.batching.accepted(block)
        self._pump()

    def journal_full(self, size_bytes: int) -> None:
        """It has no room left for the reader; 0: it has some again."""
        self.batching.full_journal_bytes = size_bytes
        self._pump()

    async def drained(self) -> None:
        """Returns once every accepted block is committed."""
        self._draining = True
        self._pump()
        while not self.batching.idle:
            self._idle.clear()
            await self._idle.wait()

    def left_blocks(self) -> list[Block]:
        """Accepted, not committed."""
        return self.batching.left()

    async def stage_connections(self, order: StageConnections) -> Staged | NoSpace:
        """Has one decoder write them. One order at a time. Survives that decoder's death."""
        self._connections = asyncio.get_running_loop().create_future()
        self._connections_order = order
        self._send_connections_order()
        try:
            return await self._connections
        finally:
            self._connections = self._connections_order = self._connections_decoder = None
            self._news.set()

    def stop(self) -> None:
        """Deaths from now on are meant."""
        self._stopping = True

    # ------------------------------------------------------------ one decoder

    async def _keep_decoder(self, slot: int) -> None:
        intensity = RestartIntensity(was_ready=self._came_up)
        while slot <= self._decoders:
            number = next(self._numbers)
            self._slots[number] = slot
            child = await self._start_decoder(decoder_name(slot))
            self._children[number] = child
            try:
                await self._listen(number, child, intensity)
            except BaseException:
                self._over = True
                raise
            finally:
                death = await child.reap()  # before anybody else gets its work
                del self._children[number], self._slots[number]
                self._old.discard(number)
            await self._replace(number, child.name, death, intensity)
        self._kept.discard(slot)
        self._news.set()

    async def _replace(self, number: int, name: str, death: Death, intensity: RestartIntensity) -> None:
        if self._stopping:
            await asyncio.Event().wait()  # until cancelled
        if self._connections_decoder == number:
            self._connections_decoder = None
        if number in self._meant_to_die:
            await self._take_back(self._meant_to_die.pop(number))
            return
        blame = self._poison.died(death, asyncio.get_running_loop().time())
        lost = self.batching.decoder_died(number)
        if blame.line is not None:
            lost += self._found_poison(blame.line[0], [blame.line[1]], death.how)
        await self._take_back(lost)
        delay_s = _delay_s(name, death, blame, intensity)
        blocks_again = sum(len(at.blocks) for at in lost)
        log("child.died", name=name, how=death.how, blocks_again=blocks_again, delay_s=delay_s)
        await asyncio.sleep(delay_s)

    async def _take_back(self, lost: Iterable[LostShare]) -> None:
        """What a decoder that is gone had in hand goes to others."""
        await self._committer.forget_staged([f"{at.batch}-{at.share}-{at.attempt}-" for at in lost])
        self._send_connections_order()
        self._pump()

    async def _listen(self, number: int, child: Child[FromDecoder], intensity: RestartIntensity) -> None:
        while (message := await child.receive()) is not None and number not in self._meant_to_die:
            match message:
                case Ready():
                    intensity.was_ready = self._came_up = True
                    self._ready(number, child, message)
                case Poisoned():
                    self._poison.found(message.seq, message.lines)
                    self._found_poison(message.seq, message.lines, next(iter(message.lines.values())))
                case Claims():
                    self._answer(child, message)
                case BlockDone():
                    self.batching.block_done(message)
                    self.decoded_records += message.rows + message.resends + message.rejects
                    self._done(message)
                case Staged() if message.share == 0:
                    self._connections_staged(message)
                case Staged():
                    self.batching.staged(message)
                case NoSpace():
                    self._no_space(message)
                case Failed():
                    raise ChildReportedError(child.name, message.message, message.exit_code)
            self._pump()

    def _ready(self, number: int, child: Child[FromDecoder], message: Ready) -> None:
        log("child.started", name=child.name, pid=child.pid)
        self.plain = message.plain
        if message.plain:
            log("decoder.plain", name=child.name, reason=message.plain)
        if number not in self._old:
            self.batching.decoder_ready(number)
        self._send_connections_order()

    def _answer(self, child: Child[FromDecoder], claims: Claims) -> None:
        batch = self.batching.batch_of(claims.seq)
        drop = self._index.answer(
            batch.first,
            claims.seq,
            np.frombuffer(claims.high, dtype="<u8"),
            np.frombuffer(claims.low, dtype="<u8"),
            np.frombuffer(claims.lines, dtype="<i4"),
        )
        child.send(Keep(claims.seq, drop.astype("<u4").tobytes()))
        self.batching.answered(claims.seq)

    # ------------------------------------------------------------ poison

    def _found_poison(self, block: int, lines: Collection[int], reason: str) -> tuple[LostShare, ...]:
        """A line that is a reject from now on must not be why another's hit is dropped as a resend."""
        log("block.poisoned", block=block, lines=len(lines), reason=reason)
        held = [line for line in lines if self._index.holds(block, line)]
        if not held:
            return ()
        voided = self.batching.void()
        self._index.void(self.batching.committing())
        for number, child in self._children.items():
            self._meant_to_die.setdefault(number, []).extend(voided)
            child.kill()
        log("batch.voided", block=block, line=held[0], blocks_again=sum(len(at.blocks) for at in voided))
        return voided

    # ------------------------------------------------------------ connections parts

    def _send_connections_order(self) -> None:
        able = self._children.keys() - self._old
        if self._connections_order is None or self._connections_decoder is not None or not able:
            return
        self._connections_decoder = min(able)
        self._children[self._connections_decoder].send(self._connections_order)

    def _connections_staged(self, message: Staged | NoSpace) -> None:
        if self._connections is not None and not self._connections.done():
            self._connections.set_result(message)

    # ------------------------------------------------------------ no room

    def _no_space(self, message: NoSpace) -> None:
        event = "storage.full" if message.full else "part.discarded"
        log(event, what="a part", reason=message.reason, retry_s=STORAGE_RETRY_S)
        if message.share == 0:
            self._connections_staged(message)
            return
        self.batching.no_space(message)
        self._retry_later()

    def _retry_later(self) -> None:
        def retry() -> None:
            self.batching.held = False
            self._pump()

        asyncio.get_running_loop().call_later(STORAGE_RETRY_S, retry)

    # ------------------------------------------------------------ orders

    def _pump(self) -> None:
        """Carry out all that can be done now."""
        self._news.set()
        if self._over:
            return
        self._carry_out()
        if self._draining and not self.batching.waiting_blocks:
            self.batching.close()
            self._carry_out()
        self._wake_at(self.batching.next_close_s())

    def _carry_out(self) -> None:
        for order in self.batching.orders(asyncio.get_running_loop().time()):
            if isinstance(order, Commit):
                self._spawn(self._commit(order))
            else:
                message = order.message
                child = self._children[order.decoder]
                child.send(self._poison.marked(message) if isinstance(message, Decode) else message)

    def _wake_at(self, at_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(at_s, loop.time() + 0.01), self._pump)

    async def _commit(self, order: Commit) -> None:
        batch = order.batch
        await self._committer.commit(batch)
        self.batching.committed(batch)
        self._index.drop_batch(batch.first)
        self._poison.committed(batch.last)
        self._committed(batch.last)
        self._idle.set()
        self._pump()
        await self._committer.tidy(self.batching.oldest_uncommitted(), batch.held_us[1])

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._work_ended)

    def _work_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)


def _delay_s(name: str, death: Death, blame: Blame, intensity: RestartIntensity) -> float:
    """Until its successor starts. *Raises* ChildFailedError where there is to be none."""
    if blame.broken:
        raise ChildFailedError(
            f"decoding is broken: decoders died of it too often within {FORGIVEN_WINDOW_S:.0f} s"
            f" (last: {name}, {death.how}); their messages are above. Nothing is lost: what is accepted waits"
            " in the journal for a version that can decode it"
        )
    return 0.0 if blame.forgiven else delay_of_successor_s(name, death, intensity)
