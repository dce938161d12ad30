"""The entries of the commit log: every decision and every fact that must outlive the coordinator.

Imported by the coordinator and by whoever reads its log. Entries are numbered from 1 without holes;
the number is the log's, not the entry's. Fields may be added with defaults, never changed.

Times called ``*_us`` are microseconds since the Unix epoch (UTC); ``held_us`` counts microseconds of
held connection since the state folder was made.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collector.core.messages import Closed, StagedFile, Totals


class Made(msgspec.Struct, frozen=True, tag=True):
    """The first entry: whose state folder this is."""

    instance: str
    stream: str
    url_segment: str
    """The last path segment of the stream's URL; empty for saved files."""
    at_us: int


# ---------------------------------------------------------------- batches


class BlockCount(msgspec.Struct, frozen=True, array_like=True):
    """What became of a block's records."""

    seq: int
    connection: int
    records: int
    rows: int
    resends: int
    rejects: int
    collected_at_us: int


class ShareStaged(msgspec.Struct, frozen=True, array_like=True):
    share: int
    rows: int
    resends: int
    rejects: int
    files: tuple[StagedFile, ...]


class Intent(msgspec.Struct, frozen=True, tag=True):
    """The decision that a batch is committed. From here on it is redone, never undone."""

    batch: int
    """Its first block."""
    last: int
    shares: tuple[ShareStaged, ...]
    blocks: tuple[BlockCount, ...]
    before: Totals
    """Running totals up to the batch before."""
    held_us: tuple[int, int]
    """Of its first and last block."""


class Committed(msgspec.Struct, frozen=True, tag=True):
    """Every file of the batch is in place and durable."""

    batch: int
    last: int
    at_us: int


class Void(msgspec.Struct, frozen=True, tag=True):
    """The operator's way on: this pending batch is undone, its blocks run again from the journal.

    None of its files is left under a final name when this is appended.
    """

    batch: int
    last: int
    reason: str
    at_us: int


# ---------------------------------------------------------------- connections


class ConnectionOpened(msgspec.Struct, frozen=True, tag=True):
    """A request was answered with a stream."""

    connection: int
    opened_us: int
    wait_us: int
    """Waited since the connection before."""
    attempts: dict[str, int]
    """Refused or failed requests before this one, by cause."""
    after: int
    """The connection before this one; 0: none."""
    reset: bool = False
    """Its request carried ``reset``."""


class ConnectionClosed(msgspec.Struct, frozen=True, tag=True):
    closed: Closed
    held_us: int
    """The counter when it was over."""


class GapSeen(msgspec.Struct, frozen=True, tag=True):
    """Time in which the service may have sent what never came."""

    connection: int
    """The one before it; 0: none."""
    began_us: int
    ended_us: int
    reason: str
    detail: str
    suspected: Literal["no", "possible", "likely"]
    rule: str
    lost: bool = False
    """It lies within what was held: blocks that were accepted in this time are gone."""


class ConnectionsIntent(msgspec.Struct, frozen=True, tag=True):
    """The decision that these rows of ``connections`` are committed."""

    first: int
    """Log entries ``first`` to ``last`` name the files."""
    last: int
    files: tuple[StagedFile, ...]
    covers: tuple[tuple[int, int], ...]
    """(connection, start of its UTC hour in us) of each row."""
    gaps: tuple[int, ...]
    """Numbers of the ``GapSeen`` entries."""


class ConnectionsCommitted(msgspec.Struct, frozen=True, tag=True):
    first: int
    last: int


class ConnectionsVoid(msgspec.Struct, frozen=True, tag=True):
    """These pending rows are undone. Rows are made from the log alone: they are made again."""

    first: int
    last: int
    reason: str
    at_us: int


# ---------------------------------------------------------------- the rest


class FileOpened(msgspec.Struct, frozen=True, tag=True):
    """A saved file is read as this connection."""

    connection: int
    sha256: bytes
    path: str
    size: int


class FileRead(msgspec.Struct, frozen=True, tag=True):
    """Every record of the file is accepted."""

    connection: int
    records: int
    """Of the whole file, over all its connections."""


class Lost(msgspec.Struct, frozen=True, tag=True):
    """Accepted blocks that are gone: with the memory that held them, or damaged and written off."""

    first: int
    last: int
    """``first`` - 1: it is not known how many."""
    records: int
    """As far as is known; 0: it is not."""


class RetiredFile(msgspec.Struct, frozen=True, array_like=True):
    path: str
    """Below the output folder."""
    sha256: bytes


class Retired(msgspec.Struct, frozen=True, tag=True):
    """Committed parts that were taken away on purpose: shipped, compacted, or too old."""

    files: tuple[RetiredFile, ...]
    reason: str
    replaced_by: tuple[str, ...]
    at_us: int


class Note(msgspec.Struct, frozen=True, tag=True):
    """Something for people to read."""

    kind: str
    text: str


# ---------------------------------------------------------------- what they add up to


class Connection(msgspec.Struct):
    """What is known of one connection. Hours are named by their start, us since the epoch, UTC."""

    number: int
    opened: ConnectionOpened | None = None
    closed: Closed | None = None
    committed: Totals = Totals()
    hours: dict[int, Totals] = {}
    """Committed records by the hour their blocks were collected in; hours without their row only."""
    resends_at_start: int = 0
    written_before: int = 0
    """Every hour before this one has its row in ``connections``."""
    written: set[int] = set()
    """Those after it that have theirs too."""


class SavedFile(msgspec.Struct, array_like=True):
    """A saved file, known by its SHA-256."""

    committed: int = 0
    """Records, over all connections it was read as."""
    records: int | None = None
    """Of the whole file; ``None``: not all of them are accepted yet."""


class Checkpoint(msgspec.Struct, frozen=True, tag=True):
    """All that the entries so far add up to, field by field that of ``LogState``.

    The first of a log whose older entries are in the archive. It is no entry of its own: its number is
    that of the last entry in it.
    """

    instance: str
    stream: str
    url_segment: str
    totals: Totals
    last_batch: tuple[int, int]
    last_block: int
    durable_block: int
    voided: int
    pending: Intent | None
    pending_connections: ConnectionsIntent | None
    connections: dict[int, Connection]
    last_connection: int
    forgotten_connection: int
    last_closed_us: int
    next_held_us: int
    gaps: dict[int, GapSeen]
    gap_after: dict[int, GapSeen]
    connections_until: int
    files: dict[bytes, SavedFile]
    reading: dict[int, bytes]
    lost: tuple[Lost, ...]
    lost_blocks: int
    lost_records: int
    collected_us: int


Entry = (
    Made
    | Intent
    | Committed
    | Void
    | ConnectionOpened
    | ConnectionClosed
    | GapSeen
    | ConnectionsIntent
    | ConnectionsCommitted
    | ConnectionsVoid
    | FileOpened
    | FileRead
    | Lost
    | Retired
    | Note
    | Checkpoint
)
