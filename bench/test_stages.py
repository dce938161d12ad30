"""What each stage costs by itself: the product's own code, in this process, on hits that need no repair.

``python -m pytest bench/test_stages.py`` gives one record per stage and round: microseconds of CPU time per
hit, over all threads. Where a stage has files they are real ones, written and synced below pytest's
``--basetemp``; the work of the kernel's own threads is in no figure.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import uvloop

from bench.blocks import Payload, blocks_of, framed, inflated
from bench.data import lines
from bench.staging import NO_DROPS, staged
from bench.state import HITS_PER_BATCH, INSTANCE, LIMITS, NO_SYNCS, aged_state, commits_after, new_ids
from collector.core.messages import (
    Accepted,
    Block,
    BlockDone,
    Claims,
    Decode,
    FromDecoder,
    FromReader,
    Keep,
    StagedFile,
    ToDecoder,
)
from collector.core.privacy import Privacy
from collector.core.resends import ResendIndex
from collector.decoder.columns import Int64s, read_lines, trapped_lines, unfit_rows
from collector.decoder.decode import BlockDecoder, Decoded
from collector.decoder.kernel.rows import KernelRows
from collector.decoder.parquet import WAITING_BYTES
from collector.decoder.partfile import part_writer, staged_file
from collector.decoder.patch import patch
from collector.decoder.plain import PlainRows, line_ends, split_lines
from collector.decoder.privacy import Hider
from collector.decoder.repair import repair
from collector.decoder.rows import OpenRows
from collector.decoder.schema import HITS_SCHEMA
from collector.decoder.strict import Degree, Line, misfits
from collector.ipc.channel import Channel, CoordinatorChannel
from collector.storage.fs import DISK
from collector.storage.ids import RunSet, write_run
from collector.storage.journal import JournalReader, JournalWriter, free_name, free_segment

pytestmark = pytest.mark.usefixtures("round_")

PRIVACY = {
    "one field dropped": Privacy(drop=("ip",)),
    "one field hashed": Privacy(hash=("userAgent",), key=bytes(64)),
    "two fields and two eVars": Privacy(("ip", "evars.evar5"), ("userAgent", "evars.evar6"), bytes(64)),
}

ODD_HITS = 2_000
INDEX_IDS, INDEX_RUNS = 1_000_000, 8
COMMITS = 10


TWINS: dict[str, Callable[[], OpenRows]] = {"kernel": KernelRows, "plain": PlainRows}


class Lines(NamedTuple):
    """A block cut at its line ends."""

    payload: bytes
    ends: Int64s
    lines: list[Line]


def stage(name: str) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=f"stage: {name}")


def each(work: Callable[..., Any], arguments: Iterable[Sequence[Any]]) -> Callable[[], None]:
    """One call after another; nothing of what they give is kept."""

    def run() -> None:
        for of_one in arguments:
            work(*of_one)

    return run


# ---------------------------------------------------------------- what the stages start from


@pytest.fixture(scope="session")
def pieces(hits_file: Path) -> list[bytes]:
    return [*inflated(hits_file.read_bytes())]


@pytest.fixture(scope="session")
def blocks(pieces: list[bytes]) -> list[Payload]:
    return blocks_of(framed(pieces))


@pytest.fixture(scope="session")
def cut(blocks: list[Payload]) -> list[Lines]:
    found = []
    for block, payload in blocks:
        ends = line_ends(payload, block)
        found.append(Lines(payload, ends, split_lines(payload, ends)))
    return found


@pytest.fixture(scope="session")
def read(blocks: list[Payload]) -> list[list[pa.RecordBatch]]:
    return [batches for at in blocks if (batches := read_lines(at.payload)) is not None]


@pytest.fixture(scope="session")
def decoded(blocks: list[Payload]) -> list[Decoded]:
    decoder = BlockDecoder(INSTANCE)
    return [decoder.decode(payload, block) for block, payload in blocks]


@pytest.fixture(scope="session")
def odd_lines() -> list[bytes]:
    return lines(ODD_HITS, odd=1.0)


# ---------------------------------------------------------------- the reader


@stage("inflate")
def test_inflate(cpu, hits_file, hits):
    raw = hits_file.read_bytes()
    cpu(lambda: sum(map(len, inflated(raw))), hits=hits)


@stage("framing")
def test_framing(cpu, pieces, hits):
    records = cpu(lambda: sum(frame.records for frame in framed(pieces)), hits=hits)
    assert records == hits


@stage("journal write")
@pytest.mark.parametrize("segments", ["new", "recycled"])
def test_journal_write(cpu, blocks, hits, tmp_path, segments):
    """With a sync after every block; a recycled segment has its blocks on the disk, and pages in memory."""
    free = []
    if segments == "recycled":
        free = sorted({block.segment for block in written(tmp_path, blocks)})
        for number in free:
            free_segment(DISK, tmp_path, number)
    found = cpu(lambda: written(tmp_path, blocks, free), hits=hits)
    assert sum(block.records for block in found) == hits
    shutil.rmtree(tmp_path)


@stage("journal read")
def test_journal_read(cpu, blocks, hits, tmp_path):
    found = written(tmp_path, blocks)
    cpu(lambda: touch(JournalReader(tmp_path), found), hits=hits)
    shutil.rmtree(tmp_path)


def written(folder: Path, blocks: Iterable[Payload], free: Sequence[int] = ()) -> list[Block]:
    """As the reader writes them, into these free segments as far as there are any."""
    writer = JournalWriter(DISK, folder, next_seq=1)
    recycled = [*map(free_name, free)]
    numbers = itertools.count(max(free, default=-1) + 2)  # the next one was the spare of whoever wrote these
    found: list[Block] = []
    for block, payload in blocks:
        if writer.wants_segment:
            writer.add_segment(next(numbers), recycled.pop(0) if recycled else "")
        done = writer.append(
            payload,
            records=block.records,
            connection=block.connection,
            flags=block.flags,
            collected_at_us=block.collected_at_us,
            held_us=block.held_us,
        )
        assert done is not None
        found.append(done)
        writer.sync()
    writer.close()
    return found


def touch(reader: JournalReader, blocks: Iterable[Block]) -> None:
    """As a decoder does before it begins."""
    segment = 0
    for block in blocks:
        if segment not in (0, block.segment):
            reader.release(segment)
        segment = block.segment
        reader.payload(block).release()


# ---------------------------------------------------------------- the decoders


@stage("line borders")
def test_line_borders(cpu, blocks, hits):
    cpu(each(lambda block, payload: split_lines(payload, line_ends(payload, block)), blocks), hits=hits)


@stage("strict")
@pytest.mark.parametrize("degree", ["usual", "thorough"])
def test_strict(cpu, cut, hits, degree):
    cpu(each(misfits, [(at.lines, Degree(degree)) for at in cut]), hits=hits)


@stage("trapped lines")
def test_trapped_lines(cpu, cut, hits):
    cpu(each(trapped_lines, [(at.payload, at.ends) for at in cut]), hits=hits)


@stage("repair")
@pytest.mark.parametrize("way", ["patch", "repair"])
def test_repair(cpu, odd_lines, way):
    """Of hits that need it, by the short way and by the long one."""
    rules = {"patch": lambda line: patch(line, Degree.USUAL), "repair": repair}
    cpu(each(rules[way], [(line,) for line in odd_lines]), hits=len(odd_lines))


@stage("columns")
@pytest.mark.parametrize("part", ["read", "unfit rows"])
def test_columns(cpu, blocks, read, hits, part):
    """arro3's reader; then what it lets through is looked for."""
    parts = {
        "read": each(read_lines, ((payload,) for _, payload in blocks)),
        "unfit rows": each(unfit_rows, ((batch,) for batches in read for batch in batches)),
    }
    cpu(parts[part], hits=hits)


@stage("kernel")
def test_kernel(cpu, blocks, hits):
    """Checked and read into columns in one pass, in place of the strict pass and of arro3's reader."""
    rows = KernelRows()

    def work() -> None:
        for block, payload in blocks:
            rows.append(payload, block, Degree.USUAL)
        rows.take()

    work()  # its buffers are there from now on
    cpu(work, hits=hits)


@stage("decode block")
@pytest.mark.parametrize("twin", TWINS)
def test_decode_block(cpu, blocks, hits, twin):
    """All of it, from the bytes of blocks to one record batch with the collector's columns."""
    decoder = BlockDecoder(INSTANCE, TWINS[twin]())

    def work() -> int:
        spans = [span for block, payload in blocks for span in decoder.decode(payload, block).spans]
        return spans[-1].group.batch().num_rows

    work()
    assert cpu(work, hits=hits) == hits


@stage("privacy")
@pytest.mark.parametrize("hidden", PRIVACY)
def test_privacy(cpu, blocks, hits, hidden):
    """What hiding adds to one record batch; nothing is called where nothing is hidden."""
    rows = KernelRows()
    for block, payload in blocks:
        rows.append(payload, block, Degree.USUAL)
    batch, hider = rows.take(), Hider(PRIVACY[hidden])
    cpu(lambda: hider.rows(batch), hits=hits)


@stage("Parquet")
@pytest.mark.parametrize("part", ["share", "encoding", "read back and hash"])
def test_parquet(cpu, benchmark, decoded, hits, tmp_path, part):
    """A share, filed, encoded, synced, read back and hashed; then what of it is encoding, and hashing."""
    if part == "share":
        files = cpu(lambda: staged(tmp_path, decoded), hits=hits)
        benchmark.extra_info["written_bytes"] = sum(file.size for file in files)
    elif part == "encoding":
        groups = [*row_groups(batch for block in decoded for batch in block.batches)]
        cpu(lambda: encoded(groups), hits=hits)
    else:
        files = staged(tmp_path, decoded)
        cpu(lambda: [hashed(tmp_path, file) for file in files], hits=hits)
    shutil.rmtree(tmp_path)


def hashed(folder: Path, file: StagedFile) -> StagedFile:
    return staged_file(DISK, folder, file.staged, kind=file.kind, final=file.final, rows=file.rows)


def encoded(groups: Iterable[pa.Table]) -> int:
    """With a share's settings and row groups, into memory, all hours in one file; gives its size."""
    file = io.BytesIO()
    writer = part_writer(file, HITS_SCHEMA)
    for table in groups:
        writer.write_table(table, row_group_size=table.num_rows)
    writer.close()
    return file.tell()


def row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    waiting_bytes = 0
    for batch in batches:
        waiting.append(batch)
        waiting_bytes += batch.nbytes
        if waiting_bytes > WAITING_BYTES:
            yield pa.Table.from_batches(waiting, HITS_SCHEMA)
            waiting, waiting_bytes = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting, HITS_SCHEMA)


# ---------------------------------------------------------------- the coordinator


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RunSet:
    """The resend index of a while: 1,000,000 ids in eight runs."""
    folder = tmp_path_factory.mktemp("ids")
    for run in range(1, INDEX_RUNS + 1):
        high, low = new_ids(INDEX_IDS // INDEX_RUNS, (run,))
        path = folder / f"{run:012d}-{run:012d}-1.run"
        write_run(NO_SYNCS, path, high, low, held_us=(run, run), blocks=(run, run))
    return RunSet(DISK, folder, LIMITS)


@stage("resend index")
def test_resend_index(cpu, runs, decoded, hits):
    """Claims of the blocks of one batch, none of them a resend."""
    index = ResendIndex(runs)
    claims = [(1, seq, block.high, block.low, block.lines) for seq, block in enumerate(decoded, 1)]
    cpu(each(index.answer, claims), hits=hits)


@stage("commit")
def test_commit(cpu, tmp_path):
    """Intent, renames, confirmation, the ids into the index: batches of 100,000 hits by two decoders."""
    with commits_after(tmp_path, aged_state(tmp_path, 1)) as commits:
        batches = commits.staged(COMMITS)
        cpu(lambda: commits.commit(batches), hits=COMMITS * HITS_PER_BATCH, batches=COMMITS)
    shutil.rmtree(tmp_path)


@stage("messages")
def test_messages(cpu, blocks, decoded, hits):
    """Those of a block, over sockets: accepted, decode, claims, keep, done."""
    talks = [talk_of(block, of_block) for (block, _), of_block in zip(blocks, decoded, strict=True)]
    cpu(lambda: uvloop.run(talked(talks)), hits=hits)


class Talk(NamedTuple):
    accepted: Accepted
    decode: Decode
    claims: Claims
    keep: Keep
    done: BlockDone


def talk_of(block: Block, decoded: Decoded) -> Talk:
    ids = (array.tobytes() for array in (decoded.high, decoded.low, decoded.lines))
    hours = tuple(np.unique(decoded.hours).tolist())
    return Talk(
        Accepted((block,)),
        Decode(block, 1, 1, 1),
        Claims(block.seq, *ids),
        Keep(block.seq, NO_DROPS.tobytes()),
        BlockDone(block.seq, block.records, 0, 0, 0, 0, hours, 1),
    )


async def talked(talks: Iterable[Talk]) -> None:
    """Both ends in one thread, so that each message is there before it is waited for."""
    (ours, reader), (theirs, decoder) = socket.socketpair(), socket.socketpair()
    from_reader = await CoordinatorChannel.over(ours, FromReader)
    from_decoder = await CoordinatorChannel.over(theirs, FromDecoder)
    to_coordinator = Channel[Any](reader, None)
    to_decoder = Channel[Any](decoder, ToDecoder)
    for talk in talks:
        to_coordinator.send(talk.accepted)
        await from_reader.receive()
        from_decoder.send(talk.decode)
        await asyncio.sleep(0)
        to_decoder.receive()
        to_decoder.send(talk.claims)
        await from_decoder.receive()
        from_decoder.send(talk.keep)
        await asyncio.sleep(0)
        to_decoder.receive()
        to_decoder.send(talk.done)
        await from_decoder.receive()
    for channel in (from_reader, from_decoder):
        await channel.close()
    for channel in (to_coordinator, to_decoder):
        channel.close()
