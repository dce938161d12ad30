"""The proof: every record that was accepted and committed is one row, one reject or one counted resend.

Run by the command ``verify``, beside a running collector too. Invariant: it takes no lock and writes
nothing; it judges what the commit log said when it began, and looks again before it calls a file
missing or unknown, because a collector beside it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from collector.core.entries import ConnectionsIntent, Entry, Intent, Lost
from collector.core.messages import FileKind, StagedFile
from collector.errors import ConfigurationError, DamagedError
from collector.storage.archive import all_entries
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder, below_state
from collector.storage.verify.chain import Chain, Decided, batch_name, files_of
from collector.storage.verify.compacted import CompactedFiles
from collector.storage.verify.findings import Finding, Kind, Report, shortened
from collector.storage.verify.lines import COUNTED, BatchLines
from collector.storage.verify.parts import Checked, Place, check_file, expected_metadata, places_of
from collector.storage.verify.resends import ListedResends
from collector.storage.verify.surroundings import check_runs, journals_of, retired_now, uncommitted_blocks
from collector.storage.verify.visible import Visible, look

MOST_NOTES: Final = 100


class Watcher(Protocol):
    """Whoever wants to know how far it is."""

    def begun(self, total_bytes: int) -> None: ...

    def advanced(self, count_bytes: int) -> None: ...


def verify(
    disk: Disk,
    state: StateFolder,
    output: Path,
    *,
    stream: str = "",
    watcher: Watcher,
) -> Report:
    """*Blocks* for one read of every part and of the log.

    ``stream``: whose state folder it must be, if that matters.

    *Raises*: ConfigurationError for another stream's folder; NewerVersionError; StorageError when the
    disk cannot be read. What is wrong with the data is in the report.
    """
    report = Report()
    try:
        chain, listed, total_bytes = _survey(disk, state)
    except DamagedError as error:
        report.findings.append(Finding(Kind.LOG, str(state.root), str(error), "a log that reads to its end"))
        report.notes.append("nothing else was looked at: without its log no part can be judged")
        return report
    if stream and chain.stream and stream != chain.stream:
        raise ConfigurationError(
            f"{state.root} is of stream {chain.stream!r}, not of {stream!r}; give another --state or --stream"
        )
    proof = _Proof(disk, state=state, output=output, report=report, chain=chain, watcher=watcher)
    visible = look(disk, output, chain.stream, chain.instance)
    compacted = CompactedFiles(disk, output, chain.stream, report)
    watcher.begun(total_bytes + compacted.bytes)
    proof.read_lists(listed)
    proof.check_committed(visible)
    proof.check_compacted(compacted, visible)
    proof.check_resends()
    report.findings += check_runs(disk, state)
    _note_uncommitted(disk, report, journals_of(state, chain.instance), chain)
    return report


def _survey(disk: Disk, state: StateFolder) -> tuple[Chain, list[str], int]:
    """The log by itself, the resends lists it names, and the bytes of all its files."""
    chain, listed, total_bytes = Chain(), list[str](), 0
    for number, entry in all_entries(disk, state):
        decided = chain.fold(number, entry)
        for file in decided.files if decided is not None else ():
            if file.kind is FileKind.RESENDS:
                listed.append(file.final)
            if file.kind is not FileKind.IDS:
                total_bytes += file.size
    return chain, listed, total_bytes


class _Proof:
    def __init__(
        self,
        disk: Disk,
        *,
        state: StateFolder,
        output: Path,
        report: Report,
        chain: Chain,
        watcher: Watcher,
    ) -> None:
        self._disk = disk
        self._state = state
        self._output = output
        self._report = report
        self._chain = chain
        """As of the start."""
        self._watcher = watcher
        self._resends = ListedResends()
        self._absent: dict[str, StagedFile] = {}
        """Files that are not there, by path."""
        self._rows_unread = False
        """Rows may hide in a part that could not be read."""
        report.findings += chain.findings
        report.batches, report.totals = chain.batches, chain.totals
        report.notes += [_lost_in_words(lost) for lost in chain.lost]
        report.notes += [f"{note.kind}: {note.text}" for note in chain.notes[:MOST_NOTES]]

    # ------------------------------------------------------------ resends

    def read_lists(self, paths: Sequence[str]) -> None:
        """What is wrong with a list is found when its batch is looked at."""
        for path in paths:
            for place in places_of(self._disk, self._state.root / path):
                self._resends.add(place.high, place.low, place.block, place.line)
        self._resends.seal()

    def check_resends(self) -> None:
        unmet = list(self._resends.unmet())
        if not unmet or self._rows_unread:
            return
        rows_elsewhere = any(file.kind is FileKind.HITS for file in self._absent.values())
        if rows_elsewhere or not self._chain.whole:
            self._report.notes.append(
                f"{len(unmet):,} resends are of rows in retired parts or older than the log"
            )
            return
        places = shortened(f"(block {block}, line {line})" for block, line in unmet)
        found = f"{len(unmet):,} hits were dropped as resends of rows that are nowhere: {places}"
        self._report.findings.append(
            Finding(Kind.RESEND, str(self._state.resends), found, "a row for each of their ids")
        )

    # ------------------------------------------------------------ compacted files

    def check_compacted(self, compacted: CompactedFiles, visible: Visible) -> None:
        """Rows that are in parts no more may be in these."""

        def take(place: Place) -> None:
            self._resends.meet(place.high, place.low)

        ids = len(self._resends) > 0
        whole = compacted.check(visible.compacted, ids=ids, take=take, progress=self._watcher.advanced)
        self._rows_unread |= not whole

    # ------------------------------------------------------------ committed files

    def check_committed(self, visible: Visible) -> None:
        chain = Chain()
        for number, entry in self._entries(until=self._chain.last_entry):
            if (decided := chain.fold(number, entry)) is not None:
                visible.ours.difference_update(file.final for file in decided.files)
                self._check(decided)
        self._note_in_flight(visible)
        retired = retired_now(self._disk, self._state, self._report.findings)
        later = self._later_entries(retired, visible)
        self._report_absent({**self._chain.retired, **retired})
        self._report_visible(visible)
        if later:
            self._report.notes.append(
                f"the log went on meanwhile: {later:,} entries after the last one judged"
            )

    def _entries(self, *, after: int = 0, until: int | None = None) -> Iterator[tuple[int, Entry]]:
        for number, entry in all_entries(self._disk, self._state):
            if until is not None and number > until:
                return
            if number > after:
                yield number, entry

    def _check(self, decided: Decided) -> None:
        intent = decided.intent
        lines = BatchLines(intent.blocks) if isinstance(intent, Intent) and intent.blocks else None
        unread = dict.fromkeys(COUNTED, 0)
        for file in decided.files:
            if file.kind is FileKind.IDS:
                continue
            checked = self._check_file(file, decided, lines)
            if not checked.usable and file.kind in unread:
                unread[file.kind] += file.rows
        if lines is not None and isinstance(intent, Intent):
            self._report.findings += [
                Finding(Kind.LINES, batch_name(intent), fault, "each line of its blocks once")
                for fault in lines.faults(unread)
            ]

    def _check_file(self, file: StagedFile, decided: Decided, lines: BatchLines | None) -> Checked:
        ids = file.kind is FileKind.HITS and len(self._resends) > 0

        def take(place: Place) -> None:
            if lines is not None:
                lines.add(file.kind, place.block, place.line)
            if ids:
                self._resends.meet(place.high, place.low)

        root = self._state.root if below_state(file.kind) else self._output
        expected = expected_metadata(self._chain.instance, self._chain.stream, decided, file)
        checked = check_file(
            self._disk, root, file, expected, ids=ids, take=take, progress=self._watcher.advanced
        )
        if checked.absent:
            self._absent[file.final] = file
        else:
            self._report.files += 1
            self._report.bytes += file.size
            self._rows_unread |= file.kind is FileKind.HITS and not checked.usable
        self._report.findings += checked.findings
        return checked

    # ------------------------------------------------------------ what changed meanwhile

    def _note_in_flight(self, visible: Visible) -> None:
        for intent in (self._chain.pending, self._chain.pending_connections):
            if intent is None:
                continue
            visible.ours.difference_update(file.final for file in files_of(intent))
            what = batch_name(intent) if isinstance(intent, Intent) else "rows of connections"
            self._report.notes.append(f"in flight: {what} is decided and not yet committed")

    def _later_entries(self, retired: dict[str, bytes], visible: Visible) -> int:
        """How many; what they say of files that were taken away or made visible since the start."""
        later = Chain()
        for number, entry in self._entries(after=self._chain.last_entry):
            later.last_entry = number
            if isinstance(entry, Intent | ConnectionsIntent):
                visible.ours.difference_update(file.final for file in files_of(entry))
            later.retire(entry)
        retired |= later.retired
        return max(0, later.last_entry - self._chain.last_entry)

    def _report_absent(self, retired: dict[str, bytes]) -> None:
        missing = [file for path, file in self._absent.items() if path not in retired]
        for file in missing:
            root = self._state.root if below_state(file.kind) else self._output
            self._report.findings.append(
                Finding(Kind.MISSING, str(root / file.final), "is not there", f"a part of {file.rows:,} rows")
            )
            self._rows_unread |= file.kind is FileKind.HITS
        if gone := len(self._absent) - len(missing):
            self._report.notes.append(f"{gone:,} parts are retired")

    def _report_visible(self, visible: Visible) -> None:
        for path in sorted(visible.ours):
            if os.path.lexists(self._output / path):
                found = "is named like a part of this collector's, and no commit names it"
                self._report.findings.append(
                    Finding(Kind.UNKNOWN, str(self._output / path), found, "committed parts only")
                )
        self._report.findings += [
            Finding(Kind.STRAY, str(self._output / path), "is no part", "Parquet parts only")
            for path in visible.stray
            if os.path.lexists(self._output / path)
        ]
        self._report.notes += [
            f"{count:,} files of {maker} are there too" for maker, count in sorted(visible.others.items())
        ]
        if visible.beside:
            self._report.notes.append(f"also in {self._output}: {shortened(visible.beside)}")


def _note_uncommitted(disk: Disk, report: Report, journals: Sequence[Path], chain: Chain) -> None:
    blocks = records = 0
    for journal in journals:
        found = uncommitted_blocks(disk, journal, after=chain.last_batch[1], findings=report.findings)
        blocks, records = blocks + found[0], records + found[1]
    if blocks:
        report.notes.append(
            f"in the journal: {blocks:,} blocks of {records:,} records, accepted and not yet committed"
        )


def _lost_in_words(lost: Lost) -> str:
    if lost.last < lost.first:
        return f"lost: blocks from {lost.first} on, nobody knows how many"
    records = f"{lost.records:,} records" if lost.records else "nobody knows how many records"
    return f"lost: blocks {lost.first} to {lost.last}, {records}"
