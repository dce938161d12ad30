"""What ``[privacy]`` may name: a field of a hit, or one entry of a map of it, such as ``evars.evar5``.

Pure, over the table of fields; imported by the settings, which refuse the rest, and by the decoder, which
hides what is named. Invariant: nothing can be named that would not be hidden wherever it lands, or without
which the collector cannot keep its promises.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from collector.hit_fields import FIELD_KINDS, MapOf, Text, Wrapped

DOT: Final = "."

_NEEDED: Final[Mapping[str, str]] = {
    "hitIdHigh": "the service's resends are known by it, and `verify` finds the hit of each by it",
    "hitIdLow": "the service's resends are known by it, and `verify` finds the hit of each by it",
    "receivedTimeGMT": "parts are filed by it, so their paths and received_at would still say it",
}

_MAPS: Final[Mapping[str, MapOf]] = {
    name: kind.inner if isinstance(kind, Wrapped) else kind
    for name, kind in FIELD_KINDS.items()
    if isinstance(kind, MapOf | Wrapped)
}

_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "evars": frozenset({"campaign", *(f"evar{number}" for number in range(1, 251))}),
    "props": frozenset({"site_section", *(f"prop{number}" for number in range(1, 76))}),
}
"""Of the maps whose keys are documented: a slip of the hand hides nothing, so it is refused."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_]+")


def fault(name: str, *, hashed: bool) -> str:
    """Why it cannot be named, and what could be; empty: it can."""
    field, dot, key = name.partition(DOT)
    if field not in FIELD_KINDS:
        return f"{name} is no field of a hit{_nearest(name)}"
    if field in _NEEDED:
        return f"{field} cannot be hidden: {_NEEDED[field]}"
    if dot:
        return _entry_fault(field, key, hashed=hashed)
    if hashed and not isinstance(FIELD_KINDS[field], Text):
        text = isinstance(_value_kind(field), Text)
        entries = f": name its entries, such as {field}.{min(_KEYS[field])}" if text else ": drop it instead"
        return f"{field} is no string column, and only these can be hashed{entries}"
    return ""


def _entry_fault(field: str, key: str, *, hashed: bool) -> str:
    if field not in _MAPS:
        entries = ", ".join(f"{name}.KEY" for name in _MAPS)
        return f"{field} has no entries that can be named: those of maps can ({entries})"
    if hashed and not isinstance(_value_kind(field), Text):
        return f"the entries of {field} are no strings, and only these can be hashed: drop it instead"
    if field in _KEYS and key not in _KEYS[field]:
        return f"{field} has no entry {key}{_nearest(field + DOT + key)}"
    return "" if _PLAIN_KEY.fullmatch(key) else f"the key {key} is not of the form {_PLAIN_KEY.pattern}"


def overlaps(drop: tuple[str, ...], hashed: tuple[str, ...]) -> list[str]:
    """What is in both lists, itself or by the map it is an entry of."""
    return [name for name in hashed if name in drop or name.partition(DOT)[0] in drop]


def _value_kind(field: str) -> object:
    return _MAPS[field].value if field in _MAPS else None


def _nearest(name: str) -> str:
    names = {known.casefold(): known for known in FIELD_KINDS}
    names |= {f"{field}.{key}".casefold(): f"{field}.{key}" for field, keys in _KEYS.items() for key in keys}
    names |= {key.casefold(): f"{field}.{key}" for field, keys in _KEYS.items() for key in keys}
    near = difflib.get_close_matches(name.casefold(), names, 1)
    return f"; did you mean {names[near[0]]}?" if near else "; docs/schema.md has them all"
