"""A small stream that ends at every one of its bytes, in every way a connection can end.

The judge is written with ``zlib`` and plain searches: it knows nothing of curl, isal or the framer.
"""

from __future__ import annotations

import gzip
import ssl
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from attempt_rig import options
from hostile_server import LAST_CHUNK, STREAM_HEAD, HostileServer, Peer, chunked
from session_rig import descriptors, sessions

from collector.core.messages import Outcome

RECORDS = [
    '{"n":0}',
    '{"n":1,"name":"été €"}',
    '{"n":2,"name":"\U0001f600"}',
    '{"n":3}',
    '{"n":4,"last":"é"}',
]


def _flushed(*texts: bytes, end: bool) -> bytes:
    """A member with a deflate block of its own for each text, so that each can be read as it comes."""
    packer = zlib.compressobj(wbits=31)
    blocks = [packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) for text in texts]
    return b"".join(blocks) + (packer.flush() if end else b"")


def _body() -> bytes:
    """Records in blocks of their own, an empty member, and a member's border inside a character."""
    first, second, third, *rest = (record.encode() + b"\r\n" for record in RECORDS)
    middle = third.index("\U0001f600".encode()) + 2
    tail = third[middle:] + b"\r\n" + b"".join(rest)
    return _flushed(first, second, third[:middle], end=True) + gzip.compress(b"") + gzip.compress(tail)


BODY = _body()
STREAM = STREAM_HEAD + chunked(BODY, 17) + LAST_CHUNK
STATUS_LINE_BYTES = STREAM_HEAD.index(b"\r\n") + 2


@dataclass(frozen=True)
class Expected:
    outcome: Outcome
    records: list[bytes]
    cut_bytes: int


def judged(sent: bytes) -> Expected:
    """What must be accepted of a stream of which these bytes came."""
    text = inflated(dechunked(sent[len(STREAM_HEAD) :]))
    lines, _, rest = text.rpartition(b"\n")
    records = [line.rstrip(b"\r") for line in lines.split(b"\n")]
    outcome = Outcome.NO_STATUS if len(sent) < STATUS_LINE_BYTES else Outcome.LOST
    if sent == STREAM:
        outcome = Outcome.ENDED
    return Expected(outcome, [record for record in records if record], len(rest))


def dechunked(raw: bytes) -> bytes:
    body = b""
    while b"\r\n" in raw:
        size, _, raw = raw.partition(b"\r\n")
        body += raw[: int(size, 16)]
        raw = raw[int(size, 16) + 2 :]
    return body


def inflated(raw: bytes) -> bytes:
    text = b""
    while raw:
        member = zlib.decompressobj(wbits=31)
        text += member.decompress(raw)
        raw = member.unused_data
    return text


def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def ending(peer: Peer, how: str) -> None:
    if how == "half closed":  # our end is shut, the other one is still there
        peer.shut_down()
        peer.until_closed()
    elif how == "RST":
        peer.reset()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("how", ["closed", "half closed", "RST", "closed under TLS"])
def test_a_stream_that_ends_at_any_byte(how: str, authority: trustme.CA, tmp_path: Path) -> None:
    """In the status line, a header, a chunk's size, the gzip header, a block, a record, a character, the
    trailer: exactly the whole records before the cut are accepted, in order; the outcome says what
    happened; nothing is left open."""
    cuts = [len(STREAM), *range(len(STREAM) + 1)]
    coming = iter(cuts)

    def script(peer: Peer) -> None:
        peer.send(STREAM[: next(coming)])
        ending(peer, how)

    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with_options = options(ca_file=str(tmp_path / "ca.pem"))
    open_after_one = 0
    with (
        HostileServer(script, tls=tls(authority) if "TLS" in how else None) as server,
        sessions(tmp_path) as rig,
    ):
        for cut in cuts:
            rig.connect(server.url(), with_options=with_options)
            closed = rig.to_the_end()
            expected = judged(STREAM[:cut])
            assert rig.lines() == expected.records, cut
            assert (closed.outcome, closed.cut_bytes) == (expected.outcome, expected.cut_bytes), (cut, closed)
            assert closed.records == len(expected.records)
            assert closed.status == (0 if expected.outcome is Outcome.NO_STATUS else 200)
            assert rig.watched() == 0
            open_after_one = open_after_one or descriptors()
        server.wait_until_idle()
        assert descriptors() <= open_after_one


def test_a_stream_that_comes_byte_by_byte(tmp_path: Path) -> None:
    """Slow is not silent: each byte begins the idle time anew, and nothing of the stream is lost."""

    def script(peer: Peer) -> None:
        for at in range(len(STREAM)):
            peer.send(STREAM[at : at + 1])
            peer.stopping.wait(0.006)

    with HostileServer(script) as server, sessions(tmp_path) as rig:
        rig.connect(server.url(), idle_timeout_s=1.0)
        closed = rig.to_the_end()
    assert (closed.outcome, closed.cut_bytes) == (Outcome.ENDED, 0)
    assert closed.held_us > 1_000_000
    assert rig.lines() == judged(STREAM).records
