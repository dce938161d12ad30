"""The catalogue of log events: each named once, with its level, meaning and fields.

``telemetry.log`` writes them and ``docs/events.md`` is made from them; both only what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Level = Literal["debug", "info", "warning", "error"]


class Event(NamedTuple):
    """One row of the catalogue. WARNING: recovered. ERROR: something was lost, or a person is needed."""

    level: Level
    meaning: str
    fields: Mapping[str, str]
    """Each with its meaning, and its unit where the name does not say it."""


_CONNECTION: Final = {"connection": "number of the connection, counted for life"}
_BATCH: Final = {"batch": "first block of the batch", "last": "its last block"}
_COUNTS: Final = {
    "records": "records in all: rows + resends + rejects",
    "rows": "hits that became rows",
    "resends": "hits already taken, dropped",
    "rejects": "records that are no hits, kept with their reason",
}
_REASON: Final = {"reason": "why, in words"}
_CHILD: Final = {"name": "which child: reader, or decoder and its number", "pid": "its process id"}

EVENTS: Final[Mapping[str, Event]] = {
    "run.started": Event(
        "info",
        "The collector holds the state folder and begins.",
        {
            "version": "of the collector",
            "pid": "of the coordinator",
            "stream": "name",
            "instance": "random id of the state folder",
            "url": "where requests go",
            "output": "folder",
            "state": "folder",
            "decoders": "number of processes",
            "durability": "of the journal: disk or memory",
            "rows": "committed in all so far",
        },
    ),
    "run.recovered": Event(
        "warning",
        "The run before did not end cleanly; its work was taken up where it stood.",
        {
            "blocks": "durable blocks that were not yet committed",
            "intents": "decided batches whose commit was finished now",
            "staged": "undecided staged files removed",
            "connection": "number of the connection that was open",
        },
    ),
    "settings.reloaded": Event(
        "info",
        "SIGHUP came: settings and secrets were read again, and what has changed is in force.",
        {
            "changed": "settings and secrets that are others now; empty: none",
            "decoders": "kept, or rolled: replaced one after the other, each when its work is staged",
        },
    ),
    "settings.waiting": Event(
        "warning",
        "Some settings that were changed want another connection or start: the old ones stay in force.",
        {"changed": "which ones", "remedy": "what to do"},
    ),
    "settings.refused": Event(
        "error",
        "SIGHUP came, and what is given now cannot be used: all of the old settings stay in force.",
        {"reason": "every fault"},
    ),
    "decoders.rolled": Event(
        "info",
        "Every decoder that was to be replaced is; the connection was not touched.",
        {"decoders": "number of processes", "duration_s": "since settings.reloaded"},
    ),
    "run.stopped": Event(
        "info",
        "The collector ends.",
        {**_REASON, **_COUNTS, "exit_code": "of the process", "duration_s": "since run.started"},
    ),
    "connection.waited": Event(
        "info",
        "No request is sent before a time.",
        {**_REASON, "until": "time, UTC", "wait_s": "from now", "attempt": "requests like this in a row"},
    ),
    "connection.requested": Event(
        "info", "A request is sent.", {**_CONNECTION, "host": "it goes to", "wait_s": "waited before it"}
    ),
    "connection.opened": Event(
        "info",
        "The service answered with a stream.",
        {
            **_CONNECTION,
            "host": "that serves it",
            "hops": "redirects followed",
            "wait_s": "time without a connection before it",
        },
    ),
    "connection.closed": Event(
        "info",
        "We closed the connection.",
        {
            **_CONNECTION,
            "outcome": "how the request ended",
            "detail": "in words",
            "duration_s": "held",
            "bytes_received": "of the body, as sent",
            "records": "accepted",
            "cut_bytes": "after the last line end, not accepted",
        },
    ),
    "connection.lost": Event(
        "warning",
        "The connection ended without our doing, or the request brought no stream.",
        {
            **_CONNECTION,
            "outcome": "how the request ended",
            "detail": "in words",
            "duration_s": "held",
            "bytes_received": "of the body, as sent",
            "records": "accepted",
            "cut_bytes": "after the last line end, not accepted",
        },
    ),
    "connection.refused": Event(
        "warning",
        "The service answered with a status other than 200.",
        {
            **_CONNECTION,
            "status": "HTTP status",
            "detail": "what the service said",
            "remedy": "what cures it",
            "retry_after_s": "asked for by the service",
            "attempt": "refusals like this in a row",
        },
    ),
    "connection.paused": Event(
        "warning",
        "The transfer is paused: no room for what comes. Nothing taken is lost.",
        {**_CONNECTION, **_REASON},
    ),
    "connection.resumed": Event(
        "info", "The transfer goes on.", {**_CONNECTION, "paused_s": "how long it was paused"}
    ),
    "gap.recorded": Event(
        "warning",
        "Time in which the service may have sent what we never got; a row of connections says so.",
        {
            **_CONNECTION,
            **_REASON,
            "began": "time, UTC",
            "ended": "time, UTC",
            "duration_s": "between them",
            "suspected": "no, possible or likely",
            "rule": "why that is suspected",
        },
    ),
    "batch.committed": Event(
        "info",
        "The batch is decided, visible and logged: its segments are free.",
        {
            **_BATCH,
            **_COUNTS,
            "files": "made visible",
            "bytes": "of those files",
            "duration_s": "from closed to committed",
            "lag_s": "age of its oldest block",
        },
    ),
    "batch.undone": Event(
        "warning",
        "The operator had a decided batch undone: its blocks run again from the journal.",
        {**_BATCH, **_REASON},
    ),
    "connections.voided": Event(
        "warning",
        "Decided rows of connections could not be made visible: they are made again from the log.",
        _REASON,
    ),
    "parts.retired": Event(
        "info",
        "Somebody took committed parts away and said so: the log knows of it.",
        {"files": "number", **_REASON},
    ),
    "parts.removed": Event(
        "info",
        "Parts beyond a limit of [retention] were removed: whole hours or days, the oldest first.",
        {
            "kind": "hits, rejects or connections",
            "files": "number",
            "bytes": "of them",
            "oldest": "folder, below the output folder",
            "newest": "folder; all that were removed lie between the two",
            **_REASON,
        },
    ),
    "ship.shipped": Event(
        "info",
        "Parts are in the store, and in the table where there is one; nothing waits any more.",
        {"parts": "since the line before", "bytes": "of them"},
    ),
    "ship.failed": Event(
        "warning",
        "Parts cannot go out at the moment. They wait on this disk; the collector goes on.",
        {
            "failure": "which kind: `explain` knows it",
            **_REASON,
            "remedy": "what to do",
            "parts": "that wait",
            "retry_s": "until the next try",
        },
    ),
    "ship.resumed": Event("info", "Parts go out again.", {"parts": "that still wait"}),
    "ship.left_out": Event(
        "warning",
        "Parts were taken away before they were shipped, by somebody who said so: they are left out.",
        {"parts": "number", "path": "of one of them", **_REASON},
    ),
    "ship.began_again": Event(
        "warning", "Shipping looks at every part again; what is out already is not doubled.", _REASON
    ),
    "rejects.seen": Event(
        "warning",
        "Records of a batch were no hits; they are kept under rejects/ with their reasons.",
        {**_BATCH, "rejects": "number", "records": "in the batch", "share": "rejects / records", **_REASON},
    ),
    "rejects.alarm": Event(
        "error",
        "Too many records are no hits. Intake goes on, their raw bytes are kept; not ready until it clears.",
        {
            "ratio": "rejects / records of the last ten minutes",
            "records": "of the last ten minutes",
            "rejects": "among them",
            "run": "rejects in a row up to now, in whole blocks",
            "reasons": "the most frequent kinds of reason, with their numbers",
            "remedy": "what to do",
        },
    ),
    "rejects.cleared": Event(
        "info",
        "Records are hits again.",
        {"ratio": "rejects / records of the last ten minutes", "duration_s": "since the alarm"},
    ),
    "resends.limited": Event(
        "warning",
        "resends.max_ids was reached before resends.window_s: older duplicates would not be recognised.",
        {"ids": "kept", "window_s": "seconds of held connection that they cover"},
    ),
    "reset.consumed": Event(
        "warning",
        "The requested one-shot reset goes with the next request.",
        {"value": "sent", **_CONNECTION},
    ),
    "token.renewed": Event(
        "info",
        "A new token was got, or found in the token file.",
        {"expires_in_s": "as the token endpoint says, or the token itself"},
    ),
    "token.expiring": Event(
        "warning",
        "The token ends soon and nothing renews it. Said 7 days, 3 days, a day, 6 hours and an hour before.",
        {"expires": "time, UTC", "left_s": "until then", "remedy": "what to do"},
    ),
    "token.expired": Event(
        "error",
        "The token has ended. An open connection goes on; the next request will be refused.",
        {"expires": "time, UTC", "left_s": "0", "remedy": "what to do"},
    ),
    "token.failed": Event(
        "warning",
        "No token was got.",
        {**_REASON, "status": "HTTP status", "retry_s": "until the next try"},
    ),
    "child.started": Event("info", "A child process is up.", _CHILD),
    "decoder.plain": Event(
        "info",
        "A decoder works without the compiled kernel: the same rows for about twice the CPU time.",
        {"name": "which one", "reason": "why"},
    ),
    "child.died": Event(
        "warning",
        "A child process ended or was ended; another takes its place.",
        {
            **_CHILD,
            "how": "exit code or signal",
            "blocks_again": "blocks that are run again",
            "delay_s": "until its successor starts",
        },
    ),
    "child.hung": Event(
        "warning",
        "A child process gave no sign of life for too long: it is made to say where it is, and ended.",
        {**_CHILD, "phase": "what it was doing", "silent_s": "without a sign of life"},
    ),
    "child.slow": Event(
        "warning",
        "A child process has waited for the disk for long; it goes on waiting, ending it would cure nothing.",
        {**_CHILD, "phase": "what it was doing", "silent_s": "without a sign of life"},
    ),
    "block.poisoned": Event(
        "warning",
        "Decoding fails on lines of this block: they are rejects now, kept with their raw bytes.",
        {"block": "its number", "lines": "how many", **_REASON},
    ),
    "batch.voided": Event(
        "warning",
        "A poisoned line had claimed its id already: all that is not committed is decoded again.",
        {"block": "of the line", "line": "in it", "blocks_again": "blocks that are run again"},
    ),
    "page.opened": Event(
        "info",
        "The status page, the metrics and the health checks answer.",
        {"url": "of the page", "socket": "where `status` asks"},
    ),
    "page.failed": Event(
        "warning",
        "The status page, or the socket that `status` asks, is not there. Intake goes on.",
        {"where": "it was to listen", **_REASON},
    ),
    "attention.needed": Event(
        "error", "It goes on, but what is wrong does not cure itself: a person is needed.", _REASON
    ),
    "library.warned": Event(
        "warning", "A library that is used here has something to say.", {"name": "of its logger", **_REASON}
    ),
    "orphans.ended": Event(
        "warning",
        "Children of a collector that died were still running; they had to be waited for, at worst killed.",
        {},
    ),
    "journal.cut": Event(
        "warning",
        "A torn tail, never accepted, was copied to quarantine and cut off.",
        {**_REASON, "segment": "number", "bytes": "cut"},
    ),
    "journal.lost": Event(
        "error",
        "Accepted blocks are gone: with the memory of a host that restarted, or damaged and written off.",
        {"first": "block", "last": "block", "records": "in them, where known", **_REASON},
    ),
    "storage.full": Event(
        "warning",
        "No room on the disk; it is tried again, and nothing accepted is lost.",
        {**_REASON, "what": "was to be written", "retry_s": "until the next try"},
    ),
    "part.discarded": Event(
        "warning",
        "What was staged could not be synced: it was deleted and is staged again, from the journal.",
        {**_REASON, "what": "could not be synced", "retry_s": "until the next try"},
    ),
    "storage.resumed": Event(
        "info", "There is room again.", {"what": "was written", "full_s": "how long there was none"}
    ),
    "drain.began": Event("info", "No more is taken; what is in hand is finished.", _REASON),
    "drain.ended": Event(
        "info",
        "The drain is over; what is left stays durable in the journal for the next run.",
        {"left_blocks": "blocks not committed", "left_records": "records in them", "duration_s": "of it"},
    ),
    "file.opened": Event(
        "info",
        "A saved file is read.",
        {**_CONNECTION, "path": "of the file", "bytes": "its size", "skip_records": "committed before"},
    ),
    "file.read": Event(
        "info", "A saved file is read to its end.", {**_CONNECTION, "path": "of the file", "records": "in it"}
    ),
    "file.skipped": Event(
        "info", "A file with this content was read before.", {"path": "of the file", "records": "in it"}
    ),
}
"""The catalogue. A call of ``log`` with a name or field that is not here fails the tests."""
