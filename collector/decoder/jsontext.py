"""JSON taken apart one level at a time, every value left as the text it was sent as.

Used by the repair in the decoder processes, on lines that are rare. Invariant: no number, string or
nested value is rewritten, so what is moved elsewhere is what was sent. One exception: below an
object whose text holds half of a surrogate pair (grammatical, but no Unicode) values are written
anew, in ASCII, number texts untouched.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from collector.decoder.strict import REFUSALS

MAX_DEPTH: Final = 128
"""Levels of nesting taken. Source: the same limit as serde_json; a documented hit has 7."""

WHITE_SPACE: Final = b" \t\r\n"
"""Source: RFC 8259, section 2."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)
_NESTING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]')
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_]+")


class _NumberText(str):
    """A number of a parsed tree, as it was written."""

    __slots__ = ()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


_TREE: Final = json.JSONDecoder(parse_int=_NumberText, parse_float=_NumberText, parse_constant=_no_constant)


def read_record(line: bytes) -> dict[str, bytes] | str:
    """The members of a record's object, or the reason why it is none. The last of equal keys wins."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return f"not utf-8: byte {error.start} cannot be decoded"
    if (first := text.lstrip(WHITE_SPACE.decode())[:1]) != "{":
        return f"not an object: it starts with {first!a}" if first else "not an object: it is white space"
    if is_too_deep(line):
        return f"too deep: more than {MAX_DEPTH} levels"
    try:
        return members(line.strip(WHITE_SPACE))
    except ValueError as error:
        return f"not json: {error}"


def members(text: bytes) -> dict[str, bytes]:
    """The members of an object. *Raises* ValueError if the text is no JSON object."""
    try:
        return {key: bytes(value) for key, value in _OBJECT.decode(text).items()}
    except REFUSALS:
        return {key: _text_of(value) for key, value in _TREE.decode(text.decode()).items()}


def items(text: bytes) -> list[bytes]:
    """The items of a list."""
    try:
        return [bytes(value) for value in _LIST.decode(text)]
    except REFUSALS:
        return [_text_of(value) for value in _TREE.decode(text.decode())]


def string(text: bytes) -> str | None:
    """A string's value; ``None`` if the text is no string or its value is no Unicode."""
    try:
        return _STRING.decode(text)
    except REFUSALS:
        return None


def is_object(text: bytes) -> bool:
    return text.startswith(b"{")


def is_list(text: bytes) -> bool:
    return text.startswith(b"[")


def is_number(text: bytes) -> bool:
    return text[0] in b"-0123456789"


def is_unicode(text: str) -> bool:
    """Whether a string has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_too_deep(line: bytes) -> bool:
    """Whether a text has more than ``MAX_DEPTH`` levels of objects and lists."""
    if line.count(b"{") + line.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _NESTING.finditer(line):
        character = line[token.start()]
        depth += (character in b"{[") - (character in b"}]")
        if depth > MAX_DEPTH:
            return True
    return False


def member_path(path: str, key: str) -> str:
    """The path of an object's member: ``a.b``, or ``a["b c"]`` for keys other than ``[A-Za-z0-9_]+``."""
    if _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{json.dumps(key, ensure_ascii=not is_unicode(key))}]"


def _text_of(value: Any) -> bytes:
    return _written(value).encode("ascii")


def _written(value: Any) -> str:
    match value:
        case _NumberText():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{_written(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(_written(item) for item in value) + "]"
        case _:
            return json.dumps(value)
