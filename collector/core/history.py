"""Hits per second and lag over time, in a bounded number of samples.

Pure; fed by the coordinator about once a second. The invariant: at most ``MOST_SAMPLES`` are kept; when there
are as many, each two become one and the next ones are taken half as often, until they reach back for hours.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from collector.core.connection import ConnectionState
from collector.core.status import Sample

MOST_SAMPLES: Final = 360
LONGEST_STEP_S: Final = 16.0
"""Of 360 samples: an hour and a half."""

RATE_WINDOW_S: Final = 5.0
"""What "the last few seconds" are."""


EARLY_S: Final = 0.3
"""A look may come so much before its time and be the next sample's."""


@dataclass(slots=True)
class History:
    """``now_s`` is any monotonic second count."""

    hits_per_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    """Oldest first."""
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    _step_s: float = 1.0
    _sampled: tuple[float, int] | None = None
    """When the newest sample was taken, and the count then."""
    _since: Sample | None = None
    """What was seen since."""

    def look(self, now_s: float, accepted: int, *, at_us: int, lag_s: float, state: ConnectionState) -> None:
        """``accepted`` is the running count of records."""
        self._seen.append((now_s, accepted))
        while now_s - self._seen[0][0] > RATE_WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        self.hits_per_s = _rate(self._seen[0], self._seen[-1])
        sampled = self._sampled = self._sampled or (now_s, accepted)
        seen = Sample(at_us=at_us, hits_per_s=0.0, lag_s=round(lag_s, 2), state=state)
        self._since = seen if self._since is None else _merged(self._since, seen)
        if now_s - sampled[0] >= self._step_s - EARLY_S:
            rate = round(_rate(sampled, (now_s, accepted)), 2)
            self._add(msgspec.structs.replace(self._since, hits_per_s=rate))
            self._sampled, self._since = (now_s, accepted), None

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        if len(self.samples) <= MOST_SAMPLES:
            return
        if self._step_s >= LONGEST_STEP_S:
            del self.samples[0]
            return
        self._step_s *= 2
        self.samples[:] = [
            _merged(*self.samples[index : index + 2])
            for index in range(len(self.samples) % 2, len(self.samples), 2)
        ]


def _rate(before: tuple[float, int], after: tuple[float, int]) -> float:
    passed_s = after[0] - before[0]
    return max(0.0, (after[1] - before[1]) / passed_s) if passed_s > 0 else 0.0


def _merged(first: Sample, second: Sample) -> Sample:
    """A short time without a stream is not averaged away."""
    state = first.state if second.state is ConnectionState.STREAMING else second.state
    return Sample(
        at_us=second.at_us,
        hits_per_s=(first.hits_per_s + second.hits_per_s) / 2,
        lag_s=max(first.lag_s, second.lag_s),
        state=state,
    )
