"""A damaged or lost commit log made again: what can be read of it, and the parts for the rest.

Run by ``verify --rebuild``, which is then the state folder's only user. Invariants: nothing is deleted,
what was there is in ``quarantine/`` before the new log takes its place; and a crash at any point leaves a
folder that it can be run on again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from collector.core.entries import (
    Checkpoint,
    Committed,
    ConnectionsCommitted,
    ConnectionsIntent,
    Entry,
    FileOpened,
    GapSeen,
    Intent,
    Lost,
    Note,
    Void,
)
from collector.core.ledger import LogState
from collector.core.messages import Totals
from collector.errors import DamagedError
from collector.storage.rebuild.batches import Remade, Whose, remake, unseen_batch
from collector.storage.rebuild.evidence import Evidence, Folders, Found, Group
from collector.storage.rebuild.rows import (
    covered,
    gaps_in,
    rows_of,
    unwritten_connections,
    written_connections,
)
from collector.storage.rebuild.salvage import Salvaged
from collector.storage.verify.chain import miscounted

NOTE: Final = "rebuilt"


class Following(NamedTuple):
    """What is known of the log behind a place in it."""

    batch: int
    """The first block of the next batch."""
    before: Totals
    """Of all batches before that."""


@dataclass(slots=True)
class Making:
    """The entries of the new log, in order; each folds behind the ones before."""

    folders: Folders
    whose: Whose
    evidence: Evidence
    journal: set[int]
    """Blocks that are in the journal."""
    now_us: int
    entries: list[Entry] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    """New number by old one."""
    said: list[str] = field(default_factory=list)
    """What was done, and what could not be known."""
    faults: list[str] = field(default_factory=list)
    """What is missing for good."""
    undone: list[Group] = field(default_factory=list)
    """Half published, and in the journal: their files are to be put aside, and their blocks run again."""
    remade: int = 0
    goes_on: bool = False
    """The entries up to the checkpoint are as many as they were."""
    _ledger: LogState = field(default_factory=LogState)
    _collected_us: int = 0
    """When the last block was; 0: none is known yet."""
    _rows_known: set[str] = field(default_factory=set)
    """Parts of ``connections`` that an entry names."""

    # ------------------------------------------------------------ the walk

    def run(self, salvaged: Salvaged) -> None:
        known = [entry for entry in salvaged.entries.values() if isinstance(entry, ConnectionsIntent)]
        if salvaged.checkpoint is not None and salvaged.checkpoint.pending_connections is not None:
            known.append(salvaged.checkpoint.pending_connections)
        self._rows_known = {file.final for entry in known for file in entry.files}
        steps: list[tuple[int, Entry]] = sorted(salvaged.entries.items(), key=lambda step: step[0])
        if salvaged.checkpoint is not None:
            at = sum(1 for number, _ in steps if number <= salvaged.checkpoint_at)
            steps.insert(at, (salvaged.checkpoint_at, salvaged.checkpoint))
        for at, (number, entry) in enumerate(steps):
            if number > len(self.entries) + 1:
                self._fill_hole(entry for _, entry in steps[at:])
                self._add_connections(number)
            self._take(number, entry)
        self._fill(None)
        self._add_connections(None)
        after = salvaged.checkpoint.last_connection if salvaged.checkpoint is not None else 0
        for entry in unwritten_connections(self._ledger, self.entries, after=after):
            self._put(entry)
        self._say_unknown()
        until = [found.number("last_entry") for found in self.evidence.connections]
        self._pad(max([salvaged.last, *until]))

    def _say_unknown(self) -> None:
        intents = (entry for entry in self.entries if isinstance(entry, Intent))
        connections = {block.connection for intent in intents for block in intent.blocks}
        if 0 in connections:
            self.said.append("some blocks are of connections whose numbers no footer says: counted under 0")
        files = {entry.connection for entry in self.entries if isinstance(entry, FileOpened)}
        unknown = connections - files - {0}
        if not self._ledger.url_segment and unknown and not self.goes_on:
            self.said.append(
                f"the names of {len(unknown)} saved files that were read are not known: decoded again,"
                " their hits with ids are dropped as resends, and those without are added once more"
            )

    def _fill_hole(self, ahead: Iterator[Entry]) -> None:
        """Entries are missing here: batches among them, if the next that is known says so."""
        pending = self._ledger.pending
        for entry in ahead:
            match entry:
                case Intent() if not any(True for _ in miscounted(entry)):
                    self._fill(Following(entry.batch, entry.before))
                    return
                case Checkpoint():
                    self._reach(entry)
                    return
                case Committed() | Void() if pending is not None and entry.batch == pending.batch:
                    return

    def _take(self, number: int, entry: Entry) -> None:
        match entry:
            case Checkpoint():
                self._reach(entry)
                self._pad(number)
                self.goes_on = len(self.entries) == number
                return
            case Intent():
                if any(True for _ in miscounted(entry)):
                    return
                self._fill(Following(entry.batch, entry.before))
            case Committed() if entry.last <= self._ledger.last_block:
                return
            case ConnectionsIntent():
                self._finish_pending_connections()
                entry = self._with_new_gaps(entry)
        self._pad(number - 1)
        if self._put(entry):
            self.numbers[number] = len(self.entries)

    def _reach(self, checkpoint: Checkpoint) -> None:
        """All that is in it is behind us then."""
        pending = checkpoint.pending
        if pending is None or self._ledger.pending != pending:
            self._fill(Following(checkpoint.last_block + 1, checkpoint.totals))
        for decided in (pending, checkpoint.pending_connections):
            if decided is not None and decided not in self.entries:
                self._put(decided)

    def _put(self, entry: Entry) -> bool:
        """Whether it follows from the ones before; else it is left out."""
        number = len(self.entries) + 1
        try:
            self._ledger.fold(number, entry)
        except DamagedError as error:
            self._ledger.last_entry = number - 1
            self.said.append(f"left out: {error}")
            return False
        self.entries.append(entry)
        if isinstance(entry, Intent) and entry.blocks:
            self._collected_us = entry.blocks[-1].collected_at_us
        return True

    def _pad(self, last: int) -> None:
        """Numbers that are taken stay taken: rows of ``connections`` are named by them."""
        while len(self.entries) < last:
            self._put(Note(NOTE, ""))

    def _with_new_gaps(self, entry: ConnectionsIntent) -> ConnectionsIntent:
        gaps = tuple(self.numbers[gap] for gap in entry.gaps if gap in self.numbers)
        return ConnectionsIntent(entry.first, entry.last, entry.files, entry.covers, gaps)

    def _finish_pending(self, following: Following | None) -> None:
        """Its end is not there. At the end of the log that may be as it was: the next start finishes it."""
        pending = self._ledger.pending
        if pending is None:
            return
        if following is not None and following.batch == pending.batch:
            self._put(Void(pending.batch, pending.last, NOTE, self.now_us))
        elif following is not None or any(group.first > pending.last for group in self.evidence.groups):
            self._put(Committed(pending.batch, pending.last, self.now_us))

    def _finish_pending_connections(self) -> None:
        if (pending := self._ledger.pending_connections) is not None:
            self._put(ConnectionsCommitted(pending.first, pending.last))

    # ------------------------------------------------------------ batches

    def _fill(self, following: Following | None) -> None:
        """Batches that the log lacks before ``following``; ``None``: at its end."""
        self._finish_pending(following)
        if self._ledger.pending is not None:
            return
        while (group := self._next_group(following)) is not None:
            self._explain_hole(group.first, group.before, group.batch_before)
            self._remake(group, self._following_totals(group, following))
            if group in self.undone:
                return
        if following is not None:
            self._explain_hole(following.batch, following.before, None)
        elif self.journal:
            self._write_off(min(self.journal))

    def _next_group(self, following: Following | None) -> Group | None:
        due = self._ledger.last_block + 1
        end = following.batch if following is not None else None
        groups = (group for group in self.evidence.groups if group.first >= due)
        return next((group for group in groups if end is None or group.last < end), None)

    def _following_totals(self, group: Group, following: Following | None) -> Totals | None:
        """What all batches up to this one come to; ``None``: it is the last."""
        later = [other for other in self.evidence.groups if other.first > group.last]
        if later and (following is None or later[0].first < following.batch):
            exact = later[0].batch_before == (group.first, group.last)
            return later[0].before if exact else None
        return following.before if following is not None and following.batch == group.last + 1 else None

    def _remake(self, group: Group, totals: Totals | None) -> None:
        before = self._ledger.totals
        counted = group.counted() if totals is None else _less(totals, before)
        blocks = set(range(group.first, group.last + 1))
        if totals is None and not group.complete and blocks <= self.journal:
            self.undone.append(group)
            self.said.append(
                f"the batch of blocks {group.first} to {group.last} was half published: its files are in"
                " quarantine, and it runs again from the journal"
            )
            return
        if totals is None and not group.complete:
            self.faults.append(
                f"batch of blocks {group.first} to {group.last}: {len(group.files)} of {group.shares} shares"
                " are there whole, and the journal does not have its blocks"
            )
        at_us = self._collected_us or self.now_us
        self._commit(remake(self.folders, self.whose, group, counted=counted, before=before, at_us=at_us))

    def _commit(self, remade: Remade) -> None:
        intent = remade.intent
        if remade.absent.records:
            self.said.append(
                f"batch of blocks {intent.batch} to {intent.last}: {remade.absent.records} of its records"
                " are in no file that is there: retired, or lost"
            )
        if remade.retired is not None:
            self._put(remade.retired)
        if self._put(intent):
            self._put(Committed(intent.batch, intent.last, self.now_us))
            self.remade += 1

    def _explain_hole(self, until: int, totals: Totals, batch_before: tuple[int, int] | None) -> None:
        """Blocks before ``until`` that no file is of: a batch whose parts are all gone, or lost blocks."""
        due = self._ledger.last_block + 1
        if until <= due:
            return
        last = until - 1 if batch_before is None else min(batch_before[1], until - 1)
        counted = _less(totals, self._ledger.totals)
        if counted.records and last >= due:
            first = due if batch_before is None else max(due, batch_before[0])
            if first > due:
                self._unseen(due, first - 1, counted)
                counted = Totals()
            self._unseen(first, last, counted)
        self._write_off(until)

    def _unseen(self, first: int, last: int, counted: Totals) -> None:
        ledger = self._ledger
        self._commit(
            unseen_batch(
                self.whose,
                first,
                last,
                counted,
                before=ledger.totals,
                held_us=ledger.next_held_us,
                at_us=self._collected_us or self.now_us,
            )
        )

    def _write_off(self, until: int) -> None:
        """Blocks that nothing is known of, up to one that is there."""
        due = self._ledger.last_block + 1
        if until > due:
            self._put(Lost(due, until - 1, 0))
            self.said.append(f"blocks {due} to {until - 1} are in no file, nor in the journal: written off")

    # ------------------------------------------------------------ connections

    def _add_connections(self, until: int | None) -> None:
        """Rows named by entries up to ``until`` that the log has forgotten."""
        unknown = [
            found
            for found in self.evidence.connections
            if found.final not in self._rows_known and (until is None or found.number("last_entry") < until)
        ]
        self._rows_known.update(found.final for found in unknown)
        if unknown:
            self._finish_pending_connections()
        for first, last in dict.fromkeys(
            (found.number("first_entry"), found.number("last_entry")) for found in unknown
        ):
            parts = [found for found in unknown if found.number("first_entry") == first]
            self._commit_rows(first, last, parts)

    def _commit_rows(self, first: int, last: int, parts: list[Found]) -> None:
        rows = [row for found in parts for row in rows_of(self.folders.disk, found.path(self.folders))]
        for entry in written_connections(self._ledger, rows):
            self._put(entry)
        gaps = [self._gap_number(gap) for gap in gaps_in(rows)]
        files = tuple(found.staged(self.folders) for found in parts)
        self._put(ConnectionsIntent(first, last, files, covered(rows), tuple(gaps)))
        self._put(ConnectionsCommitted(first, last))

    def _gap_number(self, gap: GapSeen) -> int:
        for number, known in self._ledger.gaps.items():
            if (known.connection, known.began_us) == (gap.connection, gap.began_us):
                return number
        self._put(gap)
        return len(self.entries)


def _less(whole: Totals, part: Totals) -> Totals:
    counts = [max(0, getattr(whole, name) - getattr(part, name)) for name in ("rows", "resends", "rejects")]
    return Totals(sum(counts), *counts)
