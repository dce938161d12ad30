"""New settings for a collector that runs: read on SIGHUP, taken over as far as the connection is not touched.

Runs in the coordinator. Invariant: either everything that is given is good, or nothing of it is used; and
what wants another connection or another start is named and left as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from collector import telemetry
from collector.coordinator.process import Coordinator
from collector.coordinator.token_source import TokenSource
from collector.core.batching import BatchLimits
from collector.errors import ConfigurationError
from collector.given import Changes, Given, Layers, changes
from collector.hangup import Hangup
from collector.storage.forgetting import forget_copies
from collector.storage.fs import DISK
from collector.telemetry import log

_REMEDY: Final = "restart the collector when it suits: systemctl restart, or SIGTERM and a new start"

Telling = Callable[[], AbstractContextManager[None]]
"""Tells the service manager that new settings are being taken."""


class Reload:
    """A companion of the collector: ``watch`` acts on each SIGHUP; those that come meanwhile count as one."""

    def __init__(
        self,
        hangup: Hangup,
        layers: Layers,
        given: Given,
        tokens: TokenSource,
        *,
        telling: Telling,
        terminal: bool,
    ) -> None:
        self._hangup = hangup
        self._layers = layers
        self._given = given
        self._tokens = tokens
        self._telling = telling
        self._terminal = terminal
        self._wanted = asyncio.Event()

    async def watch(self, coordinator: Coordinator) -> None:
        """Until cancelled."""
        with self._hangup.heard_by(partial(self._heard, coordinator)):
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                if not coordinator.stop_wanted.is_set():
                    await self._reload(coordinator)

    def _heard(self, coordinator: Coordinator) -> None:
        if self._hangup.lost_terminal:
            coordinator.stop("SIGHUP: the terminal is gone")
        else:
            self._wanted.set()

    async def _reload(self, coordinator: Coordinator) -> None:
        with self._telling():
            try:
                new = await asyncio.to_thread(self._layers.load)
            except ConfigurationError as error:
                log("settings.refused", reason=str(error).removeprefix("cannot start").lstrip(":, "))
                return
            found = changes(self._given, new, terminal=self._terminal)
            self._given = found.given
            before = coordinator.settings.run.decoders
            self._take(coordinator, found)
        log("settings.reloaded", changed=" ".join(found.taken), decoders="rolled" if found.roll else "kept")
        if not self._terminal:
            log_settings = found.given.settings.log
            telemetry.configure(form=log_settings.format, level=log_settings.level)
        if found.waiting:
            log("settings.waiting", changed=" ".join(found.waiting), remedy=_REMEDY)
        decoders = found.given.settings.run.decoders
        if found.roll or decoders != before:
            began_s = time.monotonic()
            ended = await coordinator.pipeline.roll(decoders, everyone=found.roll)
            coordinator.children.ended(ended)
            coordinator.children.forget(range(decoders + 1, before + 1))
            log("decoders.rolled", decoders=decoders, duration_s=time.monotonic() - began_s)
        if found.roll and found.given.privacy.hides:
            await self._forget(coordinator)

    def _take(self, coordinator: Coordinator, found: Changes) -> None:
        """All at once: no decoder can be started in between."""
        settings, privacy = found.given.settings, found.given.privacy
        coordinator.settings = settings
        coordinator.children.take(settings, privacy)
        coordinator.pipeline.batching.limits = BatchLimits(settings.parts.max_age_s, settings.parts.max_bytes)
        journal = settings.journal
        if "journal.max_bytes" in found.taken or "journal.reserve_bytes" in found.taken:
            max_bytes = journal.max_bytes if "journal.max_bytes" in found.taken else None
            coordinator.intake.bound(max_bytes=max_bytes, reserve_bytes=journal.reserve_bytes)
        coordinator.intake.keep_raw(keep=not privacy.hides)
        if found.given.credentials is not None:
            self._tokens.take(found.given.credentials)

    async def _forget(self, coordinator: Coordinator) -> None:
        """What was seen or put aside before, and may not be any more."""
        coordinator.rejects.forget()
        quarantine = coordinator.foundation.state.quarantine
        await coordinator.committer.thread.run(lambda: forget_copies(DISK, quarantine))
