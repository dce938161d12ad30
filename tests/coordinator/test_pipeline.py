"""The pipeline with decoders that are played by the test: who gets what when one of them dies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from collector.coordinator.pipeline import Pipeline
from collector.core.batching import BatchLimits
from collector.core.ledger import LogState
from collector.core.messages import (
    Block,
    BlockDone,
    Claims,
    ConnectionRow,
    Decode,
    Failed,
    Keep,
    Poisoned,
    Ready,
    Stage,
    StageConnections,
    Staged,
    Totals,
)
from collector.core.poison import FORGIVEN_LIMIT
from collector.core.resends import ResendIndex
from collector.core.supervision import RESTART_LIMIT, Death, Phase, ProgressSnapshot
from collector.errors import ChildFailedError, ChildReportedError, ExitCode

CONNECTIONS = StageConnections(
    1, 1, (ConnectionRow(kind="gap", connection=0, began_us=1, ended_us=2),), Totals()
)


def block(seq: int) -> Block:
    return Block(seq, 1, 0, 10, 5, 1, 0, 0, 0)


def done(seq: int) -> BlockDone:
    return BlockDone(seq, 5, 0, 0, 0, 0, (1,), 0)


def claims(seq: int, *ids: int) -> Claims:
    """Of its first lines."""
    low, lines = np.array(ids, "<u8"), np.arange(len(ids), dtype="<i4")
    return Claims(seq, np.zeros(len(ids), "<u8").tobytes(), low.tobytes(), lines.tobytes())


def crash(seq: int, line: int = -1, signal: str = "SIGSEGV") -> Death:
    return Death(f"signal {signal}", signal, 0, ProgressSnapshot(1, Phase.DECODING, seq, line))


KILLED = Death("signal SIGKILL", signal="SIGKILL")


@dataclass
class Decoder:
    """A child as the pipeline sees it. ``reaping`` is held until the test lets it go."""

    name: str
    pid: int = 1
    says: asyncio.Queue = field(default_factory=asyncio.Queue)
    told: list = field(default_factory=list)
    reaped: asyncio.Event = field(default_factory=asyncio.Event)
    death: Death = KILLED
    killed: bool = False

    async def receive(self):
        return await self.says.get()

    def send(self, message) -> None:
        self.told.append(message)

    async def reap(self, *, grace_s: float = 0.0) -> Death:
        await self.reaped.wait()
        return self.death

    def kill(self) -> None:
        self.killed = True

    def die(self, death: Death | None = None) -> None:
        self.death = death or self.death
        self.says.put_nowait(None)
        self.reaped.set()

    def orders(self, kind) -> list:
        return [message for message in self.told if isinstance(message, kind)]


class NoRuns:
    def contains(self, key, low):
        return np.zeros(len(key), np.bool_)


class Commits:
    """Stands for the commit log and the output folder."""

    def __init__(self) -> None:
        self.ledger = LogState()
        self.batches: list[tuple[int, int]] = []
        self.forgotten: list[str] = []

    async def commit(self, batch) -> None:
        self.batches.append((batch.first, batch.last))

    async def tidy(self, oldest, held_us) -> None: ...

    async def forget_staged(self, prefixes) -> None:
        self.forgotten += prefixes


class Rehearsal:
    """A running pipeline with its decoders, in the order they were started."""

    def __init__(self, decoders: int, *, come_up: bool = True) -> None:
        self.come_up = come_up
        self.decoders: list[Decoder] = []
        self.started: asyncio.Queue[Decoder] = asyncio.Queue()
        self.commits = Commits()
        self.pipeline = Pipeline(
            limits=BatchLimits(3600, 1 << 30),
            decoders=decoders,
            start_decoder=self._start,
            committer=self.commits,
            index=ResendIndex(NoRuns()),
            committed=lambda last: None,
        )
        self.task = asyncio.create_task(self.pipeline.run())

    async def _start(self, name: str) -> Decoder:
        decoder = Decoder(name)
        self.decoders.append(decoder)
        self.started.put_nowait(decoder)
        if self.come_up:
            decoder.says.put_nowait(Ready(1))
        return decoder

    async def settled(self) -> None:
        """Everything that can happen without the test has happened."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.pipeline.stop()
        for decoder in self.decoders:
            decoder.reaped.set()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def play(decoders: int):
    """Runs a coroutine function with a pipeline on a loop of its own."""

    def wrap(act):
        def test() -> None:
            async def run() -> None:
                stage = Rehearsal(decoders)
                await stage.settled()
                try:
                    await act(stage)
                finally:
                    await stage.end()

            asyncio.run(run())

        test.__doc__ = act.__doc__
        return test

    return wrap


@play(decoders=2)
async def test_work_of_the_dead_goes_to_its_peer_before_a_successor_is_up(stage):
    """Reaped first, then its blocks run again at once, under the next attempt; its files are forgotten."""
    first, second = stage.decoders
    stage.pipeline.accepted((block(1), block(2)))
    first.says.put_nowait(None)
    await stage.settled()
    assert [order.block.seq for order in second.orders(Decode)] == [2], "not before it is reaped"
    first.reaped.set()
    await stage.settled()
    assert [(order.block.seq, order.share, order.attempt) for order in second.orders(Decode)] == [
        (2, 2, 1),
        (1, 1, 2),
    ]
    assert stage.commits.forgotten == ["1-1-1-"]


@play(decoders=1)
async def test_blocks_that_come_while_a_decoder_is_reaped_are_not_lost(stage):
    """What is handed to a dying decoder runs again on its successor."""
    stage.decoders[0].says.put_nowait(None)
    await stage.settled()
    stage.pipeline.accepted((block(1),))
    stage.decoders[0].reaped.set()
    await stage.settled()
    assert [order.block.seq for order in stage.decoders[1].orders(Decode)] == [1]


@play(decoders=2)
async def test_rows_of_connections_are_staged_by_one_decoder(stage):
    """A second decoder that becomes ready does not get the order as well; a peer does when the first dies."""
    staging = asyncio.create_task(stage.pipeline.stage_connections(CONNECTIONS))
    await stage.settled()
    first, second = stage.decoders
    second.says.put_nowait(Ready(1))
    await stage.settled()
    assert [len(decoder.orders(StageConnections)) for decoder in (first, second)] == [1, 0]
    first.die()
    await stage.settled()
    assert len(second.orders(StageConnections)) == 1
    second.says.put_nowait(Staged(1, 0, 0, (), 1, 0, 0))
    assert (await staging).rows == 1


@play(decoders=2)
async def test_a_drain_closes_the_batch_once_everything_is_handed_out(stage):
    """Every accepted block is in one committed batch when ``drained`` returns."""
    stage.pipeline.accepted(tuple(block(seq) for seq in range(1, 8)))
    drained = asyncio.create_task(stage.pipeline.drained())
    for _ in range(20):
        for decoder in stage.decoders:
            todo, decoder.told = decoder.told, []
            for order in todo:
                if isinstance(order, Decode):
                    decoder.says.put_nowait(done(order.block.seq))
                elif isinstance(order, Stage):
                    share = stage.pipeline.batching.batch_of(order.batch).shares[order.share - 1]
                    decoder.says.put_nowait(
                        Staged(order.batch, order.share, order.attempt, (), share.counts.rows, 0, 0)
                    )
        await stage.settled()
    await drained
    assert stage.commits.batches == [(1, 7)]


def test_blocks_that_come_after_a_decoder_ended_the_collector_wait_in_the_journal():
    """Its reason ends the collector, and nothing that the others do until they have ended hides it."""

    async def run() -> None:
        stage = Rehearsal(2)
        await stage.settled()
        stage.pipeline.accepted((block(1),))
        broken = next(decoder for decoder in stage.decoders if decoder.orders(Decode))
        broken.says.put_nowait(Failed(ExitCode.STORAGE, "the disk is read-only"))
        for decoder in stage.decoders:
            decoder.reaped.set()
        await stage.settled()
        stage.pipeline.accepted((block(2), block(3)))
        with pytest.raises(ExceptionGroup) as failure:
            await stage.task
        assert failure.group_contains(ChildReportedError, match="read-only")

    asyncio.run(run())


def test_a_decoder_that_keeps_dying_ends_the_pipeline():
    """More deaths than the restart limit within its window: ChildFailedError, after no more starts."""

    async def run() -> int:
        stage = Rehearsal(decoders=1)
        for _ in range(RESTART_LIMIT + 1):
            (await stage.started.get()).die()
        with pytest.raises(ExceptionGroup) as failure:
            await stage.task
        assert failure.group_contains(ChildFailedError)
        return len(stage.decoders)

    assert asyncio.run(run()) == RESTART_LIMIT + 1


def test_a_decoder_that_never_came_up_ends_the_pipeline():
    """It is not tried again, and the message says that it cannot start."""

    async def run() -> int:
        stage = Rehearsal(decoders=2, come_up=False)
        await stage.settled()
        for decoder in stage.decoders:
            decoder.reaped.set()
        stage.decoders[0].die(Death("exit code 1", exit_code=1))
        with pytest.raises(ExceptionGroup) as failure:
            await stage.task
        assert failure.group_contains(ChildFailedError, match="decoder 1 cannot start")
        return len(stage.decoders)

    assert asyncio.run(run()) == 2


# ---------------------------------------------------------------- poison


@play(decoders=1)
async def test_a_line_that_kills_twice_is_a_reject(stage):
    """First its block is done with care, then without it; neither death counts, nor delays anything."""
    stage.pipeline.accepted((block(1), block(2)))
    await stage.settled()
    stage.decoders[0].die(crash(1))
    await stage.settled()
    assert [(o.block.seq, o.careful) for o in stage.decoders[1].orders(Decode)] == [(1, True), (2, False)]
    stage.decoders[1].die(crash(1, 3))
    await stage.settled()
    first, second = stage.decoders[2].orders(Decode)
    assert first.poison == {3: "the decoder died of it (signal SIGSEGV)"}
    assert (second.careful, second.poison) == (False, {})


@play(decoders=1)
async def test_forgiven_deaths_never_end_the_collector_alone(stage):
    """More of them than the restart limit, then kills up to it: it still goes on."""
    for seq in range(1, RESTART_LIMIT + 6):
        stage.pipeline.accepted((block(seq),))
        stage.decoders[-1].die(crash(seq))
        await stage.settled()
    deaths = len(stage.decoders)
    stage.decoders[-1].die()
    await stage.settled()
    assert len(stage.decoders) == deaths + 1, "the first that counts, so its successor starts at once"


def test_a_decoder_that_dies_of_everything_ends_the_pipeline():
    """Not for want of restarts: what it says is that decoding is broken and nothing lost."""

    async def run() -> int:
        stage = Rehearsal(decoders=1)
        for seq in range(1, FORGIVEN_LIMIT + 2):
            decoder = await stage.started.get()
            decoder.die(crash(seq))
        with pytest.raises(ExceptionGroup) as failure:
            await stage.task
        assert failure.group_contains(ChildFailedError, match="decoding is broken.*[Nn]othing is lost")
        return len(stage.decoders)

    assert asyncio.run(run()) == FORGIVEN_LIMIT + 1


@play(decoders=2)
async def test_a_line_that_claimed_nothing_is_a_reject_and_that_is_all(stage):
    """What failed before its block ever asked is not why anything was dropped."""
    stage.pipeline.accepted((block(1), block(2)))
    await stage.settled()
    first, second = stage.decoders
    first.says.put_nowait(Poisoned(1, {0: "decoding it failed (MemoryError)"}))
    first.says.put_nowait(claims(1, 8, 9))
    await stage.settled()
    assert [keep.seq for keep in first.orders(Keep)] == [1]
    assert not first.killed
    assert not second.killed


@play(decoders=2)
async def test_a_line_that_had_claimed_its_id_voids_all_claims(stage):
    """Its decoder and its peer are ended and replaced, their files forgotten, and what was a resend is a row.

    Block 1 claimed an id, block 2 was told it is a resend; then block 1 runs again and that line fails.
    """
    stage.pipeline.accepted((block(1), block(2)))
    await stage.settled()
    first, second = stage.decoders
    first.says.put_nowait(claims(1, 8))
    await stage.settled()
    second.says.put_nowait(claims(2, 8))
    await stage.settled()
    assert second.orders(Keep)[0].drop == np.array([0], "<u4").tobytes()
    first.die()
    await stage.settled()
    assert [order.block.seq for order in second.orders(Decode)] == [2, 1]
    second.says.put_nowait(Poisoned(1, {0: "decoding it failed (MemoryError)"}))
    second.says.put_nowait(done(1))
    await stage.settled()
    third = stage.decoders[2]
    assert second.killed
    assert third.killed, "whoever is there: what it says is of no use any more"
    second.die()
    third.die()
    await stage.settled()
    assert {"1-1-2-", "1-2-1-"} <= set(stage.commits.forgotten)
    orders = {order.block.seq: order for decoder in stage.decoders[3:] for order in decoder.orders(Decode)}
    assert orders[1].poison == {0: "decoding it failed (MemoryError)"}
    asker = next(decoder for decoder in stage.decoders[3:] if orders[2] in decoder.told)
    asker.says.put_nowait(claims(2, 8))
    await stage.settled()
    assert asker.orders(Keep)[-1].drop == b""


@play(decoders=1)
async def test_what_a_dead_decoder_had_staged_is_forgotten_when_claims_are_void(stage):
    """The only decoder dies of a line that holds an id: nobody else is left to clear up after it."""
    stage.pipeline.accepted((block(1),))
    await stage.settled()
    stage.decoders[0].says.put_nowait(claims(1, 7, 8))
    await stage.settled()
    stage.decoders[0].die(crash(1, signal="SIGKILL"))
    await stage.settled()
    stage.decoders[1].die(crash(1, 1))
    await stage.settled()
    assert stage.commits.forgotten == ["1-1-1-", "1-1-2-", "1-1-3-"]
    (order,) = stage.decoders[2].orders(Decode)
    assert (order.attempt, set(order.poison)) == (4, {1})


# ---------------------------------------------------------------- rolled


def staged(decoder: Decoder, rows: int) -> Staged:
    order = decoder.orders(Stage)[-1]
    return Staged(order.batch, order.share, order.attempt, (), rows, 0, 0)


async def let_die(stage: Rehearsal, decoder: Decoder) -> None:
    """A killed one is heard to be gone."""
    decoder.die()
    await stage.settled()


@play(decoders=2)
async def test_decoders_are_rolled_one_after_the_other_when_their_work_is_staged(stage):
    """The next is not touched before the successor of the first is up; new batches wait for new ones."""
    first, second = stage.decoders
    stage.pipeline.accepted((block(1), block(2)))
    roll = asyncio.create_task(stage.pipeline.roll(2, everyone=True))
    await stage.settled()
    stage.pipeline.accepted((block(3),))
    assert not first.killed
    for decoder, seq in ((first, 1), (second, 2)):
        decoder.says.put_nowait(claims(seq))
        decoder.says.put_nowait(done(seq))
    await stage.settled()
    first.says.put_nowait(staged(first, 5))
    await stage.settled()
    assert (first.killed, second.killed) == (True, False)
    stage.come_up = False
    await let_die(stage, first)
    third = stage.decoders[2]
    assert third.name == first.name
    second.says.put_nowait(staged(second, 5))
    await stage.settled()
    assert stage.commits.batches == [(1, 2)]
    assert not second.killed, "the first one's successor is not up yet"
    stage.come_up = True
    third.says.put_nowait(Ready(1))
    await stage.settled()
    assert second.killed
    assert [order.block.seq for order in third.orders(Decode)] == [3]
    assert not roll.done()
    await let_die(stage, second)
    assert roll.done()
    assert [order.block.seq for order in first.orders(Decode) + second.orders(Decode)] == [1, 2]


@play(decoders=2)
async def test_one_that_dies_while_it_is_rolled_is_replaced_like_any_other(stage):
    """Its share runs again, on a new one: whole."""
    first, second = stage.decoders
    stage.pipeline.accepted((block(1), block(2)))
    roll = asyncio.create_task(stage.pipeline.roll(2, everyone=True))
    await stage.settled()
    await let_die(stage, first)
    third = stage.decoders[2]
    assert [(order.block.seq, order.attempt) for order in third.orders(Decode)] == [(1, 2)]
    await let_die(stage, second)
    await stage.settled()
    assert roll.done()
    assert len(stage.decoders) == 4


@play(decoders=2)
async def test_one_that_dies_before_its_turn_is_not_waited_for(stage):
    """Its successor has the new settings already."""
    first, second = stage.decoders
    stage.pipeline.accepted((block(1),))
    roll = asyncio.create_task(stage.pipeline.roll(2, everyone=True))
    await stage.settled()
    await let_die(stage, second)
    assert not roll.done()
    await let_die(stage, first)
    assert roll.done()
    assert len(stage.decoders) == 4


@play(decoders=3)
async def test_fewer_decoders_end_the_last_ones_and_more_start_others(stage):
    """Nobody else is touched."""
    roll = asyncio.create_task(stage.pipeline.roll(1, everyone=False))
    await stage.settled()
    for decoder in stage.decoders[1:]:
        assert decoder.killed
        await let_die(stage, decoder)
    assert roll.done()
    assert not stage.decoders[0].killed
    assert len(stage.decoders) == 3
    await stage.pipeline.roll(2, everyone=False)
    await stage.settled()
    assert [decoder.name for decoder in stage.decoders[3:]] == ["decoder 2"]


@play(decoders=1)
async def test_one_that_is_still_starting_is_rolled_too(stage):
    """It was started with the old settings, so it gets no block when it comes up."""
    stage.come_up = False
    await let_die(stage, stage.decoders[0])
    starting = stage.decoders[1]
    roll = asyncio.create_task(stage.pipeline.roll(1, everyone=True))
    await stage.settled()
    starting.says.put_nowait(Ready(1))
    stage.pipeline.accepted((block(1),))
    await stage.settled()
    assert starting.killed
    assert starting.orders(Decode) == []
    stage.come_up = True
    await let_die(stage, starting)
    assert roll.done()
    assert [order.block.seq for order in stage.decoders[2].orders(Decode)] == [1]


@play(decoders=1)
async def test_rows_of_connections_are_finished_before_their_decoder_is_rolled(stage):
    """The order is one decoder's, and it would wait for ever."""
    (first,) = stage.decoders
    rows = asyncio.create_task(stage.pipeline.stage_connections(CONNECTIONS))
    await stage.settled()
    roll = asyncio.create_task(stage.pipeline.roll(1, everyone=True))
    await stage.settled()
    assert not first.killed
    first.says.put_nowait(Staged(1, 0, 0, (), 1, 0, 0))
    await stage.settled()
    assert rows.done()
    assert first.killed
    await let_die(stage, first)
    assert roll.done()
