"""The reader as a process: orders in, durable blocks and reports out."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import certifi
import msgspec
import pytest
from hostile_server import (
    LAST_CHUNK,
    STREAM_HEAD,
    HostileServer,
    Peer,
    answering,
    chunked,
    gzipped,
    head,
    records,
)

from collector.core.messages import (
    Accepted,
    Block,
    BlockFlag,
    Closed,
    Connect,
    Disconnect,
    Failed,
    FromReader,
    Opened,
    Outcome,
    Oversized,
    Progress,
    ReadFile,
    Ready,
    SegmentGranted,
    SegmentWanted,
)
from collector.ipc.channel import Channel
from collector.storage.journal import JournalReader

M = TypeVar("M", bound=msgspec.Struct)

SEGMENT_BYTES = 1 << 20


class ReaderProcess:
    """The coordinator's side of one reader."""

    def __init__(self, journal: Path, **changes: Any) -> None:
        self.journal = journal
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        settings = {
            "journal": journal,
            "next_seq": 1,
            "ca_file": certifi.where(),
            "segment_bytes": SEGMENT_BYTES,
            "block_bytes": 1 << 16,
            "connect_timeout_s": 5,
            "header_timeout_s": 5,
            **changes,
        }
        arguments = [
            part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", str(value))
        ]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "collector.reader.process"),
                *("--channel", str(theirs.fileno()), "--parent", str(os.getpid())),
                *arguments,
            ],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.channel: Channel[FromReader] = Channel(ours, FromReader)
        self.messages: list[Any] = []
        self.grants = -1
        """Segments still granted when asked for; below 0: always."""
        self._segment = 0

    def send(self, message: msgspec.Struct) -> None:
        self.channel.send(message)

    def connect(self, url: str, connection: int = 1, held_us: int = 0) -> None:
        self.send(Connect(connection, url, "canary-token", "key", ("127.0.0.1",), 30.0, held_us))

    def next(self) -> msgspec.Struct | None:
        message = self.channel.receive()
        self.messages.append(message)
        if isinstance(message, SegmentWanted) and self.grants:
            self.grant()
        return message

    def grant(self) -> None:
        self.grants -= 1
        self._segment += 1
        self.send(SegmentGranted(self._segment))

    def until(self, kind: type[M], fits: Callable[[M], bool] = lambda _: True) -> M:
        while (message := self.next()) is not None:
            if isinstance(message, kind) and fits(message):
                return message
        raise AssertionError(f"no {kind.__name__}: {self.messages} {self.end()}")

    def to_the_end(self) -> None:
        while self.next() is not None:
            pass

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    def blocks(self) -> list[Block]:
        return [block for accepted in self.all(Accepted) for block in accepted.blocks]

    def payloads(self) -> list[bytes]:
        reader = JournalReader(self.journal)
        payloads = [bytes(reader.payload(block)) for block in self.blocks()]
        for block in self.blocks():
            reader.release(block.segment)
        return payloads

    def lines(self) -> list[bytes]:
        return b"".join(self.payloads()).splitlines()

    def cpu_s(self) -> float:
        fields = (Path("/proc") / str(self.process.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> tuple[int, str]:
        """Exit code and stderr, once it has ended by itself."""
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors.decode()

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


Start = Callable[..., ReaderProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(**changes: Any) -> ReaderProcess:
            journal = tmp_path / "journal"
            journal.mkdir(exist_ok=True)
            reader = ReaderProcess(journal, **changes)
            stack.callback(reader.close)
            return reader

        yield start


def holding(*parts: bytes) -> Callable[[Peer], None]:
    """Send a stream's beginning and hold the connection."""

    def script(peer: Peer) -> None:
        for part in (STREAM_HEAD, *parts):
            peer.send(part)
        peer.until_closed()

    return script


def open_gzip(text: bytes) -> bytes:
    """A member whose text can be read but whose end has not come."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


def test_a_stream_becomes_durable_blocks(start: Start) -> None:
    """Ready, a segment asked for, opened, the blocks with every record in order, closed: in this order."""
    with HostileServer(answering(STREAM_HEAD, chunked(gzipped(5000), 999), LAST_CHUNK)) as server:
        reader = start()
        reader.connect(server.url(), connection=7, held_us=5_000_000)
        closed = reader.until(Closed)
    kinds = [type(message) for message in reader.messages]
    assert (kinds[0], kinds[-1]) == (Ready, Closed)
    assert kinds.index(Opened) < kinds.index(Accepted)
    assert reader.lines() == records(5000)
    blocks = reader.blocks()
    assert [block.seq for block in blocks] == list(range(1, len(blocks) + 1))
    assert {(block.connection, block.flags) for block in blocks} == {(7, 0)}
    assert sum(block.records for block in blocks) == closed.records == 5000
    assert (closed.outcome, closed.status, closed.cut_bytes) == (Outcome.ENDED, 200, 0)
    assert closed.bytes_received == len(gzipped(5000))
    assert 0 < closed.opened_at_us <= closed.first_byte_us <= closed.closed_at_us
    assert [5_000_000 <= block.held_us <= closed.held_us for block in blocks] == [True] * len(blocks)
    assert reader.all(Opened)[0].host == "127.0.0.1"


def test_a_quiet_record_is_sealed_in_time(start: Start) -> None:
    """A record is durable soon after it came, though the block is far from full and the stream goes on."""
    with HostileServer(holding(chunked(open_gzip(b'{"a":1}\r\n{"cut":')))) as server:
        reader = start(seal_interval_s=0.05)
        reader.connect(server.url())
        reader.until(Accepted)
        assert reader.lines() == [b'{"a":1}']
        assert reader.all(Closed) == []


def test_a_cut_last_record_is_counted_and_not_taken(start: Start) -> None:
    """What came after the last line end is no record; the end inside the gzip is a loss."""
    text = b'{"a":1}\r\n{"b":2'
    body = gzip.compress(text, 0)[:-8]
    with HostileServer(answering(head("200 OK", "Connection: close"), body)) as server:
        reader = start()
        reader.connect(server.url())
        closed = reader.until(Closed)
    assert reader.lines() == [b'{"a":1}']
    assert (closed.outcome, closed.cut_bytes, closed.records) == (Outcome.LOST, 6, 1)
    assert "inside a gzip member" in closed.detail


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>not a stream</html>", "not gzip"),
        (gzipped(9)[:-8] + bytes(8), "checksum"),
        (gzipped(9) + b"junk", "after gzip member 1"),
    ],
)
def test_bad_gzip_closes_the_connection(start: Start, body: bytes, words: str) -> None:
    """It is a loss with its reason; what was whole before is kept; the payload is not quoted."""
    with HostileServer(holding(chunked(body))) as server:
        reader = start()
        reader.connect(server.url())
        closed = reader.until(Closed)
    assert (closed.outcome, closed.status) == (Outcome.LOST, 200)
    assert words in closed.detail
    assert "html" not in closed.detail
    assert reader.lines() in ([], records(9))


def test_members_of_gzip_with_a_border_inside_a_record(start: Start) -> None:
    """Several members, an empty one among them, are one text."""
    body = gzip.compress(b'{"a":') + gzip.compress(b"") + gzip.compress(b"1}\r\n\r\n")
    with HostileServer(answering(STREAM_HEAD, chunked(body, 5), LAST_CHUNK)) as server:
        reader = start()
        reader.connect(server.url())
        assert reader.until(Closed).outcome is Outcome.ENDED
    assert reader.lines() == [b'{"a":1}']


def test_a_refusal_and_the_next_connection(start: Start) -> None:
    """One reader serves one connection after the other; a refusal brings its words."""
    refusal = head("409 Conflict", "Retry-After: 5", "Content-Length: 27") + b'{"error_description":"two"}'
    reader = start()
    with HostileServer(answering(refusal)) as server:
        reader.connect(server.url())
        closed = reader.until(Closed)
    assert (closed.outcome, closed.status, closed.error_description) == (Outcome.STATUS, 409, "two")
    assert (closed.retry_after_s, closed.opened_at_us, closed.held_us) == (5, 0, 0)
    with HostileServer(answering(STREAM_HEAD, chunked(gzipped(3)), LAST_CHUNK)) as server:
        reader.connect(server.url(), connection=2)
        assert reader.until(Closed).connection == 2
    assert reader.lines() == records(3)


def test_a_disconnect_takes_what_came(start: Start) -> None:
    """The connection is closed, what was whole is durable, then ``Closed`` comes."""
    with HostileServer(holding(chunked(open_gzip(b'{"a":1}\n')))) as server:
        reader = start(seal_interval_s=60)
        reader.connect(server.url())
        reader.until(Progress, lambda progress: progress.bytes_received > 0)
        reader.send(Disconnect())
        closed = reader.until(Closed)
    assert closed.outcome is Outcome.DRAINED
    assert isinstance(reader.messages[-2], Accepted)
    assert reader.lines() == [b'{"a":1}']


@pytest.mark.parametrize("end", ["SIGTERM", "EOF"])
def test_the_end_of_the_reader_seals_and_syncs(start: Start, end: str) -> None:
    """SIGTERM or a parent that is gone: connection closed, what was whole in the journal, exit 0."""
    with HostileServer(holding(chunked(open_gzip(b'{"a":1}\n{"b"')))) as server:
        reader = start(seal_interval_s=60)
        reader.connect(server.url())
        reader.until(Progress, lambda progress: progress.bytes_received > 0)
        began = time.monotonic()
        if end == "SIGTERM":
            reader.process.send_signal(signal.SIGTERM)
            reader.to_the_end()
            assert reader.all(Closed)[0].outcome is Outcome.DRAINED
        else:
            reader.channel.close()
        assert reader.end() == (0, "")
        assert time.monotonic() - began < 2
    found = b"".join(path.read_bytes() for path in reader.journal.iterdir())
    assert b'{"a":1}\n' in found
    assert b'{"b"' not in found


def test_the_death_of_the_parent_ends_the_reader(tmp_path: Path) -> None:
    """Killed, it says no goodbye, and somebody else still holds the channel: the reader goes all the same.

    What it held, and would not have sealed for a minute, is durable then.
    """
    ours, theirs = socket.socketpair()
    command = [
        *(sys.executable, "-m", "collector.reader.process", "--channel", str(theirs.fileno())),
        *("--journal", str(tmp_path), "--next-seq", "1", "--ca-file", certifi.where()),
        *("--seal-interval-s", "60", "--parent"),
    ]
    start = f"subprocess.Popen({command!r} + [str(os.getpid())], pass_fds=[{theirs.fileno()}]).wait()"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import os, subprocess; {start}"], pass_fds=[theirs.fileno()]
    )
    script = holding(chunked(open_gzip(b'{"a":1}\n{"b"')))
    with ours, HostileServer(script) as server:
        theirs.close()
        ours.settimeout(20)
        channel: Channel[FromReader] = Channel(ours, FromReader)
        assert isinstance(channel.receive(), Ready)
        channel.send(SegmentGranted(1))
        channel.send(Connect(1, server.url(), "canary-token", "key", ("127.0.0.1",), 30.0, 0))
        message = channel.receive()
        while not (isinstance(message, Progress) and message.bytes_received):
            assert not isinstance(message, Accepted), "it was sealed before its time"
            message = channel.receive()
        parent.kill()
        parent.wait()
        began = time.monotonic()
        last = [message]
        while (message := channel.receive()) is not None:
            last.append(message)
        assert time.monotonic() - began < 2
    (accepted,) = [message for message in last if isinstance(message, Accepted)]
    (block,) = accepted.blocks
    assert bytes(JournalReader(tmp_path).payload(block)) == b'{"a":1}\n'
    assert isinstance(last[-1], Closed)


def test_an_interrupt_is_left_to_the_coordinator(start: Start) -> None:
    """Ctrl-C reaches the whole group; the reader waits for its orders."""
    reader = start()
    reader.until(Ready)
    reader.process.send_signal(signal.SIGINT)
    reader.process.send_signal(signal.SIGHUP)
    reader.until(Progress)
    assert reader.process.poll() is None


def test_a_reader_whose_parent_is_another_does_not_start(start: Start) -> None:
    """The parent died before the child could ask to be told."""
    reader = start(parent=1)
    assert reader.next() is None
    assert reader.end()[0] == 0


def test_an_idle_reader_says_that_it_lives(start: Start) -> None:
    """Progress comes every second, with no connection too."""
    reader = start()
    first, second = reader.until(Progress), reader.until(Progress)
    assert first == second
    assert (first.connection, first.paused) == (0, False)


def test_without_room_the_transfer_pauses_and_resumes(start: Start) -> None:
    """No segment: the service is held back, nothing is dropped; with one it goes on from there."""
    text = b"".join(b'{"n":%d,"x":"%s"}\n' % (n, os.urandom(400).hex().encode()) for n in range(30_000))
    body = gzip.compress(text, 1)
    with HostileServer(answering(STREAM_HEAD, chunked(body, 65536), LAST_CHUNK)) as server:
        reader = start()
        reader.grants = 2
        reader.connect(server.url())
        while len(reader.all(SegmentWanted)) < 3:
            reader.next()
        first = reader.until(Progress, lambda progress: progress.paused)
        before_s = reader.cpu_s()
        second = reader.until(Progress, lambda progress: progress.paused)
        assert reader.cpu_s() - before_s < 0.1
        assert (first.bytes_received, first.records) == (second.bytes_received, second.records)
        assert first.bytes_received < len(body)
        assert reader.all(Closed) == []
        reader.grants = -1
        reader.grant()
        closed = reader.until(Closed)
    assert (closed.outcome, closed.records) == (Outcome.ENDED, 30_000)
    assert b"".join(reader.payloads()) == text


def test_a_broken_journal_ends_the_reader(start: Start) -> None:
    """A storage error is never retried: said once, exit 4."""
    reader = start()
    reader.grants = 0
    reader.until(SegmentWanted)
    reader.journal.rmdir()
    reader.grant()
    failed = reader.until(Failed)
    assert failed.exit_code == 4
    assert str(reader.journal) in failed.message
    assert reader.end() == (4, "")


def test_a_token_that_cannot_be_sent_is_said_without_it(start: Start) -> None:
    """A configuration fault, exit 2, and the token is not in the words."""
    reader = start()
    reader.send(Connect(1, "http://127.0.0.1:9/", "canary\ntoken", "key", (), 1.0, 0))
    failed = reader.until(Failed)
    assert failed.exit_code == 2
    assert "canary" not in failed.message
    assert reader.end() == (2, "")


def test_an_oversized_record_is_a_block_of_its_own(start: Start) -> None:
    """Its head, length and hash between its neighbours, and the stream goes on."""
    text = b'{"a":1}\n' + b"x" * 3_000_000 + b"\n" + b'{"b":2}\n'
    with HostileServer(answering(STREAM_HEAD, chunked(gzip.compress(text)), LAST_CHUNK)) as server:
        reader = start(max_record_bytes=100_000)
        reader.connect(server.url())
        assert reader.until(Closed).records == 3
    assert [block.flags for block in reader.blocks()] == [0, BlockFlag.OVERSIZED, 0]
    first, oversized, last = reader.payloads()
    assert (first, last) == (b'{"a":1}\n', b'{"b":2}\n')
    assert msgspec.msgpack.decode(oversized, type=Oversized).length == 3_000_000


LONG = (pytest.mark.matrix, pytest.mark.timeout(900))


@pytest.mark.parametrize(
    ("filler", "members", "records"),
    [
        pytest.param(b"\0", 4, 2, id="256 MiB of zeros"),
        pytest.param(b"\0", 160, 2, id="10 GiB of zeros", marks=LONG),
        pytest.param(b"\n", 8, 1, id="512 MiB of line ends", marks=LONG),
    ],
)
def test_a_bomb_does_not_fill_the_memory(start: Start, filler: bytes, members: int, records: int) -> None:
    """GiB from MB, as one record or as none: the reader stays small and answers all the while."""
    bomb = gzip.compress(filler * (64 << 20), 1) * members
    with HostileServer(
        answering(STREAM_HEAD, chunked(bomb, 65536), chunked(gzip.compress(b"\n{}\n")), LAST_CHUNK)
    ) as s:
        reader = start()
        reader.connect(s.url())
        closed = reader.until(Closed)
        peak_kib = int(
            (Path("/proc") / str(reader.process.pid) / "status").read_text().split("VmHWM:")[1].split()[0]
        )
    assert (closed.outcome, closed.records) == (Outcome.ENDED, records)
    assert peak_kib < 200_000
    assert len(reader.all(Progress)) >= int(closed.held_us / 5e6), "a word at least every five seconds"


# ---------------------------------------------------------------- saved files


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("skip", [0, 1, 700, 2999, 3000])
def test_a_file_is_read_like_a_stream(start: Start, tmp_path: Path, packed: bool, skip: int) -> None:
    """Told apart by content; the last line without line end is a record; the first ones can be skipped."""
    lines = [record + b" " * 100 for record in records(3000)]
    text = b"\r\n".join(lines)
    path = tmp_path / "hits.jsonl"
    path.write_bytes(gzip.compress(text) if packed else text)
    reader = start()
    reader.send(ReadFile(3, str(path), skip, 0))
    closed = reader.until(Closed)
    assert (closed.outcome, closed.connection, closed.records) == (Outcome.ENDED, 3, 3000 - skip)
    assert closed.bytes_received == path.stat().st_size
    assert reader.lines() == lines[skip:]
    assert {block.flags for block in reader.blocks()} <= {BlockFlag.UNBOUNDED}


@pytest.mark.parametrize(
    ("content", "outcome", "words", "count"),
    [
        (b"", Outcome.ENDED, "read to its end", 0),
        (gzip.compress(b"", mtime=0), Outcome.ENDED, "read to its end", 0),
        (gzipped(5)[:-8], Outcome.LOST, "inside a gzip member", 5),
        (gzipped(5) + b"junk", Outcome.LOST, "after gzip member 1", 5),
        (None, Outcome.LOST, "cannot be read", 0),
    ],
)
def test_files_that_are_empty_or_damaged(
    start: Start, tmp_path: Path, content: bytes | None, outcome: Outcome, words: str, count: int
) -> None:
    """An empty file is fine; a damaged one is a loss with its reason, and its whole records are taken."""
    path = tmp_path / "hits"
    if content is not None:
        path.write_bytes(content)
    reader = start()
    reader.send(ReadFile(1, str(path), 0, 0))
    closed = reader.until(Closed)
    assert (closed.outcome, closed.records) == (outcome, count)
    assert words in closed.detail
    assert reader.lines() == records(count)
