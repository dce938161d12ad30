"""The strict pass: which lines are exactly what the schema says, decided and discarded.

Run by the decoder processes. Invariant: the columnariser sees only lines accepted here (or made by
``repair``), since on others it drops members, changes numbers or aborts the process. Two degrees:
the usual pass skips the values of maps of text, which cost half of the time and which the
columnariser refuses by itself when they are no text; the thorough pass checks them too, and says
which lines made it refuse.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Annotated, Any, Final

import msgspec

from collector.decoder.schema import (
    EXTRA,
    HIT_FIELDS,
    ID_COLUMNS,
    MAX_EXACT_INTEGER,
    Amount,
    Count,
    Flag,
    Id,
    Integer,
    Kind,
    ListOf,
    MapOf,
    Member,
    Object,
    Text,
    Wrapped,
)

Line = bytes | memoryview

ID_MAX: Final = 2**64 - 1

SAFE_NUMBER_BYTES: Final = 15
"""A number written with at most 15 digits comes back from a float64 (IEEE 754: DBL_DIG)."""

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Uint = Annotated[
    int, msgspec.Meta(ge=0)
]  # msgspec takes no bound over int64: the upper one is checked later
_Whole = Annotated[int, msgspec.Meta(ge=-MAX_EXACT_INTEGER, le=MAX_EXACT_INTEGER)]


_SCALARS: Final[Mapping[type[Kind], Any]] = {
    Text: str | None,
    Integer: _Int64 | None,
    Id: _Uint | None,
    Amount: msgspec.Raw,
    Count: _Whole | None,
    Flag: bool | None,
}


class Skipped(msgspec.Struct, gc=False):
    """Any JSON object: only its grammar is checked."""


def type_of(kind: Kind, *, thorough: bool, name: str = "Hit") -> Any:
    """The msgspec type that takes exactly what fits the kind's column; ``None`` always does.

    An ``Amount`` is left as its text, for ``is_exact``; an ``Id`` may still be over 64 bits.
    """
    match kind:
        case Object(fields):
            return _struct(name, fields, thorough=thorough) | None
        case ListOf(item):
            return list[type_of(item, thorough=thorough, name=name)] | None  # type: ignore[misc]
        case MapOf(Text()) if not thorough:
            return Skipped | None
        case MapOf(value):
            return dict[str, type_of(value, thorough=thorough, name=name)] | None  # type: ignore[misc]
        case Wrapped(key, inner):
            return _struct(name, (Member(key, inner),), thorough=thorough) | None
        case _:
            return _SCALARS[type(kind)]


def _struct(name: str, members: Iterable[Member], *, thorough: bool) -> Any:
    fields = [_struct_field(name, member, thorough=thorough) for member in members]
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False)


def _struct_field(name: str, member: Member, *, thorough: bool) -> tuple[str, Any, Any]:
    kind = type_of(member.kind, thorough=thorough, name=f"{name}_{member.name}")
    return member.name, kind, msgspec.Raw(b"null") if kind is msgspec.Raw else None


class Degree(enum.Enum):
    """How much of a line is looked at."""

    USUAL = "usual"
    THOROUGH = "thorough"
    """The values in maps of text, too."""
    REPAIRED = "repaired"
    """As thorough, of lines that may have an ``extra`` already."""


def hit_type(degree: Degree, loose: frozenset[str] = frozenset()) -> Any:
    """The Struct of a hit. Fields in ``loose`` are left as their text, whatever it is."""
    thorough = degree is not Degree.USUAL
    fields = [
        (field.name, msgspec.Raw, msgspec.Raw(b"null"))
        if field.name in loose
        else _struct_field("Hit", Member(field.name, field.kind), thorough=thorough)
        for field in HIT_FIELDS
    ]
    if degree is Degree.REPAIRED:
        fields.append((EXTRA, dict[str, str] | None, None))
    return msgspec.defstruct("Hit", fields, forbid_unknown_fields=True, gc=False)


_DECODERS: Final = {degree: msgspec.json.Decoder(hit_type(degree)) for degree in Degree}

REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""How msgspec says that it does not take a text."""


def misfits(lines: Sequence[Line], degree: Degree) -> list[int]:
    """Positions of the lines that do not fit the schema.

    Source: 3.4 us a line of 3.2 KB, 7 us thorough (one core of an AMD EPYC).
    """
    decode = _DECODERS[degree].decode
    thorough = degree is not Degree.USUAL
    found = []
    for position, line in enumerate(lines):
        try:
            hit = decode(line)
        except REFUSALS:
            found.append(position)
            continue
        if (hit.products and not has_exact_revenues(hit.products)) or (thorough and not _has_ids(hit)):
            found.append(position)
    return found


def has_exact_revenues(products: list[Any]) -> bool:
    """Whether a float64 gives every product's revenue back."""
    return all(is_exact(bytes(product.revenue)) for product in products if product is not None)


def _has_ids(hit: Any) -> bool:
    return all((getattr(hit, name) or 0) <= ID_MAX for name in ID_COLUMNS)


def is_exact(text: bytes) -> bool:
    """Whether a valid JSON text is ``null`` or a number that a float64 gives back."""
    if text[0] not in b"-0123456789":
        return text == b"null"
    if len(text) <= SAFE_NUMBER_BYTES and b"e" not in text and b"E" not in text:
        return True
    number = float(text)
    try:
        return isfinite(number) and Decimal(repr(number)) == Decimal(text.decode())
    except InvalidOperation:  # an exponent of 19 digits and more
        return False
