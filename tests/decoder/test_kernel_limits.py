"""What the kernel cannot hold or read, it says so; and what it held before is whole."""

from __future__ import annotations

import ctypes
import time

import pyarrow as pa
import pytest
from decode_rig import block_of, need_kernel

from collector.decoder.kernel import rows as kernel_rows
from collector.decoder.kernel.library import load
from collector.decoder.kernel.rows import KernelRows
from collector.decoder.schema import WIRE_SCHEMA
from collector.decoder.strict import Degree
from collector.errors import ProtocolError

TEXT = pa.string()
UNKNOWN = [
    pa.int32(),
    pa.uint64(),
    pa.float32(),
    pa.binary(),
    pa.large_string(),
    pa.null(),
    pa.timestamp("us"),
]
UNKNOWN += [
    pa.date32(),
    pa.decimal128(19, 0),
    pa.decimal128(20, 2),
    pa.decimal256(50, 0),
    pa.large_list(TEXT),
]
UNKNOWN += [pa.list_(TEXT, 3), pa.dictionary(pa.int64(), TEXT), pa.map_(pa.int64(), TEXT), pa.struct([])]
UNKNOWN += [
    pa.map_(TEXT, pa.map_(TEXT, TEXT)),
    pa.map_(TEXT, pa.list_(pa.struct([("m", pa.map_(TEXT, TEXT))]))),
]


@pytest.fixture(scope="module", autouse=True)
def _kernel():
    need_kernel()


def is_taken(*fields: pa.Field) -> bool:
    """Whether there is a kernel for a schema of these fields."""
    schema = (ctypes.c_byte * 72)()
    pa.struct(fields)._export_to_c(ctypes.addressof(schema))
    kernel = load().kernel_new(ctypes.addressof(schema), -1, bytes(len(fields)))
    pa.DataType._import_from_c(ctypes.addressof(schema))  # gives it back
    if kernel:
        load().kernel_free(kernel)
    return bool(kernel)


@pytest.mark.parametrize("kind", UNKNOWN, ids=str)
@pytest.mark.parametrize("where", [lambda kind: kind, pa.list_, lambda kind: pa.struct([("a", kind)])])
def test_a_schema_with_another_type_is_not_taken(kind, where):
    """At any level. Better none than one that reads something else into it."""
    assert not is_taken(pa.field("known", TEXT), pa.field("other", where(kind)))


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\tb", "n" * 62])
def test_a_name_that_json_would_spell_otherwise_is_not_taken(name):
    """Names are compared as bytes, a register at a time."""
    assert not is_taken(pa.field(name, TEXT))


def test_what_it_can_read_is_taken():
    """Up to its bounds."""
    assert is_taken(*WIRE_SCHEMA)
    assert is_taken(pa.field("n" * 61, TEXT), pa.field("é ☃", pa.decimal128(38, 0)), pa.field("", TEXT))
    assert is_taken(*(pa.field(f"f{n}", pa.int64()) for n in range(512)))
    assert not is_taken(*(pa.field(f"f{n}", pa.int64()) for n in range(513)))


def test_want_of_memory_is_told(monkeypatch):
    """As MemoryError, which is no record's fault; what was there stays, and the block leaves no row."""
    rows = KernelRows()
    rows.append(*block_of([b"{}"] * 3), Degree.USUAL)
    real = rows._library

    class Starved:
        def __getattr__(self, name):
            return getattr(real, name)

        def kernel_append(self, *arguments):
            code = real.kernel_append(*arguments)
            return code or kernel_rows._NO_MEMORY

    monkeypatch.setattr(rows, "_library", Starved())
    with pytest.raises(MemoryError):
        rows.append(*block_of([b'{"zip":"lost"}']), Degree.USUAL)
    monkeypatch.undo()
    assert rows.rows == 3
    rows.append(*block_of([b'{"zip":"kept"}']), Degree.USUAL)
    assert rows.take().column("zip").to_pylist() == [None] * 3 + ["kept"]


@pytest.mark.parametrize(
    "junk", [b"[", b'{"a":', b'{"props":', b'{"products":[', b'{"evars":{"evars":', b'"\\', b"-"]
)
def test_what_never_ends_is_refused_at_once(junk):
    """A megabyte of it costs no stack and next to no time."""
    rows = KernelRows()
    payload, block = block_of([b'{"products":' + junk * (1_000_000 // len(junk))] * 3)
    began = time.process_time()
    found = rows.append(payload, block, Degree.USUAL)
    assert (len(found.rejects), rows.rows) == (3, 0)
    assert time.process_time() - began < 10


@pytest.mark.matrix
@pytest.mark.timeout(1200)
def test_a_group_of_two_gibibytes_is_full():
    """Said before an offset is past 31 bits; the rows before stay, the block leaves none. Needs 6 GB."""
    rows = KernelRows()
    payload, block = block_of([b'{"zip":"%b"}' % (b"x" * (32 << 20))])
    for _ in range(63):
        rows.append(payload, block, Degree.USUAL)
    with pytest.raises(ProtocolError, match="no room"):
        rows.append(payload, block, Degree.USUAL)
    assert rows.rows == 63
    batch = rows.take()
    batch.validate(full=True)
    assert (batch.num_rows, len(batch.column("zip")[62].as_py())) == (63, 32 << 20)
    rows.append(payload, block, Degree.USUAL)
    assert rows.rows == 1
