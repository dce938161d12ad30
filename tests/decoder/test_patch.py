"""The short way to repair gives what the long way gives, or leaves it to it."""

from __future__ import annotations

import json
import random

import pytest

from collector.core.messages import Block
from collector.decoder.columns import read_lines, unfit_rows
from collector.decoder.decode import decode_block
from collector.decoder.patch import patch
from collector.decoder.repair import repair
from collector.decoder.strict import Degree
from collector.simulator.hits import Hits, Timeline

LINES = [line.strip() for line in Hits(11, Timeline(start_s=1_790_000_000)).lines(0, 600)]

ODD = [
    "5",
    "5.5",
    '"5"',
    "true",
    "null",
    "[]",
    "{}",
    '{"id":5}',
    '[{"x":1}]',
    '"\\u00e9"',
    "1e400",
    '["a",1]',
]


def read(line: bytes) -> dict | None:
    """The row the columnariser makes of one line; ``None``: it does not take it."""
    batches = read_lines(line + b"\n")
    if batches is None or unfit_rows(batches[0]):
        return None
    return batches[0].to_pylist()[0]


@pytest.mark.parametrize("degree", [Degree.USUAL, Degree.THOROUGH])
def test_a_patched_line_is_the_row_that_repair_makes(degree):
    """Hits with one to three odd fields, each of every odd shape: the same row, ``extra`` included."""
    chance = random.Random(5)
    patched = 0
    for line in LINES:
        record = json.loads(line)
        for name in chance.sample(sorted(record), chance.randint(1, 3)):
            record[name] = json.loads(chance.choice(ODD[:-2])) if chance.random() < 0.9 else chance.random()
        odd = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        short = patch(odd, degree)
        row = None if short is None else read(short)
        if row is not None:
            patched += 1
            assert row == read(repair(odd)), odd
    assert patched > len(LINES) // 2, "the short way is hardly ever taken"


@pytest.mark.parametrize(
    "line",
    [
        b'{"exclude":{"geoDMA":"501"},"geoDMA":"501"}',
        b'{"evars":{"evars":{"geoDMA":"501"}},"geoDMA":"501"}',
        b'{"geoDMA":"501","geoDMA":"502"}',
        b'{"geo\\u0044MA":"501","pageName":"geoDMA"}',
        b'{"geoDMA" :"501"}',
        b'{"geoDMA": "501"}',
        b'{"pageName":"\\"geoDMA\\":\\"501\\"","geoDMA":"501"}',
        b'{"geoDMA":"501","unknown":1}',
        b'{"geoDMA":"501"} x',
        b'{"geoDMA":"501","pageName":"\xff"}',
        b'{"geoDMA":"\xff"}',
        b'[{"geoDMA":"501"}]',
        b'{"a":1\x00}',
        b"",
    ],
)
def test_where_the_place_is_not_certain_repair_decides(line):
    """Nested, doubled, escaped and broken: never another row than the long way's."""
    short = patch(line, Degree.USUAL)
    if short is not None and (row := read(short)) is not None:
        assert row == read(repair(line))


def test_the_degree_changes_the_cost_and_not_the_result():
    """Looking first or being refused: the same rows, rejects and ids."""
    payload = b"\n".join([*LINES[:300], b'{"evars":{"evars":{"evar1":1.0}},"geoDMA":"5"}', b"no hit", b""])
    block = Block(1, 1, 0, len(payload), 302, 1, 0, 1_790_000_100_000_000, 0)
    usual = decode_block(payload, block, instance="00")
    thorough = decode_block(payload, block, instance="00", degree=Degree.THOROUGH)
    assert usual.refused
    assert not thorough.refused
    rows = [[row for batch in decoded.batches for row in batch.to_pylist()] for decoded in (usual, thorough)]
    assert rows[0] == rows[1]
    assert usual.rejects == thorough.rejects
    assert len(usual.rejects) == 1
    assert (usual.high == thorough.high).all()
