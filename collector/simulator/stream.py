"""One open stream: hits into one gzip stream into chunks, and what the scenario does to it.

The simulator's process runs one per connection. Invariant: hits are recorded in their slot before
their first byte is written, so that nothing that may have arrived is unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from isal import isal_zlib
from msgspec import UNSET

from collector.simulator.requestlog import Request
from collector.simulator.scenario import BadGzip, Cut, Effect, How, Resend, Rule, Stall, Trickle
from collector.simulator.settings import SimulatorSettings
from collector.simulator.slots import Production, Sent, Slot, Slots, Source
from collector.simulator.wire import LimitReached, Wire

BATCH_HITS = 256
"""Hits per write at most: large enough to be cheap, small enough to be cut between."""

PACE_S = 0.05
"""How often hits are sent when they come at a rate."""

_LINE_END = b"\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_COMPRESSION_LEVEL = 1
_GZIP = 31
_GARBAGE_BYTES = 4096
"""Of 64 random bytes one in twenty is a gzip stream that only goes on."""


class Encoder:
    """One gzip stream, of one member until told otherwise. Everything written is flushed."""

    def __init__(self) -> None:
        self._deflate = isal_zlib.compressobj(_COMPRESSION_LEVEL, isal_zlib.DEFLATED, _GZIP)

    def write(self, text: bytes) -> bytes:
        """Gzip bytes from which all of ``text`` can be had."""
        data: bytes = self._deflate.compress(text) + self._deflate.flush(isal_zlib.Z_SYNC_FLUSH)
        return data

    def end_member(self) -> bytes:
        """The member's end; the next write begins another."""
        data: bytes = self._deflate.flush(isal_zlib.Z_FINISH)
        self._deflate = isal_zlib.compressobj(_COMPRESSION_LEVEL, isal_zlib.DEFLATED, _GZIP)
        return data


def chunks(data: bytes, mean_bytes: int, draw: random.Random) -> bytes:
    """``data`` as HTTP chunks that end anywhere. *Source* RFC 9112, 7.1."""
    pieces: list[bytes] = []
    start = 0
    while start < len(data):
        length = int(draw.random() * 2 * mean_bytes) + 1
        piece = data[start : start + length]
        pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        start += length
    return b"".join(pieces)


class Stream:
    """One connection's stream."""

    def __init__(
        self,
        wire: Wire,
        slots: Slots,
        slot: Slot,
        *,
        source: Source,
        production: Production,
        settings: SimulatorSettings,
        rule: Rule,
        request: Request,
        clock: Callable[[], float],
    ) -> None:
        self._wire = wire
        self._slots = slots
        self._slot = slot
        self._source = source
        self._production = production
        self._settings = settings
        self._rule = rule
        self._request = request
        self._clock = clock
        self._draw = random.Random(f"{settings.seed} request {request.number}")  # noqa: S311 - repeatable
        self._encoder = Encoder()
        self._effects = rule.effects()
        self._opened_s = clock()
        self._written_s = self._opened_s
        self._hits = 0
        self._wake = asyncio.Event()
        self._ending = False
        self.tail = b""
        """What a clean end has still to send, once the slot is free: its reader may be back at once."""

    def end(self) -> None:
        """Ask for a clean end at the next record border."""
        self._ending = True
        self._wake.set()

    async def run(self) -> How:
        """Send until the scenario or ``end`` says stop; how the stream is to end.

        *Raises* ``ClientGone``. *Blocks* for ever otherwise.
        """
        try:
            await self._send_hits()
        except LimitReached:
            cut = self._rule.cut
            return How.RST if cut is UNSET else cut.how
        except _Ended as ended:
            return ended.how
        return How.CLEAN

    async def _send_hits(self) -> None:
        while not self._ending:
            for effect in [effect for effect in self._effects if self._is_due(effect)]:
                self._effects.remove(effect)
                await self._do(effect)
            if self._ending:
                break
            count = self._sendable()
            if count:
                await self._send_batch(count)
            elif self._is_silent():
                await self._write(self._encoder.write(_LINE_END))
            else:
                await self._pause(self._nap_s())
        self._finish()

    def _is_due(self, effect: Effect) -> bool:
        by_bytes = isinstance(effect, Cut) and effect.after_bytes is not UNSET
        elapsed_s = self._clock() - self._opened_s
        return not by_bytes and self._hits >= effect.after_hits and elapsed_s >= effect.after_s

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Stall():
                await self._stall(effect)
            case Trickle():
                self._wire.bytes_per_second = effect.bytes_per_second
                self._wire.slow_until_s = _until(self._clock(), effect.for_s)
            case BadGzip():
                await self._send_bad_gzip(effect)
            case Resend():
                await self._resend(effect)
            case Cut():
                await self._cut(effect)

    def _sendable(self) -> int:
        """Hits to send now: what was made, up to the next border."""
        made = self._production.by(self._clock())
        ready = (self._production.end if made is None else made) - self._slot.cursor
        borders = [effect.after_hits - self._hits for effect in self._effects]
        if self._rule.members is not UNSET:
            borders.append(self._rule.members.every_hits - self._hits % self._rule.members.every_hits)
        return max(min(ready, BATCH_HITS, *(border for border in borders if border > 0)), 0)

    async def _send_batch(self, count: int) -> None:
        first, end = self._slot.cursor, self._slot.cursor + count
        lines = self._lines(first, count)
        data = self._chunked(self._encode(lines)) if lines else b""
        self._slots.record(self._slot, Sent(self._clock(), first, end, self._wire.sent_bytes + len(data)))
        self._slot.cursor = end
        self._note(first, end, len(lines))
        await self._write_chunked(data)

    def _lines(self, first: int, count: int) -> list[bytes]:
        if self._slots.size == 1:
            return self._source.lines(first, count)
        return self._source.lines_of_share(first, count, self._slot.number, self._slots.size)

    def _note(self, first: int, end: int, hits: int) -> None:
        if not hits:
            return
        request = self._request
        request.first_hit = first if request.first_hit is None else request.first_hit
        request.last_hit = end - 1
        request.hits += hits
        self._hits += hits

    def _encode(self, lines: list[bytes]) -> bytes:
        text = _LINE_END.join(lines) + _LINE_END
        members = self._rule.members
        if members is UNSET or (self._hits + len(lines)) % members.every_hits:
            return self._encoder.write(text)
        border = len(text) - len(lines[-1]) // 2 if members.inside_record else len(text)
        data = self._encoder.write(text[:border]) + self._encoder.end_member()
        if members.empty:
            data += self._encoder.end_member()
        return data + (self._encoder.write(text[border:]) if members.inside_record else b"")

    async def _stall(self, stall: Stall) -> None:
        until_s = _until(self._clock(), stall.for_s)
        while not self._ending and self._clock() < until_s:
            await self._pause(min(until_s - self._clock(), 3600.0))

    async def _send_bad_gzip(self, bad: BadGzip) -> None:
        if bad.kind == "garbage":
            await self._write(self._draw.randbytes(_GARBAGE_BYTES))
            return
        data = bytearray(self._encoder.end_member())
        data[-8] ^= 0xFF  # the first byte of the CRC
        await self._write(bytes(data))

    async def _resend(self, resend: Resend) -> None:
        end = self._slot.cursor
        first = max(end - resend.last, 0)
        for _ in range(resend.times):
            for start in range(first, end, BATCH_HITS):
                lines = self._lines(start, min(BATCH_HITS, end - start))
                self._request.hits += len(lines)
                await self._write(self._encoder.write(_LINE_END.join([*lines, b""])))

    async def _cut(self, cut: Cut) -> None:
        if cut.where != "record":
            await self._write_part_of_next(inside_gzip=cut.where == "mid-gzip")
        if cut.how is not How.CLEAN:
            raise _Ended(cut.how)
        self._finish(whole=cut.where != "mid-gzip")
        raise _Ended(How.CLEAN)

    async def _write_part_of_next(self, *, inside_gzip: bool) -> None:
        lines = self._source.lines(self._slot.cursor, 1) or [b'{"hitIdHigh":1}']
        if not inside_gzip:
            await self._write(self._encoder.write(lines[0][: len(lines[0]) // 2]))
            return
        data = self._encoder.write(lines[0])
        await self._write(data[: len(data) // 2])

    def _finish(self, *, whole: bool = True) -> None:
        self.tail = (self._chunked(self._encoder.end_member()) if whole else b"") + _LAST_CHUNK

    def _is_silent(self) -> bool:
        period_s = self._settings.heartbeat_s
        return bool(period_s) and self._clock() - self._written_s >= period_s

    def _nap_s(self) -> float:
        """Until something may be due."""
        now_s = self._clock()
        elapsed_s = now_s - self._opened_s
        moments = [effect.after_s - elapsed_s for effect in self._effects if effect.after_s > elapsed_s]
        if self._settings.heartbeat_s:
            moments.append(self._written_s + self._settings.heartbeat_s - now_s)
        if self._slot.cursor < self._production.end:
            moments.append(max(self._production.next_s(now_s) - now_s, PACE_S))
        return min(moments, default=3600.0)

    async def _pause(self, for_s: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), max(for_s, 0.001))
        except TimeoutError:
            return

    def _chunked(self, data: bytes) -> bytes:
        return chunks(data, self._settings.chunk_bytes, self._draw)

    async def _write(self, data: bytes) -> None:
        await self._write_chunked(self._chunked(data))

    async def _write_chunked(self, data: bytes) -> None:
        await self._wire.send(data)
        self._written_s = self._clock() if data else self._written_s
        await asyncio.sleep(0)


class _Ended(Exception):  # noqa: N818 - the scenario's doing
    def __init__(self, how: How) -> None:
        super().__init__(how)
        self.how = how


def _until(now_s: float, for_s: object) -> float:
    return now_s + for_s if isinstance(for_s, (int, float)) else float("inf")
