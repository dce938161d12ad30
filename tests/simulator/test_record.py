"""The record of requests, the control endpoint and the command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from livestream_client import ask, refused, until

from collector.simulator.requestlog import Request, floor_violations, held_together
from collector.simulator.server import Simulator
from collector.simulator.settings import SimulatorSettings


def play(scene: Callable[[Simulator], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with Simulator(SimulatorSettings(**{"hits_per_second": 0, "total": 50} | settings)) as service:
            await scene(service)

    uvloop.run(main())


def test_record_says_what_happened(tmp_path) -> None:
    """Each request is in memory and in the file, with its times, its end, its hits and no secret."""
    path = tmp_path / "requests.jsonl"

    async def scene(service: Simulator) -> None:
        assert (await refused(service.url, Authorization="Bearer wrong-canary"))[0] == 401
        client = await (await ask(service.url + "?maxConnections=1", User_Agent="collector/1")).hits(50)
        await client.close()
        await until(lambda: not service.holding)
        refusal, stream = service.requests
        assert (refusal.status, refusal.is_stream, refusal.ended) == (401, False, "answered")
        assert "token" in refusal.description
        assert (stream.number, stream.status, stream.slot, stream.hits, stream.last_hit) == (
            2,
            200,
            0,
            50,
            49,
        )
        assert refusal.at_s < stream.at_s <= stream.opened_s < stream.closed_s
        assert (stream.ended, stream.query) == ("client closed", "maxConnections=1")
        assert stream.headers["user-agent"] == "collector/1"
        assert set(stream.secrets) == {"authorization", "x-api-key"}
        assert abs(stream.at_wall_s - time.time()) < 10
        assert stream.sent_bytes > len(client.body)

    play(scene, log=path)
    text = path.read_text()
    assert "canary" not in text
    assert "simulator-token" not in text
    assert "simulator-key" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(it["event"], it["number"]) for it in lines] == [
        ("answered", 1),
        ("ended", 1),
        ("answered", 2),
        ("ended", 2),
    ]
    assert lines[3]["hits"] == 50


def _request(at_s: float, opened_s: float | None = None, closed_s: float | None = None) -> Request:
    request = Request(1, "stream", at_s, 0.0, 1, "GET", "/", "", {}, ())
    request.opened_s, request.closed_s = opened_s, closed_s
    return request


def test_judges_the_floor() -> None:
    """A request within ``wait_s`` of a stream's end is a violation; a refusal holds nothing."""
    first, early, fine = _request(0, 0, 100), _request(159.9), _request(160)
    assert floor_violations([fine, early, first], 60) == [(first, early, pytest.approx(59.9))]
    assert floor_violations([first, fine], 60) == []


def test_judges_two_at_once() -> None:
    """Two streams open at the same time are seen, one after the other is not."""
    first, beside, after = _request(0, 0, 100), _request(50, 50, 60), _request(200, 200)
    assert held_together([first, beside, after]) == [(first, beside)]
    assert [second for _, second, _ in floor_violations([first, beside, after], 60)] == [beside]


# ---------------------------------------------------------------- from another process


async def control(service: Simulator, path: str, method: str = "GET") -> tuple[int, Any]:
    client = await ask(service.control_url + path, method=method)
    body = await client.json()
    await client.close()
    return client.status, body


def test_control_tells_and_cuts() -> None:
    """Another process can ask for the state and force a disconnect."""

    async def scene(service: Simulator) -> None:
        client = await (await ask(service.url)).hits(50)
        status, state = await control(service, "/state")
        assert (status, state["sent"], state["holding"], len(state["requests"])) == (200, 50, 1, 1)
        assert state["timeline"]["start_s"] == 1_795_000_000
        assert await control(service, "/cut?how=fin", "POST") == (200, {"cut": 1})
        assert (await client.to_end()).ended == "fin"
        await client.close()
        assert (await control(service, "/cut?how=axe", "POST"))[0] == 400
        assert (await control(service, "/other"))[0] == 404
        assert len(service.requests) == 1

    play(scene, control=True, start_s=1_795_000_000)


def test_control_is_off_unless_asked_for() -> None:
    """Without ``control`` there is no such path."""

    async def scene(service: Simulator) -> None:
        assert (await control(service, "/state"))[0] == 404

    play(scene)


def test_closing_with_open_streams_leaves_nothing() -> None:
    """``close`` ends what is open and leaves no task behind; warnings are errors here."""

    async def scene(service: Simulator) -> None:
        clients = [await ask(service.url + "?maxConnections=2") for _ in range(2)]
        await service.close()
        await service.close()
        for client in clients:
            await client.to_end()
            await client.close()
        assert len(asyncio.all_tasks()) == 1
        assert {it.ended for it in service.requests} == {"simulator closed"}

    play(scene, hits_per_second=10, total=None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_prints_its_url_and_ends_with_a_signal(tmp_path, number: int) -> None:
    """The first line of stdout is the stream's URL; a signal ends it at once with 0, streams open or not."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text("[service]\nresume = 'exact'\n[[rule]]\nrequests = '2'\nanswer = {status = 500}")
    code = (
        "import pathlib, sys\nfrom collector.commands.simulate import run\n"
        "sys.exit(run(hits_per_second=0, total=20, seed=4, scenario=pathlib.Path(sys.argv[1])))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(scenario)], stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/api/1/stream/demo-stream")

        async def main() -> None:
            client = await (await ask(url)).hits(20)
            assert client.indices(4) == list(range(20))
            second = await ask(url)
            assert second.status == 500
            await second.close()
            os.kill(process.pid, number)
            assert await asyncio.to_thread(process.wait, 5) == 0
            await client.to_end()
            await client.close()

        asyncio.run(main())
