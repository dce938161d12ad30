"""What a start costs by the age of the installation: the commit log of so many batches, opened and folded.

``python bench/opening.py`` prints, for each number of committed batches, the time from a closed log to its
ledger, the size of the ledger as it is checkpointed, and what log and archives take on the disk. Connections
of a hundred batches each come and go, with their rows; nothing is synced while the logs are made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    Entry,
    GapSeen,
    Intent,
    Made,
    ShareStaged,
)
from collector.core.ledger import LogState
from collector.core.messages import Closed, FileKind, Outcome, StagedFile
from collector.storage.commitlog import CommitLog, archives, packed_checkpoint
from collector.storage.fs import DISK, Disk
from collector.storage.layout import StateFolder

BATCHES = (1_000, 10_000, 100_000, 1_000_000)
BATCHES_PER_CONNECTION = 100
BATCH_US = 60_000_000
BLOCKS_PER_BATCH = 4
RECORDS_PER_BLOCK = 300
ROUNDS = 5
SINCE_US = 1_700_000_000_000_000


class NoSyncs(Disk):
    """For making logs only."""

    def fdatasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--folder", help="where the logs go; default: the system's temporary folder")
    arguments = parser.parse_args()
    print("   batches  open, ms  of it per MiB of log  ledger, KiB  log, KiB  archives, MiB")
    for batches in arguments.batches:
        with tempfile.TemporaryDirectory(prefix="livestream-bench-", dir=arguments.folder) as scratch:
            state = StateFolder(Path(scratch))
            grow(state, batches)
            times_s = [opened(state) for _ in range(ROUNDS)]
            ledger = len(msgspec.msgpack.encode(_ledger(state).checkpoint()))
            log = state.commit_log.stat().st_size
            sealed = sum(archive.path.stat().st_size for archive in archives(DISK, state.archive))
            best_ms = min(times_s) * 1e3
            print(
                f"{batches:>10,} {best_ms:>9.1f} {best_ms / (log / 2**20):>21.1f} {ledger / 1024:>12.1f}"
                f" {log >> 10:>9} {sealed >> 20:>14}",
                flush=True,
            )
    return 0


def grow(state: StateFolder, batches: int) -> None:
    ledger = LogState()
    log = CommitLog.open(NoSyncs(), state.commit_log)
    for entry in _entries(ledger, batches):
        ledger.fold(log.append(entry), entry)
        if log.rotation_due:
            log.rotate(ledger.last_entry, packed_checkpoint(ledger.last_entry, ledger.checkpoint()))
    log.close()


def opened(state: StateFolder) -> float:
    """Seconds."""
    began_s = time.perf_counter()
    _ledger(state)
    return time.perf_counter() - began_s


def _ledger(state: StateFolder) -> LogState:
    log = CommitLog.open(DISK, state.commit_log)
    ledger = LogState()
    for number, entry in log.entries():
        ledger.fold(number, entry)
    log.close()
    return ledger


def _entries(ledger: LogState, batches: int) -> Iterator[Entry]:
    yield Made("0" * 16, "shop", "shop", SINCE_US)
    for batch in range(batches):
        now_us, place = SINCE_US + batch * BATCH_US, batch % BATCHES_PER_CONNECTION
        number = batch // BATCHES_PER_CONNECTION + 1
        if place == 0:
            yield ConnectionOpened(number, now_us, 0, {}, number - 1)
            if number > 1:
                yield GapSeen(number - 1, now_us - 1, now_us, "lost", "reset", "no", "")
        yield _intent(ledger, number, now_us)
        yield Committed(ledger.pending.batch, ledger.pending.last, now_us)  # type: ignore[union-attr]
        if place == BATCHES_PER_CONNECTION - 1:
            yield ConnectionClosed(Closed(number, Outcome.LOST, "reset", now_us), batch)
            rows = tuple((at.number, hour) for at, hour in ledger.unwritten_rows(now_us))
            last = ledger.last_entry
            yield ConnectionsIntent(ledger.connections_until + 1, last, (), rows, tuple(ledger.gaps))
            yield ConnectionsCommitted(ledger.pending_connections.first, last)  # type: ignore[union-attr]


def _intent(ledger: LogState, connection: int, now_us: int) -> Intent:
    first = ledger.last_block + 1
    last = first + BLOCKS_PER_BATCH - 1
    name = f"hits/v=1/stream=shop/date=2026-03-01/hour=05/part-{'0' * 16}-{first:012d}-{last:012d}-1.parquet"
    files = (
        StagedFile(FileKind.HITS, f"{first}-1-1-hits-1.parquet", name, 1 << 20, bytes(32), 1200),
        StagedFile(
            FileKind.IDS, f"{first}-1-1-ids.run", f"ids/{first:012d}-{last:012d}-1.run", 9999, bytes(32), 1200
        ),
    )
    counts = (connection, RECORDS_PER_BLOCK, RECORDS_PER_BLOCK, 0, 0, now_us)
    blocks = tuple(BlockCount(seq, *counts) for seq in range(first, last + 1))
    rows = RECORDS_PER_BLOCK * BLOCKS_PER_BATCH
    return Intent(first, last, (ShareStaged(1, rows, 0, 0, files),), blocks, ledger.totals, (first, last))


if __name__ == "__main__":
    sys.exit(main())
