"""The whole of the storage layer against a small model: any order of work, crashes, full disks, starts.

Real files, a simulated disk. What one collector does with its state folder is played step by step; the
process can be killed, or the power fail, before any disk call of any step, in a start as well.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from faulty_disk import SYNCS, TAKES_ROOM, Crashed, Fate, FaultyDisk, LossyDisk, cycle
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from collector.core.entries import BlockCount, Committed, Intent, Made, ShareStaged
from collector.core.ledger import LogState
from collector.core.messages import Block, FileKind, StagedFile, Totals
from collector.core.resends import key_of
from collector.core.segments import Segments
from collector.errors import NoSpaceError
from collector.storage import ids as ids_module
from collector.storage.archive import all_entries
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.ids import RunLimits, RunSet, merge_runs, write_run
from collector.storage.journal import (
    JournalReader,
    JournalWriter,
    delete_free,
    free_name,
    free_segment,
    recover,
)
from collector.storage.layout import StateFolder, part_path
from collector.storage.publish import publish
from collector.storage.recovery import recover_state
from collector.storage.segments import SEGMENT_HEADER_BYTES, space_of

T = TypeVar("T")

INSTANCE = "0123456789abcdef"
HOUR = 500_000
SEGMENT_BYTES = SEGMENT_HEADER_BYTES + 3 * space_of(32)
ROTATE_BYTES = 800
WINDOW_US = 12

CALLS = st.none() | st.integers(1, 60)
"""After so many more disk calls it is over; most often it is not."""
FATES = st.none() | st.lists(st.sampled_from(Fate), min_size=1, max_size=6)
"""``None``: only the processes die. Else the power fails."""


class ProcessDisk(FaultyDisk):
    """One collector's view of the disk: it can be armed to end everything at a later call, or be full."""

    def __init__(self, over: LossyDisk) -> None:
        super().__init__(over=over)
        self.full = False

    def arm(self, calls: int | None) -> None:
        self._fail_at = 0 if calls is None else len(self.calls) + calls

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        makes = name != "open" or arguments[1] & os.O_CREAT
        if self.full and makes and name in TAKES_ROOM - SYNCS:
            raise NoSpaceError(f"{name}: {os.strerror(errno.ENOSPC)}")
        return super()._call(name, *arguments, **named)


def ids_of(seqs: list[int]) -> tuple[np.ndarray, np.ndarray]:
    high = np.array(seqs, np.uint64)
    return high, high + np.uint64(7)


class Collector:
    """The steps of the reader, the decoders and the coordinator, one after the other in one thread."""

    def __init__(self, disk: ProcessDisk, root: Path) -> None:
        self.disk = disk
        self.output = root
        self.state = StateFolder(root / ".state" / "shop")
        self.readable = JournalReader(self.state.journal)

    # ------------------------------------------------------------ a start

    def start(self) -> None:
        disk, state = self.disk, self.state
        state.make(disk)
        disk.settle_folder(self.output)
        self.log = CommitLog.open(disk, state.commit_log, rotate_bytes=ROTATE_BYTES)
        self.ledger = LogState()
        for number, entry in self.log.entries():
            self.ledger.fold(number, entry)
        if not self.ledger.instance:
            self.append(Made(INSTANCE, "shop", "shop", 1))
        self.found = recover_state(
            disk, state, self.output, journal=state.journal, commit_log=self.log, ledger=self.ledger
        )
        self.runs = RunSet(disk, state.ids, RunLimits(WINDOW_US, 10**6))
        journal = self.found.journal
        self.segments = Segments(
            SEGMENT_BYTES,
            10**9,
            journal.next_segment,
            last_block=dict(journal.last_block),
            free=[*journal.free],
        )
        self.accepted = list(journal.blocks)
        self.begin_writing(journal.next_seq)

    def begin_writing(self, next_seq: int) -> None:
        self.written: list[Block] = []
        self.writer = JournalWriter(
            self.disk, self.state.journal, next_seq=next_seq, segment_bytes=SEGMENT_BYTES
        )

    def append(self, *entries: Any) -> None:
        last = self.log.append_all(entries)
        for number, entry in enumerate(entries, last - len(entries) + 1):
            self.ledger.fold(number, entry)

    # ------------------------------------------------------------ the reader

    def write(self, payload: bytes, connection: int, held_us: int) -> Block:
        while True:
            block = self.writer.append(
                payload, records=1, connection=connection, flags=0, collected_at_us=1, held_us=held_us
            )
            if block is not None:
                self.written.append(block)
                return block
            self.make_segment()

    def make_segment(self) -> None:
        self.segments.wanted = True
        grant = self.segments.grant(10**12, 0)
        assert grant is not None
        try:
            self.writer.add_segment(
                grant.segment, "" if grant.recycled is None else free_name(grant.recycled)
            )
        except NoSpaceError:
            self.segments.refused(grant.segment)
            raise

    def sync(self) -> None:
        durable = self.writer.sync()
        self.accept([block for block in self.written if block.seq <= durable])
        self.written = [block for block in self.written if block.seq > durable]

    def accept(self, blocks: list[Block]) -> None:
        for block in blocks:
            self.segments.accepted(block)
        self.accepted += blocks

    def lose_reader(self) -> None:
        """It alone dies; its journal is recovered beside the running rest."""
        self.writer.close()
        last = self.accepted[-1].seq if self.accepted else self.ledger.last_block
        found = recover(self.disk, self.state.journal, self.state.quarantine, after_seq=last)
        self.accept(found.blocks)
        self.segments.reader_died(found.next_segment)
        self.begin_writing(found.next_seq)

    # ------------------------------------------------------------ a batch

    def commit(self, count: int) -> None:
        blocks = self.accepted[:count]
        first, last = blocks[0].seq, blocks[-1].seq
        files = self.stage(blocks)
        counts = tuple(BlockCount(at.seq, at.connection, 1, 1, 0, 0, 1) for at in blocks)
        share = ShareStaged(1, len(blocks), 0, 0, files)
        held_us = (blocks[0].held_us, blocks[-1].held_us)
        patiently(
            self.disk, lambda: self.append(Intent(first, last, (share,), counts, self.ledger.totals, held_us))
        )
        patiently(self.disk, lambda: publish(self.disk, self.state, self.output, files))
        patiently(self.disk, lambda: self.append(Committed(first, last, 1)))
        self.accepted = self.accepted[count:]
        patiently(self.disk, lambda: self.runs.add(self.state.root / files[1].final))
        self.free(last)
        if self.log.rotation_due:
            number = self.ledger.last_entry
            self.log.rotate(number, packed_checkpoint(number, self.ledger.checkpoint()))

    def free(self, last: int) -> None:
        freed = self.segments.committed(last)
        for segment in (*freed.keep, *freed.delete):
            patiently(self.disk, lambda segment=segment: free_segment(self.disk, self.state.journal, segment))
        for segment in freed.delete:
            delete_free(self.disk, self.state.journal, segment)

    def stage(self, blocks: list[Block]) -> tuple[StagedFile, ...]:
        first, last = blocks[0].seq, blocks[-1].seq
        payload = b"".join(bytes(self.readable.payload(block)) for block in blocks)
        staging = self.state.staging
        part, run = f"{first}-1-1-hits.parquet", f"{first}-1-1-ids.run"
        high, low = ids_of([block.seq for block in blocks])
        held_us = (blocks[0].held_us, blocks[-1].held_us)
        with self.disk.removed_on_failure(staging / part):
            with closing(self.disk.create_writer(staging / part)) as writer:
                writer.write(payload)
                writer.sync()
            write_run(self.disk, staging / run, high, low, held_us=held_us, blocks=(first, last))
        self.disk.fsync_folder(staging)
        return tuple(
            self.described(kind, name, first, last, len(blocks))
            for kind, name in ((FileKind.HITS, part), (FileKind.IDS, run))
        )

    def described(self, kind: FileKind, name: str, first: int, last: int, rows: int) -> StagedFile:
        final = part_path(kind, "shop", INSTANCE, first=first, last=last, share=1, hour=HOUR)
        path = self.state.staging / name
        return StagedFile(kind, name, final, self.disk.size(path), self.disk.sha256(path), rows)

    # ------------------------------------------------------------ the resend index

    def expire(self) -> None:
        self.runs.expire(self.oldest_held_us())

    def oldest_held_us(self) -> int:
        return self.accepted[0].held_us if self.accepted else self.ledger.next_held_us

    def merge(self) -> None:
        while (merge := self.runs.plan_merge()) is not None:
            patiently(self.disk, lambda merge=merge: merge_runs(self.disk, merge.paths, merge.out))
            self.runs.replaced(merge)


def patiently(disk: ProcessDisk, step: Callable[[], T]) -> T:
    """Waits until there is room, as the collector does."""
    try:
        return step()
    except NoSpaceError:
        disk.full = False
        return step()


class Storage(RuleBasedStateMachine):
    """``sent``: what was appended last under each seq. ``accepted``: how far the journal said durable."""

    def __init__(self) -> None:
        super().__init__()
        in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="collector-test-", dir=in_memory))
        self.lossy = LossyDisk(self.root)
        self.output = self.root / "out"
        self.output.mkdir()
        self.sent: dict[int, bytes] = {}
        self.held_of: dict[int, int] = {}
        self.accepted = 0
        self.committed = 0
        self.held_us = 0
        self.constants = {
            name: getattr(ids_module, name) for name in ("MOST_RUNS", "MERGED_RUNS", "LIMIT_PARTS")
        }
        ids_module.MOST_RUNS, ids_module.MERGED_RUNS, ids_module.LIMIT_PARTS = 2, 2, 1

    def teardown(self) -> None:
        self.kill()
        shutil.rmtree(self.root)
        for name, value in self.constants.items():
            setattr(ids_module, name, value)

    @initialize()
    def begin(self) -> None:
        self.start(None, None, 0)

    # ------------------------------------------------------------ work

    @rule(size=st.integers(0, 40), count=st.integers(1, 6), calls=CALLS, fates=FATES, seed=st.integers(0, 99))
    def append_blocks(self, size: int, count: int, calls: Any, fates: Any, seed: int) -> None:
        def work() -> None:
            for _ in range(count):
                self.held_us += 1
                payload = os.urandom(size)
                seq = self.collector.writer._written_seq + 1
                self.sent[seq], self.held_of[seq] = payload, self.held_us  # also if it ends in mid-write
                with suppress(NoSpaceError):
                    self.collector.write(payload, 1, self.held_us)

        self.attempt(work, calls, fates, seed)

    @rule(calls=CALLS, fates=FATES, seed=st.integers(0, 99))
    def sync(self, calls: Any, fates: Any, seed: int) -> None:
        def work() -> None:
            self.collector.sync()
            self.note_accepted()

        self.attempt(work, calls, fates, seed)

    @precondition(lambda self: self.collector.accepted)
    @rule(count=st.integers(1, 5), calls=CALLS, fates=FATES, seed=st.integers(0, 99))
    def commit(self, count: int, calls: Any, fates: Any, seed: int) -> None:
        def work() -> None:
            try:
                self.collector.commit(count)
            except NoSpaceError:  # met while staging: the share is given up
                return
            self.committed = self.collector.ledger.last_block

        self.attempt(work, calls, fates, seed)

    @rule(calls=CALLS, fates=FATES, seed=st.integers(0, 99))
    def tidy(self, calls: Any, fates: Any, seed: int) -> None:
        def work() -> None:
            with suppress(NoSpaceError):
                self.collector.expire()
                self.collector.merge()

        self.attempt(work, calls, fates, seed)

    @rule(calls=CALLS, fates=FATES, seed=st.integers(0, 99))
    def reader_dies(self, calls: Any, fates: Any, seed: int) -> None:
        def work() -> None:
            with suppress(NoSpaceError):
                self.collector.disk.full = False
                self.collector.lose_reader()
                self.note_accepted()

        self.attempt(work, calls, fates, seed)

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.collector.disk.full = full

    @rule(calls=CALLS, fates=FATES, seed=st.integers(0, 99))
    def die(self, calls: Any, fates: Any, seed: int) -> None:
        """Between two steps; the next start may be cut short."""
        self.restart(fates, seed, calls)

    # ------------------------------------------------------------ death and what comes after

    def attempt(self, work: Callable[[], None], calls: int | None, fates: Any, seed: int) -> None:
        self.collector.disk.arm(calls)
        try:
            work()
        except Crashed:
            self.restart(fates, seed, None)
        else:
            self.collector.disk.arm(None)

    def kill(self) -> None:
        self.collector.disk.arm(1)
        with suppress(Crashed):
            self.collector.disk.free_bytes("/")

    def restart(self, fates: list[Fate] | None, seed: int, calls: int | None) -> None:
        self.kill()
        self.lose_power(fates, seed)
        self.start(calls, fates, seed)
        before = (self.collector.found.journal.blocks, visible(self.output))
        self.kill()
        self.start(None, None, 0)
        found = self.collector.found
        assert (found.journal.blocks, visible(self.output)) == before
        assert (found.redone_batch, found.staged_removed, found.journal.cut) == (None, 0, None)

    def lose_power(self, fates: list[Fate] | None, seed: int) -> None:
        if fates is not None:
            self.lossy.lose_power(cycle(fates), seed)

    def start(self, calls: int | None, fates: list[Fate] | None, seed: int) -> None:
        self.collector = Collector(ProcessDisk(self.lossy), self.output)
        self.collector.disk.arm(calls)
        try:
            self.collector.start()
        except Crashed:
            self.lose_power(fates, seed)
            self.start(None, None, 0)
            return
        self.collector.disk.arm(None)
        self.judge_start()

    # ------------------------------------------------------------ the model's judgement

    def note_accepted(self) -> None:
        if self.collector.accepted:
            self.accepted = max(self.accepted, self.collector.accepted[-1].seq)

    def judge_start(self) -> None:
        """Accepted blocks are committed or given again, in order, once, as they were sent."""
        ledger, journal = self.collector.ledger, self.collector.found.journal
        assert ledger.last_block >= self.committed
        assert journal.next_seq > self.accepted
        assert [at.seq for at in journal.blocks] == list(range(ledger.last_block + 1, journal.next_seq))
        for block in journal.blocks:
            assert bytes(self.collector.readable.payload(block)) == self.sent[block.seq]
        assert ledger.pending is None
        self.committed = ledger.last_block
        self.accepted = journal.next_seq - 1
        self.sent = {seq: payload for seq, payload in self.sent.items() if seq <= self.accepted}

    @invariant()
    def committed_batches_are_visible_and_nothing_else(self) -> None:
        entries = [entry for _, entry in all_entries(FaultyDisk(), self.collector.state)]
        done = {entry.batch for entry in entries if isinstance(entry, Committed)}
        expected: dict[str, bytes] = {}
        totals = Totals()
        last = 0
        for intent in entries:
            if not isinstance(intent, Intent):
                continue
            assert intent.batch == last + 1
            last = intent.last
            assert intent.batch in done
            assert intent.before == totals
            totals += Totals(last - intent.batch + 1, last - intent.batch + 1, 0, 0)
            payload = b"".join(self.sent[seq] for seq in range(intent.batch, last + 1))
            expected[intent.shares[0].files[0].final] = hashlib.sha256(payload).hexdigest()
        assert visible(self.output) == expected
        assert (self.collector.ledger.totals, self.collector.ledger.last_block) == (totals, last)

    @invariant()
    def the_index_knows_what_is_committed_within_the_window(self) -> None:
        seqs = sorted(self.sent)
        if not seqs:
            return
        high, low = ids_of(seqs)
        found = dict(zip(seqs, self.collector.runs.contains(key_of(high, low), low).tolist(), strict=True))
        assert not any(known for seq, known in found.items() if seq > self.committed)
        edge_us = self.collector.oldest_held_us() - WINDOW_US
        assert all(found[seq] for seq in seqs if seq <= self.committed and self.held_of[seq] >= edge_us)
        assert self.collector.runs.ids == sum(found.values())


def visible(output: Path) -> dict[str, str]:
    """Every file outside the state folder, with the SHA-256 of what is in it."""
    files = [path for path in (output / "hits").rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(examples: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(Storage, settings=chosen)


def test_any_order_of_work_and_crashes_keeps_every_accepted_block() -> None:
    """Once, in order, as it was sent: in one committed batch, or given again by the next start."""
    run(150)


@pytest.mark.matrix
@pytest.mark.timeout(3600)
def test_many_orders_of_work_and_crashes() -> None:
    """The same, for some minutes."""
    run(4000)
