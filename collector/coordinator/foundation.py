"""What a run stands on: the lock, the folders, the commit log, and what the last run left recovered.

Run by the coordinator before its event loop, so it may block. Invariant: when it returns, every
decided batch is visible, nothing undecided is, and the journal holds just the blocks that are
accepted and not committed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from collector.coordinator.clock import now_us
from collector.core.entries import ConnectionClosed, ConnectionOpened, Entry, Lost, Made
from collector.core.floor_record import FloorRecord, held_until_us
from collector.core.ledger import LogState
from collector.core.messages import Closed, FileKind, Outcome
from collector.credentials import Credentials
from collector.errors import ConfigurationError
from collector.settings import Settings
from collector.storage.commitlog import CommitLog
from collector.storage.floor import FloorFile
from collector.storage.forgetting import forget_copies, forget_free
from collector.storage.fs import DISK
from collector.storage.ids import RunLimits, RunSet
from collector.storage.journal import Recovered
from collector.storage.journal_survey import Loss, surveyed
from collector.storage.layout import (
    MEMORY_ROOT,
    StateFolder,
    instance_id,
    make_private,
    memory_journal,
    new_instance,
    stream_name,
)
from collector.storage.lock import StateLock
from collector.storage.recovery import RECOVER_ONLY, RecoveredState, WaysOn, gap_of, recover_state
from collector.storage.segments import list_segments
from collector.telemetry import log

LEAST_MEMORY_SEGMENTS: Final = 4
MEMORY_SHARE: Final = 0.8
"""Of what /dev/shm has free, at most this much is taken."""


@dataclass(frozen=True, slots=True)
class Foundation:
    state: StateFolder
    lock: StateLock
    commit_log: CommitLog
    ledger: LogState
    runs: RunSet
    journal: Path
    journal_bytes: int
    """``journal.max_bytes``, or less where the memory has less."""
    journal_found: Recovered
    watched: tuple[Path, ...]
    """Folders whose file system must keep ``journal.reserve_bytes`` free."""
    floor: FloorFile[FloorRecord]
    floor_record: FloorRecord | None
    floor_existed: bool
    boot_id: str
    orphaned: bool
    fingerprint: str

    @property
    def accepted_records(self) -> int:
        """For life: what is committed and what was found in the journal."""
        return self.ledger.totals.records + sum(block.records for block in self.journal_found.blocks)


@contextmanager
def lay_foundation(
    settings: Settings, credentials: Credentials | None = None, ways_on: WaysOn = RECOVER_ONLY
) -> Iterator[Foundation]:
    """Takes the state folder and recovers it; gives it up at the end of the ``with`` block.

    *Raises*: InUseError; ConfigurationError when the folder belongs to another stream or the file
    systems do not fit, or ``ways_on`` does not; StorageError when something durable is damaged.
    """
    state = StateFolder(settings.state.folder)
    _make_folders(state, settings.output.folder)
    with StateLock.take(DISK, state) as lock:
        orphaned = lock.take_children()
        if orphaned:
            log("orphans.ended")
        commit_log = CommitLog.open(DISK, state.commit_log)
        try:
            yield _Start(settings, state, lock, commit_log, orphaned).recovered(credentials, ways_on)
        finally:
            commit_log.close()


@dataclass(frozen=True, slots=True)
class _Start:
    settings: Settings
    state: StateFolder
    lock: StateLock
    commit_log: CommitLog
    orphaned: bool
    ledger: LogState = field(default_factory=LogState)

    def recovered(self, credentials: Credentials | None, ways_on: WaysOn) -> Foundation:
        settings, state, ledger = self.settings, self.state, self.ledger
        for number, entry in self.commit_log.entries():
            ledger.fold(number, entry)
        self._introduce()
        journal, journal_bytes = _journal_folder(settings, state, ledger)
        _refuse_other_journal(settings, state, ledger)
        self._note_lost_memory(journal)
        make_private(DISK, journal)  # in memory it is beside those of other users
        found = recover_state(
            DISK,
            state,
            settings.output.folder,
            journal=journal,
            commit_log=self.commit_log,
            ledger=ledger,
            mode=settings.output.mode,
            ways_on=ways_on,
            read_again=not settings.stream.url,
        )
        _say_recovered(found)
        if settings.privacy.hides:
            forget_copies(DISK, state.quarantine)
            found.journal = forget_free(DISK, journal, found.journal)
        floor = FloorFile(DISK, state.floor, FloorRecord)
        record, existed = floor.read()
        if settings.stream.url:
            self._open_connections(found.journal)
            self._close_connections(record, found.journal)
        limits = RunLimits(round(settings.resends.window_s * 1e6), settings.resends.max_ids)
        return Foundation(
            state=state,
            lock=self.lock,
            commit_log=self.commit_log,
            ledger=ledger,
            runs=RunSet(DISK, state.ids, limits),
            journal=journal,
            journal_bytes=journal_bytes,
            journal_found=found.journal,
            watched=(settings.output.folder, state.root),
            floor=floor,
            floor_record=record,
            floor_existed=existed,
            boot_id=DISK.read_file("/proc/sys/kernel/random/boot_id").decode().strip(),
            orphaned=self.orphaned,
            fingerprint=_fingerprint(settings, ledger.instance, credentials),
        )

    def _append(self, *entries: Entry) -> None:
        last = self.commit_log.append_all(entries)
        for number, entry in enumerate(entries, last - len(entries) + 1):
            self.ledger.fold(number, entry)

    def _introduce(self) -> None:
        settings, ledger = self.settings, self.ledger
        name = stream_name(settings.stream.name)
        segment = urlsplit(settings.stream.url).path.rpartition("/")[2]
        if not ledger.instance:
            self._append(Made(new_instance(), name, segment, now_us()))
        instance_id(ledger.instance)  # paths are made of it
        if (ledger.stream, ledger.url_segment) != (name, segment):
            raise ConfigurationError(
                f"{settings.state.folder} was made for stream {ledger.stream!r}"
                + (
                    f" at a URL that ends in {ledger.url_segment!r}"
                    if ledger.url_segment
                    else " of saved files"
                )
                + f", not for {name!r}"
                + (f" at one that ends in {segment!r}" if segment else " of saved files")
                + "; give each stream its own --state, or its own --output"
            )

    def _note_lost_memory(self, journal: Path) -> None:
        """A connection was open, and the memory it was accepted into is gone: the host restarted."""
        ledger = self.ledger
        open_ = [
            at.number for at in ledger.connections.values() if at.opened is not None and at.closed is None
        ]
        if self.settings.journal.durability != "memory" or journal.exists() or not open_:
            return
        after = max(ledger.last_block, ledger.durable_block)
        text = f"the host restarted, and {journal} is gone; blocks after block {after} may have been accepted"
        loss = Loss(after + 1, after, 0, max(open_), 0, 0, text)
        self._append(Lost(loss.first, loss.last, 0), gap_of(loss, ledger))
        log("journal.lost", first=loss.first, reason=text)

    def _open_connections(self, found: Recovered) -> None:
        """Blocks can be durable before the log has heard of their connection; its number is taken."""
        ledger = self.ledger
        for block in found.blocks:
            known = ledger.connections.get(block.connection)
            forgotten = block.connection <= ledger.forgotten_connection
            if forgotten or (known is not None and known.opened is not None):
                continue
            before = [at.number for at in ledger.connections.values() if at.opened is not None]
            after = max(before, default=0)
            self._append(ConnectionOpened(block.connection, block.collected_at_us, 0, {}, after))

    def _close_connections(self, record: FloorRecord | None, found: Recovered) -> None:
        """A connection that the last run did not see end, ends where its floor record says at the latest."""
        ledger = self.ledger
        known_us = held_until_us(record) if record is not None else 0
        for connection in list(ledger.connections.values()):
            if connection.opened is None or connection.closed is not None:
                continue
            blocks = [block for block in found.blocks if block.connection == connection.number]
            last_us = max([connection.opened.opened_us, *(block.collected_at_us for block in blocks)])
            closed = Closed(
                connection=connection.number,
                outcome=Outcome.LOST,
                detail="the collector ended while this connection was open",
                closed_at_us=max(last_us, min(known_us, now_us())),
                opened_at_us=connection.opened.opened_us,
                records=connection.committed.records + sum(block.records for block in blocks),
            )
            held_us = max([ledger.next_held_us, *(block.held_us for block in blocks)])
            self._append(ConnectionClosed(closed, held_us))


# ---------------------------------------------------------------- whose folder it is


def _make_folders(state: StateFolder, output: Path) -> None:
    DISK.make_folder(output, 0o755)
    for link in (output / kind for kind in FileKind if (output / kind).is_symlink()):
        raise ConfigurationError(
            f"{link} is a symbolic link: parts are renamed into it; make --output the link"
        )
    DISK.settle_folder(output)
    state.make(DISK)
    if os.stat(state.staging).st_dev != os.stat(output).st_dev:
        raise ConfigurationError(
            f"{state.staging} and {output} are on different file systems: a part becomes visible by a rename,"
            " so give --state a folder on the output's file system"
        )


def _fingerprint(settings: Settings, instance: str, credentials: Credentials | None) -> str:
    """Of everything that a refusal may be about. The secrets in it cannot be read back: 64 bits, keyed."""
    about = repr((settings.stream, settings.auth, settings.tls, settings.proxy))
    secrets = (credentials.api_key, credentials.token, credentials.client_secret) if credentials else ()
    about += repr([secret.reveal() for secret in secrets if secret is not None])
    return hashlib.blake2b(about.encode(), key=instance.encode(), digest_size=8).hexdigest()


# ---------------------------------------------------------------- the journal in memory


def _journal_folder(settings: Settings, state: StateFolder, ledger: LogState) -> tuple[Path, int]:
    if settings.journal.durability == "disk":
        return state.journal, settings.journal.max_bytes
    needed = LEAST_MEMORY_SEGMENTS * settings.journal.segment_bytes + settings.journal.max_record_bytes
    available = int(DISK.free_bytes(MEMORY_ROOT) * MEMORY_SHARE)
    if available < needed:
        raise ConfigurationError(
            f"{MEMORY_ROOT} has {available >> 20} MiB to give, and journal.durability = memory needs"
            f" {needed >> 20} MiB: make it larger, or set journal.durability = disk"
        )
    return memory_journal(ledger.instance), min(settings.journal.max_bytes, available)


def _refuse_other_journal(settings: Settings, state: StateFolder, ledger: LogState) -> None:
    """Blocks accepted under the other ``journal.durability`` would be forgotten, their numbers used again."""
    here, other, other_folder = settings.journal.durability, "memory", memory_journal(ledger.instance)
    if here == "memory":
        other, other_folder = "disk", state.journal
    if not other_folder.exists() or not list_segments(DISK, other_folder).used:
        return
    after = max(ledger.last_block, ledger.pending.last if ledger.pending is not None else 0)
    with surveyed(DISK, other_folder, after_seq=after, written_off=ledger.lost) as survey:
        if survey.kept or survey.losses:
            raise ConfigurationError(
                f"{other_folder} holds blocks that were accepted with journal.durability = {other} and are"
                f" not committed: start and drain once with that setting, then change to {here}"
            )
    if other == "memory":
        DISK.remove_folder(other_folder)


# ---------------------------------------------------------------- what a crash left open


def _say_recovered(found: RecoveredState) -> None:
    if (batch := found.voided_batch) is not None:
        log("batch.undone", batch=batch.batch, last=batch.last, reason="--redo-batch")
    if found.voided_rows:
        log("connections.voided", reason=found.voided_rows)
    for loss in found.losses:
        log("journal.lost", first=loss.first, last=loss.last, records=loss.records, reason=loss.text)
    for fault in found.faults:
        log("attention.needed", reason=fault)
    if found.journal.cut is not None:
        log("journal.cut", reason=str(found.journal.cut))
    if found.journal.blocks or found.redone_batch is not None or found.staged_removed:
        log(
            "run.recovered",
            blocks=len(found.journal.blocks),
            intents=int(found.redone_batch is not None),
            staged=found.staged_removed,
        )
