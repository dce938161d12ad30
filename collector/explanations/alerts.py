"""The alerts of the Prometheus rules that come with the collector.

Pure data. The invariant: each rule has its text here, and there is none without a rule (a test compares).
"""

from __future__ import annotations

from typing import Final

from collector.explanations.explanation import Explanation, Kind


def _alert(name: str, means: str, causes: tuple[str, ...], do: str, *see: str) -> Explanation:
    return Explanation(Kind.ALERT, name, means, causes, do, see, (name.removeprefix("Livestream"),))


ALERTS: Final = (
    _alert(
        "LivestreamDown",
        "The collector's metrics cannot be read: it does not run, or its status page does not answer.",
        (
            "it ended: a service manager does not restart it on exit codes 2, 3 and 5",
            "the host is down or out of memory",
            "status.listen is off, its port was taken at the start, or a firewall is in between",
        ),
        "Look at its last log lines and its exit code. While it is down no hits are taken; the service holds"
        " them for a few minutes at most.",
        "exit 2",
        "exit 3",
        "exit 5",
        "exit 137",
    ),
    _alert(
        "LivestreamNotReady",
        "The collector runs, but has not done for a while what it is there for.",
        (
            "the service keeps refusing: another client, or trouble at Adobe",
            "the journal is full",
            "too many records are no hits",
        ),
        "The status page names each reason in words. Do not restart it for this: what can be waited out it"
        " waits out.",
        "refused-again",
        "journal-full",
        "too-many-rejects",
        "not-at-work",
    ),
    _alert(
        "LivestreamNoHits",
        "No hit has been taken for longer than this stream is usually quiet.",
        (
            "the report suite receives none: the site is quiet, or its tagging is broken",
            "the connection is waited for: the service refuses or is not reached",
            "the service holds the connection and sends nothing",
        ),
        "Look at the sentence on the status page. `Connected` and quiet: see in Adobe Analytics whether the"
        " report suite receives hits. Waiting: look up the cause. The collector gives up a silent connection"
        " after reconnect.idle_timeout_s by itself.",
        "409",
        "503",
        "stalled",
        "unreached",
    ),
    _alert(
        "LivestreamLagging",
        "What was accepted becomes Parquet late. Nothing is lost while the journal has room.",
        (
            "decoding is slower than the stream: too few cores, or other work on this host",
            "the disk is slow or full",
            "a child process keeps dying and its blocks run again",
        ),
        "Look at the CPU and the disk of the host. Raise run.decoders if cores are idle; see that"
        " decoder.plain is not in the log, which costs twice the CPU time.",
        "decoder.plain",
        "child.died",
        "storage.full",
    ),
    _alert(
        "LivestreamJournalFilling",
        "The journal fills up: when it is full the transfer is paused, and the service holds hits back for a"
        " few minutes only.",
        (
            "decoding is slower than the stream",
            "the output cannot be written: the disk is full or slow",
        ),
        "As for a lag: CPU, disk, run.decoders. journal.max_bytes may be raised with the next start, where"
        " the disk has room.",
        "LivestreamLagging",
        "connection.paused",
    ),
    _alert(
        "LivestreamDiskLow",
        "The disk of the output or the state is nearly full. At journal.reserve_bytes the transfer is"
        " paused.",
        ("parts pile up", "something else fills this disk"),
        "Make room: move old parts away whole, by their date folders, or enlarge the disk. Never delete in"
        " the state folder.",
        "storage.full",
        "connection.paused",
        "parts.retired",
    ),
    _alert(
        "LivestreamRejects",
        "Many records are no hits. Intake goes on, and their raw bytes are kept.",
        (
            "the service sends something that this version does not know",
            "a proxy in between changes the stream",
        ),
        "Look at raw and reason under rejects/; the reasons can be looked up here.",
        "rejects.alarm",
        "not json",
        "poison",
    ),
    _alert(
        "LivestreamTokenExpires",
        "The token ends soon and nothing renews it. With its end the next request is refused, and the"
        " collector ends with exit code 3.",
        ("a static token was given", "whatever renews the token file does not"),
        "Give a new token: into the token file at any time, or in LIVESTREAM_TOKEN with a restart. With"
        " LIVESTREAM_CLIENT_SECRET instead tokens are renewed.",
        "token.expiring",
        "token.expired",
        "401",
    ),
    _alert(
        "LivestreamChildRestarts",
        "Reader or decoder processes die again and again. Each time their blocks run again; nothing is lost.",
        (
            "too little memory, and the system kills them",
            "records that decoding fails on: they are set aside after a few tries",
            "a slow or failing disk",
        ),
        "Look at child.died and block.poisoned in the log, and at the system's log for killed processes.",
        "child.died",
        "child.hung",
        "block.poisoned",
        "exit 6",
    ),
    _alert(
        "LivestreamGap",
        "Hits were possibly or likely missed while there was no connection.",
        (
            "there was no connection for longer than the service fills in",
            "the collector was stopped, or the host was down",
            "the stream was reset",
        ),
        "The table of connections says from when to when. Fill the time in from a Data Feed.",
        "gap likely",
        "gap possible",
        "gap.recorded",
    ),
    _alert(
        "LivestreamShippingBehind",
        "Committed parts do not get to the object store or into the table. They wait on this disk; nothing is"
        " lost while it has room.",
        (
            "the store, the network or the catalog is away",
            "the store's credentials ended or were taken back",
            "more is committed than the way out carries",
        ),
        "ship.failed in the log has the reason; look that up. Shipping goes on by itself once the cause is"
        " gone.",
        "ship.failed",
        "store-denied",
        "LivestreamDiskLow",
    ),
)
