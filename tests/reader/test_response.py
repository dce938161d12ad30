"""What is read out of heads and bodies that are no stream."""

from __future__ import annotations

import gzip
import json

import pytest

from collector.reader.response import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_WORDS,
    Head,
    error_description,
    escaped,
)


def head_of(*lines: bytes) -> Head:
    head = Head()
    assert all(head.add(line + b"\r\n") for line in lines)
    return head


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error_description":"too many connections","error":"x"}', "too many connections"),
        (b'{"message":"no"}', "no"),
        (b'{"error":{"message":"inner"}}', "inner"),
        (b'{"error_description":"","message":"second"}', "second"),
        (b'{"error_description":7}', ""),
        (b'["a"]', ""),
        (b"<html>", ""),
        (b"", ""),
        (b"\xff\xfe", ""),
        (b"[" * 60_000, ""),
        (b'{"message":"a\\nb\\u001b[31m\\u2028"}', "a\\nb\\x1b[31m\\u2028"),
        (gzip.compress(b'{"message":"zipped"}', mtime=0), "zipped"),
        (gzip.compress(b"x" * 999, mtime=0)[:-9], ""),
    ],
)
def test_error_description(body: bytes, words: str) -> None:
    """The words of a JSON body, whatever else comes."""
    assert error_description(body) == words


def test_a_body_that_inflates_without_end_is_bounded() -> None:
    """A small body of zeros costs no more than the limit and one piece."""
    assert error_description(gzip.compress(bytes(50 * MAX_BODY_BYTES))) == ""


def test_escaped_text_is_bounded_and_one_line() -> None:
    """Foreign text can neither forge a line nor grow."""
    assert escaped(b"a\r\nb\xff") == "a\\r\\nb\\xff"
    assert len(escaped("\n" * 10_000)) == MAX_WORDS
    assert len(escaped(json.dumps("x" * 10_000))) == MAX_WORDS
    assert escaped("größer") == "größer"


def test_interim_responses_are_passed_over() -> None:
    """A 103 and its headers are not the answer."""
    head = head_of(b"HTTP/1.1 103 Early Hints", b"Location: /x", b"")
    assert (head.complete, head.final_status) == (False, 0)
    for line in (b"HTTP/1.1 409 Conflict", b"Retry-After:  7 ", b"retry-after: 8", b""):
        assert head.add(line + b"\r\n")
    assert (head.complete, head.final_status, head.get("location"), head.get("retry-after")) == (
        True,
        409,
        "",
        "7",
    )


def test_endless_headers_end() -> None:
    """More than the limit is refused, trailers included."""
    head = head_of(b"HTTP/1.1 200 OK", b"")
    taken = sum(1 for _ in range(100) if head.add(b"X: " + b"y" * 1000 + b"\r\n"))
    assert taken == MAX_HEAD_BYTES // 1005
