"""The kernel's driver: compiled, with the schema and the lines that it reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from collector.decoder.kernel.rows import shows_flags
from collector.decoder.schema import WIRE_SCHEMA

DRIVER = Path(__file__).with_name("kernel_driver.cpp")
SANITIZED = ("-std=c++17", "-Og", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

FORMATS = {
    pa.string(): "u",
    pa.int64(): "l",
    pa.float64(): "g",
    pa.bool_(): "b",
    pa.decimal128(20, 0): "d:20,0",
}
"""Source: the format strings of the Arrow C data interface."""


def compile_driver(compiler: Sequence[str], target: Path, flags: Sequence[str] = SANITIZED) -> str:
    """Gives what the compiler says against it."""
    command = [*compiler, *flags, "-o", str(target), str(DRIVER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr or "it failed"


def environment(folder: Path, schema: pa.Schema = WIRE_SCHEMA) -> dict[str, str]:
    """With the schema in a file of this folder."""
    path = folder / "schema"
    path.write_text("\n".join(fields(pa.field("root", pa.struct(list(schema))))))
    given = {"KERNEL_SCHEMA": str(path), "KERNEL_SHOWS_FLAGS": " ".join(map(str, shows_flags(schema.names)))}
    return {**os.environ, **given, "ASAN_OPTIONS": "detect_leaks=1"}


def fields(field: pa.Field) -> Iterator[str]:
    """As the driver reads them."""
    kind = field.type
    children, form = [kind.field(n) for n in range(kind.num_fields)], "+s"
    if pa.types.is_map(kind):
        children = [pa.field("entries", pa.struct([kind.key_field, kind.item_field]))]
        form = "+m"
    elif pa.types.is_list(kind):
        form = "+l"
    elif not children:
        form = FORMATS[kind]
    yield f"{form} {field.name} {len(children)}"
    for child in children:
        yield from fields(child)
