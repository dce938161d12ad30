"""The judge: what a record's row must be, written plainly and with nothing of the collector's own.

``decode`` says what columns and ``extra`` a record gives, ``rebuild`` gives the record back from
them. Numbers stay texts (``Number``) throughout, so nothing is rounded on the way.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

MAX_DEPTH = 128


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


@dataclass
class Expected:
    columns: dict[str, Any] = field(default_factory=dict)
    """Text as str, integers and ids as int, amounts as float, maps and objects as dict."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Path to value, as ``parse`` gives it."""


EVARS = ("map", "text or number")
EVENT = ("object", {"count": "amount", "exponent": "integer", "unique": "text"})
EVENTS = ("map or objects", ("list", EVENT))
VALUES = ("object", {"values": ("list", "text"), "delim": "integer or character"})
ACTION = ["campaignId", "recipeId", "trafficType", "actionId", "actionName"]
ACTIONS = ("list", ("object", dict.fromkeys(ACTION, "text")))
PRODUCT = {
    "category": "text",
    "evars": EVARS,
    "events": EVENTS,
    "name": "text",
    "revenue": "amount",
    "units": "amount",
}
TEXTS = """bot browser browserType carrier connectionType currency customVisId domain geoCity geoCountry
    geoRegion geoZip ip language languageAbbrev lat lon mobileDeviceName mobileDeviceType mobileManufacturer
    monitorColorDepth operatingSystem pageName pageURL purchaseId referrer reportSuite searchEngine service
    topLevelDomain transactionId userAgent zip"""
INTEGERS = """browserHeight browserWidth geoDMA hitSource mobileColorDepth mobileScreenHeight
    mobileScreenWidth monitorHeight monitorWidth receivedTimeGMT timeGMT usesPersistentCookie visIdType"""
SHAPES: dict[str, Any] = {
    **dict.fromkeys(TEXTS.split(), "text"),
    **dict.fromkeys(INTEGERS.split(), "integer"),
    **dict.fromkeys(["hitIdHigh", "hitIdLow", "mcVisIdHigh", "mcVisIdLow", "visIdHigh", "visIdLow"], "id"),
    **dict.fromkeys(["isErrorPage", "javaEnabled", "mobileCookieSupport", "truncated"], "flag"),
    **dict.fromkeys(["mobileAudioSupport", "mobileVideoSupport"], "text or flag"),
    "evars": ("inside evars", EVARS),
    "events": EVENTS,
    "exclude": ("object", {"id": "text or number", "value": "text", "description": "text"}),
    "hierarchies": ("map", ("object", {"delim": "integer or character", "values": "text or parts"})),
    "mcAudiences": VALUES,
    "mvvars": ("map", ("object", {"m": VALUES})),
    "products": ("list", ("object", PRODUCT)),
    "props": ("map", "text"),
    "tnt": ACTIONS,
    "tntAction": ACTIONS,
}


def parse(text: str) -> Any:
    """JSON with numbers as ``Number``; the last of equal keys wins. Raises ValueError."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=refuse)


def decode(line: bytes) -> Expected | None:
    """The row of a record; ``None``: it is a reject."""
    try:
        record = parse(line.decode())
        if not isinstance(record, dict) or depth(record) > MAX_DEPTH:
            return None
    except (ValueError, RecursionError):
        return None
    row = Expected()
    for name, value in record.items():
        if name in SHAPES:
            row.columns[name] = fit(SHAPES[name], value, path("", name), row.extra, record)
        else:
            row.extra[path("", name)] = value
    return row


def depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(depth, inside), default=0)


def path(outer: str, key: str) -> str:
    if re.fullmatch("[A-Za-z0-9_]+", key):
        return f"{outer}.{key}" if outer else key
    return f"{outer}[{json.dumps(key, ensure_ascii=not is_unicode(key))}]"


def fit(shape: Any, value: Any, place: str, extra: dict[str, Any], siblings: dict[str, Any]) -> Any:
    """What the column shows of a value. What that does not say exactly goes to ``extra``."""
    if value is None:
        return None
    if isinstance(shape, str):
        shown = scalar(shape.split(" or ")[0], value)
        if shown is None:
            extra[place] = value
            shown = second_shape(shape, value, siblings)
        return shown
    kind, inner = shape
    if kind == "list" and isinstance(value, list):
        return [fit(inner, item, f"{place}[{index}]", extra, {}) for index, item in enumerate(value)]
    if kind == "object" and isinstance(value, dict):
        extra.update({path(place, key): item for key, item in value.items() if key not in inner})
        known = [key for key in value if key in inner]
        shown = {key: fit(inner[key], value[key], path(place, key), extra, value) for key in known}
        return {key: column for key, column in shown.items() if column is not None}
    if kind.startswith("map") and isinstance(value, dict):
        return fit_map(inner, value, place, extra)
    if kind == "inside evars" and isinstance(value, dict):
        wrapped = value.get("evars")
        if set(value) <= {"evars"} and (wrapped is None or isinstance(wrapped, dict)):
            return fit(inner, wrapped, place, extra, {})
        extra[place] = value
        return fit(inner, wrapped if isinstance(wrapped, dict) else value, place, {}, {})
    extra[place] = value
    if kind == "map or objects" and isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return fit_map(inner, {key: found for item in value for key, found in item.items()}, place, {})
    return None


def fit_map(inner: Any, value: dict[str, Any], place: str, extra: dict[str, Any]) -> dict[str, Any]:
    shown = {}
    for key, item in value.items():
        if not is_unicode(key):
            extra[path(place, key)] = item
            continue
        column = fit(inner, item, path(place, key), extra, value)
        if column is not None or item is None:
            shown[key] = column
    return shown


def scalar(kind: str, value: Any) -> Any:
    """The value as the column has it, or None if the column cannot hold it exactly."""
    if kind == "text":
        return value if type(value) is str and is_unicode(value) else None
    if kind == "flag":
        return value if isinstance(value, bool) else None
    if not isinstance(value, Number):
        return None
    if kind == "amount":
        return exact_float(value)
    if not re.fullmatch("-?[0-9]+", value):
        return None
    lowest, highest = (0, 2**64 - 1) if kind == "id" else (-(2**63), 2**63 - 1)
    if len(value) > 20:
        return None
    return int(value) if lowest <= int(value) <= highest else None


def second_shape(shape: str, value: Any, siblings: dict[str, Any]) -> Any:
    if shape.endswith("number") and isinstance(value, Number):
        return str(value)
    if shape.endswith("flag") and isinstance(value, bool):
        return "true" if value else "false"
    if shape.endswith("character") and type(value) is str and is_unicode(value) and len(value) == 1:
        return ord(value)
    if shape.endswith("parts") and isinstance(value, list):
        delimiter = siblings.get("delim")
        if isinstance(delimiter, Number):
            code = scalar("integer", delimiter)
            fits = code is not None and 0 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF
            delimiter = chr(code) if fits else None
        if not all(type(part) is str and is_unicode(part) for part in value):
            return None
        return delimiter.join(value) if type(delimiter) is str and is_unicode(delimiter) else None
    return None


def is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def exact_float(text: str) -> float | None:
    number = float(text)
    try:
        return number if math.isfinite(number) and Decimal(repr(number)) == Decimal(text) else None
    except InvalidOperation:
        return None


def columns_of(row: dict[str, Any]) -> dict[str, Any]:
    """The API's columns of a row as an engine gives it, as in ``Expected.columns``, no nulls."""
    return {name: plain(SHAPES[name], row[name]) for name in SHAPES if row[name] is not None}


def plain(shape: Any, value: Any) -> Any:
    """Maps as dicts, objects without their null members, ids as int."""
    if value is None or (isinstance(shape, str) and shape != "id"):
        return value
    if shape == "id":
        return int(value)
    kind, inner = shape
    if kind == "list":
        return [plain(inner, item) for item in value]
    if kind == "inside evars":
        return plain(inner, value)
    if kind == "object":
        return {key: plain(inner[key], item) for key, item in value.items() if item is not None}
    entries = list(value.items()) if isinstance(value, dict) else [entry_of(entry) for entry in value]
    assert len({key for key, _ in entries}) == len(entries), f"a key twice in {entries}"
    return {key: plain(inner, item) for key, item in entries}


def entry_of(entry: Any) -> tuple[str, Any]:
    """Of a map: pyarrow gives pairs, others give objects with key and value."""
    return (entry["key"], entry["value"]) if isinstance(entry, dict) else entry


# ---------------------------------------------------------------- and back


def rebuild(columns: dict[str, Any], extra: dict[str, str]) -> dict[str, Any]:
    """The record: columns with ``extra`` (JSON texts) laid over them. ``columns`` as in ``Expected``."""
    record = {name: as_sent(value) for name, value in columns.items() if value is not None}
    if "evars" in record:
        record["evars"] = {"evars": record["evars"]}
    for place, text in extra.items():
        steps = split_path(place)
        if steps[0] == "evars" and len(steps) > 1:
            steps.insert(0, "evars")
        lay_over(record, steps, parse(text))
    return record


def as_sent(value: Any) -> Any:
    match value:
        case bool() | str() | None:
            return value
        case int() | float() | Decimal():
            return Number(value)
        case dict():
            return {key: as_sent(item) for key, item in value.items()}
        case _:
            return [as_sent(item) for item in value]


def split_path(place: str) -> list[str | int]:
    steps: list[str | int] = []
    for plain, quoted, index in re.findall(r'([A-Za-z0-9_]+)|\[("(?:[^"\\]|\\.)*")\]|\[([0-9]+)\]', place):
        steps.append(int(index) if index else json.loads(quoted) if quoted else plain)
    return steps


def lay_over(record: Any, steps: list[str | int], value: Any) -> None:
    *outer, last = steps
    for step, following in zip(outer, steps[1:], strict=True):
        if isinstance(step, str) and record.get(step) is None:
            record[step] = {}
        elif isinstance(step, int) and record[step] is None:
            record[step] = {} if isinstance(following, str) else []
        record = record[step]
    record[last] = value


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, numbers by their exact value, members that are null or empty as if they were absent."""
    if isinstance(one, Number) and isinstance(other, Number):
        return one == other or exact(one) == exact(other)
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = (
            {key: item for key, item in side.items() if not is_empty(item)} for side in (one, other)
        )
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def exact(number: Number) -> Decimal | str:
    try:
        return Decimal(number)
    except InvalidOperation:
        return str(number)


def without_empty(members: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in members.items() if not is_empty(item)}


def is_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    return value is None or value == []
