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
    """Accepted blocks that the host took with it, in a journal in memory."""

    first: int
    last: int
    records: int


class Note(msgspec.Struct, frozen=True, tag=True):
    """Something for people to read."""

    kind: str
    text: str


Entry = (
    Made
    | Intent
    | Committed
    | ConnectionOpened
    | ConnectionClosed
    | GapSeen
    | ConnectionsIntent
    | ConnectionsCommitted
    | FileOpened
    | FileRead
    | Lost
    | Note
)
