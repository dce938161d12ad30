"""Who looks on where progress is told: it shows nothing and counts, so that a test can ask for the sums."""

from __future__ import annotations


class Unwatched:
    """For ``verify``, ``verify_remote`` and a compaction."""

    def begun(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.done_bytes = 0

    def advanced(self, count_bytes: int) -> None:
        self.done_bytes += count_bytes

    def named(self, name: str) -> None:
        pass
