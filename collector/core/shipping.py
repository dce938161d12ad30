"""What is to be shipped, in the order of its commits; how that can fail; when it is tried again.

Pure. Imported by the shipping process, by the coordinator that starts it, and by ``verify``. Invariant: a
delivery is a batch, or rows of ``connections``, that the commit log calls committed, and each comes once.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from collector.core.entries import (
    Committed,
    ConnectionsCommitted,
    ConnectionsIntent,
    ConnectionsVoid,
    Entry,
    Intent,
    Void,
)
from collector.core.messages import Failed, FileKind, Ready, StagedFile
from collector.core.remedies import Remedy

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 120.0
_JITTER: Final = 0.25
_SHIPPED_KINDS: Final = frozenset({FileKind.HITS, FileKind.REJECTS, FileKind.CONNECTIONS})


class ShipPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the shipping process is told: settings, and no secret."""

    output: str
    state: str
    stream: str
    url: str = ""
    """Of the store; empty: nothing is shipped, the table is of the output folder."""
    endpoint: str = ""
    region: str = ""
    uploads: int = 4
    keep_local_s: float | None = None
    """``None``: local copies are kept."""
    table_format: str = "off"
    table_name: str = ""
    table_catalog: str = ""

    @property
    def table(self) -> str:
        """Which table it is, in words that change when it does; empty: none."""
        if self.table_format == "off":
            return ""
        return f"{self.table_format} {self.table_name} {self.table_catalog}".strip()


class Delivery(msgspec.Struct, frozen=True):
    """What was committed together and goes out together."""

    entry: int
    """Number of the log entry that says so."""
    begun: int
    """Number of the entry that decided it."""
    first: int
    """Its first block; of rows of ``connections`` the log entry they are named by."""
    last: int
    is_batch: bool
    at_us: int
    """When it was committed; of rows of ``connections`` about when."""
    files: tuple[StagedFile, ...]
    """Those in the output folder."""

    @property
    def hits(self) -> tuple[StagedFile, ...]:
        return tuple(file for file in self.files if file.kind is FileKind.HITS)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)


class Deliveries:
    """Feed it the entries of the log in order. It holds what is decided and not committed yet, no more."""

    def __init__(self) -> None:
        self._batch: tuple[int, Intent] | None = None
        self._rows: tuple[int, ConnectionsIntent] | None = None
        self._at_us = 0

    def fold(self, number: int, entry: Entry) -> Delivery | None:
        """What this entry makes ready to go, if anything."""
        match entry:
            case Intent():
                self._batch = (number, entry)
            case ConnectionsIntent():
                self._rows = (number, entry)
            case Void():
                self._batch = None
            case ConnectionsVoid():
                self._rows = None
            case Committed():
                self._at_us = entry.at_us
                return self._committed_batch(number)
            case ConnectionsCommitted():
                return self._committed_rows(number)
            case _:
                pass
        return None

    def begin(self, number: int) -> int:
        """Where reading has to begin again, so that nothing after entry ``number`` is missed."""
        pending = [began for began, _ in filter(None, (self._batch, self._rows))]
        return min([number + 1, *pending])

    def _committed_batch(self, number: int) -> Delivery | None:
        if self._batch is None:
            return None
        (begun, intent), self._batch = self._batch, None
        files = [file for share in intent.shares for file in share.files]
        return self._delivery(number, begun, (intent.batch, intent.last), files, is_batch=True)

    def _committed_rows(self, number: int) -> Delivery | None:
        if self._rows is None:
            return None
        (begun, intent), self._rows = self._rows, None
        return self._delivery(number, begun, (intent.first, intent.last), intent.files, is_batch=False)

    def _delivery(
        self,
        number: int,
        begun: int,
        of: tuple[int, int],
        files: tuple[StagedFile, ...] | list[StagedFile],
        *,
        is_batch: bool,
    ) -> Delivery:
        shipped = tuple(file for file in files if file.kind in _SHIPPED_KINDS)
        return Delivery(number, begun, *of, is_batch, self._at_us, shipped)


def retry_delay_s(failures: int, chance: float) -> float:
    """After so many failures in a row. ``chance``: a random number from 0 to 1; it only adds."""
    delay_s = min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 30), LONGEST_RETRY_S)
    return delay_s * (1 + _JITTER * chance)


# ---------------------------------------------------------------- from the process to the coordinator


class ShipReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How far it is. Sent when it changes, and once a while."""

    behind_parts: int = 0
    behind_bytes: int = 0
    oldest_us: int = 0
    """When the oldest part that is not out yet was committed; 0: all are."""
    parts: int = 0
    """Shipped, for life; ``bytes`` and ``table_commits`` likewise."""
    bytes: int = 0
    table_commits: int = 0
    removed_parts: int = 0
    """Local copies taken away, for life."""
    block: int = 0
    """Every committed block up to here is out; ``rows_entry`` likewise for rows of ``connections``."""
    rows_entry: int = 0
    failure: str = ""
    """A ``ShipFailure`` while it cannot go on; empty: nothing is wrong."""
    reason: str = ""
    retry_s: float = 0.0


class ShipSaid(msgspec.Struct, frozen=True, tag=True):
    """An event of the catalogue, for the coordinator's log."""

    event: str
    fields: dict[str, str]


class FinishShipping(msgspec.Struct, frozen=True, tag=True):
    """To the process: the collector has drained; ship what is committed and end."""


FromShipper = Ready | ShipReport | ShipSaid | Failed


# ---------------------------------------------------------------- how it fails


class ShipFailure(enum.StrEnum):
    """Why nothing can be shipped, or no table be written, for now."""

    AWAY = "store-away"
    DENIED = "store-denied"
    NO_BUCKET = "store-missing"
    OTHER_CONTENT = "store-other-content"
    LOCAL = "part-unreadable"
    TABLE = "table-failed"
    TABLE_BUSY = "table-busy"


SHIP_FAILURES: Final[Mapping[ShipFailure, Remedy]] = {
    ShipFailure.AWAY: Remedy(
        "the object store is not reached, or says that it cannot at the moment",
        ("the store or the network is down", "ship.endpoint, ship.region or a proxy is wrong", "throttling"),
        "Nothing to do if it ends by itself: parts wait on this disk and are shipped later. If it lasts, look"
        " at ship.url, ship.endpoint and ship.region, and at the room on this disk.",
    ),
    ShipFailure.DENIED: Remedy(
        "the object store does not accept the credentials, or does not allow to write there",
        ("the credentials are missing, wrong or expired", "the policy lacks reading or writing objects"),
        "Give the shipping process valid credentials in the variables of the store (AWS_ACCESS_KEY_ID and so"
        " on, or a role) and restart; the policy must allow to get and put objects below ship.url. The"
        " collector goes on meanwhile.",
    ),
    ShipFailure.NO_BUCKET: Remedy(
        "the bucket or container of ship.url does not exist",
        ("ship.url or ship.endpoint is wrong", "the bucket was deleted"),
        "Make the bucket, or correct ship.url; parts wait meanwhile.",
    ),
    ShipFailure.OTHER_CONTENT: Remedy(
        "an object of this name is there already, with other content",
        ("somebody else writes below ship.url", "the object was damaged or replaced"),
        "Nothing is ever overwritten. Compare the object with the local part, and move the wrong one away.",
    ),
    ShipFailure.LOCAL: Remedy(
        "a committed part is not on this disk any more, or not as it was committed",
        ("it was removed by hand", "the disk damaged it"),
        "Run `livestream-collector verify`; put the part back from a copy, or write a record for it into the"
        " state folder's retired/. What was committed later waits behind it.",
    ),
    ShipFailure.TABLE: Remedy(
        "the table or its catalog does not take the commit",
        ("the catalog is not reached", "somebody changed the table's columns", "no permission"),
        "Its reason says more. Parts are in the store already; their commits are made later, each once.",
    ),
    ShipFailure.TABLE_BUSY: Remedy(
        "another process commits this state folder's batches to the table",
        ("`livestream-collector ship` and `run` at the same time", "the state folder was copied"),
        "Let one of them do it.",
    ),
}
