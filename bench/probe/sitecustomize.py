"""Writes down when blocks became durable, in a collector that has this folder and the root on PYTHONPATH.

Runs at the start of every Python process there; only the reader does something. Behind each sync of the
journal it appends two int64 to the file that LIVESTREAM_BENCH_SYNCED names: the last durable block, and the
time in nanoseconds since the epoch. The product knows nothing of it; a sync takes some microseconds more.
"""

from __future__ import annotations

import os
import struct
import sys
import time

_PAIR = struct.Struct("=qq")


def _note_syncs(path: str) -> None:
    from collector.storage.journal import JournalWriter  # noqa: PLC0415 - nothing of it in other processes

    sync = JournalWriter.sync
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def noted(writer: JournalWriter) -> int:
        durable_seq = sync(writer)
        os.write(notes, _PAIR.pack(durable_seq, time.time_ns()))
        return durable_seq

    JournalWriter.sync = noted  # type: ignore[method-assign]


if "collector.reader.process" in sys.orig_argv:
    _note_syncs(os.environ["LIVESTREAM_BENCH_SYNCED"])
