"""The status page's server against clients that are many, slow, silent or hostile: none costs much."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import uvloop
from states import STATUSES

from collector import telemetry
from collector.coordinator import answers, doors, page, site
from collector.core.status import Status
from collector.storage.layout import StateFolder

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0


@asynccontextmanager
async def served(tmp_path, *, listen="127.0.0.1:0", now=lambda: STATUSES["rejects-alarm"], reasons=()):
    """The real server over a coordinator that only says what it is told to. Gives it, port and log lines."""
    lines: list[dict] = []
    telemetry.configure(form="json", write=lambda line: lines.append(json.loads(line)))
    ready = asyncio.Event()
    ready.set()
    coordinator = SimpleNamespace(
        settings=SimpleNamespace(status=SimpleNamespace(listen=listen)),
        foundation=SimpleNamespace(state=StateFolder(tmp_path)),
        intake=SimpleNamespace(ready=ready),
        status=SimpleNamespace(now=now, page=""),
        not_ready=lambda: list(reasons),
    )
    task = asyncio.create_task(site.serve_status(coordinator))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not any(line["event"] == "page.opened" for line in lines):
                assert not task.done() or task.result()
                await asyncio.sleep(0.01)
        url = coordinator.status.page
        yield SimpleNamespace(
            port=int(url.rpartition(":")[2].strip("/")) if url else 0, lines=lines, task=task
        )
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        telemetry.configure()


async def exchanged(port: int, request: bytes) -> bytes:
    """Everything that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    await gone(writer)
    return answer


async def gone(writer: asyncio.StreamWriter) -> None:
    """At once, and nothing of it is left to the loop."""
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def asked(path: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    ).encode()


async def is_alive(port: int) -> bool:
    return (await exchanged(port, asked("/healthz"))).endswith(b"alive\n")


def test_a_flood_of_silent_connections_leaves_room(tmp_path):
    """The one that is silent for longest makes room for who asks; never are there more than the bound."""

    async def scenario() -> None:
        async with served(tmp_path) as at:
            flood = [
                await asyncio.open_connection("127.0.0.1", at.port) for _ in range(3 * site.MOST_CONNECTIONS)
            ]
            assert await is_alive(at.port)
            async with asyncio.timeout(PATIENCE_S):
                oldest = [reader for reader, _ in flood[: site.MOST_CONNECTIONS]]
                assert [await reader.read() for reader in oldest] == [b""] * len(oldest)
            await asyncio.gather(*(gone(writer) for _, writer in flood))

    uvloop.run(scenario())


def test_who_asks_nothing_is_closed(tmp_path, monkeypatch):
    """A header that never ends, an answer that is never taken: after a while it is over."""
    monkeypatch.setattr(doors, "PATIENCE_S", 0.2)
    monkeypatch.setattr(doors, "LOOK_S", 0.1)

    async def scenario() -> None:
        async with served(tmp_path) as at:
            assert await exchanged(at.port, b"") == b""
            assert await exchanged(at.port, b"GET / HTTP/1.1\r\nHost: loc") == b""

    uvloop.run(scenario())


def test_who_listens_and_does_not_take_it_is_dropped(tmp_path, monkeypatch):
    """The others are told all the while; who comes when there are enough is refused."""
    monkeypatch.setattr(answers, "TELL_S", 0.01)
    monkeypatch.setattr(answers, "TAKEN_WITHIN_S", 0.3)
    monkeypatch.setattr(answers, "MOST_LISTENERS", 2)

    async def scenario() -> None:
        async with served(tmp_path) as at:
            slow = socket.create_connection(("127.0.0.1", at.port))
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(asked("/events"))
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1 << 20)
            writer.write(asked("/events"))
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"\n\n")
                assert b" 503 " in await exchanged(at.port, asked("/events"))
                while b" 503 " in (answer := await exchanged_start(at.port, asked("/events"))):
                    await reader.readuntil(b"\n\n")
                assert b" 200 " in answer
                await reader.readuntil(b"\n\n")
            slow.close()
            await gone(writer)

    uvloop.run(scenario())


async def exchanged_start(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    line = await reader.readline()
    await gone(writer)
    return line


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET //evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET http://evil.example/status.json HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ],
    ids=[
        "TLS",
        "version",
        "long line",
        "long header",
        "many headers",
        "length",
        "POST",
        "above",
        "host",
        "proxy",
    ],
)
def test_what_is_no_question_gets_no_answer(request_, tmp_path):
    """An error, no file, no word in the log; the next one is answered."""

    async def scenario() -> None:
        async with served(tmp_path) as at:
            answer = await exchanged(at.port, request_)
            assert not answer.startswith(b"HTTP/1.1 2"), answer
            assert b"root:" not in answer
            assert await is_alive(at.port)
            assert [line["event"] for line in at.lines] == ["page.opened"]

    uvloop.run(scenario())


def test_a_defect_is_told_once_and_ends_nothing(tmp_path):
    """Without a traceback in the answer."""

    def broken():
        raise ZeroDivisionError("the canary")

    async def scenario() -> None:
        async with served(tmp_path, now=broken) as at:
            for path in ("/status.json", "/metrics", "/status.json"):
                answer = await exchanged(at.port, asked(path))
                assert b" 500 " in answer
                assert b"canary" not in answer
            assert await is_alive(at.port)
            assert [line["event"] for line in at.lines] == ["page.opened", "attention.needed"]

    uvloop.run(scenario())


def test_a_defect_while_others_listen_leaves_the_page(tmp_path, monkeypatch):
    """They hear nothing for a while, then the status again."""
    monkeypatch.setattr(answers, "TELL_S", 0.01)
    defects = [ZeroDivisionError()] * 3
    told = iter([STATUSES["reading"]])

    def now():
        if (first := next(told, None)) is None and defects:
            raise defects.pop()
        return first or msgspec.structs.replace(STATUSES["quiet"], sentence="No hit.")

    async def scenario() -> None:
        async with served(tmp_path, now=now) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1 << 20)
            writer.write(asked("/events"))
            async with asyncio.timeout(PATIENCE_S):
                while b"No hit." not in await reader.readline():
                    pass
            assert not defects
            assert [line["event"] for line in at.lines] == ["page.opened", "attention.needed"]
            await gone(writer)

    uvloop.run(scenario())


def test_reasons_are_lines(tmp_path):
    """And the status 503."""

    async def scenario() -> None:
        reasons = ("waiting: five times in a row", "the journal has no room")
        async with served(tmp_path, reasons=reasons) as at:
            answer = await exchanged(at.port, asked("/readyz"))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert answer.endswith(b"\r\n\r\nwaiting: five times in a row\nthe journal has no room\n")

    uvloop.run(scenario())


def test_hostile_text_breaks_out_of_nothing(tmp_path):
    """Of a record, in JSON, in an event, in a metric's label."""
    hostile = 'x"} 1\n# EOF\r\n\x1b[31m</script>'

    async def scenario() -> None:
        status = STATUSES["rejects-alarm"]
        child = msgspec.structs.replace(status.children[0], name=hostile)
        told = msgspec.structs.replace(status, stream=hostile, children=(child,))
        async with served(tmp_path, now=lambda: told) as at:
            _, _, body = (await exchanged(at.port, asked("/status.json"))).partition(b"\r\n\r\n")
            assert json.loads(body)["stream"] == hostile
            assert b"\x1b" not in body
            assert b"\n" not in body
            _, _, body = (await exchanged(at.port, asked("/metrics"))).partition(b"\r\n\r\n")
            assert all(line.startswith((b"# ", b"livestream_")) for line in body.split(b"\n") if line)
            assert body.count(b"# EOF") == body.count(b"\\n# EOF")

    uvloop.run(scenario())


@pytest.mark.parametrize("listen", ["off", "192.0.2.1:9464", "no.such.host.invalid:1"])
def test_without_a_page_the_socket_answers(listen, tmp_path):
    """It is off, or cannot be: said once, where it was wanted."""

    async def scenario() -> None:
        async with served(tmp_path, listen=listen) as at:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "status.sock"))
            writer.write(asked("/healthz"))
            assert (await reader.read()).endswith(b"alive\n")
            await gone(writer)
            failed = [line for line in at.lines if line["event"] == "page.failed"]
            assert [line["where"] for line in failed] == [listen] * (listen != "off")

    uvloop.run(scenario())


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path):
    """It is not ours."""
    (tmp_path / "status.sock").write_text("somebody's")

    async def scenario() -> None:
        async with served(tmp_path) as at:
            assert await is_alive(at.port)
            assert [line["event"] for line in at.lines] == ["page.failed", "page.opened"]

    uvloop.run(scenario())
    assert (tmp_path / "status.sock").read_text() == "somebody's"


def test_a_listener_hears_the_end(tmp_path):
    """The events end with the server, at once and cleanly."""

    async def scenario() -> None:
        async with served(tmp_path) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1 << 20)
            writer.write(asked("/events"))
            await reader.readuntil(b"\n\n")
            at.task.cancel()
            async with asyncio.timeout(site.CLOSED_WITHIN_S / 2):
                last = await reader.read()
            assert b"\ndata: {" in last
            await gone(writer)

    uvloop.run(scenario())
    assert not Path(tmp_path / "status.sock").exists()


def test_the_documentation_names_every_path_and_field():
    """docs/status.md, for who writes programs against it."""
    text = (ROOT / "docs" / "status.md").read_text(encoding="utf-8")
    application = answers.Answers(SimpleNamespace(), own_names=False).application()
    paths = {resource.canonical for resource in application.router.resources()} - set(page.files()) | {"/"}
    assert set(re.findall(r"^\| `(/[a-z.-]*)` \|", text, re.MULTILINE)) == paths
    fields = text.partition("## The fields of a status")[2]
    assert set(Status.__struct_fields__) <= set(re.findall(r"`([a-z_]+)`", fields))
