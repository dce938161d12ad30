"""The kernel under sanitizers, alone: on lines of all kinds, without memory, without room."""

from __future__ import annotations

import ctypes
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from kernel_build import SANITIZED, compile_driver, environment
from test_decode_edges import EDGES
from test_kernel_json import HIT, NUMBERS, PLACES, SHAPES, STRINGS
from twin_rig import bent, sample_lines, simulated_lines

from collector.decoder.kernel.build import BuildError, compiler
from collector.decoder.kernel.rows import KernelRows
from collector.decoder.schema import WIRE_SCHEMA

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))
from fuzzing import kept

BENT = 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("driver")


def built(folder, name, flags):
    """Skipped without a compiler or its sanitizers; in CI both are there."""
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    try:
        against = compile_driver(compiler(), folder / name, flags)
    except BuildError as error:
        give_up(str(error))
    if against:
        give_up(f"the driver cannot be built: {against}")
    return folder / name


@pytest.fixture(scope="module")
def driver(folder):
    return built(folder, "driver", SANITIZED)


@pytest.fixture(scope="module")
def lines(request, folder):
    chance = random.Random(request.config.getoption("--fault-seed"))
    pool = [*sample_lines()[:50], *simulated_lines(20)]
    found = [line for line, _ in EDGES.values()] + STRINGS + SHAPES
    found += [place.replace(b"%b", number) for place in PLACES.values() for number in NUMBERS]
    found += [PLACES["text"].replace(b"%b", text) for text in STRINGS]
    found += [HIT[:at] for at in range(len(HIT))] + pool
    found += [bent(chance, chance.choice(pool)) for _ in range(BENT)]
    found += b"\n".join(kept("kernel").values()).split(b"\n")
    path = folder / "lines"
    path.write_bytes(b"".join(line.replace(b"\n", b" ") + b"\n" for line in found))
    return path


def run(driver, *arguments, schema=WIRE_SCHEMA):
    done = subprocess.run(
        [str(driver), *map(str, arguments)],
        env=environment(driver.parent, schema),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def refused_by_kernel(text: bytes) -> str:
    """As the driver prints it."""
    rows, found, at = KernelRows(), [], 0
    array = np.frombuffer(text, np.uint8)
    while at < len(text):
        result = rows._result
        code = rows._library.kernel_append(
            rows._kernel, array.ctypes.data, len(array), at, 0, ctypes.byref(result)
        )
        if code:
            found.append(f"{result.begin} {code} {result.position}\n")
        at = result.next
    return "".join(found)


@pytest.mark.parametrize("how", ["alike", "mapped"])
def test_no_line_makes_it_err(driver, lines, how):
    """Nothing is read, written, shifted or leaked that should not be; refused lines leave no trace."""
    assert run(driver, how, lines) == refused_by_kernel(lines.read_bytes())


def test_without_vector_instructions_it_is_the_same(folder, lines):
    """On processors of other kinds the same lines are refused, for the same reason, in the same place."""
    portable = built(folder, "portable", ("-std=c++17", "-O1", "-U__SSE2__"))
    assert run(portable, "alike", lines) == refused_by_kernel(lines.read_bytes())


def test_any_allocation_may_fail(driver, folder):
    """After each the rows before are whole, and the same call with memory goes on from there."""
    few = folder / "few"
    keys = b",".join(b'"key %d":"v"' % n for n in range(400))
    product = b'{"products":[{"name":"%b","revenue":0.12345678901234567,"events":{"e":[{"unique":"u"}]}}]}'
    lines = [product % (b"n" * 200), b'{"zip":1}', b'{"props":{%b},"zip":"\\u00e9"}' % keys, b"{}"]
    lines += [
        b'{%b,"mobileAudioSupport":true}' % b",".join(b'"new%d":[{"a":"%d"}]' % (n, n) for n in range(400))
    ]
    lines += [b'{"hitIdLow":%d,"zip":null,"javaEnabled":true,"geoDMA":1}' % n for n in range(1100)]
    few.write_bytes(b"".join(line + b"\n" for line in [*lines, product]))
    names = ("zip", "props", "products", "hitIdLow", "javaEnabled", "geoDMA", "mobileAudioSupport", "extra")
    schema = pa.schema([WIRE_SCHEMA.field(name) for name in names])
    said = re.fullmatch(r"(\d+) allocations, each failed once\n", run(driver, "starve", few, schema=schema))
    assert int(said[1]) > 100


def test_a_batch_that_is_full_is_finished_and_the_next_begun(driver, folder):
    """Nothing of the line that had no room is in the first; all of it is in the second."""
    many, hits = folder / "many", simulated_lines(500)
    many.write_bytes(b"".join(line + b"\n" for line in hits))
    said = re.fullmatch(r"(\d+) rows in (\d+) batches\n", run(driver, "full", many))
    assert int(said[1]) == len(hits) - refused_by_kernel(many.read_bytes()).count("\n")
    assert int(said[2]) > 3
