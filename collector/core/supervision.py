"""Whether a child lives: how long it may be silent, and how often it may die.

Runs in the coordinator as pure code. A child counts its beats in a cell that the coordinator reads
once a second. Invariant: silence counts only while the judge itself was awake, so a coordinator
that was stopped, or thawed together with its children, finds no healthy child hung.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

RESTART_LIMIT: Final = 5
"""Deaths of one child within the window; one more ends the collector. As Erlang's restart intensity."""

RESTART_WINDOW_S: Final = 60.0

LOOK_INTERVAL_S: Final = 1.0
"""How often the coordinator looks at a cell, and how often at least a child that is well beats."""

LONGEST_LOOK_S: Final = 2.0
"""What one look adds to a silence at most: of a longer time the judge itself was away."""

START_LIMIT_S: Final = 30.0
"""A child that is starting is given at least this long, whatever the limit for the others."""

OUT_OF_MEMORY: Final = 12
"""Exit code of a child that got no memory, as the errno."""

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 5.0


class Phase(enum.IntEnum):
    """What a child is doing, as it says itself in its cell."""

    STARTING = 0
    WAITING = 1
    """For a message, for bytes of the stream, or for the coordinator to read what it says."""
    READING = 2
    """Moving the stream on: inflating, cutting, sealing."""
    DECODING = 3
    """A block, or one line of it."""
    WRITING = 4
    """Parquet."""
    DISK = 5
    """In a call that waits for the disk."""


class Health(enum.Enum):
    """What a look finds."""

    WELL = "well"
    SLOW = "slow"
    """It waits for the disk and has for long. Said once per silence; killing it would cure nothing."""
    HUNG = "hung"


AT_LIMIT: Final[Mapping[Phase, Health]] = {
    Phase.STARTING: Health.HUNG,
    Phase.WAITING: Health.HUNG,
    Phase.READING: Health.HUNG,
    Phase.DECODING: Health.HUNG,
    Phase.WRITING: Health.HUNG,
    Phase.DISK: Health.SLOW,
}
"""What a child is that was silent for the limit, by its phase."""


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """A cell as it was read; of a dead child where it was when it died."""

    beats: int = 0
    phase: Phase = Phase.STARTING
    block: int = 0
    """0: none."""
    line: int = -1
    """Of the block, where it goes line by line; else -1."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended, and where it was."""

    how: str
    """In words."""
    signal: str = ""
    """Its name; empty: it exited."""
    exit_code: int = 0
    at: ProgressSnapshot = field(default_factory=ProgressSnapshot)


@dataclass(slots=True)
class Heartbeat:
    """Of one child. ``limit_s`` is how long it may be silent."""

    limit_s: float
    silent_s: float = 0.0
    _beats: int = -1
    _looked_s: float | None = None
    _slow_said: bool = False

    def look(self, seen: ProgressSnapshot, now_s: float) -> Health:
        """Call it once a second with what the cell says. *Units*: ``now_s`` of any monotonic clock."""
        since_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        if seen.beats != self._beats:
            self._beats, self.silent_s, self._slow_said = seen.beats, 0.0, False
            return Health.WELL
        self.silent_s += min(since_s, LONGEST_LOOK_S)
        limit_s = max(self.limit_s, START_LIMIT_S) if seen.phase is Phase.STARTING else self.limit_s
        if self.silent_s < limit_s:
            return Health.WELL
        found = AT_LIMIT[seen.phase]
        if found is Health.SLOW and self._slow_said:
            return Health.WELL
        self._slow_said = found is Health.SLOW
        return found


@dataclass(slots=True)
class RestartIntensity:
    """Of one child; ``now_s`` is any monotonic second count."""

    was_ready: bool = False
    """It came up at least once; a child that never did is not tried again."""
    deaths_s: deque[float] = field(default_factory=deque)

    def died(self, now_s: float) -> float | None:
        """How long to wait before starting it again, seconds; ``None``: it is not to be started again."""
        if not self.was_ready:
            return None
        while self.deaths_s and now_s - self.deaths_s[0] > RESTART_WINDOW_S:
            self.deaths_s.popleft()
        self.deaths_s.append(now_s)
        if len(self.deaths_s) > RESTART_LIMIT:
            return None
        if len(self.deaths_s) == 1:
            return 0.0
        return min(_FIRST_DELAY_S * 2.0 ** (len(self.deaths_s) - 2), _LONGEST_DELAY_S)
