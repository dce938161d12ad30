"""How often a child may die before the collector gives up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

RESTART_LIMIT: Final = 5
"""Deaths of one child within the window; one more ends the collector. As Erlang's restart intensity."""

RESTART_WINDOW_S: Final = 60.0

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 5.0


@dataclass(slots=True)
class RestartIntensity:
    """Of one child; ``now_s`` is any monotonic second count."""

    deaths_s: deque[float] = field(default_factory=deque)

    def died(self, now_s: float) -> float | None:
        """How long to wait before starting it again, seconds; ``None``: it keeps failing."""
        while self.deaths_s and now_s - self.deaths_s[0] > RESTART_WINDOW_S:
            self.deaths_s.popleft()
        self.deaths_s.append(now_s)
        if len(self.deaths_s) > RESTART_LIMIT:
            return None
        if len(self.deaths_s) == 1:
            return 0.0
        return min(_FIRST_DELAY_S * 2.0 ** (len(self.deaths_s) - 2), _LONGEST_DELAY_S)
