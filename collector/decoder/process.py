"""A decoder process: blocks in, claims asked, shares staged.

Run by the coordinator as ``python -m collector.decoder.process``. It does one thing at a time, in
the order of its messages, and never waits for another decoder: while the claims of one block are
answered it decodes the next. It knows nothing that is not in the journal, so it can die at any
instruction and its shares run again elsewhere; its progress cell says what it was doing.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from collector.core.messages import (
    Block,
    Claims,
    Decode,
    Failed,
    FromDecoder,
    Keep,
    NoSpace,
    Poisoned,
    Ready,
    Stage,
    StageConnections,
    Staged,
    ToDecoder,
)
from collector.core.privacy import Privacy
from collector.core.supervision import OUT_OF_MEMORY, Phase
from collector.decoder.careful import UNBLAMED, decode_carefully, failure, show_defect_without_words
from collector.decoder.decode import BlockDecoder, Decoded
from collector.decoder.disk import WatchedDisk
from collector.decoder.kernel.library import absence
from collector.decoder.kernel.rows import KernelRows
from collector.decoder.parquet import PartIdentity, Share, stage_connections
from collector.decoder.plain import PlainRows
from collector.decoder.privacy import Hider
from collector.decoder.rows import OpenRows
from collector.decoder.strict import Degree
from collector.errors import CollectorError, ExitCode, NoSpaceError, ProtocolError, SyncFailedError
from collector.ipc.cell import ProgressCell
from collector.ipc.channel import Channel
from collector.ipc.child import become_child
from collector.storage.journal import JournalReader

THOROUGH_BLOCKS: Final = 16
"""Checked thoroughly after the columnariser refused one."""

MOST_FAILED_SYNCS: Final = 3
"""Of staged files, one after the other; each is deleted and staged anew. One more ends the collector."""

ShareKey = tuple[int, int, int]
"""Batch, share, attempt."""


@dataclass(slots=True)
class Asked:
    """A decoded block whose claims wait for their answer."""

    order: Decode
    decoded: Decoded
    cpu_us: int


class DecoderProcess:
    """One message after another; the state is what is between a block and its staged share."""

    def __init__(
        self,
        channel: Channel[ToDecoder],
        cell: ProgressCell,
        *,
        journal: Path,
        staging: Path,
        identity: PartIdentity,
        rows: OpenRows,
    ) -> None:
        self._channel = channel
        self._cell = cell
        self._disk = WatchedDisk(cell)
        self._journal = JournalReader(journal)
        self._staging = staging
        self._identity = identity
        self._rows = rows
        self._decoder: BlockDecoder | None = None
        """``None``: what is to be hidden is not known yet, so nothing is decoded."""
        self._asked: dict[int, Asked] = {}
        self._shares: dict[ShareKey, Share] = {}
        self._given_up: set[ShareKey] = set()
        self._segment = 0
        self._thorough_blocks = 0
        self._failed_syncs = 0
        """One after the other."""

    def run(self) -> None:
        """Blocks until the coordinator is gone."""
        self._cell.enter(Phase.WAITING)
        while (message := self._channel.receive(self._cell.beat)) is not None:
            match message:
                case Privacy():
                    self._hide(message)
                case Decode():
                    self._decode(message)
                case Keep():
                    self._finish(message.seq, np.frombuffer(message.drop, dtype="<u4"))
                case Stage():
                    self._stage(message)
                case StageConnections():
                    self._stage_connections(message)
            self._cell.enter(Phase.WAITING)

    def _hide(self, privacy: Privacy) -> None:
        """The first message, before any block."""
        self._identity = replace(self._identity, privacy=privacy)
        if privacy.hides:
            sys.excepthook = show_defect_without_words
        hider = Hider(privacy) if privacy.hides else None
        self._decoder = BlockDecoder(self._identity.instance, self._rows, hider)

    def _decode(self, order: Decode) -> None:
        if _key(order) in self._given_up:
            return
        began = time.thread_time_ns()
        self._forget_old_segments(order.block.segment)
        payload = self._payload(order.block)
        self._cell.enter(Phase.DECODING, order.block.seq)
        if self._decoder is None:
            raise ProtocolError("a block came before it was said what is to be hidden of its records")
        decoded = self._decoded(self._decoder, payload, order)
        decoded.rejects = list(map(self._decoder.may_keep, decoded.rejects))
        self._thorough_blocks = THOROUGH_BLOCKS if decoded.refused else max(0, self._thorough_blocks - 1)
        payload.release()
        self._asked[order.block.seq] = Asked(order, decoded, (time.thread_time_ns() - began) // 1000)
        claimed = decoded.has_id
        if not claimed.any():
            self._finish(order.block.seq, np.empty(0, dtype=np.uint32))
            return
        high, low, lines = decoded.high, decoded.low, decoded.lines
        if not claimed.all():
            high, low, lines = high[claimed], low[claimed], lines[claimed]
        self._send(Claims(order.block.seq, high.tobytes(), low.tobytes(), lines.tobytes()))

    def _payload(self, block: Block) -> memoryview:
        """Read from the disk, if it must be, before decoding begins: no record is blamed for a disk."""
        with self._cell.waits_for_disk():
            return self._journal.payload(block)

    def _decoded(self, decoder: BlockDecoder, payload: memoryview, order: Decode) -> Decoded:
        if not order.careful:
            try:
                return decoder.decode(payload, order.block, degree=self._degree())
            except UNBLAMED:
                raise
            except Exception as error:  # noqa: BLE001 - which of its records it is will be seen
                failure(error)
        seq = order.block.seq
        decoded, failed = decode_carefully(
            decoder,
            payload,
            order.block,
            line_by_line=order.careful,
            poison=order.poison,
            begins=lambda line: self._cell.enter(Phase.DECODING, seq, line),
        )
        if failed:
            self._send(Poisoned(seq, failed))
        return decoded

    def _degree(self) -> Degree:
        """What one block had, the next ones have as well: looking first is cheaper than being refused."""
        return Degree.THOROUGH if self._thorough_blocks else Degree.USUAL

    def _finish(self, seq: int, drop: np.ndarray) -> None:
        asked = self._asked.pop(seq, None)
        if asked is None:  # its share was given up while the answer was under way
            return
        order = asked.order
        self._cell.enter(Phase.WRITING, seq)
        began = time.thread_time_ns()
        try:
            done = self._share(order).add(asked.decoded, drop, seq=seq, connection=order.block.connection)
        except NoSpaceError as error:
            self._give_up(_key(order), error)
            return
        cpu_us = asked.cpu_us + (time.thread_time_ns() - began) // 1000
        self._send(msgspec.structs.replace(done, cpu_us=cpu_us))

    def _share(self, order: Decode) -> Share:
        key = _key(order)
        if key not in self._shares:
            batch, number, attempt = key
            self._shares[key] = Share(
                self._disk, self._staging, self._identity, batch=batch, share=number, attempt=attempt
            )
        return self._shares[key]

    def _stage(self, order: Stage) -> None:
        key = (order.batch, order.share, order.attempt)
        if key in self._given_up:
            return
        share = self._shares[key]
        self._cell.enter(Phase.WRITING)
        try:
            files = share.stage(order)
        except (NoSpaceError, SyncFailedError) as error:
            self._give_up(key, error)
            return
        self._failed_syncs = 0
        del self._shares[key]
        self._send(
            Staged(
                batch=order.batch,
                share=order.share,
                attempt=order.attempt,
                files=tuple(files),
                rows=share.rows,
                resends=share.resends,
                rejects=share.rejects,
            )
        )

    def _stage_connections(self, order: StageConnections) -> None:
        self._cell.enter(Phase.WRITING)
        try:
            files = stage_connections(self._disk, self._staging, self._identity, order)
        except (NoSpaceError, SyncFailedError) as error:
            self._give_up((order.first, 0, 0), error)
            return
        self._send(Staged(order.first, 0, 0, tuple(files), rows=len(order.rows), resends=0, rejects=0))

    def _give_up(self, key: ShareKey, error: NoSpaceError | SyncFailedError) -> None:
        """No room: the share's files make room for others, and all of it runs again later.

        So it does when a file could not be synced; the disk is given up when that goes on.
        """
        full = isinstance(error, NoSpaceError)
        self._failed_syncs += not full
        if (share := self._shares.pop(key, None)) is not None:
            share.discard()
        if self._failed_syncs > MOST_FAILED_SYNCS:
            raise error
        self._given_up.add(key)
        self._asked = {seq: asked for seq, asked in self._asked.items() if _key(asked.order) != key}
        self._send(NoSpace(*key, reason=str(error), full=full))

    def _forget_old_segments(self, segment: int) -> None:
        """Freed segments are recycled under other numbers, so an old mapping is only memory held."""
        if segment != self._segment:
            if self._segment:
                self._journal.release(self._segment)
            self._segment = segment

    def _send(self, message: FromDecoder) -> None:
        """*Blocks* while the coordinator does not read."""
        self._cell.enter(Phase.WAITING)
        self._channel.send(message)


def _key(order: Decode) -> ShareKey:
    return order.batch, order.share, order.attempt


class _NoPandas(MetaPathFinder):
    """Where pandas is installed, pyarrow imports it to recognise its types: 0.24 s and 55 MB for nothing."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m collector.decoder.process")
    for name, kind in (
        ("channel", int),
        ("parent", int),
        ("cell", int),
        ("journal", Path),
        ("staging", Path),
        ("stream", str),
        ("instance", str),
        ("durability", str),
        ("mode", int),
        ("kernel", str),
    ):
        parser.add_argument(f"--{name}", type=kind, required=True)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    arguments = _arguments(argv)
    become_child(arguments.parent)
    sys.meta_path.insert(0, _NoPandas())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    channel: Channel[ToDecoder] = Channel.from_fd(arguments.channel, ToDecoder)
    plain = "decode.kernel is off" if arguments.kernel == "off" else absence()
    rows: OpenRows = PlainRows() if plain else KernelRows()
    identity = PartIdentity(
        arguments.instance, arguments.stream, arguments.durability, arguments.mode, rows.name
    )
    cell = ProgressCell.from_fd(arguments.cell)
    process = DecoderProcess(
        channel, cell, journal=arguments.journal, staging=arguments.staging, identity=identity, rows=rows
    )
    try:
        channel.send(Ready(os.getpid(), plain))
        process.run()
    except BrokenPipeError:
        return 0
    except MemoryError:
        sys.excepthook(*sys.exc_info())
        return OUT_OF_MEMORY
    except CollectorError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOMEM:  # of a mapping
            sys.excepthook(*sys.exc_info())
            return OUT_OF_MEMORY
        channel.send(Failed(error.exit_code, str(error)))
        return int(error.exit_code)
    except (
        OSError,
        ImportError,
    ) as error:  # want of descriptors: no record is to blame
        sys.excepthook(*sys.exc_info())
        channel.send(Failed(ExitCode.STORAGE, f"it cannot open what it needs: {error}"))
        return ExitCode.STORAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
