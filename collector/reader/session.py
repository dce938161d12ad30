"""One connection (or saved file) from its order to its ``Closed``.

Runs in the reader's loop. The invariant: ``Closed`` is sent once, after every block of the
connection has been reported, and its outcome is the first thing that ended the connection.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from collector.core.framing import Frame, Framer
from collector.core.messages import BlockFlag, Closed, Connect, Opened, Outcome, Progress, ReadFile
from collector.reader.attempt import Stream, Verdict
from collector.reader.blocks import BlockWriter, Sealed
from collector.reader.intake import Intake, Text
from collector.reader.response import escaped

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Raw bytes read but not yet inflated: above it the socket is left alone for a while."""

DRAINED: Final = Verdict(Outcome.DRAINED, "closed by the collector")


class Source(Protocol):
    """Where raw bytes come from: an ``Attempt`` or a ``FileSource``."""

    verdict: Verdict | None
    stream: Stream | None
    bytes_received: int

    @property
    def deadline(self) -> float | None: ...
    def take(self) -> bytes: ...
    def tick(self, now: float) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self, verdict: Verdict) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Cutting:
    """How the text of a session becomes blocks."""

    framer: Framer
    seal_interval_s: float
    skip_records: int = 0
    flags: BlockFlag = BlockFlag.NONE


class Session:
    """What the reader holds while a connection is open or its last blocks are on their way."""

    def __init__(
        self,
        order: Connect | ReadFile,
        source: Source,
        *,
        text: Text,
        cutting: Cutting,
        writer: BlockWriter,
        send: Callable[[msgspec.Struct], None],
    ) -> None:
        self._connection = order.connection
        self._held_before_us = order.held_us
        self._source = source
        self._text = text
        self._flags = cutting.flags
        self._writer = writer
        self._send = send
        self._intake = Intake(
            text,
            cutting.framer,
            self._sealed,
            writer.put,
            seal_interval_s=cutting.seal_interval_s,
            skip_records=cutting.skip_records,
        )
        self._is_file = BlockFlag.UNBOUNDED in cutting.flags
        self._opened: float | None = time.monotonic() if self._is_file else None
        self._opened_at_us = self._first_byte_us = self._last_byte_us = 0
        self._paused = False
        self._end: Closed | None = None
        self._finished = False

    @property
    def deadline(self) -> float | None:
        """When ``turn`` must be called at the latest, by the monotonic clock."""
        deadlines = [self._source.deadline]
        if self._writer.has_room:
            deadlines.append(self._intake.deadline)
        return min((at for at in deadlines if at is not None), default=None)

    def turn(self, now: float) -> bool:
        """Move everything on as far as it goes. True once ``Closed`` was sent."""
        self._source.tick(now)
        self._report_opening(now)
        self._take()
        self._intake.pump(now, lambda: self._writer.has_room)
        if self._text.fault:
            self.close(Verdict(Outcome.LOST, escaped(self._text.fault), 0 if self._is_file else 200))
        self._pause_or_resume()
        return self._source.verdict is not None and self._settle(self._source.verdict)

    def close(self, verdict: Verdict = DRAINED) -> None:
        """Close the connection now, unless it is over already; what came is still taken."""
        self._source.close(verdict)

    def progress(self) -> Progress:
        return Progress(
            connection=self._connection,
            bytes_received=self._source.bytes_received,
            records=self._intake.records,
            paused=self._paused,
            last_byte_us=self._last_byte_us,
            held_us=self._held_us(),
        )

    def _report_opening(self, now: float) -> None:
        stream = self._source.stream
        if stream is not None and self._opened is None:
            self._opened = now
            self._opened_at_us = wall_clock_us()
            self._send(Opened(self._connection, self._opened_at_us, stream.host, stream.hops))

    def _take(self) -> None:
        raw = self._source.take()
        if raw:
            self._last_byte_us = wall_clock_us()
            self._first_byte_us = self._first_byte_us or self._last_byte_us
            self._text.push(raw)

    def _pause_or_resume(self) -> None:
        has_room = self._writer.has_room
        if has_room and self._text.waiting_bytes <= MAX_WAITING_BYTES:
            self._source.resume()
        else:
            self._source.pause()
        if self._paused is has_room:
            self._paused = not has_room
            self._send(self.progress())

    def _settle(self, verdict: Verdict) -> bool:
        if self._end is None:
            self._end = self._closed(verdict)
        if self._text.pending:
            return False
        if not self._finished:
            self._finish(self._end)
        if not self._writer.settled:
            return False
        self._send(self._end)
        return True

    def _finish(self, end: Closed) -> None:
        """All text is cut: the last block, and whether the end was as clean as it looked."""
        self._finished = True
        if end.outcome is Outcome.ENDED and not self._text.at_border:
            words = escaped(self._text.fault or "it ended inside a gzip member")
            end = msgspec.structs.replace(end, outcome=Outcome.LOST, detail=words)
        last_is_record = self._is_file and end.outcome is Outcome.ENDED
        cut_bytes = self._intake.finish(last_is_record=last_is_record)
        self._end = msgspec.structs.replace(end, cut_bytes=cut_bytes, records=self._intake.records)

    def _closed(self, verdict: Verdict) -> Closed:
        """The connection is closed at this moment, whatever is still to be written."""
        return Closed(
            connection=self._connection,
            outcome=verdict.outcome,
            detail=verdict.detail,
            closed_at_us=wall_clock_us(),
            status=verdict.status,
            error_description=verdict.error_description,
            retry_after_s=verdict.retry_after_s,
            opened_at_us=self._opened_at_us,
            first_byte_us=self._first_byte_us,
            bytes_received=self._source.bytes_received,
            held_us=self._held_us(),
        )

    def _held_us(self) -> int:
        if self._end is not None:
            return self._end.held_us
        elapsed_s = 0.0 if self._opened is None else time.monotonic() - self._opened
        return self._held_before_us + round(elapsed_s * 1_000_000)

    def _sealed(self, frame: Frame, flags: BlockFlag) -> Sealed:
        return Sealed(
            payload=frame.payload,
            records=frame.records,
            connection=self._connection,
            flags=flags | self._flags,
            collected_at_us=wall_clock_us(),
            held_us=self._held_us(),
        )


def wall_clock_us() -> int:
    return time.time_ns() // 1000
