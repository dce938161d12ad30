"""The simulated service answers every documented way."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme
import uvloop
from livestream_client import Client, ask, connect, refused, until

from collector.errors import ConfigurationError
from collector.simulator.hits import hit
from collector.simulator.server import Simulator
from collector.simulator.settings import SimulatorSettings
from collector.simulator.stream import Encoder, chunks


def play(scene: Callable[[Simulator], Awaitable[None]], **settings: Any) -> None:
    """Run a scene against a service of its own."""

    async def main() -> None:
        async with Simulator(SimulatorSettings(**{"hits_per_second": 0, "total": 50} | settings)) as service:
            await scene(service)

    uvloop.run(main())


async def stream(service: Simulator, count: int = 50, **options: Any) -> Client:
    client = await ask(options.pop("url", service.url), **options)
    assert client.status == 200
    return await client.hits(count)


def test_streams_the_hits_it_promises() -> None:
    """What arrives is hit 0, 1, 2, ... byte for byte, in CRLF records of one gzip stream in chunks."""

    async def scene(service: Simulator) -> None:
        client = await stream(service)
        assert client.records == [hit(7, i, service.source.timeline) for i in range(50)]
        assert client.text == b"\r\n".join([*client.records, b""])
        assert client.members == 1
        assert client.inside_member
        assert client.headers["transfer-encoding"] == "chunked"
        assert client.headers["content-encoding"] == "gzip"
        await client.close()

    play(scene, seed=7)


def test_works_on_plain_asyncio() -> None:
    """The service needs no uvloop."""

    async def main() -> None:
        async with Simulator(SimulatorSettings(hits_per_second=0, total=50)) as service:
            client = await stream(service)
            assert client.indices() == list(range(50))
            await client.reset()

    asyncio.run(main())


def test_total_then_open_and_silent() -> None:
    """After ``total`` hits the stream stays open, with empty lines as its only sign of life."""

    async def scene(service: Simulator) -> None:
        client = await stream(service)
        await client.until(lambda it: it.lines[-3:] == [b"", b"", b""])
        assert len(client.records) == 50
        assert not client.ended
        assert service.hits_sent == 50
        await client.close()

    play(scene, heartbeat_s=0.05)


def test_hits_come_at_their_rate() -> None:
    """``hits_per_second`` hits come in a second, no sooner."""

    async def scene(service: Simulator) -> None:
        loop = asyncio.get_running_loop()
        client = await ask(service.url)
        start_s = loop.time()
        await client.hits(40)
        assert 0.3 < loop.time() - start_s < 3.0
        await client.close()

    play(scene, hits_per_second=100, total=None)


def test_several_records_share_a_chunk() -> None:
    """Chunks hold many records and end anywhere."""

    async def scene(service: Simulator) -> None:
        client = await stream(service, 2000)
        assert len(client.chunk_sizes) < 500
        assert len(set(client.chunk_sizes)) > 10
        await client.close()

    play(scene, total=2000, chunk_bytes=8000)


def test_chunks_may_be_tiny() -> None:
    """Chunk borders fall inside records and inside gzip blocks when they are small enough."""

    async def scene(service: Simulator) -> None:
        client = await stream(service, 20)
        assert max(client.chunk_sizes) <= 6
        assert client.indices() == list(range(20))
        await client.close()

    play(scene, total=20, chunk_bytes=3)


def test_chunk_framing_is_what_was_put_in() -> None:
    """Joined again, the chunks are the data."""
    data = random.Random(0).randbytes(5000)
    framed, found = chunks(data, 7, random.Random(1)), b""
    while framed:
        size, _, framed = framed.partition(b"\r\n")
        found += framed[: int(size, 16)]
        framed = framed[int(size, 16) + 2 :]
    assert found == data


def test_encoder_flushes_all() -> None:
    """Whatever was written can be read, and a member's end is one."""
    encoder = Encoder()
    data = encoder.write(b"one") + encoder.write(b"two") + encoder.end_member() + encoder.write(b"three")
    assert gzip.decompress(data + encoder.end_member()) == b"onetwothree"


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"version": "HTTP/1.0"}, 505, "HTTP/1.1"),
        ({"version": "HTTP/2.0"}, 505, "HTTP/1.1"),
        ({"method": "POST"}, 405, "POST"),
        ({"method": "HEAD"}, 405, "HEAD"),
        ({"Accept_Encoding": None}, 406, "gzip"),
        ({"Accept_Encoding": "deflate, br"}, 406, "gzip"),
        ({"Accept_Encoding": "gzip;q=0"}, 406, "gzip"),
        ({"x_api_key": None}, 401, "x-api-key"),
        ({"x_api_key": "other"}, 401, "x-api-key"),
        ({"Authorization": None}, 401, "token"),
        ({"Authorization": "Bearer other"}, 401, "token"),
        ({"Authorization": "Basic simulator-token"}, 401, "token"),
        ({"query": "maxConnections=9"}, 400, "maxConnections"),
        ({"query": "maxConnections=0"}, 400, "maxConnections"),
        ({"query": "maxConnections=x"}, 400, "maxConnections"),
        ({"query": "maxConnections=1&maxConnections=2"}, 400, "maxConnections"),
        ({"query": "reset=everything"}, 400, "reset"),
        ({"path": "/api/1/stream/other"}, 404, "no such stream"),
        ({"path": "/"}, 404, "no such stream"),
    ],
)
def test_refuses(options: dict[str, str], status: int, words: str) -> None:
    """Each wrong request gets its status, and the reason in ``error_description``."""

    async def scene(service: Simulator) -> None:
        given = dict(options)
        url = service.url.replace("/api/1/stream/demo-stream", given.pop("path", "/api/1/stream/demo-stream"))
        query = given.pop("query", "")
        found = await refused(f"{url}?{query}", **given)
        assert found[0] == status
        assert words in found[1]
        assert [it.status for it in service.requests] == [status]
        assert service.holding == 0

    play(scene)


def test_nonsense_is_answered() -> None:
    """What is no request gets a 400 and leaves no trace."""

    async def scene(service: Simulator) -> None:
        client = await connect(service.url)
        client.writer.write(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
        await client.close()
        assert service.requests == []

    play(scene)


@pytest.mark.parametrize("query", ["smoothing=1&smoothingBucketSize=60", "reset=largest", "maxConnections=1"])
def test_accepts_every_documented_parameter(query: str) -> None:
    """Smoothing is accepted and ignored; so is a ``reset`` with nothing to drop."""

    async def scene(service: Simulator) -> None:
        client = await stream(service, url=f"{service.url}?{query}")
        assert client.indices() == list(range(50))
        assert service.requests[0].query == query
        await client.close()

    play(scene)


def test_second_api_path() -> None:
    """``/api/2/stream`` is the same stream."""

    async def scene(service: Simulator) -> None:
        await (await stream(service, url=service.url.replace("/api/1/", "/api/2/"))).close()

    play(scene)


def test_any_token_if_none_is_set() -> None:
    """``token=None`` takes any bearer token, and no missing one."""

    async def scene(service: Simulator) -> None:
        assert (await refused(service.url, Authorization=None))[0] == 401
        await (await stream(service, Authorization="Bearer whatever")).close()

    play(scene, token=None)


def test_enabling_cures_424() -> None:
    """A stream that is not enabled says so until it has been asked for, with the same headers."""

    async def scene(service: Simulator) -> None:
        status, words = await refused(service.url)
        assert status == 424
        path = re.search(r"/api/2/enable/[\w-]+", words)[0]
        enable = service.url.replace("/api/1/stream/demo-stream", path)
        assert (await refused(enable, Authorization=None))[0] == 401
        assert (await refused(service.url))[0] == 424
        assert (await refused(enable))[0] == 200
        await (await stream(service)).close()

    play(scene, needs_enabling=True)


def test_redirects_to_a_second_port() -> None:
    """The first port answers 302 with the query kept; the second has the stream and checks the headers."""

    async def scene(service: Simulator) -> None:
        first = await ask(service.url + "?maxConnections=1")
        assert first.status == 302
        await first.close()
        location = first.headers["location"]
        assert location.endswith("?maxConnections=1")
        assert f":{service.ports[1]}/" in location
        assert (await refused(location, Authorization=None))[0] == 401
        await (await stream(service, url=location)).close()
        assert [it.port for it in service.requests] == [service.ports[0], service.ports[1], service.ports[1]]

    play(scene, redirect=True)


def test_tls(tmp_path) -> None:
    """The stream over TLS, on uvloop's loop, with large writes."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def scene(service: Simulator) -> None:
        assert service.url.startswith("https://")
        client = await stream(service, 3000, context=context)
        assert client.indices() == list(range(3000))
        await service.cut("clean")
        assert (await client.to_end()).ended == "clean"
        await client.close()

    play(scene, total=3000, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")


def test_tls_refuses_plain_text(tmp_path) -> None:
    """A client without TLS is dropped, and the service lives on."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")

    async def scene(service: Simulator) -> None:
        client = await connect(service.url)
        await client.get(service.url)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()
        await client.close()
        assert service.requests == []

    play(scene, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")


FORM = "grant_type=client_credentials&client_id={}&client_secret={}&scope=openid"


async def token(service: Simulator, form: str) -> tuple[int, dict]:
    client = await ask(service.token_url, method="POST", body=form, Authorization=None, x_api_key=None)
    body = await client.json()
    await client.close()
    return client.status, body


def test_token_endpoint_hands_out_tokens() -> None:
    """A token from the token endpoint opens the stream until it expires; expiry does not cut it."""

    async def scene(service: Simulator) -> None:
        status, body = await token(service, FORM.format("simulator-client", "simulator-secret"))
        assert (status, body["token_type"], body["expires_in"]) == (200, "bearer", 1)
        bearer = f"Bearer {body['access_token']}"
        client = await stream(service, Authorization=bearer)
        await asyncio.sleep(1.05)
        assert (await refused(service.url, Authorization=bearer))[0] == 401
        assert service.holding == 1
        await client.close()

    play(scene, token_expires_s=1)


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        (FORM.format("other", "simulator-secret"), 400, "invalid_client"),
        (FORM.format("simulator-client", "other"), 401, "invalid_client"),
        ("grant_type=password", 400, "unsupported_grant_type"),
        (
            FORM.format("simulator-client", "simulator-secret").replace("&scope=openid", ""),
            400,
            "invalid_scope",
        ),
    ],
)
def test_token_endpoint_refuses(form: str, status: int, error: str) -> None:
    """A wrong client, secret, grant or scope gets its status and error."""

    async def scene(service: Simulator) -> None:
        found = await token(service, form)
        assert (found[0], found[1]["error"]) == (status, error)

    play(scene)


@pytest.mark.parametrize("packed", [False, True])
def test_replays_a_file(tmp_path, packed: bool) -> None:
    """The lines of a file come as they stand, the empty ones left out."""
    lines = [b'{"a":"\xff"}', b"no json", b'{"visIdHigh":1}']
    data = lines[0] + b"\n\r\n" + lines[1] + b"\r\n" + lines[2]
    path = tmp_path / "hits.jsonl"
    path.write_bytes(gzip.compress(data) if packed else data)

    async def scene(service: Simulator) -> None:
        client = await stream(service, 3)
        assert client.records == lines
        assert service.hits_sent == 3
        await client.close()

    play(scene, file=path)


def test_replays_a_file_in_shares(tmp_path) -> None:
    """With several connections each line of a file goes to exactly one."""
    lines = [json.dumps({"visIdHigh": i % 7, "visIdLow": 1}).encode() for i in range(100)]
    path = tmp_path / "hits.jsonl"
    path.write_bytes(b"\n".join(lines))

    async def scene(service: Simulator) -> None:
        clients = [await ask(service.url + "?maxConnections=2") for _ in range(2)]
        await until(lambda: service.hits_sent == 100)
        for client in clients:
            await client.until(lambda it: it.lines[-1:] == [b""])
        assert sorted(clients[0].records + clients[1].records) == sorted(lines)
        assert all(client.records for client in clients)
        for client in clients:
            await client.close()

    play(scene, file=path, total=None, heartbeat_s=0.1)


def test_unusable_settings_are_told_at_once(tmp_path) -> None:
    """All bad values are named together; unreadable files by their path."""
    with pytest.raises(ConfigurationError) as caught:
        SimulatorSettings(port=-1, stream="../x", ghost_s=-1, hits_per_second=-5, tls_cert=tmp_path)
    for part in ("port", "stream", "ghost_s", "hits_per_second", "tls_key"):
        assert part in str(caught.value)
    with pytest.raises(ConfigurationError, match="nowhere"):
        Simulator(SimulatorSettings(file=tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="nowhere"):
        Simulator(SimulatorSettings(tls_cert=tmp_path / "nowhere", tls_key=tmp_path / "nowhere"))


def test_taken_port_is_a_configuration_error() -> None:
    """A port in use is told, not fallen over."""

    async def scene(service: Simulator) -> None:
        with pytest.raises(ConfigurationError, match="port"):
            await Simulator.start(SimulatorSettings(port=service.ports[0]))

    play(scene)
