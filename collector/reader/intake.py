"""Raw bytes of one connection to sealed blocks: inflate, cut, seal in time.

Runs in the reader's loop. The invariant: nothing is inflated that there is no room for, so memory
is bounded by what is in hand: raw bytes, one piece, one open block, and blocks not yet durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from collector.core.framing import Frame, Framer
from collector.core.messages import BlockFlag
from collector.reader.blocks import Sealed

PIECES_PER_TURN: Final = 16
"""4 MiB of text between two looks at the channel and the clock: some 3 ms, or half a second where it is
all line ends, which cost the most."""


class Text(Protocol):
    """Raw bytes in, text out: an ``Inflater`` or ``PlainText``."""

    fault: str

    @property
    def pending(self) -> bool: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def at_border(self) -> bool: ...
    def push(self, raw: bytes) -> None: ...
    def pull(self) -> bytes: ...


class Intake:
    """The text of one connection on its way into blocks."""

    def __init__(
        self,
        text: Text,
        framer: Framer,
        seal: Callable[[Frame, BlockFlag], Sealed],
        put: Callable[[Sealed], None],
        *,
        seal_interval_s: float,
        skip_records: int = 0,
    ) -> None:
        self.text = text
        self.records = 0
        """Whole records so far, skipped ones not counted."""
        self._framer = framer
        self._seal = seal
        self._put = put
        self._seal_interval_s = seal_interval_s
        self._seal_at: float | None = None
        self._skip_records = skip_records

    @property
    def deadline(self) -> float | None:
        """When ``pump`` must be called: at once while text is pending, else when a block is due."""
        return 0.0 if self.text.pending else self._seal_at

    def pump(self, now: float, has_room: Callable[[], bool]) -> None:
        """Inflate and cut what there is room for, and seal what is due. Call it in every turn."""
        for _ in range(PIECES_PER_TURN):
            if not has_room() or not (piece := self.text.pull()):
                break
            frames = self._framer.feed(piece)
            self._emit(frames)
            self._set_timer(now, anew=bool(frames))
        if self._seal_at is not None and self._seal_at <= now:
            self.seal()

    def seal(self) -> None:
        """All whole records in hand become a block."""
        self._seal_at = None
        frame = self._framer.seal()
        self._emit([frame] if frame else [])

    def finish(self, *, last_is_record: bool) -> int:
        """The text is over: seal the rest; gives the bytes of the line whose end never came."""
        self._seal_at = None
        finished = self._framer.finish(last_is_record=last_is_record)
        self._emit(finished.frames)
        return finished.cut_bytes

    def _set_timer(self, now: float, *, anew: bool) -> None:
        if not self._framer.records_in_hand:
            self._seal_at = None
        elif anew or self._seal_at is None:
            self._seal_at = now + self._seal_interval_s

    def _emit(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            kept = self._without_skipped(frame)
            if kept is None:
                continue
            self.records += kept.records
            flags = BlockFlag.OVERSIZED if kept.oversized else BlockFlag.NONE
            self._put(self._seal(kept, flags))

    def _without_skipped(self, frame: Frame) -> Frame | None:
        if not self._skip_records:
            return frame
        skipped = min(self._skip_records, frame.records)
        self._skip_records -= skipped
        if skipped == frame.records:
            return None
        return Frame(frame.payload.split(b"\n", skipped)[skipped], frame.records - skipped)
