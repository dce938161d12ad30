"""Every scenario action on real sockets."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from livestream_client import Client, ask, connect, until

from collector.simulator.scenario import parse
from collector.simulator.server import Simulator
from collector.simulator.settings import Resume, SimulatorSettings


def play(scenario: str, scene: Callable[[Simulator], Awaitable[None]], **settings: Any) -> None:
    base = {"hits_per_second": 0, "total": 50, "ghost_s": 0.05, "rules": parse(scenario).rules}

    async def main() -> None:
        async with Simulator(SimulatorSettings(**base | settings)) as service:
            await scene(service)

    uvloop.run(main())


async def again(service: Simulator) -> Client:
    """The next connection, after the ghost."""
    await until(lambda: not service.holding)
    await asyncio.sleep(service.settings.ghost_s + 0.01)
    return await ask(service.url)


def test_answers_as_told() -> None:
    """A status with body and headers, for the requests it names only."""
    scenario = """
    [[rule]]
    requests = "1"
    [rule.answer]
    status = 503
    body = '{"error_description": "by hand"}'
    headers = {Retry-After = "120", X-Odd = "a b"}
    """

    async def scene(service: Simulator) -> None:
        client = await ask(service.url)
        assert (client.status, client.headers["retry-after"], client.headers["x-odd"]) == (503, "120", "a b")
        assert await client.json() == {"error_description": "by hand"}
        await client.close()
        second = await (await ask(service.url)).hits(50)
        await second.close()

    play(scenario, scene)


def test_200_that_is_not_gzip() -> None:
    """A 200 with a page for people in it."""
    scenario = "[[rule]]\nanswer = {status = 200, body = '<html>', headers = {Content-Encoding = 'gzip'}}"

    async def scene(service: Simulator) -> None:
        client = await ask(service.url)
        assert (client.status, client.headers["content-encoding"]) == (200, "gzip")
        assert await client.reader.read() == b"<html>"
        await client.close()

    play(scenario, scene)


@pytest.mark.parametrize("location", ["https://elsewhere.example/x?y", "file:///etc/passwd", "", None])
def test_redirects_verbatim(location: str | None) -> None:
    """``Location`` is sent as it stands, or not at all."""
    scenario = "[[rule]]\nredirect = {" + ("" if location is None else f"location = '{location}'") + "}"

    async def scene(service: Simulator) -> None:
        client = await connect(service.url)
        await client.get(service.url)
        head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 302 ")
        assert ("Location: " in head) == (location is not None)
        assert f"Location: {location}\r\n" in head or location is None
        await client.close()

    play(scenario, scene)


@pytest.mark.parametrize("how", ["rst", "fin", "clean"])
@pytest.mark.parametrize("where", ["record", "mid-record", "mid-gzip"])
def test_cuts_after_hits(how: str, where: str) -> None:
    """The stream ends after exactly that many hits, how and where it was told, and goes on there."""
    scenario = f"[[rule]]\nrequests = '1'\n[rule.cut]\nafter_hits = 20\nhow = '{how}'\nwhere = '{where}'"

    async def scene(service: Simulator) -> None:
        first = await (await ask(service.url)).to_end()
        assert first.ended == how
        assert first.indices() == list(range(20))
        assert first.text.endswith(b"\r\n") == (
            where == "record" or (where == "mid-gzip" and first.text[-1:] == b"\n")
        )
        assert first.inside_member == (how != "clean" or where == "mid-gzip")
        await first.close()
        second = await (await again(service)).hits(30)
        assert second.indices() == list(range(20, 50))
        await second.close()
        assert service.requests[0].ended == f"server {how}"
        assert (service.requests[0].first_hit, service.requests[0].last_hit) == (0, 19)

    play(scenario, scene, resume=Resume.EXACT)


def test_a_slow_client_gets_all_before_the_cut() -> None:
    """A reset throws away nothing that was meant to come before it, though the client reads late."""

    async def scene(service: Simulator) -> None:
        client = await ask(service.url)
        client.writer.transport.pause_reading()
        await until(lambda: service.hits_sent == 3000)
        await asyncio.sleep(0.2)  # long enough for a reset that does not wait
        client.writer.transport.resume_reading()
        assert (await client.to_end()).ended == "rst"
        assert client.indices() == list(range(3000))
        await client.close()

    play("[[rule]]\ncut = {after_hits = 3000}", scene, total=5000)


def test_mid_record_is_inside_the_next_record() -> None:
    """What stands behind the last whole record is the first half of the next."""
    scenario = "[[rule]]\nrequests = '1'\ncut = {after_hits = 3, where = 'mid-record', how = 'fin'}"

    async def scene(service: Simulator) -> None:
        first = await (await ask(service.url)).to_end()
        tail = first.text.rpartition(b"\n")[2]
        following = service.source.lines(3, 1)[0]
        assert tail
        assert following.startswith(tail)
        assert len(tail) == len(following) // 2
        await first.close()

    play(scenario, scene)


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("after_bytes", [0, 1, 30, 250, 260, 400, 1500])
def test_cuts_after_bytes(how: str, after_bytes: int) -> None:
    """The response ends at exactly that byte, in the headers too; a stream's hits come again."""
    scenario = f"[[rule]]\nrequests = '1'\ncut = {{after_bytes = {after_bytes}, how = '{how}'}}"

    async def scene(service: Simulator) -> None:
        client = await connect(service.url)
        await client.get(service.url)
        data = b""
        try:
            while more := await client.reader.read(65536):
                data += more
            ended = "fin"
        except ConnectionResetError:
            ended = "rst"
            data = data or client.reader._buffer
        assert ended == how
        assert len(data) == after_bytes
        await client.close()
        second = await (await again(service)).hits(50)
        assert second.indices() == list(range(50))
        await second.close()
        assert service.requests[0].sent_bytes == after_bytes

    play(scenario, scene)


def test_cuts_a_refusal_too() -> None:
    """A scripted answer can be cut short."""
    scenario = "[[rule]]\nanswer = {status = 503, body = 'long'}\ncut = {after_bytes = 12, how = 'fin'}"

    async def scene(service: Simulator) -> None:
        client = await connect(service.url)
        await client.get(service.url)
        assert await client.reader.read() == b"HTTP/1.1 503"
        await client.close()

    play(scenario, scene)


def test_cuts_by_time() -> None:
    """``after_s`` counts from the stream's opening."""
    scenario = "[[rule]]\nrequests = '1'\ncut = {after_s = 0.3, how = 'clean'}"

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).to_end()
        assert client.ended == "clean"
        request = service.requests[0]
        assert 0.3 <= request.closed_s - request.opened_s < 3
        await client.close()

    play(scenario, scene)


def test_rules_by_time() -> None:
    """A rule holds for its time since the start only."""
    scenario = "[[rule]]\nuntil_s = 0.4\nanswer = {status = 500}"

    async def scene(service: Simulator) -> None:
        client = await ask(service.url)
        assert client.status == 500
        await client.close()
        await asyncio.sleep(0.45)
        client = await ask(service.url)
        assert client.status == 200
        await client.close()

    play(scenario, scene)


def test_stalls() -> None:
    """A stall sends nothing, no empty line either, and then goes on."""
    scenario = "[[rule]]\nstall = {after_hits = 10, for_s = 0.4}"

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(10)
        start_s = time.monotonic()
        await client.until(lambda it: len(it.lines) > 10)
        assert time.monotonic() - start_s > 0.3
        await client.hits(50)
        assert client.indices() == list(range(50))
        await client.close()

    play(scenario, scene, heartbeat_s=0.05)


def test_stalls_for_ever_and_can_still_be_cut() -> None:
    """An endless stall ends with the connection; a clean end works even then."""

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(10)
        await service.cut("clean")
        assert (await client.to_end()).ended == "clean"
        assert len(client.records) == 10
        await client.close()

    play("[[rule]]\nstall = {after_hits = 10}", scene)


def test_trickles() -> None:
    """One byte at a time, at its rate, for its time."""
    scenario = "[[rule]]\ntrickle = {after_hits = 10, bytes_per_second = 50, for_s = 0.5}"

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(10)
        before = service.requests[0]
        start_s = time.monotonic()
        sizes = []
        while time.monotonic() - start_s < 0.3:
            sizes.append(len(await client.reader.read(65536)))
        assert set(sizes) == {1}
        assert 5 <= len(sizes) <= 16
        assert before.ended is None
        await client.close()

    play(scenario, scene)


def test_slow_headers() -> None:
    """The headers take their delay and their rate, the stream behind them does not."""
    scenario = "[[rule]]\nslow_headers = {delay_s = 0.2, bytes_per_second = 1000}"

    async def scene(service: Simulator) -> None:
        start_s = time.monotonic()
        client = await ask(service.url)
        taken_s = time.monotonic() - start_s
        assert taken_s > 0.2 + len(client.head) / 1000
        assert len((await client.hits(50)).records) == 50
        await client.close()

    play(scenario, scene)


def test_endless_headers() -> None:
    """Header lines go on and on until the client leaves."""

    async def scene(service: Simulator) -> None:
        client = await connect(service.url)
        await client.get(service.url)
        data = await client.reader.readexactly(5000)
        assert b"\r\n\r\n" not in data
        assert data.count(b"X-Padding-") > 10
        await client.close()

    play("[[rule]]\nslow_headers = {endless = true}", scene)


def test_bad_crc() -> None:
    """The first member ends with a wrong CRC, and the stream goes on behind it."""

    async def scene(service: Simulator) -> None:
        client = await ask(service.url)
        with pytest.raises(zlib.error, match="incorrect data check"):
            await client.to_end()
        assert client.indices() == list(range(10)) or len(client.records) == 0
        await client.close()

    play("[[rule]]\nbad_gzip = {after_hits = 10}", scene)


def test_garbage_in_gzip() -> None:
    """Random bytes in the gzip stream, and what follows cannot be read."""

    async def scene(service: Simulator) -> None:
        client = await ask(service.url)
        found = b""
        try:
            await client.hits(50)
        except zlib.error:
            found = b"broken"
        assert found or client.indices() != list(range(50))
        await client.close()

    play("[[rule]]\nbad_gzip = {after_hits = 10, kind = 'garbage'}", scene)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("inside_record", [False, True])
def test_several_members(empty: bool, inside_record: bool) -> None:
    """Member after member, empty ones and borders inside records too; not a hit differs."""
    rule = f"{{every_hits = 10, empty = {str(empty).lower()}, inside_record = {str(inside_record).lower()}}}"

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(45)
        assert client.indices() == list(range(45))
        assert client.members == (9 if empty else 5)
        await client.close()

    play(f"[[rule]]\nmembers = {rule}", scene, total=45)


def test_resend_storm() -> None:
    """The last hits come again, several times, and then the stream goes on."""

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(80)
        expected = [*range(20), *list(range(10, 20)) * 3, *range(20, 50)]
        assert client.indices() == expected
        assert service.hits_sent == 50
        assert service.requests[0].hits == 80
        await client.close()

    play("[[rule]]\nresend = {after_hits = 20, last = 10, times = 3}", scene)


def test_rules_for_the_token_endpoint() -> None:
    """The token endpoint has rules and numbers of its own."""
    scenario = "[[rule]]\nendpoint = 'token'\nrequests = '1'\nanswer = {status = 500}"

    async def scene(service: Simulator) -> None:
        client = await ask(service.url)
        assert client.status == 200
        await client.close()
        assert [
            (await ask_token(service)).status,
            (await ask_token(service)).status,
        ] == [500, 400]

    async def ask_token(service: Simulator) -> Client:
        client = await ask(service.token_url, method="POST", body="a=b")
        await client.close()
        return client

    play(scenario, scene)
