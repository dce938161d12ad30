"""Memory at full rate without end: ``python -m bench.endless [--minutes N]``.

The collector runs with its defaults and reads over TLS as fast as it can. What it reads is made on the same
cores, of few hits that come again and again, each time with other ids. It says each half minute how many hits
were sent and what memory all processes hold, anonymous and shared, by process; a minute takes some 1 GB of
disk in the folder for temporary files, and the journal up to 8 GiB once.
"""

from __future__ import annotations

import argparse
import itertools
import re
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trustme
from isal import isal_zlib

from bench.data import SEED, clean_lines
from bench.processes import Watched
from bench.sender import (
    CLIENT,
    GZIP_HEADER,
    HEAD,
    LINE_END,
    RAW_DEFLATE,
    RUN,
    STREAM,
    http_chunk,
    receive_head,
)
from collector.simulator.hits import Hits

CHUNK_HITS = 100
ROUND_RUNS = 6
"""Hits that come again and again are so many times ``RUN``."""

SHOWN_EVERY_S = 30.0
PATIENCE_S = 120.0

_ID = re.compile(rb'("hitIdLow":"?)\d{6}')
_MARK = b"######"
"""Where each round has its number."""


def texts() -> Iterator[bytes]:
    """Of a chunk each."""
    for first in range(0, ROUND_RUNS * RUN, RUN):
        lines = [_ID.sub(rb"\g<1>" + _MARK, line) for line in clean_lines(Hits(SEED), first, RUN)]
        if not all(_MARK in line for line in lines):
            raise ValueError("a hit's id has fewer digits than a round's number")
        for start in range(0, len(lines) - CHUNK_HITS + 1, CHUNK_HITS):
            yield LINE_END.join([*lines[start : start + CHUNK_HITS], b""])


def chunks() -> Iterator[bytes]:
    """Without end, compressed fast: it is not the sender that is measured."""
    deflate, marked = isal_zlib.compressobj(1, isal_zlib.DEFLATED, RAW_DEFLATE), [*texts()]
    yield http_chunk(GZIP_HEADER)
    for number in itertools.count(100_000):
        for text in marked:
            data = deflate.compress(text.replace(_MARK, b"%d" % number))
            yield http_chunk(data + deflate.flush(isal_zlib.Z_SYNC_FLUSH))


def show(elapsed_s: float, hits: int, by_role: dict[str, int]) -> None:
    parts = " ".join(f"{role} {size / 1e6:.0f}" for role, size in sorted(by_role.items()))
    print(f"{elapsed_s:6.0f} s {hits:12,} hits {sum(by_role.values()) / 1e6:6.0f} MB: {parts}", flush=True)


def run(folder: Path, seconds: float) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/api/1/stream/{STREAM}"
        command = [sys.executable, "-m", "collector", "run", "--url", url, "--output", str(folder / "output")]
        command += ["--set", f"tls.ca_file={folder / 'ca.pem'}", "--set", "status.listen=off"]
        made = chunks()
        first = next(made)
        with Watched(command, folder / "log", CLIENT) as collector:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as client:
                receive_head(client)
                client.sendall(HEAD + first)
                began_s, shown = time.monotonic(), 0
                for number, chunk in enumerate(made):
                    client.sendall(chunk)
                    elapsed_s = time.monotonic() - began_s
                    if elapsed_s >= (shown + 1) * SHOWN_EVERY_S:
                        shown += 1
                        show(elapsed_s, (number + 1) * CHUNK_HITS, collector.memory_bytes())
                    if elapsed_s >= seconds:
                        break
                collector.terminate()
                usage = collector.wait(PATIENCE_S)
    print(
        f"most at any time: {usage.peak_bytes / 1e6:.0f} MB, mapped files {usage.mapped_bytes / 1e6:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="default: 10")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="livestream-bench-") as folder:
        run(Path(folder), minutes * 60)


if __name__ == "__main__":
    main()
