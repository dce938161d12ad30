"""The status page, health checks and metrics on two doors: ``status.listen`` and a Unix socket.

Runs in the coordinator, beside the intake, and only looks. ``status`` and ``bundle`` ask by the socket in the
state folder, so they work without a page. The invariant: a door that cannot be opened is said once, and the
intake goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from collector.coordinator.doors import Door
from collector.errors import StorageError
from collector.ipc.socketfile import listening
from collector.late import import_late
from collector.settings_values import is_loopback
from collector.storage.fs import DISK
from collector.telemetry import log

if TYPE_CHECKING:
    from aiohttp.web import Server

    from collector.coordinator.answers import Answers
    from collector.coordinator.process import Coordinator

OFF: Final = "off"
MOST_CONNECTIONS: Final = 64
"""Of each door: a flood at one leaves the other free."""

BACKLOG: Final = 64
READER_READY_WITHIN_S: Final = 2.0
CLOSED_WITHIN_S: Final = 1.0
LONGEST_LINE_BYTES: Final = 4096
MOST_HEADERS: Final = 64


async def serve_status(coordinator: Coordinator) -> None:
    """Until cancelled. A companion of the collector."""
    with suppress(TimeoutError):  # the first request goes before: two cores are busy enough until then
        await asyncio.wait_for(coordinator.intake.ready.wait(), READER_READY_WITHIN_S)
    await asyncio.to_thread(import_late, "aiohttp.web", "collector.metrics")
    from aiohttp import web  # noqa: PLC0415 - it takes 0.2 s, in which the loop would answer nobody

    from collector.coordinator.answers import Answers  # noqa: PLC0415 - as above

    listen = coordinator.settings.status.listen
    answers = Answers(coordinator, own_names=is_loopback(f"http://{listen}"))
    runner = web.AppRunner(
        answers.application(),
        access_log=None,
        logger=_silent(),
        shutdown_timeout=CLOSED_WITHIN_S,
        max_line_size=LONGEST_LINE_BYTES,
        max_field_size=LONGEST_LINE_BYTES,
        max_headers=MOST_HEADERS,
    )
    await runner.setup()
    assert runner.server is not None  # noqa: S101 - it was set up
    try:
        async with AsyncExitStack() as stack:
            socket = coordinator.foundation.state.socket
            path = await stack.enter_async_context(_unix_door(socket, runner.server, answers))
            url = await stack.enter_async_context(_tcp_door(listen, runner.server, answers))
            if path or url:
                log("page.opened", url=url, socket=path)
            if coordinator.status is not None:
                coordinator.status.page = url
            try:
                await answers.keep_telling()
            finally:
                answers.end()
    finally:
        await runner.cleanup()


def _silent() -> logging.Logger:
    """What a client does wrong is no event of the collector."""
    logger = logging.getLogger("collector.site")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger


@asynccontextmanager
async def _unix_door(path: Path, server: Server, answers: Answers) -> AsyncIterator[str]:
    """Who may enter the state folder may ask. Gives the path; nothing if it cannot be listened there."""
    door = Door(server, MOST_CONNECTIONS)
    try:
        opened = await asyncio.get_running_loop().create_unix_server(
            door, sock=listening(path), backlog=BACKLOG
        )
    except OSError as error:
        log("page.failed", where=path, reason=str(error))
        yield ""
        return
    try:
        async with _watched(door, opened, answers):
            yield str(path)
    finally:
        with suppress(FileNotFoundError, StorageError):
            DISK.unlink(path)


@asynccontextmanager
async def _tcp_door(listen: str, server: Server, answers: Answers) -> AsyncIterator[str]:
    """Gives the page's address; nothing if there is to be none, or it cannot be had."""
    if listen == OFF:
        yield ""
        return
    door = Door(server, MOST_CONNECTIONS)
    host, _, port = listen.rpartition(":")
    try:
        opened = await asyncio.get_running_loop().create_server(
            door, host.strip("[]"), int(port), backlog=BACKLOG
        )
    except OSError as error:
        log(
            "page.failed",
            where=listen,
            reason=f"{error.strerror or error}; status.listen = off is without a page",
        )
        yield ""
        return
    async with _watched(door, opened, answers):
        yield f"http://{host}:{opened.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def _watched(door: Door, opened: asyncio.AbstractServer, answers: Answers) -> AsyncIterator[None]:
    answers.doors.append(door)
    watch = asyncio.create_task(door.keep_watch())
    try:
        yield
    finally:
        watch.cancel()
        opened.close()
