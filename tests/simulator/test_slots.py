"""Ghosts, backfill and shares: who gets the stream, and where it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from livestream_client import Client, ask, refused, until

from collector.simulator.hits import Hits
from collector.simulator.server import Simulator
from collector.simulator.settings import GhostStatus, Resume, SimulatorSettings
from collector.simulator.slots import Production, Refused, Reset, Sent, Slot, Slots

TIMER_S = 0.05
"""A loop's timer counts from when the loop last woke, and may be that much early."""


def play(scene: Callable[[Simulator], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        base = {"hits_per_second": 0, "total": 100, "ghost_s": 0.3, "overlap_s": 10.0}
        async with Simulator(SimulatorSettings(**base | settings)) as service:
            await scene(service)

    uvloop.run(main())


async def open_stream(service: Simulator, query: str = "") -> Client:
    """Opened as soon as no ghost is in the way; asking prolongs it, so wait first."""
    await asyncio.sleep(service.settings.ghost_s + TIMER_S)
    client = await ask(f"{service.url}?{query}")
    assert client.status == 200
    return client


# ---------------------------------------------------------------- over sockets


@pytest.mark.parametrize("how", ["reset", "close"])
def test_leaving_is_abrupt(how: str) -> None:
    """A client that resets or just closes leaves a ghost: the next one is refused until it has gone."""

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(10)
        await getattr(client, how)()
        await until(lambda: not service.holding)
        status, words = await refused(service.url)
        assert status == 409
        assert "too many connections" in words
        await (await (await open_stream(service)).hits(1)).close()
        assert service.requests[0].ended == f"client {how}" + ("" if how == "reset" else "d")

    play(scene)


def test_clean_end_leaves_no_ghost() -> None:
    """When the service itself ended the stream, the slot is free at once."""

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(100)
        assert await service.cut("clean") == 1
        assert (await client.to_end()).ended == "clean"
        assert not client.inside_member
        await client.close()
        again = await ask(service.url)
        assert again.status == 200
        await again.close()

    play(scene)


def test_knocking_prolongs_the_ghost() -> None:
    """Whoever keeps knocking, never gets in; 409 and 503 take turns."""

    async def scene(service: Simulator) -> None:
        await (await (await ask(service.url)).hits(10)).reset()
        await until(lambda: not service.holding)
        statuses = []
        for _ in range(4):
            await asyncio.sleep(0.2)
            statuses.append((await refused(service.url))[0])
        assert statuses == [409, 503, 409, 503]
        await (await open_stream(service)).close()

    play(scene)


def test_taken_slot_is_409_and_the_holder_undisturbed() -> None:
    """A second client of a stream for one is refused, and the first goes on."""

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(10)
        status, words = await refused(service.url)
        assert status == 409
        assert "too many" in words
        status, words = await refused(service.url + "?maxConnections=2")
        assert status == 409
        assert "disagree" in words
        await client.hits(100)
        await client.close()

    play(scene)


@pytest.mark.parametrize("resume", list(Resume))
def test_resumes(resume: Resume) -> None:
    """After a loss with nothing in flight, ``overlap`` repeats, ``exact`` and ``lossy`` go on."""

    async def scene(service: Simulator) -> None:
        first = await (await ask(service.url)).hits(1)
        await until(lambda: service.hits_sent == 100)
        await first.hits(100)
        await service.cut("rst")
        await first.close()
        second = await open_stream(service)
        await second.until(lambda it: it.lines[-1:] == [b""])
        assert first.indices() == list(range(100))
        assert second.indices() == (list(range(100)) if resume is Resume.OVERLAP else [])
        assert service.hits_sent == 100
        await second.close()

    play(scene, resume=resume, heartbeat_s=0.1)


def _lost_in_flight(resume: Resume, leave: str) -> tuple[list[int], list[int], int]:
    """A client that stops reading at full speed and then vanishes; what the two connections brought."""
    found: list[list[int]] = []

    async def scene(service: Simulator) -> None:
        first = await (await ask(service.url)).hits(100)
        sent = -1
        while sent < service.hits_sent:  # until the socket is full
            sent = service.hits_sent
            await asyncio.sleep(0.1)
        assert sent < 100_000
        if leave == "client":
            await first.reset()
            await until(lambda: not service.holding)
        else:
            await service.cut("rst")
            await first.to_end()
            await first.close()
        second = await (await open_stream(service)).hits(100)
        found.extend([first.indices(), second.indices()[:100], [sent]])
        await second.reset()

    play(scene, resume=resume, total=100_000)
    return found[0], found[1], found[2][0]


@pytest.mark.parametrize("leave", ["client", "server"])
def test_exact_resumes_at_what_was_not_acknowledged(leave: str) -> None:
    """``exact`` goes on where the client's kernel had not acknowledged: nothing sent is lost there."""
    first, second, sent = _lost_in_flight(Resume.EXACT, leave)
    assert second[0] < sent
    if leave == "server":  # this client reads what its kernel had
        assert second[0] <= len(first) <= second[0] + 256
        assert sorted(set(first) | set(second)) == list(range(second[-1] + 1))


def test_lossy_loses_what_was_in_flight() -> None:
    """``lossy`` goes on at the next hit never sent."""
    first, second, sent = _lost_in_flight(Resume.LOSSY, "server")
    assert second[0] == sent
    assert len(first) < sent


def test_overlap_never_skips_what_was_in_flight() -> None:
    """``overlap`` repeats at least what was not acknowledged, however short it is."""
    first, second, _ = _lost_in_flight(Resume.OVERLAP, "server")
    assert sorted(set(first) | set(second)) == list(range(max(len(first), second[-1] + 1)))


def test_hits_made_meanwhile_are_backfilled() -> None:
    """At a rate, hits go on being made during a disconnect and arrive after it."""

    async def scene(service: Simulator) -> None:
        first = await (await ask(service.url)).hits(20)
        await service.cut("fin")
        assert (await first.to_end()).ended == "fin"
        await first.close()
        start_s = asyncio.get_running_loop().time()
        second = await (await open_stream(service)).hits(60)
        assert asyncio.get_running_loop().time() - start_s < 0.55
        assert sorted({*first.indices(), *second.indices()}) == list(
            range(len(first.records) + len(second.records))
        )
        await second.close()

    play(scene, hits_per_second=200, total=None, resume=Resume.EXACT)


def test_after_the_window_the_gap_is_lost() -> None:
    """A client that comes back too late goes on at the present."""

    async def scene(service: Simulator) -> None:
        first = await (await ask(service.url)).hits(10)
        await service.cut("rst")
        await first.to_end()
        await first.close()
        await asyncio.sleep(0.3)
        second = await (await open_stream(service)).hits(1)
        assert second.indices()[0] > max(first.indices()) + 80
        await second.close()

    play(scene, hits_per_second=200, total=None, backfill_window_s=0.2)


def test_several_connections_share_by_visitor() -> None:
    """With ``maxConnections=3`` three clients get every hit once, a visitor's all on one connection."""

    async def scene(service: Simulator) -> None:
        clients = [await ask(service.url + "?maxConnections=3") for _ in range(3)]
        assert (await refused(service.url + "?maxConnections=3"))[0] == 409
        for client in clients:
            await client.until(lambda it: it.lines[-1:] == [b""])
        assert sorted(i for client in clients for i in client.indices()) == list(range(100))
        shares = Hits(0).shares(0, 100, 3)
        for number, client in enumerate(clients):
            assert {int(shares[i]) for i in client.indices()} == {number}
        assert service.hits_sent == 100
        for client in clients:
            await client.close()

    play(scene, heartbeat_s=0.1)


# ---------------------------------------------------------------- pure


def slots(rate: float = 100.0, **settings: Any) -> tuple[Slots, Production]:
    production = Production(rate, None)
    return Slots(SimulatorSettings(**settings), production, Hits(0)), production


def send(it: Slots, slot: Slot, now_s: float, count: int) -> None:
    it.record(slot, Sent(now_s, slot.cursor, slot.cursor + count, 1.0))
    slot.cursor += count


def granted(answer: Slot | Refused) -> Slot:
    assert isinstance(answer, Slot)
    return answer


def test_ghost_lasts_its_time_from_the_last_knock() -> None:
    """A ghost goes ``ghost_s`` after the break or the last refusal, not sooner."""
    it, _ = slots(ghost_s=60)
    it.end(granted(it.ask(0, 1)), 10, abrupt=True, acknowledged=0)
    assert isinstance(it.ask(69, 1), Refused)
    assert isinstance(it.ask(128, 1), Refused)
    assert isinstance(it.ask(188.5, 1), Slot)


def test_ghost_status_can_be_fixed() -> None:
    """``ghost_status`` picks one answer for good."""
    it, _ = slots(ghost_status=GhostStatus.UNAVAILABLE)
    it.end(granted(it.ask(0, 1)), 10, abrupt=True, acknowledged=0)
    assert [it.ask(11 + n, 1).status for n in range(3)] == [503, 503, 503]


def test_a_free_slot_is_given_beside_a_ghost() -> None:
    """Of two places one may be a ghost's and the other free."""
    it, _ = slots()
    first = granted(it.ask(0, 2))
    it.end(first, 1, abrupt=True, acknowledged=0)
    assert granted(it.ask(2, 2)).number == 1
    assert isinstance(it.ask(3, 2), Refused)


def test_overlap_repeats_the_last_seconds() -> None:
    """Only what was sent in the last ``overlap_s`` comes again."""
    it, _ = slots(overlap_s=10)
    slot = granted(it.ask(0, 1))
    for second in range(20):
        send(it, slot, second, 100)
    it.end(slot, 19.5, abrupt=True, acknowledged=1.0)
    assert granted(it.ask(100, 1)).cursor == 1000


def test_exact_rewinds_to_the_first_write_in_flight() -> None:
    """A write of which a byte is missing comes again whole; those before it do not."""
    it, _ = slots(resume=Resume.EXACT)
    slot = granted(it.ask(0, 1))
    for write in range(5):
        it.record(slot, Sent(write, write * 10, write * 10 + 10, wire_end=(write + 1) * 1000))
        slot.cursor += 10
    it.end(slot, 6, abrupt=True, acknowledged=2999)
    assert granted(it.ask(100, 1)).cursor == 20


@pytest.mark.parametrize(
    ("reset", "cursor"),
    [(None, 500), (Reset.LARGEST, 10_000), (Reset.LATEST, 10_000), (Reset.SMALLEST, 0), (Reset.EARLIEST, 0)],
)
def test_reset_moves_the_start(reset: Reset | None, cursor: int) -> None:
    """``latest`` throws away the backfill, ``earliest`` sends all of the window again."""
    it, _ = slots(resume=Resume.EXACT, rate=100)
    slot = granted(it.ask(0, 1))
    send(it, slot, 1, 500)
    it.end(slot, 5, abrupt=False, acknowledged=1)
    assert granted(it.ask(100, 1, reset)).cursor == cursor


def test_reset_does_nothing_while_another_client_is_there() -> None:
    """``reset`` is only effective when every client of the stream is closed."""
    it, _ = slots()
    granted(it.ask(0, 2))
    assert granted(it.ask(50, 2, Reset.LATEST)).cursor == 0


def test_other_max_connections_lose_nothing() -> None:
    """When all come back with another ``maxConnections``, shares are dealt from the furthest behind."""
    it, _ = slots(rate=0)
    first, second = granted(it.ask(0, 2)), granted(it.ask(0, 2))
    send(it, first, 1, 1000)
    send(it, second, 1, 400)
    both = int((Hits(0).shares(0, 1000, 2) == 0).sum() + (Hits(0).shares(0, 400, 2) == 1).sum())
    assert it.distinct == both
    it.end(first, 2, abrupt=False, acknowledged=1)
    it.end(second, 2, abrupt=False, acknowledged=1)
    only = granted(it.ask(3, 1))
    assert only.cursor <= 400
    only.cursor = 400
    send(it, only, 4, 600)
    assert it.distinct == 1000


def test_production_keeps_its_pace() -> None:
    """Hits are made from the first opening on, up to ``total``."""
    production = Production(10.0, 25)
    assert production.by(100) == 0
    production.started_s = 100
    assert [production.by(s) for s in (100, 101.05, 200)] == [0, 10, 25]
    assert production.next_s(101.05) == pytest.approx(101.1)
