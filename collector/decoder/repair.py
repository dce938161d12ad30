"""The repair of records whose shape is not the schema's: one canonical line, nothing lost.

Run by the decoder processes on the lines that the strict pass or the columnariser did not take.
Invariant: what a column cannot hold exactly is in ``extra`` under its path, as the JSON text it was
sent as; a row's columns with ``extra`` laid over them are the record. A second documented shape
(``schema.Variant``) is shown in its column and stands in ``extra`` as well. The smallest misfit
moves: a member, a map entry, a list item (null stays in its place).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from collector.decoder import jsontext
from collector.decoder.schema import (
    EXTRA,
    FIELD_KINDS,
    Amount,
    Count,
    Flag,
    Id,
    Integer,
    Kind,
    ListOf,
    MapOf,
    Object,
    Text,
    Variant,
    Wrapped,
    holds,
)
from collector.decoder.strict import ID_MAX, REFUSALS, Line, is_exact, type_of

NULL: Final = b"null"

ESCAPE: Final = b"\\u"
"""What a canonical line has in no text of a column: the columnariser misreads some of them."""

MINUS_ZERO: Final = b"-0"
"""Another float64 than 0, and to msgspec the same integer."""

_INTEGER: Final = msgspec.json.Decoder(type_of(Integer(), thorough=True))
_ID: Final = msgspec.json.Decoder(type_of(Id(), thorough=True))
_DECODERS: Final = {
    name: msgspec.json.Decoder(type_of(kind, thorough=True, name=name))
    for name, kind in FIELD_KINDS.items()
    if not holds(kind, Id) and not holds(kind, Amount)  # of which msgspec alone cannot say whether they fit
}
_NAMED: Final = frozenset(
    name for name, kind in FIELD_KINDS.items() if holds(kind, MapOf) or holds(kind, Object)
)
_COUNTED: Final = frozenset(name for name in _DECODERS if holds(FIELD_KINDS[name], Count))
_encode: Final = functools.lru_cache(maxsize=1 << 12)(msgspec.json.encode)

_Extra = dict[str, str]
_Members = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record is no hit."""

    reason: str


UNREADABLE: Final = Refusal("unreadable: its columns refuse it in any form")


def repair(line: Line) -> bytes | Refusal:
    """One line that fits the wire schema and holds everything the record holds.

    Refused is only what is not a JSON object in valid UTF-8, or is nested too deep.
    """
    record = jsontext.read_record(bytes(line))
    if isinstance(record, str):
        return Refusal(record)
    extra: _Extra = {}
    fitted = {}
    for name, text in record.items():
        column = _fit_whole(name, text)
        if column is None:
            column = _fit_member(FIELD_KINDS.get(name), name, record, "", extra)
        if column is not None:
            fitted[name] = column
    return _canonical(fitted, extra)


def move_everything(line: Line) -> bytes | Refusal:
    """A line whose every member is in ``extra``: the last resort."""
    record = jsontext.read_record(bytes(line))
    if isinstance(record, str):
        return Refusal(record)
    return _canonical({}, {jsontext.member_path("", key): text.decode() for key, text in record.items()})


def fit_field(name: str, text: bytes, extra: _Extra) -> bytes | None:
    """The column's text of one field; what it cannot hold goes to ``extra``."""
    return _fit_member(FIELD_KINDS.get(name), name, {name: text}, "", extra)


def _fit_whole(name: str, text: bytes) -> bytes | None:
    """The column's text if the whole field fits as it is, which most do even in an odd record."""
    decoder = _DECODERS.get(name)
    if decoder is None or (name in _COUNTED and MINUS_ZERO in text):
        return None
    try:
        value = decoder.decode(text)
    except REFUSALS:
        return None
    rewritten = name in _NAMED or ESCAPE in text  # equal keys are one now
    return msgspec.json.encode(value) if rewritten else text


def _canonical(fitted: dict[str, bytes], extra: _Extra) -> bytes:
    if extra:
        fitted[EXTRA] = msgspec.json.encode(extra)
    return _joined(fitted)


def _joined(fitted: _Members) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (_encode(key), text) for key, text in fitted.items())


def _fit(kind: Kind, text: bytes, path: str, extra: _Extra, siblings: _Members) -> bytes | None:
    """What the column gets; ``None``: nothing. What it cannot hold exactly goes to ``extra``."""
    if text == NULL:
        return text
    fitted = _FITTERS[type(kind)](kind, text, path, extra)
    if fitted is None:
        extra[path] = text.decode()
        variant = getattr(kind, "variant", None)
        fitted = _SHOWN[variant](kind, text, siblings) if variant else None
    return fitted


def _fit_members(kinds: Mapping[str, Kind], record: _Members, path: str, extra: _Extra) -> dict[str, bytes]:
    fitted = ((name, _fit_member(kinds.get(name), name, record, path, extra)) for name in record)
    return {name: column for name, column in fitted if column is not None}


def _fit_member(kind: Kind | None, name: str, record: _Members, path: str, extra: _Extra) -> bytes | None:
    place = jsontext.member_path(path, name)
    if kind is not None:
        return _fit(kind, record[name], place, extra, record)
    extra[place] = record[name].decode()
    return None


def _fit_text(_kind: Kind, text: bytes, _path: str, _extra: _Extra) -> bytes | None:
    value = jsontext.string(text)
    return None if value is None else text if ESCAPE not in text else msgspec.json.encode(value)


def _fit_integer(_kind: Kind, text: bytes, _path: str, _extra: _Extra) -> bytes | None:
    return text if _takes(_INTEGER, text) else None


def _fit_id(_kind: Kind, text: bytes, _path: str, _extra: _Extra) -> bytes | None:
    return text if _takes(_ID, text) and _ID.decode(text) <= ID_MAX else None


def _fit_number(_kind: Kind, text: bytes, _path: str, _extra: _Extra) -> bytes | None:
    return text if is_exact(text) else None


def _fit_flag(_kind: Kind, text: bytes, _path: str, _extra: _Extra) -> bytes | None:
    return text if text in {b"true", b"false"} else None


def _fit_object(kind: Object, text: bytes, path: str, extra: _Extra) -> bytes | None:
    if not jsontext.is_object(text):
        return None
    kinds = {member.name: member.kind for member in kind.fields}
    return _joined(_fit_members(kinds, jsontext.members(text), path, extra))


def _fit_list(kind: ListOf, text: bytes, path: str, extra: _Extra) -> bytes | None:
    if not jsontext.is_list(text):
        return None
    fitted = (
        _fit(kind.item, item, f"{path}[{place}]", extra, {})
        for place, item in enumerate(jsontext.items(text))
    )
    return b"[" + b",".join(item or NULL for item in fitted) + b"]"


def _fit_map(kind: MapOf, text: bytes, path: str, extra: _Extra) -> bytes | None:
    if not jsontext.is_object(text):
        return None
    entries = jsontext.members(text)
    for key in [key for key in entries if not jsontext.is_unicode(key)]:
        extra[jsontext.member_path(path, key)] = entries.pop(key).decode()
    return _joined(_fit_members(dict.fromkeys(entries, kind.value), entries, path, extra))


def _fit_wrapped(kind: Wrapped, text: bytes, path: str, extra: _Extra) -> bytes | None:
    """Entries of the inner map have the column's path; any other shape is moved whole, and shown."""
    if not jsontext.is_object(text):
        return None
    outer = jsontext.members(text)
    inner = outer.get(kind.key, NULL)
    if outer.keys() <= {kind.key} and (inner == NULL or jsontext.is_object(inner)):
        return _joined({kind.key: _fit(kind.inner, inner, path, extra, {}) or NULL})
    extra[path] = text.decode()
    shown = inner if jsontext.is_object(inner) else text
    return _joined({kind.key: _fit(kind.inner, shown, path, {}, {}) or NULL})


def _takes(decoder: msgspec.json.Decoder[Any], text: bytes) -> bool:
    try:
        decoder.decode(text)
    except REFUSALS:
        return False
    return True


_FITTERS: Final[Mapping[type, Callable[[Any, bytes, str, _Extra], bytes | None]]] = {
    Text: _fit_text,
    Integer: _fit_integer,
    Id: _fit_id,
    Amount: _fit_number,
    Count: _fit_number,
    Flag: _fit_flag,
    Object: _fit_object,
    ListOf: _fit_list,
    MapOf: _fit_map,
    Wrapped: _fit_wrapped,
}


# ---------------------------------------------------------------- second documented shapes


def _show_number(_kind: Kind, text: bytes, _siblings: _Members) -> bytes | None:
    return b'"%b"' % text if jsontext.is_number(text) else None


def _show_boolean(_kind: Kind, text: bytes, _siblings: _Members) -> bytes | None:
    return b'"%b"' % text if text in {b"true", b"false"} else None


def _show_character(_kind: Kind, text: bytes, _siblings: _Members) -> bytes | None:
    character = jsontext.string(text)
    return str(ord(character)).encode() if character is not None and len(character) == 1 else None


def _show_parts(_kind: Kind, text: bytes, siblings: _Members) -> bytes | None:
    delimiter = _delimiter(siblings.get("delim", NULL))
    if delimiter is None or not jsontext.is_list(text):
        return None
    parts = [jsontext.string(part) for part in jsontext.items(text)]
    strings = [part for part in parts if part is not None]
    return msgspec.json.encode(delimiter.join(strings)) if len(strings) == len(parts) else None


def _delimiter(text: bytes) -> str | None:
    """The character a ``delim`` stands for, a code point or the character itself."""
    character = jsontext.string(text)
    if character is not None:
        return character
    code = _INTEGER.decode(text) if _takes(_INTEGER, text) else None
    if code is None or not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return None
    return chr(code)


def _show_objects(kind: Kind, text: bytes, _siblings: _Members) -> bytes | None:
    if not jsontext.is_list(text):
        return None
    merged: dict[str, bytes] = {}
    for item in jsontext.items(text):
        if not jsontext.is_object(item):
            return None
        merged |= jsontext.members(item)
    entries = {key: value for key, value in merged.items() if jsontext.is_unicode(key)}
    return _fit(kind, _joined(entries), "", {}, {})


_SHOWN: Final[Mapping[Variant, Callable[[Any, bytes, _Members], bytes | None]]] = {
    Variant.NUMBER: _show_number,
    Variant.BOOLEAN: _show_boolean,
    Variant.CHARACTER: _show_character,
    Variant.PARTS: _show_parts,
    Variant.OBJECTS: _show_objects,
}
