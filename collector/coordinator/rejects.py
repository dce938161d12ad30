"""The rejects alarm as log lines: raised once, cleared once; and the newest rejects, as they begin.

Runs in the coordinator. ``core.rejects`` decides; the events say it to whoever is on call.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from collector.coordinator.clock import now_us
from collector.core.messages import BlockDone
from collector.core.rejects import RejectsWatch, Transition
from collector.core.remedies import REJECTS_REMEDY
from collector.core.status import RejectSeen
from collector.escaping import without_secrets
from collector.telemetry import log

NEWEST_KEPT: Final = 20


class RejectsAlarm:
    """For a live stream; of saved files the rejects are counted at the end, and nobody is on call."""

    def __init__(self, stream: str) -> None:
        self.watch = RejectsWatch()
        self.newest: deque[RejectSeen] = deque(maxlen=NEWEST_KEPT)
        """Newest first."""
        self._remedy = REJECTS_REMEDY.format(stream=stream)

    def block_done(self, done: BlockDone) -> None:
        self._keep(done)
        watch = self.watch
        now_s = time.monotonic()
        raised_s = watch.raised_s
        transition = watch.block_done(now_s, done)
        if transition is Transition.RAISED:
            log(
                "rejects.alarm",
                ratio=watch.ratio,
                records=watch.records,
                rejects=watch.rejects,
                run=watch.run,
                reasons=watch.reasons(),
                remedy=self._remedy,
            )
        elif transition is Transition.CLEARED:
            log("rejects.cleared", ratio=watch.ratio, duration_s=now_s - (raised_s or now_s))

    def forget(self) -> None:
        """The newest ones: how they begin may not be shown any more."""
        self.newest.clear()

    def _keep(self, done: BlockDone) -> None:
        at_us = now_us() if done.first_rejects else 0
        for reject in done.first_rejects:
            self.newest.appendleft(
                RejectSeen(
                    at_us=at_us,
                    block=done.seq,
                    line=reject.line,
                    reason=without_secrets(reject.reason),
                    text=without_secrets(reject.text),
                    length=reject.length,
                )
            )
