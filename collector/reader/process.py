"""The reader process: one connection at a time, its records into the journal, as ordered.

Started by the coordinator as ``python -m collector.reader.process``. The invariant: whatever ends it
but a SIGKILL, the connection is closed and what was whole is durable before it goes; it never
outlives its parent. One loop in the main thread; one more thread waits for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never

import msgspec

from collector.core.framing import BLOCK_BYTES, Framer
from collector.core.messages import (
    Block,
    BlockFlag,
    Connect,
    Disconnect,
    Failed,
    Progress,
    ReadFile,
    Ready,
    SegmentGranted,
    ToReader,
)
from collector.core.supervision import Phase
from collector.errors import CollectorError, ExitCode, ProtocolError
from collector.escaping import conceal
from collector.ipc.cell import ProgressCell
from collector.ipc.channel import Channel
from collector.ipc.child import become_child
from collector.reader.attempt import Attempt
from collector.reader.blocks import BlockWriter, DiskThread
from collector.reader.files import FileSource
from collector.reader.inflate import Inflater
from collector.reader.intake import Text
from collector.reader.session import Cutting, Session, Source
from collector.reader.transport import Options
from collector.storage.fs import DISK, Bytes
from collector.storage.journal import SEGMENT_BYTES, JournalWriter

PROGRESS_INTERVAL_S: Final = 1.0

NO_CONNECTION: Final = Progress(
    connection=0, bytes_received=0, records=0, paused=False, last_byte_us=0, held_us=0
)


class WatchedJournal(JournalWriter):
    """Says in the cell when the loop may be waiting for the disk."""

    def __init__(self, cell: ProgressCell, folder: Path, *, next_seq: int, segment_bytes: int) -> None:
        super().__init__(DISK, folder, next_seq=next_seq, segment_bytes=segment_bytes)
        self._cell = cell

    def append(self, payload: Bytes, **about: int) -> Block | None:
        with self._cell.waits_for_disk():
            return super().append(payload, **about)


class Reader:
    """The loop over the channel, the connection's sockets, the disk's thread and the clock."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        channel: Channel[ToReader],
        cell: ProgressCell,
        wake_fd: int,
    ) -> None:
        self._arguments = arguments
        self._channel = channel
        self._cell = cell
        self._options = Options(arguments.ca_file, arguments.connect_timeout_s, arguments.header_timeout_s)
        self._journal = WatchedJournal(
            cell, arguments.journal, next_seq=arguments.next_seq, segment_bytes=arguments.segment_bytes
        )
        self._disk = DiskThread()
        self._writer = BlockWriter(self._journal, self._disk, self._send)
        self._session: Session | None = None
        self._stopping = False
        self._progress_at = time.monotonic() + PROGRESS_INTERVAL_S
        self._selector = selectors.DefaultSelector()
        self._watch(channel.fileno(), self._on_orders)
        self._watch(self._disk.wake_fd, self._disk.run_done)
        self._watch(wake_fd, lambda: os.read(wake_fd, 64))

    def run(self) -> None:
        """Until ``stop``, or until the parent is gone. *Raises* ``CollectorError``."""
        self._send(Ready(os.getpid()))
        while True:
            self._cell.enter(Phase.READING)
            self._turn(time.monotonic())
            if self._stopping and self._is_done():
                return
            self._cell.enter(Phase.WAITING)
            for key, events in self._selector.select(self._wait_s()):
                key.data(events)

    def stop(self) -> None:
        """Close the connection, seal, sync, then let ``run`` return."""
        self._stopping = True

    def close(self) -> None:
        """*Blocks* until the disk's thread has finished its job in hand."""
        with self._cell.waits_for_disk():
            self._disk.close()
            self._journal.close()
        self._selector.close()

    def _turn(self, now: float) -> None:
        if self._session is not None:
            if self._stopping:
                self._session.close()
            if self._session.turn(now):
                self._session = None
        self._writer.flush(now)
        if self._progress_at <= now:
            self._progress_at = now + PROGRESS_INTERVAL_S
            self._send(self._session.progress() if self._session else self._progress_without_session())

    def _progress_without_session(self) -> Progress:
        return msgspec.structs.replace(NO_CONNECTION, paused=self._writer.short_of_room)

    def _is_done(self) -> bool:
        """What has no room in the journal now was never accepted."""
        return self._writer.all_durable and (self._session is None or not self._writer.has_room)

    def _wait_s(self) -> float:
        session_at = self._session.deadline if self._session else None
        deadlines = (self._progress_at, self._writer.deadline, session_at)
        return max(0.0, min(at for at in deadlines if at is not None) - time.monotonic())

    def _watch(self, fd: int, act: Callable[[], object]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, lambda _events: act())

    def _send(self, message: msgspec.Struct) -> None:
        """*Blocks* while the parent does not read; a parent that is gone ends the reader."""
        try:
            self._channel.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self.stop()

    def _on_orders(self) -> None:
        try:
            for order in self._channel.receive_ready():
                self._obey(order)
        except EOFError:
            self._selector.unregister(self._channel.fileno())
            self.stop()

    def _obey(self, order: ToReader) -> None:
        match order:
            case SegmentGranted():
                self._writer.grant(order)
            case Disconnect():
                if self._session is not None:
                    self._session.close()
            case Connect() | ReadFile():
                if self._session is not None:
                    raise ProtocolError(f"connection {order.connection} was ordered while another is open")
                self._session = self._session_of(order)
            case _:
                assert_never(order)

    def _session_of(self, order: Connect | ReadFile) -> Session:
        framer = Framer(self._arguments.max_record_bytes, self._arguments.block_bytes)
        interval_s = self._arguments.seal_interval_s
        source: Source
        text: Text
        if isinstance(order, Connect):
            conceal(order.token)
            conceal(order.api_key)
            conceal(order.proxy.password if order.proxy is not None else "")
            source = Attempt(order, self._options, self._selector)
            text = Inflater()
            cutting = Cutting(framer, interval_s)
        else:
            source = FileSource(order.path)
            text = source.text()
            cutting = Cutting(framer, interval_s, order.skip_records, BlockFlag.UNBOUNDED)
        return Session(order, source, text=text, cutting=cutting, writer=self._writer, send=self._send)


def main() -> int:
    """The process, from its arguments to its exit code."""
    arguments = _parser().parse_args()
    wake_read, wake_write = socket.socketpair()
    wake_read.setblocking(False)
    wake_write.setblocking(False)
    channel: Channel[ToReader] = Channel.from_fd(arguments.channel, ToReader)
    reader = Reader(arguments, channel, ProgressCell.from_fd(arguments.cell), wake_read.fileno())
    signal.set_wakeup_fd(wake_write.fileno())
    signal.signal(signal.SIGTERM, lambda *_: reader.stop())
    become_child(arguments.parent)
    try:
        reader.run()
    except CollectorError as error:
        with contextlib.suppress(OSError):
            channel.send(Failed(error.exit_code, str(error)))
        return error.exit_code
    finally:
        reader.close()
    return ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="collector.reader", allow_abbrev=False)
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the socket to the parent")
    parser.add_argument("--parent", type=int, required=True, help="pid of the parent")
    parser.add_argument("--cell", type=int, help="descriptor of the progress cell; by default nobody looks")
    parser.add_argument("--journal", type=Path, required=True, help="folder of the segments")
    parser.add_argument("--next-seq", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--segment-bytes", type=int, default=SEGMENT_BYTES)
    parser.add_argument("--block-bytes", type=int, default=BLOCK_BYTES)
    parser.add_argument("--max-record-bytes", type=int, default=16 * 1024 * 1024)
    parser.add_argument("--seal-interval-s", type=float, default=0.2)
    parser.add_argument("--connect-timeout-s", type=float, default=30.0)
    parser.add_argument("--header-timeout-s", type=float, default=60.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
