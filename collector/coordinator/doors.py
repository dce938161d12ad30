"""How many may be connected to the status page at once, and for how long without a request.

Runs in the coordinator. The invariant: a door has at most ``most`` connections, however clients behave: one
that asks nothing, or does not take what it was given, makes room for the next, and is closed in any case
after ``PATIENCE_S``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp.web import RequestHandler

PATIENCE_S: Final = 15.0
"""To send a request, or to take an answer."""

LOOK_S: Final = 5.0
_ARRIVAL_S: Final = 1.0
"""From a connection's making to its transport's, at most."""


class _Refused(asyncio.Protocol):
    """There is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@dataclass(slots=True, eq=False)
class Door:
    """A factory of connections over another one, for ``loop.create_server``."""

    make: Callable[[], RequestHandler]
    most: int
    _idle_since_s: dict[RequestHandler, float | None] = field(default_factory=dict)
    """``None``: its request is being answered."""

    def __call__(self) -> asyncio.BaseProtocol:
        self._forget_gone()
        if len(self._idle_since_s) >= self.most and not self._make_room():
            return _Refused()
        connection = self.make()
        self._idle_since_s[connection] = _now_s()
        return connection

    def asks(self, connection: RequestHandler) -> None:
        """A request is being answered. Of connections through another door nothing is known here."""
        if connection in self._idle_since_s:
            self._idle_since_s[connection] = None

    def answered(self, connection: RequestHandler) -> None:
        """The answer is on its way."""
        if connection in self._idle_since_s:
            self._idle_since_s[connection] = _now_s()

    async def keep_watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._forget_gone()
            for connection, since_s in list(self._idle_since_s.items()):
                if since_s is not None and _now_s() - since_s >= PATIENCE_S:
                    self._end(connection)

    def _make_room(self) -> bool:
        idle = {at: since_s for at, since_s in self._idle_since_s.items() if since_s is not None}
        if idle:
            self._end(min(idle, key=idle.__getitem__))
        return bool(idle)

    def _end(self, connection: RequestHandler) -> None:
        self._idle_since_s.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    def _forget_gone(self) -> None:
        for connection, since_s in list(self._idle_since_s.items()):
            arriving = since_s is not None and _now_s() - since_s < _ARRIVAL_S
            if connection.transport is None and not arriving:
                del self._idle_since_s[connection]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
