"""Exit codes, states of the connection, reasons for not being ready, suspected gaps, reasons of rejects.

Pure data. The invariant: each has its text (a test walks the tables they come from).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from collector.core.connection import BACKFILL_S, ConnectionState
from collector.core.readiness import JOURNAL_FULL
from collector.core.reconnect_table import TOO_MANY_BUSY
from collector.core.rejects import LEAST_RECORDS, RATIO_LIMIT, RUN_LIMIT
from collector.core.remedies import REJECTS_REMEDY
from collector.errors import ExitCode
from collector.explanations.explanation import Explanation, Kind

_KEEP_RAW: Final = f"Nothing is lost: {REJECTS_REMEDY.format(stream='NAME')}."

_EXITS: Final[Mapping[ExitCode, Explanation]] = {
    ExitCode.DONE: Explanation(
        Kind.EXIT,
        "0",
        "The command did what it was asked to. A collector that was told to stop ended cleanly.",
    ),
    ExitCode.DEFECT: Explanation(
        Kind.EXIT,
        "1",
        "A defect of the collector; its traceback is the last thing in the log. What was accepted is safe in"
        " the journal.",
        ("a defect of the collector", "a damaged or mixed installation"),
        "Start it again: it takes up its work where it stood. Report the traceback, in which secrets are"
        " masked. If it comes back at once, go back to the version before.",
    ),
    ExitCode.CONFIGURATION: Explanation(
        Kind.EXIT,
        "2",
        "Settings, arguments or credentials ask for something that cannot be done, or an optional package is"
        " missing. Nothing was started.",
        (
            "a setting is missing, misspelt or out of its range: the message names each",
            "a secret is missing or in a file that others can read",
            "an extra is not installed: the message has its pip line",
        ),
        "Correct what the message names; `livestream-collector config show` shows what is in effect and where"
        " each setting comes from, `livestream-collector check` tries it out. A service manager must not"
        " restart on this code.",
    ),
    ExitCode.REFUSED: Explanation(
        Kind.EXIT,
        "3",
        "The service, or the token endpoint, said no in a way that waiting does not cure. What was accepted"
        " before is safe.",
        (
            "the token has expired, and nothing renews it (401)",
            "the stream's name is wrong or the stream was disabled (404)",
            "the client id or secret is wrong or was rotated",
            "a setting that the service does not take (400)",
        ),
        "The message has the status: look that up too. Cure it, then start again. A service manager must not"
        " restart on this code. With reconnect.on_refusal = retry the collector keeps asking instead, but for"
        " a token that nothing renews.",
        ("401", "403", "404", "400", "invalid_client"),
    ),
    ExitCode.STORAGE: Explanation(
        Kind.EXIT,
        "4",
        "The disk failed in a way that must not be tried again on the same file, or something that was once"
        " safe no longer checks out. Nothing was repaired by guessing.",
        (
            "the disk or file system failed, or was taken away",
            "a file in the state folder was changed, cut or deleted",
            "the folder was written by a newer version",
            "too many open files are needed for the limit of the process",
        ),
        "Look at the system's log for errors of the disk. The message names file, bytes and the ways on. If"
        " it speaks of the journal: `livestream-collector run --accept-journal-loss` goes on without the"
        " damaged blocks, and says what was lost. Of a pending batch: `livestream-collector run --redo-batch"
        " FIRST`. Of the commit log: `livestream-collector verify --rebuild`.",
        ("journal.lost", "batch.undone"),
    ),
    ExitCode.IN_USE: Explanation(
        Kind.EXIT,
        "5",
        "Another collector holds the state folder; this one has touched nothing.",
        (
            "the collector runs already, perhaps under the service manager",
            "two collectors are set to the same state folder",
        ),
        "The message has the process id. Stop that one first, or give this one its own stream.name,"
        " output.folder or state.folder. A service manager must not restart on this code.",
    ),
    ExitCode.CHILD_FAILED: Explanation(
        Kind.EXIT,
        "6",
        "A child process could not start, or kept dying. What was accepted is safe in the journal.",
        (
            "there is too little memory, and the system kills it",
            "a damaged or mixed installation",
            "a defect of the collector",
        ),
        "Look at child.died in the log, which says how it ended, and at the system's log for"
        " killed processes. Give it memory or set fewer run.decoders, then start again. If it was the"
        " compiled kernel, decode.kernel = off decodes without it.",
        ("child.died", "child.hung"),
    ),
    ExitCode.FOUND: Explanation(
        Kind.EXIT,
        "7",
        "`livestream-collector verify`, `compact` or `demo` found something missing, doubled or changed.",
        (
            "parts were deleted or changed by something else than the collector",
            "the disk lost or damaged something",
        ),
        "stdout has one line for each finding, with its file. Put the parts back from a backup, and keep"
        " other programs from writing in output.folder. A damaged commit log:"
        " `livestream-collector verify --rebuild`.",
        ("parts.retired",),
    ),
}

_KILLED: Final = Explanation(
    Kind.EXIT,
    "137",
    "Not the collector's own code: it was killed (128 + 9, SIGKILL). What was accepted is safe in the"
    " journal; the next start waits the floor and takes up the work.",
    (
        "the container or cgroup ran out of memory",
        "the service manager killed it because it did not stop in time",
    ),
    "Look at the system's log or the container's state for the reason. Give it memory or set fewer"
    " run.decoders; let it stop for longer than run.drain_s.",
    ("run.recovered",),
)

_STATES: Final[Mapping[ConnectionState, Explanation]] = {
    ConnectionState.STARTING: Explanation(
        Kind.STATE,
        "starting",
        "What the last run left is taken up, before anything is asked of the service.",
        ("a start", "a large journal after an unclean end takes a few seconds"),
        "Nothing, unless it lasts for minutes: then look at the disk.",
        ("run.recovered",),
    ),
    ConnectionState.WAITING: Explanation(
        Kind.STATE,
        "waiting",
        "No request is sent before a time, so that the service can notice that the last connection is gone."
        " Asking earlier makes it refuse for longer.",
        (
            "the last connection ended less than reconnect.wait_s ago",
            "the service refused, and each refusal in a row waits longer",
            "the collector was started again soon after its last connection",
            "the journal is full: no request is sent before there is room",
        ),
        "Nothing: it asks by itself. The cause that is shown beside it can be looked up. Starting the"
        " collector again gains nothing: the wait is kept across starts.",
        ("409", "503", "lost", "unreached"),
    ),
    ConnectionState.REQUESTING: Explanation(
        Kind.STATE,
        "requesting",
        "A token is got and a request is sent; the answer is awaited.",
    ),
    ConnectionState.STREAMING: Explanation(
        Kind.STATE,
        "streaming",
        "The connection is held and hits are taken as they come. It may be quiet: then none come.",
    ),
    ConnectionState.PAUSED: Explanation(
        Kind.STATE,
        "paused",
        "The connection is held, but nothing is read from it: there is no room for more. What was accepted is"
        " safe; what the service cannot hold back for long may be lost.",
        (
            "the disk is full, or has less free than journal.reserve_bytes",
            "decoding is slower than the stream, and the journal has reached journal.max_bytes",
        ),
        "Make room on the disk; it goes on by itself. If the disk has room: raise run.decoders or"
        " journal.max_bytes, which is read at a start.",
        ("connection.paused", "storage.full"),
    ),
    ConnectionState.DRAINING: Explanation(
        Kind.STATE,
        "draining",
        "It was told to stop: the connection is closed and what is in hand is committed, for run.drain_s at"
        " most. What is left stays in the journal for the next start.",
        ("SIGTERM or SIGINT", "a limit such as --stop-after was reached", "something failed for good"),
        "Nothing: wait for its end.",
        ("drain.ended",),
    ),
    ConnectionState.REFUSED: Explanation(
        Kind.STATE,
        "refused",
        "The service said no in a way that waiting does not cure. The collector ends with exit code 3.",
        _EXITS[ExitCode.REFUSED].causes,
        _EXITS[ExitCode.REFUSED].do,
        ("exit 3",),
    ),
    ConnectionState.STOPPED: Explanation(
        Kind.STATE,
        "stopped",
        "There is no connection and there will be none: the collector ends or has ended.",
        ("it was told to stop", "something failed for good"),
        "Its last log line and its exit code say why.",
        ("run.stopped",),
    ),
}

_NOT_READY: Final = (
    Explanation(
        Kind.NOT_READY,
        "not-at-work",
        "The collector is starting, stopping, stopped or refused for good. Waiting before a request is not"
        " among these: that is part of the work.",
        ("a start or a stop", "the service refused for good"),
        "Look up the state that is named. Do not restart it for not being ready.",
        ("state starting", "state draining", "state refused", "state stopped"),
        ("not ready",),
    ),
    Explanation(
        Kind.NOT_READY,
        "refused-again",
        f"The service keeps refusing: 409 or 503 {TOO_MANY_BUSY} times in a row, or something else that"
        " waiting is not known to cure.",
        (
            "another collector or client holds the stream",
            "the token or the settings are refused, and reconnect.on_refusal is retry",
            "a certificate is not trusted",
            "the report suite receives no hits (503)",
        ),
        "The cause that is named can be looked up. The collector keeps asking, at growing intervals; a"
        " restart cures nothing.",
        ("409", "503", "untrusted"),
    ),
    Explanation(
        Kind.NOT_READY,
        "journal-full",
        f"{JOURNAL_FULL[0].upper()}{JOURNAL_FULL[1:]}. Nothing accepted is lost.",
        _STATES[ConnectionState.PAUSED].causes,
        _STATES[ConnectionState.PAUSED].do,
        ("connection.paused", "storage.full"),
        (JOURNAL_FULL, JOURNAL_FULL.partition(":")[0]),
    ),
    Explanation(
        Kind.NOT_READY,
        "too-many-rejects",
        f"More than {100 * RATIO_LIMIT:g} % of the records of the last ten minutes (of {LEAST_RECORDS} at"
        f" least), or {RUN_LIMIT} in a row, are no hits. Intake goes on.",
        (
            "the service sends something that this version does not know",
            "a proxy in between changes the stream",
            "stream.url leads to something that is no Livestream",
        ),
        _KEEP_RAW,
        ("rejects.alarm", "not json", "not an object"),
    ),
)

_GAPS: Final = (
    Explanation(
        Kind.GAP,
        "no",
        "Nothing was missed between two connections: the rule beside it says why, such as hits that came"
        " twice and so show that the service went back far enough.",
    ),
    Explanation(
        Kind.GAP,
        "possible",
        "Hits may have been missed between two connections; nothing proves or disproves it.",
        (
            "the connection broke, and the service sent nothing twice that would show that it went back",
            f"there was no connection for more than {BACKFILL_S:.0f} s, but the service did go back",
        ),
        "Compare the hits of that time with a Data Feed or a report. The table of connections says when it"
        " began and ended, and by which rule.",
        ("gap.recorded", "LivestreamGap"),
        ("gap",),
    ),
    Explanation(
        Kind.GAP,
        "likely",
        "Hits were most likely missed between two connections.",
        (
            f"there was no connection for more than {BACKFILL_S:.0f} s, which the service does not fill in",
            "a reset was sent, which throws away what the service had kept",
            "accepted blocks were damaged and written off",
        ),
        "Fill the time in from a Data Feed; Livestream does not send it again. The table of connections says"
        " when it began and ended, and by which rule.",
        ("gap.recorded", "journal.lost", "reset.consumed", "LivestreamGap"),
        ("gap",),
    ),
)

_FOREIGN: Final = (
    "the service sent something that is no hit",
    "a proxy in between changed the stream",
    "a saved file is something else than the stream's lines",
)

_REJECTS: Final = (
    Explanation(Kind.REJECT, "not json", "The record is no JSON in valid UTF-8.", _FOREIGN, _KEEP_RAW),
    Explanation(
        Kind.REJECT,
        "not an object",
        "The record is JSON, or begins like it, but no object.",
        _FOREIGN,
        _KEEP_RAW,
    ),
    Explanation(Kind.REJECT, "too deep", "The record is nested deeper than any hit is.", _FOREIGN, _KEEP_RAW),
    Explanation(
        Kind.REJECT,
        "unreadable",
        "The record is a JSON object, but its columns refuse it in any form.",
        ("a defect of the collector",),
        f"Report it with the record, if you may. {_KEEP_RAW}",
    ),
    Explanation(
        Kind.REJECT,
        "oversized",
        "The record is longer than journal.max_record_bytes. Kept are its first MiB, its length and its hash;"
        " the rest is gone.",
        ("a page sends far too much in one hit", "the stream lost its line ends"),
        "If such hits are wanted, raise journal.max_record_bytes, which holds from the next start on.",
    ),
    Explanation(
        Kind.REJECT,
        "poison",
        "Decoding this record killed a decoder, hung it or failed, so it was set aside for the others to go"
        " on.",
        ("a defect of the collector that this record brings out", "too little memory for a huge record"),
        f"Report the reason. {_KEEP_RAW}",
        ("block.poisoned", "child.died"),
    ),
)

CONDITIONS: Final = (*_EXITS.values(), _KILLED, *_STATES.values(), *_NOT_READY, *_GAPS, *_REJECTS)
"""All of them."""
