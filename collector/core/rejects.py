"""Whether so much of the stream is no hit that a person must look.

Pure; used by the coordinator, which feeds it each block as its decoder is done with it. Nothing is
stopped by it: intake goes on, and every reject keeps its raw bytes. Invariant: an alarm is raised
once and cleared once, whatever comes between.

The alarm does not survive a restart, and need not: a stream that still brings rejects raises it
again as soon as a hundred records show it, and one that does not has nothing to warn of.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from collector.core.messages import BlockDone

WINDOW_S: Final = 600.0
RATIO_LIMIT: Final = 0.05
"""More than this part of the window's records are rejects: the alarm."""

CLEAR_RATIO: Final = RATIO_LIMIT / 2
"""Below it the alarm is over: half, so that a ratio near the limit does not ring all night."""

LEAST_RECORDS: Final = 100
"""In the window, before its ratio says anything: one reject among the night's first three hits is none."""

RUN_LIMIT: Final = 100
"""This many rejects in a row are an alarm, however many hits came before."""

REASONS_SHOWN: Final = 3

_BUCKET_S: Final = 10.0
"""What is done is remembered in this grain: at most 61 buckets."""


class Transition(enum.Enum):
    """What a block changed."""

    RAISED = "raised"
    CLEARED = "cleared"


@dataclass(slots=True)
class _Bucket:
    start_s: float
    records: int = 0
    rejects: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class RejectsWatch:
    """Counts rejects over the last ten minutes and in a row.

    The grain is a block. The run grows by blocks of nothing but rejects, in the order in which they
    are done, and any row or resend in a block ends it; rejects among hits are the ratio's business.
    Blocks that run again after a decoder died count again: an alarm can come early by that, never late.
    """

    def __init__(self) -> None:
        self.raised_s: float | None = None
        """When the alarm was raised; ``None``: there is none."""
        self.run = 0
        """Rejects in a row."""
        self._buckets: deque[_Bucket] = deque()

    @property
    def alarm(self) -> bool:
        return self.raised_s is not None

    @property
    def records(self) -> int:
        """Of the window, as of its last block."""
        return sum(bucket.records for bucket in self._buckets)

    @property
    def rejects(self) -> int:
        return sum(bucket.rejects for bucket in self._buckets)

    @property
    def ratio(self) -> float:
        return self.rejects / records if (records := self.records) else 0.0

    def reasons(self) -> dict[str, int]:
        """The window's most frequent kinds of reason with their numbers, the most frequent first."""
        together: Counter[str] = Counter()
        for bucket in self._buckets:
            together.update(bucket.reasons)
        return dict(together.most_common(REASONS_SHOWN))

    def block_done(self, now_s: float, done: BlockDone) -> Transition | None:
        """Count a block. Silence changes nothing: only a block can raise or clear the alarm."""
        self._count(now_s, done)
        ratio = self.ratio
        if not self.alarm and (self.run >= RUN_LIMIT or self._past_ratio(ratio)):
            self.raised_s = now_s
            return Transition.RAISED
        if self.alarm and self.run == 0 and ratio < CLEAR_RATIO:
            self.raised_s = None
            return Transition.CLEARED
        return None

    def in_words(self) -> str:
        """What is wrong, without what to do."""
        mostly = ", ".join(f"{reason} ({count:,})" for reason, count in self.reasons().items())
        return (
            f"{100 * self.ratio:.1f} % of the records of the last ten minutes are no hits"
            f" ({self.rejects:,} of {self.records:,}; {self.run:,} in a row at the end)"
            + (f", mostly: {mostly}" if mostly else "")
        )

    def _past_ratio(self, ratio: float) -> bool:
        return ratio > RATIO_LIMIT and self.records >= LEAST_RECORDS

    def _count(self, now_s: float, done: BlockDone) -> None:
        if done.rows or done.resends:
            self.run = 0
        else:
            self.run += done.rejects
        if not self._buckets or now_s - self._buckets[-1].start_s >= _BUCKET_S:
            self._buckets.append(_Bucket(now_s))
        bucket = self._buckets[-1]
        bucket.records += done.rows + done.resends + done.rejects
        bucket.rejects += done.rejects
        bucket.reasons.update(done.reasons)
        while now_s - self._buckets[0].start_s > WINDOW_S:
            self._buckets.popleft()
