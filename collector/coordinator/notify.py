"""What a service manager hears of a run: systemd's notify protocol, over the socket it names.

Runs in the coordinator. The invariants: nothing here can end the run or make it wait, a message that does not
leave at once is left out; who has no such manager notices nothing; no child ever sees the socket's name.
*Source*: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5).
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Final, Self

from collector.coordinator.process import Companion, Coordinator
from collector.core.sentence import STARTING
from collector.errors import CollectorError, ExitCode
from collector.escaping import printable, without_secrets

STATUS_INTERVAL_S: Final = 2.0
"""How often the sentence is told anew, if it has changed."""

EXTENSION_S: Final = 60.0
"""So much longer the manager is asked to wait for a start, anew while the last run is being recovered."""

DRAIN_MARGIN_S: Final = 20.0
"""From the end of a drain to that of the process, at most: children are reaped, files synced and closed."""

_LONGEST_STATUS: Final = 400
"""Characters: a line or a few in ``systemctl status``."""


class Notify:
    """Speaks to the service manager, if there is one. No call blocks or raises."""

    def __init__(self, address: str = "", *, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._status = ""
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Self:
        """As the manager asked for it in ``environ``, which has none of it afterwards."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        is_for_us = watchdog_us.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, watchdog_s=int(watchdog_us) / 1e6 if is_for_us else None)

    # ------------------------------------------------------------ over a run

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While the last run's work is taken up, which blocks: however long it takes, it goes on."""
        self._tell(STARTING)
        if self._socket is None:
            yield
            return
        over = threading.Event()

        def extend() -> None:
            self._send(EXTEND_TIMEOUT_USEC=_usec(EXTENSION_S))
            while not over.wait(EXTENSION_S / 3):
                self._send(EXTEND_TIMEOUT_USEC=_usec(EXTENSION_S))

        thread = threading.Thread(target=extend, name="notify")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @property
    def companions(self) -> tuple[Companion, ...]:
        """Of the collector: what is told while it runs, each on its own, so that none silences another."""
        if self._socket is None:
            return ()
        return (self.say_ready, self.say_stopping, self.keep_telling, self.show_life)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """While new settings are taken."""
        self._send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        try:
            yield
        finally:
            self._send(READY=1)

    @contextmanager
    def last_words(self) -> Iterator[None]:
        """How it ended, which ``systemctl status`` shows until the next start."""
        try:
            yield
        except Exception as error:
            code = error.exit_code if isinstance(error, CollectorError) else ExitCode.DEFECT
            self._tell(f"Ended with exit code {code:d}: {error}")
            raise
        self._tell(f"Ended with exit code {ExitCode.DONE:d}")

    # ------------------------------------------------------------ what is said when

    async def say_ready(self, coordinator: Coordinator) -> None:
        """The last run is recovered and the reader waits for orders.

        Not the first hit: to wait the floor out, or a refusal, is part of the work, and who waited for a
        connection before he counted the start as done would end and repeat it, for ever.
        """
        await coordinator.intake.ready.wait()
        self._send(READY=1)

    async def say_stopping(self, coordinator: Coordinator) -> None:
        await coordinator.stop_wanted.wait()
        self._send(STOPPING=1, EXTEND_TIMEOUT_USEC=_usec(coordinator.settings.run.drain_s + DRAIN_MARGIN_S))

    async def keep_telling(self, coordinator: Coordinator) -> None:
        """What ``systemctl status`` shows."""
        while True:
            if coordinator.status is not None:
                self._tell(coordinator.status.now().sentence)
            await asyncio.sleep(STATUS_INTERVAL_S)

    async def show_life(self, _: Coordinator) -> None:
        """From the event loop itself, so that a loop that hangs is silent; twice as often as is wanted."""
        while self._watchdog_s is not None:
            self._send(WATCHDOG=1)
            await asyncio.sleep(self._watchdog_s / 2)

    # ------------------------------------------------------------ the socket

    def _tell(self, words: str) -> None:
        status = printable(without_secrets(words), _LONGEST_STATUS)
        if status != self._status:
            self._status = status
            self._send(STATUS=status)

    def _send(self, **fields: object) -> None:
        if self._socket is not None:
            text = "\n".join(f"{name}={value}" for name, value in fields.items())
            with suppress(OSError):  # the manager is restarted, or does not keep up
                self._socket.sendto(text.encode(errors="replace"), self._address)


def _usec(seconds: float) -> int:
    return round(seconds * 1e6)
