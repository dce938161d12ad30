"""The short way to repair: a record in which only some documented fields have an odd shape.

Run by the decoder processes before ``repair``, which it leaves whatever is odder than that. One or
two passes find the fields, and only their bytes are replaced, where ``repair`` takes every field
apart. Invariant: what it gives is the row that ``repair`` would give, or the columnariser refuses
it and ``repair`` decides.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

from collector.decoder.jsontext import is_too_deep
from collector.decoder.repair import ESCAPE, fit_field
from collector.decoder.schema import EXTRA, FIELD_KINDS, Integer, Text
from collector.decoder.strict import Degree, Line, has_exact_revenues, hit_type

SUSPECTS: Final = frozenset(
    name for name, kind in FIELD_KINDS.items() if isinstance(kind, Text | Integer) and kind.variant
)
"""Scalars with a second documented shape: looked at first, which mostly finds what is odd at once."""

MAX_FIELDS: Final = 3 + len(SUSPECTS)
"""More odd fields than this are repaired the long way."""

_FIELD: Final = re.compile(r"at `\$\.([A-Za-z0-9_]+)")
"""The field in msgspec's message about a value of the wrong type."""


def patch(line: Line, degree: Degree) -> bytes | None:
    """The line with its odd fields replaced and its ``extra``; ``None``: ``repair`` has to do it."""
    found = _odd_fields(line, degree)
    if found is None:
        return None
    text, extra = bytes(line), dict[str, str]()
    if ESCAPE in text or is_too_deep(text) or not _is_utf8(text):  # a key could be spelled in escapes
        return None
    for name in sorted(found, key=lambda name: text.find(_key(name))):  # as they were sent
        column = fit_field(name, found[name], extra)
        if column == found[name]:
            continue
        replaced = _with_value(text, name, found[name], b"null" if column is None else column)
        if replaced is None:
            return None
        text = replaced
    if not extra:
        return text
    return b'%b,"%b":%b}' % (text.rstrip()[:-1], EXTRA.encode(), msgspec.json.encode(extra))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _odd_fields(line: Line, degree: Degree) -> dict[str, bytes] | None:
    """The fields that the strict pass stumbles over, and the suspects, with the text of their values."""
    names = SUSPECTS
    while len(names) <= MAX_FIELDS:
        try:
            hit = _decoder(degree, names).decode(line)
        except msgspec.ValidationError as error:
            field = _FIELD.search(str(error))
            if field is None or field[1] in names or field[1] not in FIELD_KINDS:
                return None
            names |= {field[1]}
            continue
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if "products" not in names and hit.products and not has_exact_revenues(hit.products):
            return None
        return {name: bytes(getattr(hit, name)) for name in names}
    return None


@functools.lru_cache(maxsize=256)
def _decoder(degree: Degree, loose: frozenset[str]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(hit_type(degree, loose))


def _with_value(text: bytes, name: str, value: bytes, column: bytes) -> bytes | None:
    """The key is in the text once, so that once is the record's own member, whatever is nested."""
    if text.count(_key(name)) != 1:
        return None
    key = _key(name) + b":"
    begin = text.find(key) + len(key)
    end = begin + len(value)
    if begin < len(key) or text[begin:end] != value:
        return None
    return text[:begin] + column + text[end:]


def _key(name: str) -> bytes:
    return b'"%b"' % name.encode()
