"""A state folder and an output folder as a collector leaves them, made in this process by its own parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionsCommitted,
    ConnectionsIntent,
    Entry,
    Intent,
    Made,
    ShareStaged,
)
from collector.core.ledger import LogState
from collector.core.messages import (
    Block,
    BlockFlag,
    Closed,
    ConnectionRow,
    FileKind,
    Outcome,
    Stage,
    StageConnections,
    StagedFile,
)
from collector.core.resends import ResendIndex
from collector.decoder.decode import Decoded, decode_block
from collector.decoder.parquet import PartIdentity, Share, stage_connections
from collector.storage.archive import all_entries
from collector.storage.commitlog import CommitLog
from collector.storage.fs import DISK
from collector.storage.ids import RunLimits, RunSet
from collector.storage.layout import StateFolder
from collector.storage.publish import publish
from collector.storage.verify.findings import Report
from collector.storage.verify.proof import verify
from tests.unwatched import Unwatched

INSTANCE = "00112233445566ff"
STREAM = "shop"
COLLECTED_AT_US = 1_795_000_060_123_456
HOUR_US = 3_600_000_000


def hit(number: int, received_s: int = COLLECTED_AT_US // 1_000_000) -> bytes:
    text = f'{{"hitIdHigh":{number + 2**63},"hitIdLow":{number * 7919},"pageName":"page {number}"'
    return f'{text},"receivedTimeGMT":{received_s}}}'.encode()


@dataclass
class Collected:
    """Its log is closed between calls, as after a drain."""

    root: Path
    watcher: Unwatched = field(default_factory=Unwatched)
    instance: str = INSTANCE
    name: str = STREAM
    """Of the state folder; several collectors may share the output folder."""
    collected_at_us: int = COLLECTED_AT_US

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def state(self) -> StateFolder:
        return StateFolder(self.output / ".state" / self.name)

    # ------------------------------------------------------------ making it

    def make(self) -> None:
        self.state.make(DISK)
        self.append(Made(self.instance, STREAM, STREAM, COLLECTED_AT_US))

    def append(self, *entries: Entry) -> None:
        log = CommitLog.open(DISK, self.state.commit_log)
        log.append_all(entries)
        log.close()

    def ledger(self) -> LogState:
        ledger = LogState()
        for number, entry in self.entries():
            ledger.fold(number, entry)
        return ledger

    def entries(self) -> list[tuple[int, Entry]]:
        return list(all_entries(DISK, self.state))

    def commit(self, *blocks: Sequence[bytes], shares: int = 2, connection: int = 1) -> Intent:
        """A batch, from its lines to COMMITTED."""
        intent = self.decide(*blocks, shares=shares, connection=connection)
        self.publish(intent)
        self.append(Committed(intent.batch, intent.last, COLLECTED_AT_US))
        return intent

    def publish(self, intent: Intent, files: slice = slice(None)) -> None:
        decided = [file for share in intent.shares for file in share.files]
        publish(DISK, self.state, self.output, decided[files])

    def decide(
        self, *blocks: Sequence[bytes], shares: int = 2, connection: int = 1, logged: bool = True
    ) -> Intent:
        """Staged, and its INTENT in the log."""
        ledger = self.ledger()
        first = ledger.last_block + 1
        index = ResendIndex(RunSet(DISK, self.state.ids, RunLimits(10**12, 10**9)))
        identity = PartIdentity(self.instance, STREAM)
        made = [
            Share(DISK, self.state.staging, identity, batch=first, share=number, attempt=1)
            for number in range(1, shares + 1)
        ]
        counts = []
        for at, lines in enumerate(blocks):
            block, decoded = self._decoded(lines, first + at, connection)
            drop = _answer(index, first, block, decoded)
            done = made[at % shares].add(decoded, drop, seq=block.seq, connection=connection)
            counted = (done.rows, done.resends, done.rejects, block.collected_at_us)
            counts.append(BlockCount(block.seq, connection, len(lines), *counted))
        last = first + len(blocks) - 1
        staged = []
        for number, share in enumerate(made, 1):
            order = Stage(
                batch=first, last=last, share=number, attempt=1, shares=shares, before=ledger.totals,
                batch_before=ledger.last_batch, held_us=(first * 1000, last * 1000),
            )  # fmt: skip
            files = tuple(share.stage(order))
            staged.append(ShareStaged(number, share.rows, share.resends, share.rejects, files))
        intent = Intent(first, last, tuple(staged), tuple(counts), ledger.totals, (first * 1000, last * 1000))
        if logged:
            self.append(intent)
        return intent

    def connect(self, number: int) -> None:
        """A connection that was opened and closed, with its row."""
        opened = ConnectionOpened(number, COLLECTED_AT_US, 0, {}, number - 1)
        closed = Closed(number, Outcome.LOST, "cut", COLLECTED_AT_US + 5_000_000)
        self.append(opened, ConnectionClosed(closed, 10_000))
        ledger = self.ledger()
        row = ConnectionRow(
            kind="connection", connection=number, began_us=COLLECTED_AT_US, ended_us=COLLECTED_AT_US + 1
        )
        first, last = ledger.connections_until + 1, ledger.last_entry
        order = StageConnections(first, last, (row,), ledger.totals)
        files = tuple(stage_connections(DISK, self.state.staging, PartIdentity(INSTANCE, STREAM), order))
        hour = COLLECTED_AT_US - COLLECTED_AT_US % HOUR_US
        self.append(ConnectionsIntent(first, last, files, ((number, hour),), ()))
        publish(DISK, self.state, self.output, files)
        self.append(ConnectionsCommitted(first, last))

    # ------------------------------------------------------------ looking at it

    def verify(self) -> Report:
        return verify(DISK, self.state, self.output, stream=STREAM, watcher=self.watcher)

    def found(self) -> list[str]:
        """Kinds of the findings, in order."""
        return [str(finding.kind) for finding in self.verify().findings]

    def files(self, kind: FileKind) -> list[StagedFile]:
        """Committed, in order."""
        intents = [entry for _, entry in self.entries() if isinstance(entry, Intent | ConnectionsIntent)]
        found = []
        for intent in intents:
            shares = intent.shares if isinstance(intent, Intent) else [intent]
            found += [file for share in shares for file in share.files]
        return [file for file in found if file.kind is kind]

    def path(self, file: StagedFile) -> Path:
        below_state = file.kind in {FileKind.IDS, FileKind.RESENDS}
        return (self.state.root if below_state else self.output) / file.final

    def paths(self, kind: FileKind) -> list[Path]:
        return [self.path(file) for file in self.files(kind)]

    def rows(self) -> list[tuple[int, int]]:
        """(block, line) of every visible row of hits, sorted."""
        parts = sorted((self.output / "hits").rglob("*.parquet"))
        tables = [pq.read_table(path, partitioning=None) for path in parts]
        columns = ("collector_block", "collector_line")
        return sorted(
            place for table in tables for place in zip(*(table[c].to_pylist() for c in columns), strict=True)
        )

    # ------------------------------------------------------------ doing damage

    def rewrite_log(self, change: Callable[[list[Entry]], None]) -> None:
        """Another log with valid checksums, whatever it says."""
        entries = [entry for _, entry in self.entries()]
        change(entries)
        self.state.commit_log.unlink()
        self.state.commit_log.with_name("commit.log.acknowledged").unlink()
        self.append(*entries)

    def _decoded(self, lines: Sequence[bytes], seq: int, connection: int) -> tuple[Block, Decoded]:
        payload = b"".join(line + b"\n" for line in lines)
        at_us = self.collected_at_us + seq * 1_000_000
        size, flags = len(payload), BlockFlag.UNBOUNDED
        block = Block(seq, 1, 4160, size, len(lines), connection, flags, at_us, seq * 1000)
        return block, decode_block(payload, block, instance=self.instance)

    def copy_to(self, root: Path) -> Collected:
        shutil.copytree(self.root, root, symlinks=True)
        return Collected(root)


def _answer(index: ResendIndex, batch: int, block: Block, decoded: Decoded) -> np.ndarray:
    claimed = decoded.has_id
    high, low, lines = decoded.high[claimed], decoded.low[claimed], decoded.lines[claimed]
    return index.answer(batch, block.seq, high, low, lines)


def make_collected(root: Path) -> Collected:
    """Six batches: rows of several hours, rejects, hits without id, resends within and across batches."""
    collected = Collected(root)
    collected.make()
    fresh = iter(range(10_000))

    def hits(count: int, hours_ago: int = 0) -> list[bytes]:
        received_s = COLLECTED_AT_US // 1_000_000 - hours_ago * 3600
        return [hit(next(fresh), received_s) for _ in range(count)]

    collected.commit([*hits(30), b"no hit", *hits(20, 1)], hits(40), hits(10))
    collected.connect(1)
    collected.commit(
        [hit(3), hit(4), *hits(25)], [*hits(30), b"\xff"], [b'{"pageName":"no id"}'], connection=2
    )
    collected.commit([hit(5), hit(6)], [hit(50)], connection=2)
    collected.commit(hits(50), shares=1, connection=2)
    collected.connect(2)
    again = hits(5)
    collected.commit([*again, *again], [*hits(20, 2), hit(7)], hits(15), connection=3)
    collected.commit([b"nothing", b"but", b"rejects"], shares=1, connection=3)
    return collected
