"""What every code means here, what causes it and what to do: one table for ``explain`` and the status page.

Imported by commands, and by the coordinator for its page. Texts that others show too are not written again
but taken from ``core.remedies`` and the catalogue of events. The invariant: every code that a log line, a
metric, the status or an exit can show is found, however it is written.
"""

from __future__ import annotations

import difflib
import re
from typing import Final

from collector.core.remedies import OUTCOMES, PROXIES, STATUSES, TOKENS, Remedy, for_status
from collector.core.shipping import SHIP_FAILURES
from collector.events import EVENTS
from collector.explanations.alerts import ALERTS
from collector.explanations.conditions import CONDITIONS
from collector.explanations.events import ADVICE
from collector.explanations.explanation import Advice, Explanation, Kind

__all__ = ["EXPLANATIONS", "Explanation", "Kind", "find", "nearest"]

STATUS_RANGE: Final = range(100, 600)
_PREFIXES: Final = {
    Kind.EXIT: ("exit", "exitcode", "code"),
    Kind.STATUS: ("http", "status", "httpstatus"),
    Kind.PROXY: ("proxy",),
    Kind.OUTCOME: ("outcome", "connection"),
    Kind.TOKEN: ("token",),
    Kind.SHIPPING: ("ship", "shipping", "table"),
    Kind.STATE: ("state",),
    Kind.NOT_READY: ("notready",),
    Kind.GAP: ("gap", "suspected"),
    Kind.REJECT: ("reject", "reason"),
    Kind.ALERT: ("alert",),
    Kind.EVENT: ("event",),
}


def _of_remedy(kind: Kind, code: str, remedy: Remedy) -> Explanation:
    means = f"{remedy.means[0].upper()}{remedy.means[1:]}."
    return Explanation(kind, code, means, remedy.causes, remedy.do)


def _of_event(name: str) -> Explanation:
    event = EVENTS[name]
    advice = ADVICE.get(name, Advice((), ""))
    return Explanation(Kind.EVENT, name, event.meaning, advice.causes, advice.do, advice.see)


EXPLANATIONS: Final = (
    *CONDITIONS,
    Explanation(Kind.STATUS, "200", "The service answered with a stream: the connection is held."),
    *(_of_remedy(Kind.STATUS, str(status), remedy) for status, remedy in STATUSES.items()),
    *(_of_remedy(Kind.PROXY, str(status), remedy) for status, remedy in PROXIES.items()),
    *(_of_remedy(Kind.OUTCOME, outcome.value, remedy) for outcome, remedy in OUTCOMES.items()),
    *(_of_remedy(Kind.TOKEN, failure.value, remedy) for failure, remedy in TOKENS.items()),
    *(_of_remedy(Kind.SHIPPING, failure.value, remedy) for failure, remedy in SHIP_FAILURES.items()),
    *ALERTS,
    *(_of_event(name) for name in EVENTS),
)
"""All of them."""


def find(code: str) -> tuple[Explanation, ...]:
    """Everything that goes by this code; a status that has no text of its own has the one of all such."""
    for text in (code, code.partition(":")[0]):
        if found := _INDEX.get(_plain(text)):
            return found
    digits = re.fullmatch(r"(?:http|status|httpstatus)?([0-9]{3})", _plain(code))
    if digits and int(digits[1]) in STATUS_RANGE:
        return (_of_remedy(Kind.STATUS, digits[1], for_status(int(digits[1]))),)
    return ()


def nearest(code: str) -> list[str]:
    """The known codes that are most like this one, the likest first."""
    by_plain = {_plain(known.code): known.code for known in EXPLANATIONS}
    alike = difflib.get_close_matches(_plain(code), by_plain, n=4, cutoff=0.55)
    within = [plain for plain in by_plain if len(_plain(code)) > 2 and _plain(code) in plain]
    return [by_plain[plain] for plain in dict.fromkeys([*alike, *within])][:5]


def _plain(text: str) -> str:
    """``HTTP 409``, ``http-409`` and ``http_409`` are one."""
    return re.sub(r"[\s._\-]+", "", text).lower()


def _indexed() -> dict[str, tuple[Explanation, ...]]:
    index: dict[str, tuple[Explanation, ...]] = {}
    for known in EXPLANATIONS:
        names = (known.code, *known.names, *(prefix + known.code for prefix in _PREFIXES[known.kind]))
        for name in dict.fromkeys(_plain(name) for name in names):
            index[name] = (*index.get(name, ()), known)
    return index


_INDEX: Final = _indexed()
