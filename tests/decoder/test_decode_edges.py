"""Records at the edges of JSON and of the schema, each among ordinary neighbours."""

from __future__ import annotations

import json

import pytest
from decode_rig import decoded, judge, rows_of

from collector.decoder.strict import Degree
from tests import reference

pytestmark = pytest.mark.usefixtures("twin")

ROW = "row"
NEIGHBOUR = b'{"pageName":"an ordinary hit","evars":{"evars":{"evar1":"x"}},"hitIdHigh":1,"hitIdLow":2}'


def nested(levels: int) -> bytes:
    """An object with this many levels."""
    return b'{"new":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


EDGES = {
    # what is no hit
    "empty": (b"", "not an object: it is white space"),
    "white space": (b" \t ", "not an object: it is white space"),
    "list": (b"[1,2]", "not an object: it starts with '['"),
    "string": (b'"x"', "not an object"),
    "null": (b"null", "not an object"),
    "word": (b"Too many connections", "not an object: it starts with 'T'"),
    "html": (b"<html>", "not an object"),
    "byte order mark": (b'\xef\xbb\xbf{"a":1}', "not an object: it starts with '\\ufeff'"),
    "NaN": (b'{"a":NaN}', "not json"),
    "infinity": (b'{"products":[{"revenue":-Infinity}]}', "not json"),
    "raw NUL": (b'{"a":1\x00}', "not json"),
    "raw NUL after": (b'{"a":1}\x00', "not json"),
    "raw NUL in a known field": (b'{"zip":"\x00"}', "not json"),
    "raw NUL in a map": (b'{"evars":{"evars":{"a":"\x00"}}}', "not json"),
    "raw tab in a string": (b'{"props":{"prop1":"a\tb"}}', "not json"),
    "missing comma": (b'{"zip":"1" "ip":"2"}', "not json"),
    "missing comma in a map": (b'{"props":{"prop1":"1" "prop2":"2"}}', "not json"),
    "trailing comma": (b'{"zip":"1",}', "not json"),
    "trailing comma in a map": (b'{"props":{"prop1":"1",}}', "not json"),
    "two objects": (b'{"zip":"1"}{"zip":"2"}', "not json"),
    "two objects with a comma": (b'{"zip":"1"},{"zip":"2"}', "not json"),
    "cut": (b'{"zip":"1","props":{"prop1":"', "not json"),
    "comment": (b'{"zip":/* */"1"}', "not json"),
    "leading zero": (b'{"browserWidth":01}', "not json"),
    "plus sign": (b'{"browserWidth":+1}', "not json"),
    "bare point": (b'{"products":[{"revenue":1.}]}', "not json"),
    "unknown escape": (b'{"zip":"\\x41"}', "not json"),
    "short escape": (b'{"props":{"prop1":"\\u12"}}', "not json"),
    "bad UTF-8": (b'{"zip":"\xff"}', "not utf-8: byte 8"),
    "bad UTF-8 in a map": (b'{"evars":{"evars":{"a":"\xff"}}}', "not utf-8"),
    "bad UTF-8 in a map's key": (b'{"evars":{"evars":{"\xff":"a"}}}', "not utf-8"),
    "bad UTF-8 in an unknown field": (b'{"new":{"a":["\xc3"]}}', "not utf-8"),
    "overlong UTF-8": (b'{"zip":"\xc0\x80"}', "not utf-8"),
    "surrogate in UTF-8": (b'{"props":{"a":"\xed\xa0\x80"}}', "not utf-8"),
    "too deep": (nested(129), "too deep"),
    "far too deep": (nested(100_000), "too deep"),
    "too deep in a map of text": (
        b'{"evars":{"evars":{"a":' + b"[" * 900 + b"]" * 900 + b"}}}",
        "too deep",
    ),
    "too deep in a documented field": (b'{"exclude":' + b"[" * 500 + b"]" * 500 + b"}", "too deep"),
    "deep and broken": (b'{"a":' + b"[" * 100_000, "too deep"),
    # what is one
    "as deep as can be": (nested(128), ROW),
    "brackets in a string": (b'{"new":"' + b"[{" * 1000 + b'"}', ROW),
    "no members": (b"{}", ROW),
    "white space around": (b' \t{ "zip" : "1" } ', ROW),
    "carriage return": (b'{"zip":"1"}\r', ROW),
    "escaped name": (b'{"\\u007a\\u0069p":"1"}', ROW),
    "escaped NUL": (b'{"zip":"\\u0000","props":{"\\u0000":"\\u0000"},"\\u0000":"\\u0000"}', ROW),
    "line separators": ('{"zip":"\u2028\u2029\x85","new\u2028":"\u2028"}'.encode(), ROW),
    "noncharacters": ('{"zip":"\ufffe\uffff\U0010ffff"}'.encode(), ROW),
    "lone surrogate": (b'{"zip":"\\ud800","ip":"kept"}', ROW),
    "lone surrogates in a map": (b'{"props":{"a":"\\udfff","\\ud800":"x","b":"kept"}}', ROW),
    "lone surrogate as a name": (b'{"\\ud800":{"\\ud800":1e999},"zip":"kept"}', ROW),
    "lone surrogate in a list": (b'{"mcAudiences":{"values":["a","\\ud800","b"]}}', ROW),
    "surrogates in the wrong order": (b'{"zip":"\\udc00\\ud800"}', ROW),
    "escaped character of every plane": (
        json.dumps({"zip": "".join(chr((plane << 16) + 0x67) for plane in range(1, 17))}).encode(),
        ROW,
    ),
    "escaped name of an even plane": (b'{"props":{"\\ud840\\udc00":"\\uDB40\\uDC67"}}', ROW),
    "escaped backslash before u": (b'{"zip":"\\\\ud840\\\\udc00"}', ROW),
    "equal names": (b'{"zip":"1","zip":2,"zip":"3"}', ROW),
    "equal names, the last null": (b'{"zip":"1","zip":null}', ROW),
    "equal names, the last odd": (b'{"zip":"1","zip":[2]}', ROW),
    "equal names, one escaped": (b'{"zip":"1","\\u007aip":"2"}', ROW),
    "equal names of maps": (b'{"props":{"a":"1"},"props":{"b":"2"}}', ROW),
    "equal names, unknown": (b'{"new":1,"new":[2]}', ROW),
    "equal keys in a map": (b'{"props":{"a":"1","b":"2","a":"3"}}', ROW),
    "equal keys in evars": (b'{"evars":{"evars":{"a":"1","a":null}}}', ROW),
    "equal keys, one escaped": (b'{"props":{"a":"1","\\u0061":"2"}}', ROW),
    "equal keys in events": (b'{"events":{"a":[{"count":1}],"a":[]}}', ROW),
    "equal keys in a product": (b'{"products":[{},{"evars":{"a":"1","a":"2"}}]}', ROW),
    "equal keys in a product's events": (b'{"products":[{"events":{"a":[],"b":[],"a":[{}]}}]}', ROW),
    "equal keys in hierarchies": (b'{"hierarchies":{"a":{"delim":1},"a":{"values":"x"}}}', ROW),
    "equal keys in an object": (b'{"exclude":{"id":"1","id":"2"}}', ROW),
    "equal keys in an unknown field": (b'{"new":{"a":1,"a":2}}', ROW),
    "integer of 400 digits": (b'{"browserWidth":' + b"9" * 400 + b"}", ROW),
    "id of 400 digits": (b'{"hitIdHigh":' + b"9" * 400 + b',"hitIdLow":1}', ROW),
    "amount of 4000 digits": (b'{"products":[{"revenue":0.' + b"7" * 4000 + b"}]}", ROW),
    "integer over 64 bits": (b'{"browserWidth":9223372036854775808}', ROW),
    "integer under 64 bits": (b'{"browserWidth":-9223372036854775809}', ROW),
    "widest integers": (b'{"browserWidth":9223372036854775807,"geoDMA":-9223372036854775808}', ROW),
    "integer with a fraction": (b'{"browserWidth":5.5,"browserHeight":5.0,"geoDMA":5e0}', ROW),
    "minus zero": (b'{"browserWidth":-0,"hitIdHigh":-0,"products":[{"revenue":-0.0,"units":-0}]}', ROW),
    "id over 64 bits": (b'{"hitIdHigh":18446744073709551616,"visIdLow":99999999999999999999}', ROW),
    "negative id": (b'{"hitIdLow":-1}', ROW),
    "id as a string": (b'{"hitIdLow":"5"}', ROW),
    "infinite amount": (b'{"products":[{"revenue":1e999},{"units":-1e999}]}', ROW),
    "vanishing amount": (b'{"products":[{"revenue":1e-999}]}', ROW),
    "absurd exponent": (b'{"products":[{"revenue":1e99999999999999999999}]}', ROW),
    "amount between floats": (b'{"products":[{"revenue":9007199254740993,"units":9007199254740993}]}', ROW),
    "amount with too many digits": (b'{"products":[{"revenue":0.1000000000000000055511151231257827}]}', ROW),
    "amount as a string": (b'{"products":[{"revenue":"5"}]}', ROW),
    "amount as an object": (b'{"products":[{"revenue":{}}]}', ROW),
    "number in a map": (b'{"evars":{"evars":{"a":"x","b":5,"c":true,"d":{},"e":null}}}', ROW),
    "escaped NUL in what a map refuses": (b'{"evars":{"evars":{"a":{"x":"\\u0000"}}},"zip":"1"}', ROW),
    "escaped NUL as a name in it": (b'{"props":{"a":[{"\\u0000":1}]}}', ROW),
    "escaped NUL in a product's map": (b'{"products":[{"evars":{"a":["\\u0000"]}}]}', ROW),
    "number in text": (b'{"zip":75001}', ROW),
    "text in a number": (b'{"geoDMA":"501"}', ROW),
    "object in text": (b'{"zip":{"a":"b"}}', ROW),
    "text in an object": (b'{"exclude":"no"}', ROW),
    "null item": (b'{"products":[null,{"name":"a"},7],"tnt":[null]}', ROW),
    "odd item in a list": (b'{"events":{"a":[{"count":"1","unique":2},[],null]}}', ROW),
    "names that are paths": (b'{"a.b":1,"products[0]":2,"":3,"[0]":4,"a":{"b":5}}', ROW),
    "keys that are paths": (b'{"events":{"a.b":1,"":2,"[0]":3,"a\\"]":4}}', ROW),
    "key of the wrapper in it": (b'{"evars":{"evars":{"evars":[1]}}}', ROW),
    "names of ours": (b'{"extra":{"a":"b"},"received_at":1,"collector_line":5,"collector_block":"x"}', ROW),
    "long name": (b'{"' + b"n" * 100_000 + b'":1}', ROW),
}


@pytest.mark.parametrize("degree", list(Degree)[:2])
@pytest.mark.parametrize("name", EDGES)
def test_an_edge_is_a_row_or_a_reject_and_its_neighbours_are_untouched(name, degree):
    """As the reference says, with the reason given, alone and among others."""
    line, fate = EDGES[name]
    found = decoded(NEIGHBOUR, line, NEIGHBOUR, degree=degree)
    judge([NEIGHBOUR, line, NEIGHBOUR], found)
    reasons = [reject.reason for reject in found.rejects]
    if fate is ROW:
        assert reasons == []
    else:
        assert [reason.startswith(fate) for reason in reasons] == [True], reasons


def test_all_edges_in_one_block():
    """Many odd records at once: each comes out as it does alone."""
    lines = [line for line, _ in EDGES.values()]
    judge(lines, decoded(*lines))


def test_a_record_with_very_many_fields_is_a_row():
    """More unknown fields, and as many entries of a map, than 16 bits count; some of them odd."""
    fields = {f"new{n}": n for n in range(70_000)}
    entries = {f"k{n}": "v" if n % 1000 else n for n in range(70_000)}
    line = json.dumps({**fields, "props": entries}).encode()
    found = decoded(NEIGHBOUR, line)
    judge([NEIGHBOUR, line], found)
    row = rows_of(found)[1]
    assert len(row["extra"]) == 70_070
    assert len(row["props"]) == 69_930


def test_a_reject_says_nothing_of_what_the_record_says():
    """Reasons go to logs and counters: no more than one character of the record, escaped."""
    for line, fate in EDGES.values():
        if fate is not ROW:
            reason = decoded(line).rejects[0].reason
            assert reason.isascii()
            assert len(reason) < 120


def test_every_column_of_the_reference_is_a_documented_field():
    """The reference and the schema know the same fields."""
    row = rows_of(decoded(b"{}"))[0]
    assert set(reference.SHAPES) == set(row) - {
        "received_at",
        "hit_at",
        "collected_at",
        "extra",
        "collector_instance",
        "collector_block",
        "collector_line",
    }
