"""JSON at its edges, a table: both twins agree, and the reference judges them."""

from __future__ import annotations

import json

import pytest
from decode_rig import judge, need_kernel
from twin_rig import agree

HIT = (
    b'{"browserWidth":7,"hitIdHigh":1,"hitIdLow":2,"javaEnabled":true,"zip":"caf\xc3\xa9 \\ud83d\\ude00",'
    b'"evars":{"evars":{"evar1":"a","evar2":""}},"events":{"event1":[{"count":1,"exponent":0,"unique":null}]},'
    b'"exclude":{"id":"1"},"products":[{"name":"hat","revenue":5.5,"units":1e0,"evars":{"b":"c"}},null],'
    b'"hierarchies":{"h":{"delim":44,"values":"a,b"}},"mcAudiences":{"values":["1","2"],"delim":44},"tnt":[]}'
)
TOKENS = [b"{", b"}", b"[", b"]", b",", b":", b"true"]
SPACES = [b" ", b"\t", b"\r", b"\r \t", b"\x0b", b"\x0c", b"\xa0", b"\xc2\xa0", b"\0"]

NUMBERS = b"""0 -0 0.0 -0.0 1 -1 1.0 5.5 1e0 1E0 1e+0 1e-0 1e3 1E-2 1.5e3 -1.5E+3 100e-2 0e0 0e999 -0e-999
    0.1 0.3 0.30000000000000004 0.3000000000000000 0.299999999999999988897769753748 841.63 1795000000.25
    123456789012345 1234567890123456 12345678901234567 123456789012345678 99999999999999999
    0.123456789012345 0.1234567890123456 0.12345678901234567 0.123456789012345678
    1.7976931348623157e308 1.7976931348623159e308 1e308 1e309 -1e309 1e400 1e-400
    5e-324 4e-324 3e-324 2e-324 4.9e-324
    2.2250738585072014e-308 2.225073858507201e-308 2.2250738585072011e-308 1e22
    1e23 9.999999999999999e22 9007199254740993 9007199254740992.5 9007199254740993.0 7.2e16
    7.174648137343064e-43 7.1746481373430634e-43 -7.120236347223045e-307 1e99999999999999999999
    00 01 -01 007 1. .1 - + +1 1e 1e+ 1.e1 1.5.5 1-1 0x10 1_000 1,5 Infinity NaN -Infinity
    1f --1 -.5 0e99999999999""".split()
NUMBERS += [b"0" * 30, b"1" + b"0" * 400, b"9" * 19, b"9" * 20, b"9" * 21, b"0." + b"0" * 400 + b"1"]
NUMBERS += [b"0." + b"7" * 400, b"1e-" + b"0" * 30 + b"1"]
for large in (2**53, 2**63, 2**64, 10**15, 10**16, 10**19, 10**20):
    for near in (large - 1, large, large + 1):
        NUMBERS += [b"%d" % near, b"-%d" % near, b"%d.0" % near]
POWERS = [repr(sign * 2.0**power).encode() for power in range(-1074, 1024) for sign in (1, -1)]
PLACES = {
    "an integer": b'{"browserWidth":%b}',
    "an id": b'{"hitIdLow":%b}',
    "an amount": b'{"products":[{"revenue":%b}]}',
    "a count": b'{"products":[{"units":%b}],"events":{"e":[{"count":%b,"exponent":%b}]}}',
    "text": b'{"zip":%b,"exclude":{"id":%b}}',
    "a map": b'{"evars":{"evars":{"evar1":%b}},"props":{"prop1":%b}}',
    "a flag": b'{"javaEnabled":%b,"mobileAudioSupport":%b}',
    "a delimiter": b'{"mcAudiences":{"delim":%b},"hierarchies":{"h":{"delim":%b,"values":["a","b"]}}}',
    "an unknown field": b'{"new":%b}',
    "an unknown field's inside": b'{"new":[{"a":%b,"b":[%b]},%b],"zip":"1"}',
    "an unknown member": b'{"new":%b,"exclude":{"new":[%b]}}',
    "unknown fields alone": b'{"new":%b,"zip":"1","newer":{"a":[%b]}}',
}
WORDS = b"""null true false nul nullx NULL nulltrue tru truex TRUE falsee fals True None "" "5" [] {} [null]
    {"a":null} [[]] [{}] {"":{}} {"a":1} [1] ["a",1] {"a":"b","a":"c"} 'a' undefined""".split()

PLAIN = [b'"%b"' % text for text in (b"", b"a", b"a" * 15, b"a" * 16, b"a" * 17, b"a" * 5000)]
CONTROLS = [b'"a%cb"' % code for code in (*range(0x0A), *range(0x0B, 0x20), 0x7F)]
ESCAPED = [b'"a\\u%04xb"' % code for code in range(0x20)] + [
    b'"\\%c"' % letter for letter in range(0x20, 0x7F)
]
UNITS = rb"""\u0000 \u007f \u0080 \u07ff \u0800 \ud7ff \ue000 \uffff \ud800\udc00 \udbff\udfff \ud83d\ude00
    \uD83D\uDE00 \ud840\udc67 \ud800 \udbff \udc00 \udfff \udc00\ud800 \ud800\ud800 \ud800\u0041
    \ud800x \ud800\n \ud800\\udc00 \ud800\udbff \u \u1 \u12 \u123 \u123g \u-123 \u+123 \U0041 \ud83d\u
    \ud83d\ude    \ud83d\ude0 \ud83d\ \\ \\u0041 \\\u0041 \" \"\\""".split()
UTF_8 = [chr(code).encode() for code in (0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFE, 0x10000, 0x10FFFF)]
UTF_8 += [bytes([lead]) for lead in range(0x80, 0x100)]
UTF_8 += [bytes([lead, 0x80]) for lead in (0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xF0)]
for second in (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0):
    UTF_8 += [bytes([lead, second, 0x80]) for lead in (0xE0, 0xE1, 0xED, 0xEF)]
    UTF_8 += [bytes([lead, second, 0x80, 0x80]) for lead in (0xF0, 0xF1, 0xF4, 0xF5)]
UTF_8 += [b"\xf0\x9f\x98", b"\xf0\x9f\x98\x00", b"\xe2\x82", b"\xe2\x28\xa1", b"\xed\xa0\x80\xed\xb0\x80"]
STRINGS = [*PLAIN, *CONTROLS, *ESCAPED, *(b'"%b"' % text for text in UNITS)]
STRINGS += [b'"%b%b"' % (before, text) for text in UTF_8 for before in (b"", b"a" * 15)]

DOUBLES = [
    b'{"zip":"1","zip":"2"}',
    b'{"zip":"1","zip":null}',
    b'{"zip":null,"zip":"1"}',
    b'{"zip":1,"zip":"2"}',
    b'{"zip":"1","\\u007aip":"2"}',
    b'{"hitIdLow":1,"hitIdLow":2,"hitIdHigh":3}',
    b'{"exclude":{"id":"1","id":"2"}}',
    b'{"exclude":{"id":"1","id":2}}',
    b'{"exclude":{"id":"1"},"exclude":{"value":"2"}}',
    b'{"exclude":{"id":"1","\\u0069d":null}}',
    b'{"mcAudiences":{"values":["a"],"values":["b"],"delim":1,"delim":2}}',
    b'{"tnt":[{"actionId":"a","actionId":"b"},{"actionId":"c"}]}',
    b'{"tntAction":[{"actionId":"a","actionId":"b"},{"actionName":null,"actionName":"c"}]}',
    b'{"products":[{"name":"a","name":"b"},{"revenue":1,"revenue":2.5}]}',
    b'{"products":[{"evars":{"a":"1"},"evars":{"b":"2"}}]}',
    b'{"products":[{"evars":{"a":"1","b":"2","a":"3"}},{"evars":{"a":"1"}}]}',
    b'{"products":[{"events":{"e":[{"count":1,"count":2}],"e":[]}}]}',
    b'{"products":[],"products":null}',
    b'{"events":{"e":[{"count":1,"count":2}]}}',
    b'{"events":{"e":[],"f":[],"e":[{}]}}',
    b'{"evars":{"evars":{"a":"1","a":"2"}}}',
    b'{"evars":{"evars":{"a":"1"},"evars":{"b":"2"}}}',
    b'{"evars":{"evars":{"a":"1"}},"evars":{"evars":{"b":"2"}}}',
    b'{"evars":{"evars":{"":"1","":"2"}}}',
    b'{"evars":{"evars":{"a":"1","\\u0061":"2"}}}',
    b'{"evars":{"evars":{"\\/":"1","/":"2"}}}',
    b'{"hierarchies":{"h":{"delim":1,"delim":2},"h":{"values":"x"}}}',
    b'{"mvvars":{"a":{"m":{"values":["x"]},"m":{"delim":1}},"b":{}}}',
    b'{"props":{"k":"1","k":null}}',
    b'{"props":{%b}}' % b",".join(b'"k%d":"v"' % (n % 299) for n in range(300)),
    b'{"props":{%b}}' % b",".join(b'"k%d":"v"' % n for n in range(300)),
    b'{"extra":{"a":"b"},"extra":{"a":"b"}}',
    b'{"new":1,"new":2}',
    b'{"new":1,"\\u006eew":2,"n w":3,"n w":4}',
    b'{"new":{"a":1,"a":2},"New":[{"b":1,"b":2}]}',
    b'{"mobileAudioSupport":true,"mobileAudioSupport":false}',
    b'{"mobileAudioSupport":true,"mobileAudioSupport":"a","mobileVideoSupport":"b","mobileVideoSupport":false}',
    b'{"extra":1,"new":2,"mobileAudioSupport":false,"zip":5}',
    b"{%b}" % b",".join(b'"new%d":%d' % (n % 299, n) for n in range(300)),
    b"{%b}" % b",".join(b'"new%d":%d' % (n, n) for n in range(300)),
]
SHAPES = rb"""{}| {}|{} |{ }|{}{}|{},|{}]|{}x|{}null|{} {}|,{}|[{}]|{{}}|{,}|{"zip"}|{"zip":}|{:"1"}
{"zip":"1",}|{,"zip":"1"}|{"zip":"1",,"ip":"2"}|{"zip":"1":"2"}|{"zip" "1"}|{"zip","1"}|{zip:1}|{'zip':'1'}
{"zip":"1"|{"zip"x:"1"}|{"zip":x"1"}|{"zip":"1"x}|{x"zip":"1"}|{"zipx":"1"}|{"zi":"1"}|{"":"1"}|{1:2}
{"\u007a\u0069\u0070":"1"}|{"z\u0069p":"1","evars":{"\u0065vars":{"a":"b"}}}|{"exclude":{"\u0069d":"1"}}
{"tnt":[,]}|{"tnt":[{},]}|{"tnt":[,{}]}|{"tnt":[{}{}]}|{"tnt":[{}|{"tnt":{}}|{"tnt":[[]]}|{"props":{,}}
{"props":{"a":"b",}}|{"props":{"a"}}|{"props":{"a":}}|{"props":{"a" "b"}}|{"props":[]}
{"evars":{"evars":{"a":"b"}|{"evars":{}}|{"evars":{"evars":null}}
{"evars":null}|{"evars":{"a":"b"}}|{"evars":{"evars":{}}}|{"props":{"":""}}
{"props":{null:"a"}}|{"props":{1:"a"}}|{"events":{"e":null}}|{"events":{"e":[null]}}|{"events":{"e":[{}]}}
{"events":{"e":[{"count":-0}],"z\u0069p":[{"count":-0.0}]}}|{"z\u0069p":"1","events":{"e":[{"count":-0}]}}
{"events":[]}|{"events":[{"e":[{"count":1}]},{"f":[]}]}|{"":{"":{"":[{}]}}}|{"extra":{}}|{"extra":null}
"""
SHAPES = [*SHAPES.replace(b"\n", b"|").split(b"|"), b"{}\t", b"\xef\xbb\xbf{}", b"{}\0", b"\0"]
BRACKETS = [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"), (b"[", b""), (b'{"evars":', b"}")]
NESTED = [
    opening * levels + middle + closing * levels
    for levels in (1, 2, 5, 31, 32, 33, 34, 126, 127, 128, 129, 100_000)
    for opening, closing in BRACKETS
    for middle in (b"null", b"")
]


@pytest.fixture(scope="module", autouse=True)
def _kernel():
    need_kernel()


def _judge(lines):
    judge(lines, agree(lines))


def _at(place, value):
    return PLACES[place].replace(b"%b", value)


@pytest.mark.parametrize("place", PLACES)
def test_numbers_and_words(place):
    """Signs, zeros, bounds of every width, digits that no float64 has, exponents; and what is none of it."""
    _judge([_at(place, value) for value in (*NUMBERS, *WORDS)])


def test_powers_of_two():
    """Their neighbours are not equally far: the shortest text may be the one that is farther."""
    _judge([_at("an amount", power) for power in POWERS])


@pytest.mark.parametrize("place", ["text", "a map", "an integer", *list(PLACES)[-3:]])
def test_strings(place):
    """Every control character raw and escaped, every escape, halves of pairs, UTF-8 that is none."""
    _judge([_at(place, text) for text in STRINGS])


@pytest.mark.parametrize(
    "place", [b'{"props":{%b:"v"}}', b"{%b:1}", b'{"new":{%b:1}}', b'{"exclude":{%b:"v"}}']
)
def test_names(place):
    """The same as keys of a map and as members."""
    _judge([place % text for text in STRINGS])


def test_pages_of_strings():
    """What ends a string stands at every place of a register and of the page behind it."""
    ends = (b"", b"\\n", b"\\u00e9", "é".encode(), b"\t", b"\xff")
    _judge([b'{"zip":"%b%b"}' % (b"x" * length, end) for length in range(70) for end in ends])


def test_equal_names():
    """The last one wins, at each level, however it is spelled."""
    _judge(DOUBLES)


def test_shapes():
    """What is missing, too much or in another's place."""
    _judge(SHAPES)


def test_nesting():
    """Nothing deep is read, in any place, closed or not."""
    _judge([*NESTED, *(b'{"exclude":%b,"new":%b}' % (value, value) for value in NESTED)])


def test_white_space_everywhere():
    """Around every token; what other formats take for white space is none."""
    spaced = [
        (token, around) for token in TOKENS for space in SPACES for around in (space + token, token + space)
    ]
    _judge([HIT.replace(token, around) for token, around in spaced])


def test_truncation_at_every_byte():
    """Alone as the last line of a block, and followed by a whole one."""
    for at in range(0, len(HIT), 31):
        agree([HIT[:at]])
    _judge([HIT[:at] for at in range(len(HIT) + 1)])


def test_any_byte_in_any_place():
    """Every byte replaced by each that means something in JSON."""
    lines = [
        HIT[:at] + byte + HIT[at + 1 :]
        for at in range(len(HIT))
        for byte in (b'"', b"\\", b"}", b"0", b"\xff", b" ")
    ]
    assert len(agree(lines).rejects) > len(lines) // 3


def test_the_hit_that_these_are_made_of_is_whole():
    """All kinds of columns are in it, and nothing of it is in ``extra``."""
    assert json.loads(HIT)
    row = agree([HIT]).batches[0].to_pylist()[0]
    assert row["extra"] is None
    assert row["products"][0]["units"] == 1.0
