"""What causes a log event and what to do about it; what it means says the catalogue of events.

Pure data. The invariant: every warning and every error has its advice (a test walks the catalogue).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from collector.core.messages import Outcome
from collector.core.remedies import OUTCOMES, REJECTS_REMEDY, TOKENS, TokenFailure
from collector.explanations.explanation import Advice

_NOTHING: Final = "Nothing to do."
_TOKEN: Final = TOKENS[TokenFailure.UNCHANGED]
_MEMORY: Final = "the system killed it for want of memory"

ADVICE: Final[Mapping[str, Advice]] = {
    "run.recovered": Advice(
        ("it was killed", "the host restarted or lost power", "a defect of the collector"),
        "Nothing to do for the data. If nobody stopped it so, look at the system's log for the reason.",
        ("exit 137",),
    ),
    "settings.waiting": Advice(
        ("a setting of stream, auth, reconnect, tls, proxy, output, state or the like was changed",),
        "Restart when it suits. Until then it goes on with the old values, so nothing must be done now.",
        ("settings.reloaded",),
    ),
    "settings.refused": Advice(
        (
            "a slip in the settings file",
            "a secret's file is gone, empty, or open to others",
            "privacy.hash was set without its key",
        ),
        "Mend what its reason names, try it with `livestream-collector check`, and send SIGHUP again. Before"
        " that a restart would fail with exit code 2.",
        ("exit 2", "settings.reloaded"),
    ),
    "run.stopped": Advice((), "", ("exit 0", "exit 3", "exit 4", "exit 6")),
    "connection.waited": Advice((), "", ("waiting", "409", "503")),
    "connection.closed": Advice((), "", ("drained",)),
    "connection.lost": Advice(
        OUTCOMES[Outcome.LOST].causes,
        "Nothing to do: the collector connects again. Its outcome can be looked up.",
        ("ended", "lost", "stalled", "no_status", "unreached", "untrusted", "redirect", "reader_died"),
    ),
    "connection.refused": Advice(
        ("another client holds the stream (409)", "trouble at Adobe (503)", "the token (401, 403)"),
        "Its remedy says what cures it; the status can be looked up.",
        ("400", "401", "403", "404", "409", "424", "429", "503"),
    ),
    "connection.paused": Advice(
        (
            "the disk is full, or has less free than journal.reserve_bytes",
            "decoding is slower than the stream, and the journal has reached journal.max_bytes",
        ),
        "Make room on the disk; it goes on by itself. If the disk has room: raise run.decoders or"
        " journal.max_bytes.",
        ("paused", "storage.full"),
    ),
    "ship.failed": Advice(
        (
            "the store or the network is away",
            "credentials are wrong or expired",
            "the table's catalog is away",
        ),
        "Look up its failure. Nothing is lost: parts stay on this disk until they are out; watch its room.",
        ("store-away", "store-denied", "store-missing", "table-failed"),
    ),
    "ship.left_out": Advice(
        ("retention or compaction took them before shipping was configured",),
        "Nothing to do if that was meant. What replaced them on this disk is not shipped by itself.",
    ),
    "ship.began_again": Advice(
        ("`verify --rebuild` made the commit log again",),
        "Nothing to do: each part is looked for in the store once more.",
    ),
    "gap.recorded": Advice(
        ("a connection ended and the next one came later", "the collector did not run in between"),
        "Look at suspected and rule. Only `possible` and `likely` want a comparison with a Data Feed.",
        ("gap no", "gap possible", "gap likely"),
    ),
    "batch.undone": Advice(
        ("`livestream-collector run --redo-batch` was asked for",),
        "Nothing to do: the batch runs again.",
        ("exit 4",),
    ),
    "connections.voided": Advice(
        ("a staged file was gone or damaged after an unclean end",),
        "Nothing to do: the rows are made again. If it recurs, check the disk.",
    ),
    "rejects.seen": Advice(
        ("the service sent something that is no hit", "a record was too long, or decoding failed on it"),
        "A few are usual. Look at raw and reason under rejects/ where the share is not small.",
        ("not json", "not an object", "oversized", "poison"),
    ),
    "rejects.alarm": Advice(
        (
            "the service sends something that this version does not know",
            "a proxy in between changes the stream",
            "stream.url leads to something that is no Livestream",
        ),
        f"{REJECTS_REMEDY[0].upper()}{REJECTS_REMEDY[1:].format(stream='NAME')}.",
        ("too-many-rejects", "LivestreamRejects"),
    ),
    "resends.limited": Advice(
        ("the stream is faster than resends.max_ids allows for",),
        "Raise resends.max_ids, at 16 bytes of disk each, or shorten resends.window_s on purpose.",
    ),
    "reset.consumed": Advice(
        ("`livestream-collector reset` was asked for",),
        "Nothing to do. The gap before this connection counts as likely lost.",
        ("gap likely",),
    ),
    "token.expiring": Advice(
        ("a static token was given", "whatever renews the token file does not"), _TOKEN.do, ("401",)
    ),
    "token.expired": Advice(
        ("a static token was given", "whatever renews the token file does not"), _TOKEN.do, ("401", "exit 3")
    ),
    "token.failed": Advice(
        TOKENS[TokenFailure.NETWORK].causes,
        "The collector tries again. Its reason says which kind of failure it was, and what cures it.",
        tuple(f"token {failure.value}" for failure in TokenFailure),
    ),
    "decoder.plain": Advice(
        (
            "decode.kernel is off",
            "the kernel was not built for this platform",
            "it was built for another version of a library",
        ),
        "Nothing must be done: the rows are the same. For half the CPU time install a wheel with the kernel"
        " for this platform.",
    ),
    "child.died": Advice(
        (_MEMORY, "a record that decoding fails on", "somebody ended it", "a defect of the collector"),
        "Nothing at first: another takes its place and nothing is lost. If it recurs, look at how it ended"
        " and at the system's log.",
        ("child.hung", "block.poisoned", "exit 6"),
    ),
    "child.hung": Advice(
        ("the host is overloaded or was suspended", "a record that decoding hangs on", "a defect"),
        "Nothing at first: it is replaced. The stack that it wrote to the log shows where it was. On a very"
        " slow host raise run.heartbeat_limit_s.",
        ("child.died", "poison"),
    ),
    "child.slow": Advice(
        ("the disk or network file system is slow or stuck", "other work keeps the disk busy"),
        "Look at the disk. Nothing accepted is lost; the transfer pauses when the journal is full.",
        ("paused",),
    ),
    "block.poisoned": Advice(
        ("a record that brings out a defect of the collector", "too little memory for a huge record"),
        "Nothing is lost: the record is a reject, with its raw bytes. Report the reason.",
        ("reject poison", "child.died"),
    ),
    "batch.voided": Advice(
        ("a record that decoding fails on was not the first with its id",),
        "Nothing to do: what was not committed is decoded again.",
        ("block.poisoned",),
    ),
    "page.failed": Advice(
        (
            "another collector on this host has the same status.listen",
            "status.listen names an address that this host does not have",
            "something else uses the port",
        ),
        "Give each collector a status.listen of its own, or off, and start it again when it suits."
        " `livestream-collector status` needs no page.",
        ("LivestreamDown",),
    ),
    "attention.needed": Advice(
        (
            "the service refuses again and again what waiting does not cure",
            "a certificate is not trusted",
            "something beside the intake failed, such as the status page or the floor's record",
        ),
        "Its reason says what is wrong and what cures it. Intake goes on as far as it can.",
        ("untrusted", "refused-again"),
    ),
    "library.warned": Advice(
        ("something unusual on the network or in the system",), "Nothing to do, unless it recurs: report it."
    ),
    "orphans.ended": Advice(
        ("the last collector was killed and its children had not noticed yet",),
        _NOTHING,
        ("run.recovered",),
    ),
    "journal.cut": Advice(
        ("the collector or the host ended in the middle of a write",),
        "Nothing to do: what was cut had never been accepted.",
        ("run.recovered",),
    ),
    "journal.lost": Advice(
        (
            "journal.durability is memory, and the host restarted",
            "blocks were damaged, and --accept-journal-loss was given",
        ),
        "The rows of those blocks are missing: fill the time in from a Data Feed. For a journal that survives"
        " the host set journal.durability = disk.",
        ("gap likely", "exit 4"),
    ),
    "storage.full": Advice(
        (
            "parts or something else fill the disk",
            "less is free than journal.reserve_bytes, which is kept for the parts",
            "a quota is reached",
        ),
        "Make room, or enlarge the disk or the quota; it goes on by itself. Never delete in the state"
        " folder.",
        ("paused", "LivestreamDiskLow"),
    ),
    "part.discarded": Advice(
        ("the disk reported an error when it was to keep a file",),
        "Nothing is lost: the part is made again from the journal. Check the disk now.",
        ("exit 4",),
    ),
}
