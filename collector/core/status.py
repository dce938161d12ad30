"""What a running collector is doing, as a value for the page, the terminal, ``status``, metrics, the bundle.

Pure data. Made by the coordinator, sent as JSON, kept as the state folder's last word. The invariants: no
secret and no raw bytes of a hit but the escaped, shortened texts of rejects; every list is bounded. Units:
``*_us`` are microseconds since 1970 by the wall clock, 0 where there is no such time; ``*_s`` seconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collector.core.connection import ConnectionState


class _Part(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Unknown fields are passed over: an older command may ask a newer collector."""


class Connection(_Part, frozen=True):
    """The one there is, or the wait for the next."""

    state: ConnectionState
    since_us: int
    cause: str
    """Why, in words."""
    code: str = ""
    """What ``explain`` says more about: an HTTP status or an outcome."""
    number: int = 0
    """Of the open connection, counted for life; 0: none is open."""
    host: str = ""
    next_attempt_us: int = 0
    """When a request will be sent; 0: not by the clock alone."""
    bytes_received: int = 0
    records: int = 0
    last_hit_us: int = 0
    """When the newest record was accepted, in this run."""


class Totals(_Part, frozen=True):
    """For life, as the commit log counts: ``records = rows + resends + rejects``."""

    records: int = 0
    rows: int = 0
    resends: int = 0
    rejects: int = 0
    batches: int = 0
    """In this run."""
    accepted: int = 0
    """Durable in the journal, committed or not."""


class Journal(_Part, frozen=True):
    """What is durable and not yet in Parquet."""

    durability: Literal["disk", "memory"] = "disk"
    used_bytes: int = 0
    max_bytes: int = 0
    waiting_blocks: int = 0
    waiting_records: int = 0
    full: bool = False
    """The transfer is paused, or no request is sent, until batches are committed."""


class Disk(_Part, frozen=True):
    """Of the output and the state folder."""

    free_bytes: int = 0
    total_bytes: int = 0
    reserve_bytes: int = 0
    """With less than this free the transfer is paused."""


class Child(_Part, frozen=True):
    """A reader or decoder process."""

    name: str
    pid: int
    state: Literal["starting", "idle", "busy", "gone"]
    restarts: int = 0
    """In this run."""


class Ship(_Part, frozen=True):
    """Where committed parts go: object store and table."""

    url: str = ""
    """Of the store; empty: only a table over the output folder."""
    table: str = ""
    """``iceberg``, ``delta`` or empty."""
    behind_parts: int = 0
    """Committed and not out yet."""
    behind_bytes: int = 0
    lag_s: float = 0.0
    """Since the oldest of them was committed."""
    parts: int = 0
    """Shipped, for life; the others likewise."""
    bytes: int = 0
    table_commits: int = 0
    removed_parts: int = 0
    """Local copies taken away."""
    failure: str = ""
    """While nothing can go out: a code that ``explain`` knows."""
    reason: str = ""


class Token(_Part, frozen=True):
    """How the collector authenticates, without any secret."""

    kind: Literal["static", "file", "oauth", "none"] = "none"
    expires_us: int = 0


class Stretch(_Part, frozen=True):
    """Of the timeline: a past connection, or a gap between two."""

    kind: Literal["connection", "gap"]
    began_us: int
    ended_us: int = 0
    number: int = 0
    """Of the connection, or of the one that the gap came before."""
    outcome: str = ""
    words: str = ""
    """How it ended; of a gap, why it is suspected or not."""
    records: int = 0
    suspected: Literal["", "no", "possible", "likely"] = ""
    """Of a gap: whether hits were missed."""


class RejectSeen(_Part, frozen=True):
    """One of the newest rejects."""

    at_us: int
    block: int
    line: int
    reason: str
    text: str
    """The beginning of the record, escaped; empty where privacy forbids it."""
    length: int = 0
    """Of the record, in bytes."""


class Sample(_Part, frozen=True):
    """A point of the history."""

    at_us: int
    hits_per_s: float
    lag_s: float
    state: ConnectionState


class Stopped(_Part, frozen=True):
    """How the last run ended; only in what it left behind."""

    at_us: int
    exit_code: int
    reason: str


class Status(_Part, frozen=True):
    """All of it."""

    at_us: int
    version: str
    pid: int
    stream: str
    instance: str
    output: str
    state_folder: str
    started_us: int
    connection: Connection
    sentence: str = ""
    """The one sentence for people: ``core.sentence``."""
    ready: bool = False
    reasons: tuple[str, ...] = ()
    """Why it is not ready, in words."""
    hits_per_s: float = 0.0
    """Accepted, over the last few seconds."""
    lag_s: float = 0.0
    """Age of the oldest record that is not in Parquet yet."""
    totals: Totals = Totals()
    journal: Journal = Journal()
    disk: Disk = Disk()
    token: Token = Token()
    retired_parts: int = 0
    """Committed parts that were taken away on purpose, in this run: too old, shipped or compacted."""
    ship: Ship | None = None
    """``None``: parts stay where they are, and no table is kept."""
    decoder: Literal["kernel", "plain"] = "kernel"
    """Which twin decodes."""
    page: str = ""
    """Address of the status page; empty: there is none."""
    children: tuple[Child, ...] = ()
    timeline: tuple[Stretch, ...] = ()
    """Oldest first."""
    rejects: tuple[RejectSeen, ...] = ()
    """Newest first."""
    history: tuple[Sample, ...] = ()
    """Oldest first."""
    stopped: Stopped | None = None
