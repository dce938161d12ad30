"""A status of each kind that the page must show, made of real structs and the words of the product itself."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from collector.core import remedies
from collector.core.connection import ConnectionState
from collector.core.messages import BlockDone, Closed, Outcome
from collector.core.readiness import not_ready
from collector.core.rejects import RejectsWatch
from collector.core.sentence import sentence
from collector.core.status import (
    Child,
    Connection,
    Disk,
    Journal,
    RejectSeen,
    Sample,
    Ship,
    Status,
    Stretch,
    Token,
    Totals,
)
from collector.escaping import printable

NOW_US = 1_795_501_867_000_000
MINUTE_US = 60_000_000
GIB = 2**30

HOSTILE = (
    "<script>document.title = 'broken in'</script><img src=x onerror=alert(1)>",
    "</code></li><h1>All is well</h1>\x1b[31mred\x1b[0m\r\n",
    "\u202eesrever \u200b&amp; &lt;b&gt; " + "unbroken" * 60,
)


def _history(state: ConnectionState) -> tuple[Sample, ...]:
    """An hour with a break in it; at its end in ``state``."""
    samples = []
    for index in range(361):
        away = 180 <= index < 188 or (index > 350 and state is not ConnectionState.STREAMING)
        rate = 0.0 if away else 1180.0 + 9 * (index * 37 % 17) + index / 4
        at = state if index > 350 else ConnectionState.WAITING if away else ConnectionState.STREAMING
        samples.append(
            Sample(
                at_us=NOW_US - (360 - index) * 10_000_000,
                hits_per_s=rate,
                lag_s=0.0 if away else 4.0 + index * 10 % 60,
                state=at,
            )
        )
    return tuple(samples)


TIMELINE = (
    Stretch(
        kind="connection",
        number=10,
        began_us=NOW_US - 611 * MINUTE_US,
        ended_us=NOW_US - 300 * MINUTE_US,
        outcome="ended",
        words="the service ended the connection",
        records=18_240_113,
    ),
    Stretch(
        kind="gap",
        number=11,
        began_us=NOW_US - 300 * MINUTE_US,
        ended_us=NOW_US - 299 * MINUTE_US,
        outcome="ended",
        words="212 resends show that the service went back far enough",
        suspected="no",
    ),
    Stretch(
        kind="connection",
        number=11,
        began_us=NOW_US - 299 * MINUTE_US,
        ended_us=NOW_US - 30 * MINUTE_US,
        outcome="lost",
        words="the connection was lost",
        records=15_981_224,
    ),
    Stretch(
        kind="gap",
        number=12,
        began_us=NOW_US - 30 * MINUTE_US,
        ended_us=NOW_US - 29 * MINUTE_US,
        outcome="lost",
        words="1,204 resends show that the service went back far enough",
        suspected="no",
    ),
)

_OPEN = Stretch(kind="connection", number=12, began_us=NOW_US - 29 * MINUTE_US, records=2_112_004)

READING = Connection(
    state=ConnectionState.STREAMING,
    since_us=NOW_US - 29 * MINUTE_US,
    cause="the stream is open",
    number=12,
    host="livestream.adobe.net",
    bytes_received=812_400_112,
    records=2_112_004,
    last_hit_us=NOW_US - 40_000,
)


def _finished(status: Status) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(status, sentence=sentence(status)))


def _status(connection: Connection = READING, **fields) -> Status:
    streaming = connection.state is ConnectionState.STREAMING
    timeline = (*TIMELINE, _OPEN) if connection.number else TIMELINE
    made = Status(
        at_us=NOW_US,
        version="0.7.0",
        pid=4711,
        stream="prod-suite",
        instance="7c1f0e2ab94d",
        output="/srv/livestream",
        state_folder="/srv/livestream/.state/prod-suite",
        started_us=NOW_US - 612 * MINUTE_US,
        connection=connection,
        ready=True,
        hits_per_s=1_240.3 if streaming else 0.0,
        lag_s=12.4 if streaming else 0.0,
        totals=Totals(
            records=36_333_341,
            rows=36_324_180,
            resends=9_157,
            rejects=4,
            batches=10_812,
            accepted=36_345_102,
        ),
        journal=Journal(
            used_bytes=GIB // 3,
            max_bytes=8 * GIB,
            waiting_blocks=14,
            waiting_records=11_761,
        ),
        disk=Disk(free_bytes=412 * GIB, total_bytes=500 * GIB, reserve_bytes=GIB),
        token=Token(kind="oauth", expires_us=NOW_US + 1300 * MINUTE_US),
        children=(
            Child(name="reader", pid=4720, state="busy"),
            Child(name="decoder 1", pid=4721, state="busy"),
            Child(name="decoder 2", pid=4722, state="idle", restarts=1),
        ),
        timeline=timeline,
        history=_history(connection.state),
    )
    return msgspec.structs.replace(made, **fields)


def waiting(cause: str, code: str, *, wait_s: int = 38) -> Connection:
    return Connection(
        state=ConnectionState.WAITING,
        since_us=NOW_US - 24_000_000,
        cause=cause,
        code=code,
        next_attempt_us=NOW_US + wait_s * 1_000_000,
    )


def _waiting(cause: str, code: str, *, wait_s: int = 38, **fields) -> Status:
    gap = Stretch(
        kind="gap",
        number=13,
        began_us=NOW_US - 24_000_000,
        words="what was in transit at the break can be lost",
        suspected="possible",
    )
    ended = msgspec.structs.replace(
        _OPEN, ended_us=NOW_US - 24_000_000, outcome="lost", words="the connection was lost"
    )
    return _status(waiting(cause, code, wait_s=wait_s), timeline=(*TIMELINE, ended, gap), **fields)


def _after(closed: Closed, **fields) -> Status:
    code = str(closed.status) if closed.outcome is Outcome.STATUS else closed.outcome.value
    return _waiting(remedies.closed_in_words(closed), code, **fields)


def _closed(outcome: Outcome, detail: str = "", **fields) -> Closed:
    return Closed(connection=13, outcome=outcome, detail=detail, closed_at_us=NOW_US - 24_000_000, **fields)


REJECTS = tuple(
    RejectSeen(
        at_us=NOW_US - index * 2_500_000,
        block=10_812 - index // 3,
        line=17 + index * 31,
        reason="not a JSON object in valid UTF-8: unexpected end of the record",
        text=printable(text, 200),
        length=3_412 + index,
    )
    for index, text in enumerate((*HOSTILE, '{"hitIdHigh":"3420', ""))
)

_REFUSAL = _closed(Outcome.STATUS, status=404)


def _reasons(*, journal_full: bool = False, rejects: int = 0) -> tuple[str, ...]:
    """The words of the product itself."""
    watch = RejectsWatch()
    if rejects:
        watch.block_done(
            0.0,
            BlockDone(
                seq=1,
                rows=6_000,
                resends=0,
                rejects=rejects,
                without_id=0,
                repaired=0,
                hours=(),
                cpu_us=0,
                reasons={"not json": rejects},
            ),
        )
    return tuple(not_ready(None, rejects=watch, journal_full=journal_full))


def _rough_night() -> Iterator[Stretch]:
    """Connections of ten minutes and gaps of two."""
    for index in range(40):
        began_us = NOW_US - (40 - index) * 12 * MINUTE_US - 29 * MINUTE_US
        ended_us = began_us + 10 * MINUTE_US
        yield msgspec.structs.replace(TIMELINE[2], number=index + 1, began_us=began_us, ended_us=ended_us)
        yield msgspec.structs.replace(
            TIMELINE[3],
            number=index + 2,
            began_us=ended_us,
            ended_us=ended_us + 2 * MINUTE_US,
            suspected=("no", "possible")[index % 2],
        )


STATUSES: dict[str, Status] = {
    "starting": _status(
        Connection(
            state=ConnectionState.STARTING,
            since_us=NOW_US,
            cause="the last run's work is taken up",
        ),
        reasons=("starting: the last run's work is taken up",),
        ready=False,
        history=(),
        timeline=(),
        totals=Totals(),
        children=(Child(name="decoder 1", pid=4721, state="starting"),),
        journal=Journal(max_bytes=8 * GIB, durability="memory"),
        token=Token(),
    ),
    "connecting": _status(
        Connection(state=ConnectionState.REQUESTING, since_us=NOW_US, cause="the request is due")
    ),
    "reading": _status(),
    "reading-after-a-rough-night": _status(
        timeline=(*_rough_night(), _OPEN),
        rejects=tuple(msgspec.structs.replace(REJECTS[index % 5], line=index) for index in range(20)),
    ),
    "quiet": _status(
        msgspec.structs.replace(READING, last_hit_us=NOW_US - 23 * MINUTE_US), hits_per_s=0.0, lag_s=0.0
    ),
    "behind": _status(lag_s=1_904.0),
    "waiting-409": _after(
        _closed(Outcome.STATUS, status=409, error_description="Stream is already in use. Try again later")
    ),
    "waiting-503-often": _after(
        _closed(Outcome.STATUS, status=503),
        ready=False,
        reasons=("waiting: the service cannot serve the stream now (503)",),
    ),
    "waiting-lost": _after(_closed(Outcome.LOST, detail="recv failure: connection reset by peer")),
    "waiting-unreached": _after(_closed(Outcome.UNREACHED, detail="could not resolve host"), wait_s=5),
    "waiting-untrusted": _after(
        _closed(Outcome.UNTRUSTED, detail="self-signed certificate in the chain"), wait_s=14 * 60
    ),
    "waiting-token": _waiting(
        remedies.token_in_words(remedies.TokenFailure.NETWORK, "503 from the token endpoint"),
        "network",
    ),
    "waiting-restart": _waiting("the collector closed its connection", "drained"),
    "refused": _status(
        Connection(
            state=ConnectionState.REFUSED,
            since_us=NOW_US,
            cause=remedies.closed_in_words(_REFUSAL),
            code="404",
        ),
        ready=False,
        reasons=("refused: the service does not know this stream (404)",),
    ),
    "paused-journal-full": _status(
        msgspec.structs.replace(
            READING,
            state=ConnectionState.PAUSED,
            cause="there is no room for more; nothing that was taken is lost",
        ),
        ready=False,
        reasons=_reasons(journal_full=True),
        journal=Journal(
            used_bytes=8 * GIB,
            max_bytes=8 * GIB,
            full=True,
            waiting_blocks=8_100,
            waiting_records=9_871_222,
        ),
        lag_s=1_904.0,
    ),
    "paused-disk-full": _status(
        msgspec.structs.replace(
            READING,
            state=ConnectionState.PAUSED,
            cause="there is no room for more; nothing that was taken is lost",
        ),
        ready=False,
        reasons=_reasons(journal_full=True),
        journal=Journal(used_bytes=3 * GIB, max_bytes=8 * GIB, full=True, waiting_records=1),
        disk=Disk(free_bytes=GIB // 2, total_bytes=500 * GIB, reserve_bytes=GIB),
    ),
    "shipping": _status(ship=Ship(url="s3://bucket/hits", table="iceberg", parts=10_812, bytes=71 * GIB)),
    "shipping-fails": _status(
        ship=Ship(
            url="s3://bucket/hits",
            behind_parts=12,
            behind_bytes=80_000_000,
            lag_s=612.0,
            parts=10_800,
            bytes=71 * GIB,
            failure="ship denied",
            reason="the store said 403: <b>Access Denied</b>",
        )
    ),
    "rejects-alarm": _status(
        ready=False,
        reasons=_reasons(rejects=1_261),
        rejects=REJECTS,
        decoder="plain",
        totals=Totals(records=36_333_341, rows=36_231_923, resends=9_157, rejects=92_261, batches=10_812),
    ),
    "gap": _status(
        timeline=(
            *TIMELINE[:3],
            msgspec.structs.replace(
                TIMELINE[3],
                suspected="likely",
                words="612 s without a connection, and the service fills in about 300 s",
            ),
            _OPEN,
        ),
        disk=Disk(free_bytes=3 * GIB // 2, total_bytes=500 * GIB, reserve_bytes=GIB),
    ),
    "stopping": _status(
        Connection(state=ConnectionState.DRAINING, since_us=NOW_US, cause="it was told to stop"),
        ready=False,
        reasons=("draining: it was told to stop",),
    ),
    "stopped": _status(
        Connection(state=ConnectionState.STOPPED, since_us=NOW_US, cause="it was told to stop"),
        ready=False,
        reasons=("stopped: it was told to stop",),
    ),
}

STATES: dict[str, bytes] = {name: _finished(status) for name, status in STATUSES.items()}
"""What an event carries."""


def said(name: str, *, after_s: float = 0.0, **fields) -> bytes:
    """The same state so much later, with other fields."""
    status = STATUSES[name]
    return _finished(
        msgspec.structs.replace(status, at_us=status.at_us + round(after_s * 1_000_000), **fields)
    )
