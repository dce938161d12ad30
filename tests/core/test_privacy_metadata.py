"""What a compacted file says of the fields that are hidden in its parts."""

from __future__ import annotations

import json

from collector.core.privacy import NOTHING_HIDDEN, Privacy, merged_metadata

PLAIN = {"collector.stream": "shop", **NOTHING_HIDDEN.metadata()}
DROPPED = {"collector.stream": "shop", **Privacy(drop=("ip",)).metadata()}
HASHED = {"collector.stream": "shop", **Privacy(hash=("userAgent",), key=b"k" * 32).metadata()}


def said(metadata: dict[str, str]) -> list[dict[str, str]]:
    return json.loads(metadata["collector.privacy_mixed"])


def test_parts_that_agree_are_spoken_of_as_one():
    """Nothing is said where nothing is hidden; else the very words of the parts."""
    assert merged_metadata([]) == {}
    assert merged_metadata([PLAIN, PLAIN]) == {}
    assert merged_metadata([DROPPED, DROPPED]) == {"collector.privacy_dropped": "ip"}


def test_parts_that_differ_are_all_told_of():
    """Nobody takes rows with an address for rows without, in whatever order the parts came."""
    other = {**DROPPED, "collector.privacy_dropped": "zip"}
    mixed = merged_metadata([PLAIN, HASHED, DROPPED, other])
    assert mixed == merged_metadata([other, DROPPED, PLAIN, HASHED])
    assert sorted(map(len, said(mixed))) == [0, 1, 1, 2]
    assert {"collector.privacy_dropped": "ip"} in said(mixed)


def test_a_file_that_was_made_of_several_is_taken_apart():
    """Compacting again adds late parts; what was said before is said still, once."""
    again = merged_metadata([merged_metadata([PLAIN, DROPPED]), DROPPED, HASHED])
    assert again == merged_metadata([PLAIN, DROPPED, HASHED])
