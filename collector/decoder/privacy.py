"""Hides what ``[privacy]`` names, in rows and rejects, before any of it can reach a file.

Run by the decoder processes. It works on what both twins give, columns and ``extra``, so neither knows of
it. Invariant: no value of a hidden field is in what comes out, whatever shape it was sent in: in ``extra``
and among the entries of maps a field is hidden by its name, whatever its case and blanks, at whatever depth.
What cannot be told apart is hidden as a whole.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from collector.core.privacy import Privacy
from collector.decoder import jsontext
from collector.decoder.columns import Flags, Int64s
from collector.decoder.repair import NULL
from collector.decoder.rows import POISON, ArrowArray, Reject
from collector.decoder.schema import EXTRA, FIELD_KINDS, ListOf, MapOf, Member, Object, Wrapped
from collector.privacy_fields import DOT

_Change: TypeAlias = Callable[[ArrowArray], ArrowArray]

_SEGMENT: Final = re.compile(r'([A-Za-z0-9_]+)|\["((?:[^"\\]|\\.)*)"\]|\[[0-9]+\]')
"""Of a path in ``extra``. Source: ``jsontext.member_path``."""

WITHHELD: Final = "raw is withheld, as [privacy] is set"

_EMPTY: Final = frozenset({NULL, b'""'})
"""Texts that say nothing: null and empty mean the same."""


def plain_name(name: str) -> str:
    """A name without what is lost in a slip of a hand: the service itself sends `event1` and `event 1`."""
    return "".join(name.split()).casefold()


class Hider:
    """Made once by each decoder that has something to hide."""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._columns: dict[str, bool] = {}
        """Whole columns, and whether their values are hashed; else they are dropped."""
        maps: dict[str, bool] = {}
        """Of which entries are hidden, and whether all of these are hashed."""
        self._names: dict[str, bool] = {}
        """Plain names of all that is hidden. Where one is hashed here and dropped there, it is dropped."""
        for hashed, names in ((False, privacy.drop), (True, privacy.hash)):
            for name in names:
                field, dot, key = name.partition(DOT)
                (maps if dot else self._columns).setdefault(field, hashed)
                self._names.setdefault(plain_name(key or field), hashed)
        self._maps = {plain_name(name): hashed for name, hashed in maps.items()}
        self._extra = _Extra(self._names, self._maps, self._hashed_text)
        self._hides = {name: hide for name in FIELD_KINDS if (hide := self._hide_of(name)) is not None}
        self._hides[EXTRA] = self._extra.column

    # ------------------------------------------------------------ rows

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows of ``WIRE_SCHEMA`` without what is hidden."""
        arrays = [
            hide(column) if (hide := self._hides.get(name)) is not None else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

    def _hide_of(self, name: str) -> _Change | None:
        """What is to be done to a column; ``None``: nothing."""
        if name in self._columns:
            return self._hashed if self._columns[name] else _nothing
        match FIELD_KINDS[name]:
            case MapOf():
                return self._entries_hider(name)
            case Wrapped():
                return _inside({0: self._entries_hider(name)})
            case ListOf(Object(members)):
                inner = {
                    at: hide for at, member in enumerate(members) if (hide := self._hide_of_member(member))
                }
                return _in_items(inner) if inner else None
            case _:
                return None

    def _hide_of_member(self, member: Member) -> _Change | None:
        """A product's eVars and events are those of the hit, bound to it: hidden with them."""
        if member.name in self._columns:
            return _nothing
        return self._entries_hider(member.name) if isinstance(member.kind, MapOf) else None

    def _entries_hider(self, name: str) -> _Change:
        """A map that came in another shape may be shown as an entry of itself."""
        plain = plain_name(name)
        keys = self._names | ({plain: self._maps[plain]} if plain in self._maps else {})
        return functools.partial(self._without_entries, keys)

    def _without_entries(self, keys: Mapping[str, bool], column: ArrowArray) -> ArrowArray:
        names, items, offsets = _entries_of(column)
        encoded = names.dictionary_encode()
        hidden = [keys.get(plain_name(name)) for name in encoded.dictionary.to_pylist()]
        if not any(how is not None for how in hidden):
            return column
        are_texts = pa.types.is_string(items.type)  # nothing else can be hashed
        indices = np.asarray(encoded.indices)
        hashed = np.array([how is True and are_texts for how in hidden], np.bool_)[indices]
        if hashed.any():
            mask = pa.array(hashed)
            items = pc.replace_with_mask(items, mask, self._hashed(items.filter(mask)))
        kept = np.array([how is None for how in hidden], np.bool_)[indices] | hashed
        return _with_entries(column, names, items, offsets, kept)

    def _hashed(self, texts: ArrowArray) -> ArrowArray:
        encoded = texts.dictionary_encode()
        digests = [self._digest(text) for text in encoded.dictionary.to_pylist()]
        return pa.array(digests, pa.string()).take(encoded.indices)

    def _digest(self, text: str) -> str:
        return self._privacy.digest(text.encode()) if text else text

    def _hashed_text(self, text: bytes) -> bytes:
        """Of a string its value, as in a column; of anything else its JSON text."""
        if text in _EMPTY:
            return text
        value = jsontext.string(text)
        return b'"%b"' % self._privacy.digest(text if value is None else value.encode()).encode()

    # ------------------------------------------------------------ rejects

    def reject(self, reject: Reject) -> Reject:
        """Only why, how long, and a fingerprint: nobody can say where in it something would stand."""
        kind = reject.reason.partition(":")[0]
        why = f"{reject.reason};" if kind == POISON else f"{kind}:"  # others may quote the record
        raw = reject.raw or b""
        length, sha256 = reject.length or len(raw), reject.sha256 or hashlib.sha256(raw).digest()
        reason = f"{why} record of {length} bytes, sha256 {sha256.hex()}; {WITHHELD}"
        return replace(reject, reason=reason, raw=None, length=length, sha256=sha256)


class _Extra:
    """The column ``extra``: paths and JSON texts, in which a field may stand anywhere."""

    def __init__(
        self, names: Mapping[str, bool], maps: Mapping[str, bool], hashed: Callable[[bytes], bytes]
    ) -> None:
        self._hashed = hashed
        self._names = names
        self._maps = maps
        """Of which something is hidden: what has no entries there is hidden as a whole."""
        mentioned = (r"\s*".join(map(re.escape, name)) for name in (*self._names, *self._maps))
        self._suspect = re.compile("|".join([*mentioned, r"\\"]))
        """Of a text without case: all that could hold a name, which may be spelled with blanks or escapes."""
        self._segments = functools.lru_cache(maxsize=1 << 14)(_segments)

    def column(self, column: ArrowArray) -> ArrowArray:
        paths, texts, offsets = _entries_of(column)
        if not len(paths):
            return column
        changed = list(map(self._entry, paths.to_pylist(), texts.to_pylist()))
        kept = np.array([text is not None for text in changed], np.bool_)
        return _with_entries(column, paths, pa.array(changed, pa.string()), offsets, kept)

    def _entry(self, path: str, text: str) -> str | None:
        segments = self._segments(path)
        hidden = next((name for name in segments if name in self._names), None)
        if hidden is None and segments[-1] not in self._maps and not self._is_suspect(text):
            return text
        try:
            kept = self._value(segments[-1] if hidden is None else hidden, text.encode())
        except (ValueError, RecursionError):  # no JSON: never seen, and never let through
            return None
        return None if kept is None else kept.decode()

    def _is_suspect(self, text: str) -> bool:
        return text[0] in "{[" and self._suspect.search(text.casefold()) is not None

    def _value(self, name: str, text: bytes) -> bytes | None:
        """What is kept of the value of a member. Members are taken apart, or equal keys could hide one."""
        if name in self._names:
            return self._hidden(text, hashed=self._names[name])
        if jsontext.is_object(text):
            kept = (
                (key, self._value(plain_name(key), value)) for key, value in jsontext.members(text).items()
            )
            return b"{%b}" % b",".join(
                b"%b:%b" % (_key(key), value) for key, value in kept if value is not None
            )
        if jsontext.is_list(text):
            items = (self._value(name, item) for item in jsontext.items(text))
            return b"[%b]" % b",".join(NULL if item is None else item for item in items)
        return self._hidden(text, hashed=self._maps[name]) if name in self._maps else text

    def _hidden(self, text: bytes, *, hashed: bool) -> bytes | None:
        return self._hashed(text) if hashed else None


def _segments(path: str) -> tuple[str, ...]:
    """The plain names in a path."""
    found = _SEGMENT.finditer(path)
    names = (match[1] if match[2] is None else str(json.loads(f'"{match[2]}"')) for match in found)
    return tuple(plain_name(name) for name in names if name is not None) or ("",)


def _key(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=not jsontext.is_unicode(name)).encode()


# ---------------------------------------------------------------- arrays with other children


def _nothing(column: ArrowArray) -> ArrowArray:
    return pa.nulls(len(column), column.type)


def _inside(hides: Mapping[int, _Change]) -> _Change:
    """Of members of a struct."""

    def hidden(column: ArrowArray) -> ArrowArray:
        members = [column.field(at) for at in range(column.type.num_fields)]
        members = [hides[at](member) if at in hides else member for at, member in enumerate(members)]
        validity = _from_zero(column).buffers()[0]
        return pa.Array.from_buffers(column.type, len(column), [validity], children=members)

    return hidden


def _in_items(hides: Mapping[int, _Change]) -> _Change:
    """Of members of a list's structs."""

    def hidden(column: ArrowArray) -> ArrowArray:
        column = _from_zero(column)
        return _rebuilt(column, column.buffers()[1], [_inside(hides)(_from_zero(column.values))])

    return hidden


def _entries_of(column: ArrowArray) -> tuple[ArrowArray, ArrowArray, Int64s]:
    """Keys and items of a column's maps, and where each map's begin, from 0."""
    offsets = np.asarray(column.offsets).astype(np.int64)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    names = _from_zero(column.keys.slice(first, last - first))
    return names, column.items.slice(first, last - first), offsets - first


def _with_entries(
    column: ArrowArray, names: ArrowArray, items: ArrowArray, offsets: Int64s, kept: Flags
) -> ArrowArray:
    """The maps with other items, and only the entries that are kept."""
    before = np.concatenate([[0], np.cumsum(kept)])[offsets].astype("<i4")
    if not kept.all():
        mask = pa.array(kept)
        names, items = names.filter(mask), items.filter(mask)
    kind = column.type
    entries = pa.StructArray.from_arrays([names, items], fields=[kind.key_field, kind.item_field])
    return _rebuilt(_from_zero(column), pa.py_buffer(before.tobytes()), [entries])


def _rebuilt(column: ArrowArray, offsets: pa.Buffer | None, children: list[ArrowArray]) -> ArrowArray:
    validity = column.buffers()[0]
    return pa.Array.from_buffers(column.type, len(column), [validity, offsets], children=children)


def _from_zero(column: ArrowArray) -> ArrowArray:
    """Copied if it begins in the middle of its buffers."""
    return column if column.offset == 0 else column.take(pa.array(np.arange(len(column))))
