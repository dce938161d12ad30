"""A service that sends prepared bytes only: making hits costs nothing while the collector is measured.

``prepare`` makes a *stock*: a gzip stream cut into HTTP chunks, each flushed, each with the same number of
hits, CRLF behind every hit. ``python -m bench.sender STOCK`` serves it over TLS to the first that asks, from
memory: as fast as it is read, or so many hits a second, each chunk when its last hit is due; after the last
one the response stays open. Without a stock it is silent, or, told to be endless, makes what it sends on the
way, of few hits that come again and again, each time with other ids. On stdout: its URL, and when the request
came, in nanoseconds since the epoch; without end then how many hits were sent, each half minute. When the
client has gone it writes when each chunk was sent, then ends.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import trustme
from isal import isal_zlib

from bench.data import GZIP_LEVEL, SEED, clean_lines
from collector.simulator.hits import Hits

I64 = npt.NDArray[np.int64]

ROOT = Path(__file__).parents[1]
STREAM = "shop"
CLIENT = {"LIVESTREAM_TOKEN": "bench-token", "LIVESTREAM_CLIENT_ID": "bench-key"}
"""What a collector's environment needs; anything is accepted."""

PATIENCE_S = 30.0
"""For a client to come, and for the process to end once it has gone."""

RUN = 10_000
"""Hits of the simulator that are made, sorted and compressed at a time."""

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_RAW_DEFLATE = -15
_LINE_END = b"\r\n"


ENDLESS_CHUNK_HITS = 100
ENDLESS_RUNS = 6
"""Hits that come again and again are so many times ``RUN``."""

SAID_EVERY_S = 30.0

_ID = re.compile(rb'("hitIdLow":"?)\d{6}')
_MARK = b"######"
"""Where each time has its number."""


# ---------------------------------------------------------------- before the clock starts


@dataclass(frozen=True)
class Stock:
    """What is sent, prepared."""

    path: Path
    """Of the chunks, one behind the other."""
    chunk_hits: int
    ends: I64 = field(repr=False)
    """Of each chunk, in the file."""
    text_ends: I64 = field(repr=False)
    """Of each chunk's text, every hit with one LF, as a journal counts it."""

    @property
    def hits(self) -> int:
        return self.chunk_hits * len(self.ends)

    @property
    def text_bytes(self) -> int:
        return int(self.text_ends[-1])

    def first(self, hits: int) -> Stock:
        """The first so many hits of it."""
        chunks = hits // self.chunk_hits
        return Stock(self.path, self.chunk_hits, self.ends[:chunks], self.text_ends[:chunks])


def prepare(folder: Path, hits: int, chunk_hits: int) -> Stock:
    """*Blocks* for some 0.1 ms per hit and processor."""
    path = folder / f"stock-{hits}-{chunk_hits}.chunks"
    lengths = []
    with open(path, "wb") as file:
        for chunk, text_bytes in itertools.islice(_chunks(chunk_hits), hits // chunk_hits):
            file.write(chunk)
            lengths.append((len(chunk), text_bytes))
    ends, text_ends = np.array(lengths, dtype=np.int64).cumsum(axis=0).T
    return Stock(path, chunk_hits, ends, text_ends)


def _chunks(chunk_hits: int) -> Iterator[tuple[bytes, int]]:
    """Without end, each with the length of its text."""
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for first in itertools.count(0, RUN * workers):
            firsts = range(first, first + RUN * workers, RUN)
            for chunks in pool.map(_chunks_of_run, firsts, itertools.repeat(chunk_hits)):
                yield from chunks


def _chunks_of_run(first: int, chunk_hits: int) -> list[tuple[bytes, int]]:
    """Runs refer to nothing before them, so that they can be made apart; hits that fill no chunk are left."""
    lines = clean_lines(Hits(SEED), first, RUN)
    deflate = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    made = []
    for text in _texts_of(lines, chunk_hits):
        data = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        made.append((_http_chunk(data), len(text) - chunk_hits * (len(_LINE_END) - 1)))
    return made


def _texts_of(lines: Sequence[bytes], chunk_hits: int) -> Iterator[bytes]:
    for start in range(0, len(lines) - chunk_hits + 1, chunk_hits):
        yield _LINE_END.join([*lines[start : start + chunk_hits], b""])


def _endless_texts() -> Iterator[bytes]:
    """Of a chunk each, with a mark in every id."""
    for first in range(0, ENDLESS_RUNS * RUN, RUN):
        lines = [_ID.sub(rb"\g<1>" + _MARK, line) for line in clean_lines(Hits(SEED), first, RUN)]
        if not all(_MARK in line for line in lines):
            raise ValueError("a hit's id has fewer digits than the number of a time")
        yield from _texts_of(lines, ENDLESS_CHUNK_HITS)


def _endless_chunks(texts: Sequence[bytes]) -> Iterator[bytes]:
    """Compressed fast: it is not the sender that is measured."""
    deflate = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _RAW_DEFLATE)
    for number in itertools.count(100_000):
        for text in texts:
            data = deflate.compress(text.replace(_MARK, b"%d" % number))
            yield _http_chunk(data + deflate.flush(isal_zlib.Z_SYNC_FLUSH))


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# ---------------------------------------------------------------- from the test's side


@dataclass
class Sender:
    """The process. Leave the ``with`` block, and it is gone."""

    folder: Path
    """For certificates and times, its own."""
    stock: Stock | None = None
    rate: float = 0.0
    """Hits a second; 0: as fast as they are read."""
    hold_s: float = 0.0
    """From the response's head to the first hit."""
    endless: bool = False

    def __enter__(self) -> Self:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
        arguments = [f"--folder={self.folder}", f"--rate={self.rate}", f"--hold-s={self.hold_s}"]
        if self.endless:
            arguments.append("--endless")
        if self.stock is not None:
            np.save(self.folder / "ends.npy", self.stock.ends)
            arguments += [f"--stock={self.stock.path}", f"--chunk-hits={self.stock.chunk_hits}"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.sender", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.url = self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def trust(self) -> list[str]:
        """What to add to a collector's command."""
        return ["--url", self.url, "--set", f"tls.ca_file={self.folder / 'ca.pem'}"]

    def requested_ns(self) -> int:
        """*Blocks* until the request has come."""
        return int(self._line())

    def hits_sent(self) -> int:
        """Of an endless one. *Blocks* until it says so again, each ``SAID_EVERY_S``."""
        return int(self._line())

    def sent_ns(self) -> I64:
        """When each chunk was sent. *Blocks* until the client has gone and the process has ended."""
        code = self._process.wait(PATIENCE_S)
        assert code == 0, f"the sender ended with exit code {code}"
        return np.load(self.folder / "sent.npy")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the sender ended early; its message is above"
        return line


# ---------------------------------------------------------------- the process


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stock", type=Path, help="file of chunks; by default nothing is sent")
    parser.add_argument("--chunk-hits", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="with server.pem and ends.npy")
    parser.add_argument("--rate", type=float, default=0.0, help="hits a second; 0: as fast as they are read")
    parser.add_argument("--hold-s", type=float, default=0.0, help="from the head to the first hit")
    parser.add_argument("--endless", action="store_true", help="make what is sent, instead of a stock")
    arguments = parser.parse_args()
    texts = [*_endless_texts()] if arguments.endless else []
    data, ends = b"", np.empty(0, dtype=np.int64)
    if arguments.stock:
        ends = np.load(arguments.folder / "ends.npy")
        with open(arguments.stock, "rb") as file:
            data = file.read(int(ends[-1]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.folder / "server.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        print(f"https://127.0.0.1:{listener.getsockname()[1]}/api/1/stream/{STREAM}", flush=True)
        plain, _ = listener.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_side=True) as client:
        _receive_head(client)
        print(time.time_ns(), flush=True)
        client.sendall(HEAD + _http_chunk(GZIP_HEADER))
        time.sleep(arguments.hold_s)
        if texts:
            _send_endless(client, _endless_chunks(texts))
            return 0
        sent_ns = _send(client, memoryview(data), ends, arguments.chunk_hits, arguments.rate)
        _wait_until_gone(client)
    np.save(arguments.folder / "sent.npy", sent_ns)
    return 0


def _receive_head(client: ssl.SSLSocket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        more = client.recv(65_536)
        if not more:
            raise EOFError("the client closed before a whole request")
        head += more


def _send(client: ssl.SSLSocket, data: memoryview, ends: I64, chunk_hits: int, rate: float) -> I64:
    """Gives when each chunk was handed over, before the call: the time that the client needs is not in it."""
    sent_ns = np.zeros(len(ends), dtype=np.int64)
    interval_s = chunk_hits / rate if rate else 0.0
    began_s, begin = time.monotonic(), 0
    for number, end in enumerate(ends.tolist()):
        wait_s = began_s + (number + 1) * interval_s - time.monotonic() if rate else 0.0
        if wait_s > 0:
            time.sleep(wait_s)
        sent_ns[number] = time.time_ns()
        try:
            client.sendall(data[begin:end])
        except OSError:  # killed; a benchmark that needs the times looks whether all hits are there
            break
        begin = end
    return sent_ns


def _send_endless(client: ssl.SSLSocket, chunks: Iterator[bytes]) -> None:
    """Until the client has gone."""
    say_at_s = time.monotonic() + SAID_EVERY_S
    with contextlib.suppress(OSError):
        for sent, chunk in enumerate(chunks, 1):
            client.sendall(chunk)
            if time.monotonic() >= say_at_s:
                say_at_s += SAID_EVERY_S
                print(sent * ENDLESS_CHUNK_HITS, flush=True)


def _wait_until_gone(client: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(65_536):
            pass


if __name__ == "__main__":
    sys.exit(main())
