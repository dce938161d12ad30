"""Strict pass, patch, repair and columns together give what the plain reference decoder gives."""

from __future__ import annotations

import json

import pytest
from decode_rig import decoded, judge, rows_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.decoder.strict import Degree
from tests import reference
from tests.reference import SHAPES, Number

pytestmark = pytest.mark.usefixtures("twin")

SPELLINGS = """0 -0 0.0 -0.0 1.0 1e3 1E-2 5.5 9007199254740993 9007199254740993.0 9223372036854775807
    9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616
    100000000000000000000 1e999 -1e999 1e-999 1e99999999999999999999 0.1000000000000000055511151231257827
    0.30000000000000004 841.63 5e-324 1.7976931348623157e308 123456789012345678 1795000000 1794999999"""

NUMBERS = st.one_of(
    st.sampled_from(SPELLINGS.split()),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(1, 400).map(lambda digits: "7" * digits),
).map(Number)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
KNOWN_KEYS = ["evars", "evar1", "a", "a.b", "", "0", "extra", "é", 'q"\\', "delim", "values", "[0]"]
KEYS = st.one_of(st.sampled_from(KNOWN_KEYS), ANY_TEXT)
HARD_TEXTS = ["\U0001f600", "\U00020000", "\U000e0067x", "\0", "\u2028", "\\u0041"]
TEXT = st.text(max_size=6) | st.sampled_from(HARD_TEXTS)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, ANY_TEXT)


class Pairs(list):
    """An object as written, where keys may be there twice."""


def pairs(keys, values, max_size=4):
    return st.lists(st.tuples(keys, values), max_size=max_size).map(Pairs)


ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | pairs(KEYS, inner, 3), max_leaves=8)


def shaped(shape):
    """Values of a documented shape, with something else in every place now and then."""
    return st.one_of(fitting(shape), fitting(shape), ANY)


def fitting(shape):
    if isinstance(shape, str):
        return SCALARS[shape.split(" or ")[0]] | OTHERS.get(shape, st.nothing())
    kind, inner = shape
    if kind == "list":
        return st.lists(shaped(inner), max_size=3)
    if kind == "object":
        member = st.sampled_from(sorted(inner)).flatmap(
            lambda key: st.tuples(st.just(key), shaped(inner[key]))
        )
        return st.lists(member | st.tuples(KEYS, LEAVES), max_size=4).map(Pairs)
    if kind == "inside evars":
        return fitting(inner).map(lambda value: Pairs([("evars", value)]))
    several = st.lists(pairs(KEYS, shaped(inner)), max_size=2) if kind.endswith("objects") else st.nothing()
    return pairs(KEYS, shaped(inner)) | several


SCALARS = {
    "text": TEXT,
    "flag": st.booleans(),
    "integer": st.integers(-(2**63), 2**63 - 1).map(str).map(Number),
    "id": st.integers(0, 2**64 - 1).map(str).map(Number),
    "amount": st.floats(allow_nan=False, allow_infinity=False).map(repr).map(Number) | NUMBERS,
}
OTHERS = {
    "text or number": NUMBERS,
    "text or flag": st.booleans(),
    "text or parts": st.lists(st.text(max_size=3), max_size=3),
    "integer or character": st.text(max_size=2) | NUMBERS,
}

FIELD = st.sampled_from(sorted(SHAPES)).flatmap(lambda name: st.tuples(st.just(name), shaped(SHAPES[name])))
RECORD = st.lists(FIELD | FIELD | st.tuples(KEYS, ANY), max_size=5).map(Pairs)
NOT_JSON = [b'{"a":NaN}', b'{"a":1', b'{"a":1}{"b":2}', b'{"a":1}\x00', b'{"a":"\xff"}', b'{"a":1 "b":2}']
BROKEN = st.sampled_from([b"", b" ", b"null", b"[]", b"5", *NOT_JSON])


def written(value, gap, *, escaped):
    """JSON text: what stands between tokens, and whether characters beyond ASCII are spelled in escapes."""

    def inner(part):
        return written(part, gap, escaped=escaped)

    match value:
        case Number():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=escaped or not reference.is_unicode(value))
        case Pairs():
            return (
                f"{{{gap}" + f"{gap},".join(f"{inner(key)}{gap}:{inner(item)}" for key, item in value) + "}"
            )
        case list():
            return f"[{gap}" + f"{gap},".join(map(inner, value)) + "]"
        case _:
            return json.dumps(value)


@st.composite
def record_line(draw):
    gap = draw(st.sampled_from(["", "", " ", "\t"]))
    return written(draw(RECORD), gap, escaped=draw(st.booleans())).encode()


LINES = st.lists(record_line() | record_line() | BROKEN, max_size=5)


@given(LINES)
@example([b'{"evars":{"evars":{"a":"1","a":"2"}}}', b'{"products":[{"events":{"e":[],"e":null}},null]}'])
@example([b'{"pageName":"\\udb40\\udc67","zip":"\\ud83d\\ude00"}'])
@example([b'{"hitIdHigh":18446744073709551616,"visIdLow":100000000000000000000}'])
@example([b'{"evars":{"evars":{"a":1.0},"b":2}}', b'{"evars":{"a":"flat"}}', b'{"evars":{"evars":5}}'])
@settings(max_examples=300, deadline=None)
def test_any_record_is_decoded_as_the_reference_decodes_it(lines):
    """Columns, ``extra`` and rejects are the reference's; columns and ``extra`` give back what was sent."""
    judge(lines, decoded(*lines))


@given(LINES)
@settings(max_examples=100, deadline=None)
def test_looking_first_changes_no_result(lines):
    """Both degrees give the same rows, rejects and ids."""
    usual, thorough = (decoded(*lines, degree=degree) for degree in (Degree.USUAL, Degree.THOROUGH))
    assert rows_of(usual) == rows_of(thorough)
    assert usual.rejects == thorough.rejects
    assert usual.has_id.tolist() == thorough.has_id.tolist()
    assert usual.high.tolist() == thorough.high.tolist()


@given(LINES, st.randoms())
@settings(max_examples=50, deadline=None)
def test_a_record_is_decoded_the_same_in_any_company(lines, chance):
    """A record's row does not depend on its neighbours."""
    alone = [decoded(line) for line in lines]
    order = list(range(len(lines)))
    chance.shuffle(order)
    together = decoded(*(lines[position] for position in order))

    def contents(found):
        return [{**row, "collector_line": 0} for row in rows_of(found)]

    assert contents(together) == [row for position in order for row in contents(alone[position])]
