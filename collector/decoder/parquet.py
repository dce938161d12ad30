"""Shares: what one decoder makes of a batch's blocks, staged as files that wait for the commit.

Run by the decoder processes. Invariant: every record added is counted in exactly one of rows,
resends and rejects, and the files that ``stage`` returns hold exactly those; nothing of a share is
visible outside the staging folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collector import __version__
from collector.core.messages import BlockDone, ConnectionRow, FileKind, Stage, StageConnections, StagedFile
from collector.core.privacy import NOTHING_HIDDEN, Privacy
from collector.decoder.columns import Flags, Int64s, Uint64s
from collector.decoder.decode import Decoded, Span
from collector.decoder.partfile import PartFile, staged_file
from collector.decoder.rows import DAY_US, S_US, ArrowArray, RowGroup
from collector.decoder.schema import CONNECTIONS_SCHEMA, HITS_SCHEMA, REJECTS_SCHEMA, RESENDS_SCHEMA
from collector.storage.fs import Disk
from collector.storage.ids import write_run
from collector.storage.layout import SCHEMA_VERSION, part_path

REJECTS_SHOWN: Final = 3
"""Of each block: they are for a glance, the others are in the part."""

WAITING_BYTES: Final = 40 << 20
"""Arrow memory of rows of a share that are not written yet; then its largest file gets a row group.

Source: socket to Parquet takes 17.7 us a hit and 390 MB in all processes; with 16 MiB 19.5 us and 340 MB,
with 24 MiB 18.8 us and 370 MB, with 48 MiB 17.6 us and 430 MB.
"""

_ROWS_A_SLICE: Final = 100
"""Rows of an hour that stand together in so many or more are not copied (2.7 us a row)."""

_PARTS_OF_A_GROUP: Final = 4
"""A smaller part of a group's rows is copied."""

_DAY_HOURS: Final = 24


@dataclass(frozen=True, slots=True)
class PartIdentity:
    """What every part of a state folder says about where it is from."""

    instance: str
    stream: str
    durability: str = "disk"
    """Of the journal: ``disk`` or ``memory``."""
    mode: int = 0o644
    """Of the files that become visible."""
    decoder: str = "plain"
    """Which of the twins: ``kernel`` or ``plain``."""
    privacy: Privacy = NOTHING_HIDDEN

    def metadata(self) -> dict[str, str]:
        return {
            "collector.version": __version__,
            "collector.schema_version": str(SCHEMA_VERSION),
            "collector.stream": self.stream,
            "collector.instance": self.instance,
            "collector.journal_durability": self.durability,
            "collector.decoder": self.decoder,
        } | self.privacy.metadata()


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that follow one another in a group. *Shape*: the arrays have one item per row."""

    batch: pa.RecordBatch
    group_rows: int
    """Of all blocks in it."""
    hours: Int64s
    kept: Flags


def _in_a_row(added: Iterable[tuple[Decoded, Flags]]) -> Iterator[_Rows]:
    """The rows of these blocks, as much at a time as stands together in a group."""
    run: list[tuple[Span, Int64s, Flags]] = []
    for piece in _spans(added):
        span = piece[0]
        if run and (run[-1][0].group is not span.group or run[-1][0].last != span.first):
            yield _rows(run)
            run = []
        run.append(piece)
    if run:
        yield _rows(run)


def _spans(added: Iterable[tuple[Decoded, Flags]]) -> Iterator[tuple[Span, Int64s, Flags]]:
    for decoded, kept in added:
        first = 0
        for span in decoded.spans:
            last = first + span.last - span.first
            yield span, decoded.hours[first:last], kept[first:last]
            first = last


def _rows(run: Sequence[tuple[Span, Int64s, Flags]]) -> _Rows:
    spans, hours, kept = zip(*run, strict=True)
    whole = spans[0].group.batch()
    batch = whole.slice(spans[0].first, spans[-1].last - spans[0].first)
    return _Rows(batch, whole.num_rows, np.concatenate(hours), np.concatenate(kept))


class Share:
    """One decoder's part of a batch, until it is staged or discarded."""

    def __init__(
        self, disk: Disk, staging: Path, identity: PartIdentity, *, batch: int, share: int, attempt: int
    ) -> None:
        self.rows = 0
        self.resends = 0
        self.rejects = 0
        self._disk = disk
        self._staging = staging
        self._identity = identity
        self._share = share
        self._prefix = f"{batch}-{share}-{attempt}"
        self._parts: dict[tuple[FileKind, int], PartFile] = {}
        """By kind and first hour."""
        self._added: list[tuple[Decoded, Flags]] = []
        """Blocks whose rows are in no file yet, and which of these rows are to be in one."""
        self._groups: set[RowGroup] = set()
        """Of these rows. Beside them, since blocks may be many and the size is asked for at each."""
        self._kept: list[tuple[Uint64s, Uint64s]] = []
        self._others: list[str] = []
        self._connections: list[tuple[int, int]] = []
        """Block and connection, wherever it is another than that of the share's block before."""

    def add(
        self, decoded: Decoded, drop: npt.NDArray[np.uint32], *, seq: int, connection: int = 0
    ) -> BlockDone:
        """Take a block's rows but for those at positions ``drop`` of its claim, which are resends.

        *Blocks* while a row group is written. *Raises* NoSpaceError, StorageError.
        """
        kept = np.ones(len(decoded.lines), dtype=np.bool_)
        dropped = np.flatnonzero(decoded.has_id)[drop]
        kept[dropped] = False
        self._added.append((decoded, kept))
        self._groups.update(span.group for span in decoded.spans)
        self._add_rejects(decoded, seq)
        self._add_resends(decoded, dropped, seq)
        if not self._connections or self._connections[-1][1] != connection:
            self._connections.append((seq, connection))
        with_id = kept & decoded.has_id
        self._kept.append((decoded.high[with_id], decoded.low[with_id]))
        if self._waiting_bytes > WAITING_BYTES:
            for part in self._file():
                part.write()
        while self._waiting_bytes > WAITING_BYTES:
            max(self._parts.values(), key=lambda part: part.waiting_bytes).write()
        rows = int(np.count_nonzero(kept))
        self.rows += rows
        self.resends += len(dropped)
        self.rejects += len(decoded.rejects)
        return BlockDone(
            seq=seq,
            rows=rows,
            resends=len(dropped),
            rejects=len(decoded.rejects),
            without_id=len(decoded.lines) - int(np.count_nonzero(decoded.has_id)),
            repaired=decoded.repaired,
            hours=tuple(np.unique(decoded.hours[kept]).tolist()),
            cpu_us=0,
            reasons=dict(Counter(reject.reason.partition(":")[0] for reject in decoded.rejects)),
            first_rejects=tuple(reject.begin() for reject in decoded.rejects[:REJECTS_SHOWN]),
        )

    def stage(self, order: Stage) -> list[StagedFile]:
        """Finish the share's files. *Blocks* for their syncs. *Raises* NoSpaceError, StorageError."""
        metadata = self._metadata(order)
        self._file()
        staged = [
            part.finish(self._final(kind, order, hour), metadata)
            for (kind, hour), part in sorted(self._parts.items())
        ]
        staged += self._stage_ids(order)
        self._disk.fsync_folder(self._staging)
        return staged

    def discard(self) -> None:
        """Remove every file of the share, staged ones too."""
        _discard(self._parts.values())
        for name in self._others:
            if self._disk.exists(self._staging / name):
                self._disk.unlink(self._staging / name)

    def _part(self, kind: FileKind, hour: int, schema: pa.Schema) -> PartFile:
        if (kind, hour) not in self._parts:
            name = f"{self._prefix}-{kind}-{_hour_name(hour)}.parquet"
            self._parts[kind, hour] = PartFile(
                self._disk, self._staging, name, kind, schema, mode=self._identity.mode
            )
        return self._parts[kind, hour]

    @property
    def _waiting_bytes(self) -> int:
        parts = sum(part.waiting_bytes for part in self._parts.values())
        return parts + sum(group.nbytes for group in self._groups)

    def _file(self) -> set[PartFile]:
        """Give each file the rows of its hour. Gives the files whose rows stay where they are until they are
        written: up to then the group has its columns, and the next one must have others.
        """
        added, self._added, self._groups = self._added, [], set()
        return {part for rows in _in_a_row(added) for part in self._file_rows(rows)}

    def _file_rows(self, rows: _Rows) -> Iterator[PartFile]:
        """Most rows are of one hour and stay where they are. Others are copied: few would hold the group. Few
        are those of a block, too, that had been decoded when the group was closed, and is added only now.
        """
        hours, counts = np.unique(rows.hours[rows.kept], return_counts=True)
        for hour, count in zip(hours.tolist(), counts.tolist(), strict=True):
            part = self._part(FileKind.HITS, hour, HITS_SCHEMA)
            mask = rows.kept & (rows.hours == hour)
            edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2)
            is_large = count >= max(len(edges) * _ROWS_A_SLICE, rows.group_rows // _PARTS_OF_A_GROUP)
            if count == counts.max() and is_large:
                for first, last in edges.tolist():
                    part.add(rows.batch.slice(first, last - first))
                yield part
            else:
                part.add(rows.batch.filter(pa.array(mask)))

    def _add_rejects(self, decoded: Decoded, seq: int) -> None:
        if not decoded.rejects:
            return
        columns = {
            "raw": [reject.raw for reject in decoded.rejects],
            "reason": [reject.reason for reject in decoded.rejects],
            "collector_line": [reject.line for reject in decoded.rejects],
            "collector_block": [seq] * len(decoded.rejects),
            "collected_at": [decoded.collected_at_us] * len(decoded.rejects),
            "collector_instance": [self._identity.instance] * len(decoded.rejects),
        }
        day = decoded.collected_at_us // DAY_US * _DAY_HOURS
        self._part(FileKind.REJECTS, day, REJECTS_SCHEMA).add(_batch(columns, REJECTS_SCHEMA))

    def _add_resends(self, decoded: Decoded, dropped: npt.NDArray[np.int64], seq: int) -> None:
        if not len(dropped):
            return
        columns = {
            "hitIdHigh": _decimals(decoded.high[dropped]),
            "hitIdLow": _decimals(decoded.low[dropped]),
            "collector_block": [seq] * len(dropped),
            "collector_line": decoded.lines[dropped],
        }
        self._part(FileKind.RESENDS, 0, RESENDS_SCHEMA).add(_batch(columns, RESENDS_SCHEMA))

    def _stage_ids(self, order: Stage) -> list[StagedFile]:
        high = np.concatenate([np.empty(0, np.uint64), *(high for high, _ in self._kept)])
        low = np.concatenate([np.empty(0, np.uint64), *(low for _, low in self._kept)])
        if not len(high):
            return []
        name = f"{self._prefix}-{FileKind.IDS}.run"
        self._others.append(name)
        blocks = (order.batch, order.last)
        write_run(self._disk, self._staging / name, high, low, held_us=order.held_us, blocks=blocks)
        final = self._final(FileKind.IDS, order, 0)
        return [staged_file(self._disk, self._staging, name, kind=FileKind.IDS, final=final, rows=len(high))]

    def _final(self, kind: FileKind, order: Stage, hour: int) -> str:
        identity = self._identity
        return part_path(
            kind,
            identity.stream,
            identity.instance,
            first=order.batch,
            last=order.last,
            share=self._share,
            hour=hour,
        )

    def _metadata(self, order: Stage) -> dict[str, str]:
        numbers = {
            "first_block": order.batch,
            "last_block": order.last,
            "share": order.share,
            "shares": order.shares,
            "share_rows": self.rows,
            "share_resends": self.resends,
            "share_rejects": self.rejects,
            "before_first_block": order.batch_before[0],
            "before_last_block": order.batch_before[1],
            "before_records": order.before.records,
            "before_rows": order.before.rows,
            "before_resends": order.before.resends,
            "before_rejects": order.before.rejects,
            "held_first_us": order.held_us[0],
            "held_last_us": order.held_us[1],
        }
        connections = " ".join(f"{seq}:{connection}" for seq, connection in self._connections)
        return (
            self._identity.metadata()
            | {f"collector.{name}": str(value) for name, value in numbers.items()}
            | {"collector.connections": connections}
        )


def stage_connections(
    disk: Disk, staging: Path, identity: PartIdentity, order: StageConnections
) -> list[StagedFile]:
    """Write rows of ``connections``, one part per UTC date of ``began_us``.

    *Blocks* for the syncs. *Raises* NoSpaceError, StorageError, after removing what it wrote.
    """
    kind = FileKind.CONNECTIONS
    days: dict[int, list[ConnectionRow]] = {}
    for row in order.rows:
        days.setdefault(row.began_us // DAY_US * _DAY_HOURS, []).append(row)
    entries = {"collector.first_entry": str(order.first), "collector.last_entry": str(order.last)}
    metadata = identity.metadata() | entries
    parts = {}
    try:
        for day, rows in sorted(days.items()):
            name = f"{order.first}-0-{order.last}-{kind}-{_hour_name(day)}.parquet"
            parts[day] = PartFile(disk, staging, name, kind, CONNECTIONS_SCHEMA, mode=identity.mode)
            parts[day].add(_connection_rows(rows, identity.instance))
        finals = {
            day: part_path(
                kind,
                identity.stream,
                identity.instance,
                first=order.first,
                last=order.last,
                share=1,
                hour=day,
            )
            for day in parts
        }
        staged = [part.finish(finals[day], metadata) for day, part in parts.items()]
        disk.fsync_folder(staging)
    except BaseException:
        _discard(parts.values())
        raise
    return staged


def _discard(parts: Collection[PartFile]) -> None:
    for part in parts:
        part.abandon()
    for part in parts:
        part.discard()


def _connection_rows(rows: Iterable[ConnectionRow], instance: str) -> pa.RecordBatch:
    """Fields ``x_us`` of the message are columns ``x_at``, but for ``wait_us``; 0 is no time."""
    records = [{name: getattr(row, name) for name in ConnectionRow.__struct_fields__} for row in rows]
    for record in records:
        record["wait_s"] = record.pop("wait_us") / S_US
        record["attempts"] = list(record["attempts"].items())
        record["collector_instance"] = instance
        for name in [name for name in record if name.endswith("_us")]:
            record[name.removesuffix("_us") + "_at"] = record.pop(name) or None
    columns = {name: [record[name] for record in records] for name in CONNECTIONS_SCHEMA.names}
    return _batch(columns, CONNECTIONS_SCHEMA)


def _batch(columns: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [
        columns[field.name]
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], type=field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _decimals(values: Uint64s) -> ArrowArray:
    words = np.zeros((len(values), 2), dtype=np.uint64)
    words[:, 0] = values
    return pa.Array.from_buffers(pa.decimal128(20, 0), len(values), [None, pa.py_buffer(words.tobytes())])


def _hour_name(hour: int) -> str:
    """*Units*: hours since the epoch."""
    return str(np.datetime64(hour, "h"))
