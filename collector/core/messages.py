"""The messages between the coordinator and its children, and the block they are all about.

Every process imports this module. A message is a tagged msgspec Struct sent as msgpack over one stream socket
per child (``collector.ipc.channel``). Only small things travel here: the bytes of hits stay in the journal.

Times called ``*_us`` are microseconds since the Unix epoch (UTC); ``held_us`` are those of held connection.
"""

from __future__ import annotations

import enum
import re
from typing import Final, Literal

import msgspec

from collector.core.privacy import Privacy
from collector.core.proxy import Proxy
from collector.core.reject_begin import RejectBegin

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_=.-]*")
"""Of a file or folder in a path: nothing hidden, nothing that leads elsewhere."""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no message of the type asked for."""


class BlockFlag(enum.IntFlag):
    """What is special about a block."""

    NONE = 0
    OVERSIZED = 1
    """One record over ``journal.max_record_bytes``: the payload is an ``Oversized`` as msgpack."""
    UNBOUNDED = 2
    """From a saved file: ``receivedTimeGMT`` has no lower bound."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Where a durable block of the journal is, and what it holds."""

    seq: int
    segment: int
    offset: int
    """Of the block's payload in its segment file, bytes."""
    length: int
    """Of the payload, bytes: ``records`` lines, each ended by one LF."""
    records: int
    connection: int
    flags: int
    collected_at_us: int
    held_us: int


class Oversized(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a record over ``journal.max_record_bytes``."""

    head: bytes
    """The record's first MiB."""
    length: int
    sha256: bytes


# ---------------------------------------------------------------- coordinator to reader


class Connect(msgspec.Struct, frozen=True, tag=True):
    """Send one request and hold the stream it opens. The one message that carries the token."""

    connection: int
    url: str
    """With its final query."""
    token: str
    api_key: str
    allowed_hosts: tuple[str, ...]
    idle_timeout_s: float
    held_us: int
    """The counter's value when the request is sent."""
    proxy: Proxy | None = None


class ReadFile(msgspec.Struct, frozen=True, tag=True):
    """Read one saved file as if it were a connection."""

    connection: int
    path: str
    skip_records: int
    held_us: int


class Disconnect(msgspec.Struct, frozen=True, tag=True):
    """Close the connection, seal and sync what is in hand, then report ``Closed``."""


class SegmentGranted(msgspec.Struct, frozen=True, tag=True):
    """The reader may make this segment, from the named free file where there is one."""

    segment: int
    recycled: str = ""


# ---------------------------------------------------------------- reader to coordinator


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The child is up and waits for orders. ``plain``: why it decodes without the kernel."""

    pid: int
    plain: str = ""


class SegmentWanted(msgspec.Struct, frozen=True, tag=True):
    """The reader holds no spare segment. Without one it pauses the transfer when this one is full."""


class SegmentFailed(msgspec.Struct, frozen=True, tag=True):
    """No room on the disk for the granted segment; it was not made. 0: for a block in a segment."""

    segment: int
    reason: str


class Opened(msgspec.Struct, frozen=True, tag=True):
    """A 200 with a stream behind it came."""

    connection: int
    at_us: int
    host: str
    hops: int


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """These blocks are durable."""

    blocks: tuple[Block, ...]


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Once a second, whatever happens: the reader lives. Connection 0: none is open."""

    connection: int
    bytes_received: int
    """Of this connection's body as it came over the wire."""
    records: int
    paused: bool
    last_byte_us: int
    held_us: int


class Outcome(enum.StrEnum):
    """How a request ended; the rows of the reconnect table that a reader can tell apart."""

    DRAINED = "drained"
    """We closed it."""
    ENDED = "ended"
    """The service ended the response cleanly."""
    LOST = "lost"
    """Reset, cut, bad gzip, or a 200 that is no gzip."""
    STALLED = "stalled"
    """Nothing came for ``idle_timeout_s``."""
    NO_STATUS = "no_status"
    """The request was sent, no status line came."""
    STATUS = "status"
    """A status other than 200 and no redirect."""
    UNREACHED = "unreached"
    """DNS, refused, unreachable, TLS cut short at the original URL: no request was sent."""
    UNTRUSTED = "untrusted"
    """The certificate at the original URL or a hop is not trusted."""
    REDIRECT = "redirect"
    """A redirect was forbidden, looping, had no Location, or its target failed."""
    READER_DIED = "reader_died"
    """Said by the coordinator on the reader's behalf."""


class Closed(msgspec.Struct, frozen=True, tag=True):
    """The request is over. Sent after every block of it has been reported."""

    connection: int
    outcome: Outcome
    detail: str
    """In words, without secrets, foreign text escaped, at most 300 characters."""
    closed_at_us: int
    status: int = 0
    error_description: str = ""
    """From a JSON body of the service, escaped, at most 300 characters."""
    retry_after_s: float | None = None
    """From ``Retry-After`` (seconds or date), not below 0."""
    opened_at_us: int = 0
    first_byte_us: int = 0
    bytes_received: int = 0
    records: int = 0
    cut_bytes: int = 0
    """Bytes after the last line end, not accepted."""
    held_us: int = 0


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The child cannot go on; it ends with ``exit_code`` after this."""

    exit_code: int
    message: str


# ---------------------------------------------------------------- coordinator to decoder


class Decode(msgspec.Struct, frozen=True, tag=True):
    """Run this block as part of a share."""

    block: Block
    batch: int
    """The batch's first block."""
    share: int
    attempt: int
    """Of the share, both from 1: staged names never collide with those of a dead decoder."""
    careful: bool = False
    """Line by line, the progress cell saying which: a decoder died while it decoded this block."""
    poison: dict[int, str] = {}
    """Lines that are rejects without being looked at, each with what the decoder came to."""


class Keep(msgspec.Struct, frozen=True, tag=True):
    """The answer to ``Claims``."""

    seq: int
    drop: bytes
    """Shape: uint32 little-endian, ascending positions in the claim; those hits are resends."""


class Stage(msgspec.Struct, frozen=True, tag=True):
    """The batch is closed: finish this share's files and report ``Staged``."""

    batch: int
    last: int
    share: int
    attempt: int
    shares: int
    before: Totals
    """Running totals up to the batch before."""
    batch_before: tuple[int, int]
    """Block range of the batch before; (0, 0) for the first."""
    held_us: tuple[int, int]
    """Of the batch's first and last block."""


class StageConnections(msgspec.Struct, frozen=True, tag=True):
    """Write these rows as ``connections`` parts, named by log entry numbers."""

    first: int
    last: int
    rows: tuple[ConnectionRow, ...]
    before: Totals


# ---------------------------------------------------------------- decoder to coordinator


class Claims(msgspec.Struct, frozen=True, tag=True):
    """The ids of a block's hits that have both halves, in line order. The decoder waits for ``Keep``."""

    seq: int
    high: bytes
    low: bytes
    """Shape of both: uint64 little-endian, n."""
    lines: bytes
    """Shape: int32 little-endian, n: each hit's line in its block, ascending."""


class Poisoned(msgspec.Struct, frozen=True, tag=True):
    """Decoding failed on these lines of a block: they are rejects. Sent before the block's ``Claims``."""

    seq: int
    lines: dict[int, str]
    """Each with what happened."""


class BlockDone(msgspec.Struct, frozen=True, tag=True):
    """The block is in the share; ``records = rows + resends + rejects``."""

    seq: int
    rows: int
    resends: int
    rejects: int
    without_id: int
    repaired: int
    hours: tuple[int, ...]
    """Hours since the epoch that the kept rows are filed under."""
    cpu_us: int
    reasons: dict[str, int] = {}
    """Rejects by kind: their reason up to its colon."""
    first_rejects: tuple[RejectBegin, ...] = ()


class FileKind(enum.StrEnum):
    """What a staged file is, which says where it goes."""

    HITS = "hits"
    REJECTS = "rejects"
    CONNECTIONS = "connections"
    IDS = "ids"
    RESENDS = "resends"


class StagedFile(msgspec.Struct, frozen=True, array_like=True):
    """One synced, reopened and checked file in the staging folder."""

    kind: FileKind
    staged: str
    """Name in the staging folder; empty: it never was there."""
    final: str
    """Path below the output folder (hits, rejects, connections) or the state folder (ids, resends)."""
    size: int
    sha256: bytes
    rows: int

    def __post_init__(self) -> None:
        """Names of ours, wherever they come from: paths are made of them. *Raises* ValueError."""
        root, *names = (*self.final.split("/"), *filter(None, [self.staged]))
        if root != self.kind or self.final == root or not all(map(_PLAIN_NAME.fullmatch, names)):
            raise ValueError(f"a staged file is named {self.staged[:80]!r}, to be {self.final[:200]!r}")


class Staged(msgspec.Struct, frozen=True, tag=True):
    """A share is staged, with its own counts. ``share`` 0: a ``connections`` share."""

    batch: int
    share: int
    attempt: int
    files: tuple[StagedFile, ...]
    rows: int
    resends: int
    rejects: int


class NoSpace(msgspec.Struct, frozen=True, tag=True):
    """No room for the share, or a sync failed (not ``full``): its files are gone, it must run again."""

    batch: int
    share: int
    attempt: int
    reason: str
    full: bool = True


# ---------------------------------------------------------------- shared values


class Totals(msgspec.Struct, frozen=True, array_like=True):
    """Running totals of a state folder. ``records = rows + resends + rejects`` always."""

    records: int = 0
    rows: int = 0
    resends: int = 0
    rejects: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.records + other.records,
            self.rows + other.rows,
            self.resends + other.resends,
            self.rejects + other.rejects,
        )


class ConnectionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``connections``: a connection in one UTC hour, or a gap. Times are ``*_us`` or 0."""

    kind: Literal["connection", "gap"]
    connection: int
    """Of a gap: the connection before it; 0: none."""
    began_us: int
    """Of this row: the later of the connection's opening and the hour's start; of a gap its start."""
    ended_us: int
    opened_us: int = 0
    first_byte_us: int = 0
    closed_us: int = 0
    """0: still open at the end of this hour."""
    reason: str = ""
    """An ``Outcome``; of a gap what caused it."""
    detail: str = ""
    status: int = 0
    bytes_received: int = 0
    records: int = 0
    hits: int = 0
    resends: int = 0
    rejects: int = 0
    wait_us: int = 0
    """Waited since the connection before."""
    attempts: dict[str, int] = {}
    """Refused or failed requests before this one, by cause."""
    resends_at_start: int = 0
    """Resends among the first ten minutes' hits: the evidence that the service overlapped."""
    suspected_gap: str = "no"
    """no, possible or likely; the rule says why, in words."""
    suspected_gap_rule: str = ""


ToReader = Connect | ReadFile | Disconnect | SegmentGranted
FromReader = Ready | SegmentWanted | SegmentFailed | Opened | Accepted | Progress | Closed | Failed
ToDecoder = Privacy | Decode | Keep | Stage | StageConnections
FromDecoder = Ready | Poisoned | Claims | BlockDone | Staged | NoSpace | Failed
