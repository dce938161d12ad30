"""Whether the entries of the commit log follow from each other, and what they decided.

Runs in ``verify``; pure. It goes on where the ledger's fold gives up: behind a contradiction it takes
what the next decision says of itself, so that one fault is one finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from collector.core.entries import (
    BlockCount,
    Checkpoint,
    Committed,
    ConnectionsCommitted,
    ConnectionsIntent,
    ConnectionsVoid,
    Entry,
    Intent,
    Lost,
    Made,
    Note,
    Retired,
    ShareStaged,
    Void,
)
from collector.core.messages import StagedFile, Totals
from collector.storage.verify.findings import Finding, Kind
from collector.storage.verify.lines import COUNTED

NO_BATCH: Final = (0, 0)


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch, or rows of ``connections``, that are committed: all of these files are in place."""

    intent: Intent | ConnectionsIntent
    batch_before: tuple[int, int] = NO_BATCH

    @property
    def files(self) -> tuple[StagedFile, ...]:
        return files_of(self.intent)


def files_of(intent: Intent | ConnectionsIntent) -> tuple[StagedFile, ...]:
    if isinstance(intent, ConnectionsIntent):
        return intent.files
    return tuple(file for share in intent.shares for file in share.files)


def counts_of(counted: BlockCount | ShareStaged) -> Totals:
    rows, resends, rejects = counted.rows, counted.resends, counted.rejects
    records = counted.records if isinstance(counted, BlockCount) else rows + resends + rejects
    return Totals(records, rows, resends, rejects)


def sum_of(counts: Iterator[Totals]) -> Totals:
    return sum(counts, Totals())


@dataclass(slots=True)
class Chain:
    """Feed it every entry once, in order; it gives back what an entry makes final."""

    findings: list[Finding] = field(default_factory=list)
    instance: str = ""
    stream: str = ""
    last_entry: int = 0
    whole: bool = True
    """It begins with the first entry there ever was."""
    totals: Totals = field(default_factory=Totals)
    """Of all committed batches."""
    batches: int = 0
    last_batch: tuple[int, int] = NO_BATCH
    """The newest that was committed."""
    pending: Intent | None = None
    pending_connections: ConnectionsIntent | None = None
    retired: dict[str, bytes] = field(default_factory=dict)
    """SHA-256 by path."""
    lost: list[Lost] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    _folds: dict[type[Entry], Callable[[int, Any], Decided | None]] = field(init=False)

    def __post_init__(self) -> None:
        self._folds = {
            Made: self._make,
            Checkpoint: self._start_from,
            Intent: self._intend,
            Committed: self._commit,
            Void: self._void,
            ConnectionsIntent: self._intend_connections,
            ConnectionsCommitted: self._commit_connections,
            ConnectionsVoid: self._void_connections,
            Retired: self._retire,
            Lost: self._lose,
            Note: self._note,
        }

    def fold(self, number: int, entry: Entry) -> Decided | None:
        if self.last_entry and number != self.last_entry + 1:
            self._fault(number, f"follows entry {self.last_entry}", f"entry {self.last_entry + 1}")
        if not self.last_entry and not isinstance(entry, Made | Checkpoint):
            self._fault(
                number, f"is {type(entry).__name__}", "the entry that says whose state folder this is"
            )
        self.last_entry = number
        fold = self._folds.get(type(entry))
        return fold(number, entry) if fold is not None else None

    def next_block(self) -> int:
        """The first block of the next batch."""
        block = self.last_batch[1] + 1
        for lost in sorted(self.lost, key=lambda each: each.first):
            if lost.first <= block <= lost.last:
                block = lost.last + 1
        return block

    def _fault(self, number: int, found: str, expected: str) -> None:
        self.findings.append(Finding(Kind.LOG, f"entry {number}", found, expected))

    # ------------------------------------------------------------ whose it is, and what was there before

    def _make(self, number: int, entry: Made) -> None:
        if self.instance:
            self._fault(number, f"makes instance {entry.instance}", "no second one")
        self.instance, self.stream = entry.instance, entry.stream

    def _start_from(self, _: int, entry: Checkpoint) -> None:
        self.instance, self.stream, self.whole = entry.instance, entry.stream, False
        self.totals, self.last_batch, self.lost = entry.totals, entry.last_batch, list(entry.lost)
        self.pending, self.pending_connections = entry.pending, entry.pending_connections

    # ------------------------------------------------------------ batches

    def _intend(self, number: int, entry: Intent) -> Decided | None:
        unfinished = self._unfinished(number, self.pending)
        due = self.next_block()
        if entry.batch != due:
            self._fault(
                number, f"decides the batch of blocks {entry.batch} to {entry.last}", f"one from block {due}"
            )
        elif entry.before != self.totals:
            self._fault(number, f"says {_in_words(entry.before)} came before it", _in_words(self.totals))
        self.findings += miscounted(entry)
        self.pending = entry
        return unfinished

    def _unfinished(self, number: int, pending: Intent | None) -> Decided | None:
        if pending is None:
            return None
        self._fault(
            number, f"decides the next batch while batch {pending.batch} is pending", "its commit before"
        )
        return self._done(pending)

    def _done(self, intent: Intent) -> Decided:
        before, self.last_batch = self.last_batch, (intent.batch, intent.last)
        self.totals = intent.before + sum_of(counts_of(block) for block in intent.blocks)
        self.batches += 1
        self.pending = None
        return Decided(intent, before)

    def _commit(self, number: int, entry: Committed) -> Decided | None:
        if self.pending is None or (self.pending.batch, self.pending.last) != (entry.batch, entry.last):
            self._fault(number, f"commits batch {entry.batch}", "one that was decided before")
            return None
        return self._done(self.pending)

    def _void(self, number: int, entry: Void) -> None:
        if self.pending is None or self.pending.batch != entry.batch:
            self._fault(number, f"undoes batch {entry.batch}", "one that is pending")
            return
        self.pending = None

    # ------------------------------------------------------------ the rest

    def _intend_connections(self, number: int, entry: ConnectionsIntent) -> Decided | None:
        pending, self.pending_connections = self.pending_connections, entry
        if pending is None:
            return None
        self._fault(
            number, f"decides rows while those of entries {pending.first} to {pending.last} are pending",
            "their commit before",
        )  # fmt: skip
        return Decided(pending)

    def _commit_connections(self, number: int, entry: ConnectionsCommitted) -> Decided | None:
        pending, self.pending_connections = self.pending_connections, None
        if pending is None or pending.first != entry.first:
            self._fault(number, f"commits connections {entry.first}", "rows that were decided before")
            return None
        return Decided(pending)

    def _void_connections(self, number: int, entry: ConnectionsVoid) -> None:
        if self.pending_connections is None or self.pending_connections.first != entry.first:
            self._fault(number, f"undoes connections {entry.first}", "rows that are pending")
        self.pending_connections = None

    def retire(self, entry: Entry) -> None:
        if isinstance(entry, Retired):
            self.retired.update((file.path, file.sha256) for file in entry.files)

    def _retire(self, _: int, entry: Retired) -> None:
        self.retire(entry)

    def _lose(self, _: int, entry: Lost) -> None:
        self.lost.append(entry)

    def _note(self, _: int, entry: Note) -> None:
        self.notes.append(entry)


def miscounted(intent: Intent) -> Iterator[Finding]:
    """What the decision says must add up by itself."""
    where = batch_name(intent)
    if [block.seq for block in intent.blocks] != list(range(intent.batch, intent.last + 1)):
        yield Finding(Kind.COUNTS, where, f"counts {len(intent.blocks)} blocks", "each of its blocks once")
    for block in intent.blocks:
        if block.records != block.rows + block.resends + block.rejects:
            equation = f"{block.rows} rows + {block.resends} resends + {block.rejects} rejects"
            yield Finding(Kind.COUNTS, f"{where}, block {block.seq}", equation, f"{block.records} records")
    blocks = sum_of(counts_of(block) for block in intent.blocks)
    shares = sum_of(counts_of(share) for share in intent.shares)
    if shares != blocks:
        yield Finding(
            Kind.COUNTS, where, f"shares of {_in_words(shares)}", f"{_in_words(blocks)} as in blocks"
        )
    for share in intent.shares:
        for kind, name in COUNTED.items():
            rows = sum(file.rows for file in share.files if file.kind is kind)
            if rows != getattr(share, name):
                place = f"{where}, share {share.share}"
                yield Finding(Kind.COUNTS, place, f"{rows} {name} in files", f"{getattr(share, name)}")


def batch_name(intent: Intent) -> str:
    return f"batch of blocks {intent.batch} to {intent.last}"


def _in_words(totals: Totals) -> str:
    return (
        f"{totals.records} records = {totals.rows} rows + {totals.resends} resends + {totals.rejects} rejects"
    )
