"""What is in a journal's folder: which blocks are there, which should be, and where they should be.

Runs in the coordinator. Reads only. Invariant: a block that is proven to have been durable is kept, or it is
in a loss; what is in neither was never reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from collector.core.entries import Lost
from collector.errors import DamagedError
from collector.storage.fs import Disk
from collector.storage.segments import (
    SEGMENT_HEADER_BYTES,
    BlockHeader,
    Listed,
    MappedSegment,
    list_segments,
    segment_name,
    space_of,
)

UNKNOWN_BLOCKS: Final = 1 << 20
"""What the newest segment can have held at most, when nothing in it can be read: 64 MiB of empty blocks."""


class Seen(NamedTuple):
    """A block whose header checks out. Of committed blocks only the place matters: they count as whole."""

    segment: MappedSegment
    offset: int
    header: BlockHeader
    whole: bool

    @property
    def end(self) -> int:
        return self.offset + space_of(self.header.length)


@dataclass(frozen=True, slots=True)
class Loss:
    """Blocks that were durable and are damaged or missing."""

    first: int
    last: int
    records: int
    """As far as headers say."""
    connection: int
    """Of the block after or before it; 0: of neither."""
    began_us: int
    """When the block before it was collected; 0: there is none. ``ended_us``: the one after it."""
    ended_us: int
    text: str
    """File, bytes and blocks in words."""


@dataclass(slots=True)
class Survey:
    folder: Path
    segments: list[MappedSegment]
    unreadable: list[Path]
    """Too short for a header."""
    listed: Listed
    kept: list[Seen] = field(default_factory=list)
    """Not committed, in order, whole."""
    last_seq: int = 0
    """No block up to here is awaited any more, and the next one comes after it."""
    losses: list[Loss] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Files that are not as they were made."""
    beyond: list[Seen] = field(default_factory=list)
    """Behind ``last_seq``: written, and never reported durable."""
    placed: dict[int, list[Seen]] = field(default_factory=dict)
    """By segment, committed blocks and kept ones, ascending. Every readable segment has its list."""

    def last_block(self, segment: int) -> int:
        """0: none."""
        return self.placed[segment][-1].header.seq if self.placed[segment] else 0

    def tail(self, segment: int) -> int:
        """Where what is known of it ends."""
        return self.placed[segment][-1].end if self.placed[segment] else SEGMENT_HEADER_BYTES

    @property
    def newest(self) -> int:
        """The last segment with a block; 0: none has one."""
        return max((number for number, blocks in self.placed.items() if blocks), default=0)


@contextmanager
def surveyed(
    disk: Disk,
    folder: Path,
    *,
    after_seq: int,
    known_durable_seq: int = 0,
    written_off: Sequence[Lost] = (),
    prefix_only: bool = False,
) -> Iterator[Survey]:
    """Segments stay mapped within the ``with`` block. *Blocks* for one read of the journal.

    Blocks up to ``after_seq`` are committed; those in ``written_off`` are awaited no more. ``prefix_only``:
    what comes behind a loss is lost with it. *Raises*: NewerVersionError, StorageError.
    """
    survey = Survey(folder, [], [], list_segments(disk, folder))
    try:
        _map_all(disk, survey)
        seen = _look(survey, after_seq)
        durable = max([after_seq, known_durable_seq, *(at.header.synced_seq for at in seen)])
        _judge(survey, seen, (after_seq, durable), written_off, prefix_only=prefix_only)
        yield survey
    finally:
        for segment in survey.segments:
            segment.close()


def _map_all(disk: Disk, survey: Survey) -> None:
    for number in survey.listed.used:
        try:
            with suppress(FileNotFoundError):  # freed since, by a commit beside us
                survey.segments.append(MappedSegment(disk, survey.folder, number, lenient=True))
        except DamagedError as error:
            survey.unreadable.append(survey.folder / segment_name(number))
            survey.faults.append(str(error))
    survey.faults += [segment.fault for segment in survey.segments if segment.fault]


def _look(survey: Survey, after_seq: int) -> list[Seen]:
    seen = [
        Seen(segment, offset, header, header.seq <= after_seq or segment.block_at(offset) is not None)
        for segment in survey.segments
        for offset, header in segment.headers()
    ]
    return sorted(seen, key=lambda at: at.header.seq)


def _judge(
    survey: Survey,
    seen: list[Seen],
    proven: tuple[int, int],
    written_off: Sequence[Lost],
    *,
    prefix_only: bool,
) -> None:
    """``proven``: blocks after the first number, up to the second, are known to have been durable."""
    after_seq, durable = proven
    gone = [(lost.first, lost.last) for lost in written_off]
    whole = {
        at.header.seq: at
        for at in seen
        if at.whole and at.header.seq > after_seq and not _within(at.header.seq, gone)
    }
    last = durable
    while last + 1 in whole:
        last += 1
    holes = list(_holes(sorted([*((seq, seq) for seq in whole), *gone]), after_seq + 1, durable))
    if holes and prefix_only:
        holes = [(holes[0][0], last)]
    survey.last_seq = last
    survey.kept = [at for seq, at in sorted(whole.items()) if seq <= last and not _within(seq, holes)]
    survey.placed = {segment.number: [] for segment in survey.segments}
    for at in (*(at for at in seen if at.header.seq <= after_seq), *survey.kept):
        survey.placed[at.segment.number].append(at)
    survey.beyond = [at for at in seen if at.header.seq > last]
    survey.losses = [_loss(survey, seen, first, end) for first, end in holes]
    _add_unknown(survey)


def _holes(present: list[tuple[int, int]], first: int, last: int) -> Iterator[tuple[int, int]]:
    """What of ``first`` to ``last`` is in none of the ranges, which ascend."""
    for begin, end in present:
        if begin > last:
            break
        if begin > first:
            yield first, begin - 1
        first = max(first, end + 1)
    if first <= last:
        yield first, last


def _within(seq: int, ranges: list[tuple[int, int]]) -> bool:
    return any(first <= seq <= last for first, last in ranges)


def _add_unknown(survey: Survey) -> None:
    """The newest segment cannot be read, and no block behind it says what it held."""
    newest = max(survey.listed.used, default=0)
    empty = [path for path in survey.unreadable if path.name == segment_name(newest)]
    empty += [at.path for at in survey.segments if at.number == newest and at.fault and not any(at.headers())]
    for path in empty:
        first, survey.last_seq = survey.last_seq + 1, survey.last_seq + UNKNOWN_BLOCKS
        text = f"{path}: what blocks it held after block {first - 1} is not known, since none can be read"
        survey.losses.append(Loss(first, survey.last_seq, 0, 0, 0, 0, text))


# ---------------------------------------------------------------- in words


def _loss(survey: Survey, seen: list[Seen], first: int, last: int) -> Loss:
    placed = [at for blocks in survey.placed.values() for at in blocks]
    before = max((at for at in placed if at.header.seq < first), key=_seq, default=None)
    after = min((at for at in placed if at.header.seq > last), key=_seq, default=None)
    beside = after or before
    blocks = f"block {first}, which was durable, is"
    if first < last:
        blocks = f"blocks {first} to {last}, which were durable, are"
    return Loss(
        first=first,
        last=last,
        records=sum(at.header.records for at in seen if first <= at.header.seq <= last),
        connection=beside.header.connection if beside is not None else 0,
        began_us=before.header.collected_at_us if before is not None else 0,
        ended_us=after.header.collected_at_us if after is not None else 0,
        text=_where(survey, before, after).format(f"{blocks} damaged or missing"),
    )


def _seq(at: Seen) -> int:
    return at.header.seq


def _where(survey: Survey, before: Seen | None, after: Seen | None) -> str:
    """With a place for the blocks."""
    if not survey.segments:
        return f"{survey.folder}: {{}}: no segment is left"
    places: list[tuple[Path, int, int]] = []
    if before is not None and after is not None and before.segment is after.segment:
        places.append((before.segment.path, before.end, after.offset))
    else:
        if before is not None and before.segment.began_at(before.end):
            places.append((before.segment.path, before.end, before.segment.size_bytes))
        low = before.segment.number if before is not None else 0
        high = after.segment.number if after is not None else max(survey.listed.used) + 1
        places += [
            (at.path, SEGMENT_HEADER_BYTES, at.size_bytes)
            for at in survey.segments
            if low < at.number < high and at.began_at(SEGMENT_HEADER_BYTES)
        ]
        if after is not None and after.offset > SEGMENT_HEADER_BYTES:
            places.append((after.segment.path, SEGMENT_HEADER_BYTES, after.offset))
    missing = "a segment that is missing"
    if not places:
        known = before or after
        path = known.segment.path if known is not None else survey.folder
        return f"{path}: {{}} ({missing} {'after' if known is before else 'before'} this one)"
    path, *_ = places[0]
    spans = [f"bytes {start} to {end}" + (f" of {at}" if at != path else "") for at, start, end in places]
    return f"{path}: {{}} ({', '.join(spans)}, or {missing})"
