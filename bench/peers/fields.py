"""The fields of a hit in the types of each engine, all made from the collector's own schema.

A peer says how it writes a list, a map and a struct and what it calls the five scalars; what the fields
are is in ``collector.decoder.schema`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import pyarrow as pa

from collector.decoder.schema import EXTRA, WIRE_SCHEMA

T = TypeVar("T")

TEXT: Final = pa.string()
INTEGER: Final = pa.int64()
ID: Final = pa.decimal128(20, 0)
"""From 0 to 2**64 - 1."""
NUMBER: Final = pa.float64()
FLAG: Final = pa.bool_()

SCHEMA: Final = pa.schema([field for field in WIRE_SCHEMA if field.name != EXTRA])
"""As the hits are sent; without the column that no peer has, the one for what fits no other."""


def listed(fields: Mapping[str, str], quote: str) -> str:
    """Names and types as SQL lists them."""
    return ", ".join(f"{quote}{name}{quote} {kind}" for name, kind in fields.items())


@dataclass(frozen=True, slots=True)
class Dialect(Generic[T]):
    scalars: Mapping[pa.DataType, T]
    list_of: Callable[[T], T]
    map_of: Callable[[T], T]
    """Of text to this."""
    struct_of: Callable[[Mapping[str, T]], T]

    def fields(self) -> dict[str, T]:
        """The type of each top-level field of a hit."""
        return {field.name: self.of(field.type) for field in SCHEMA}

    def of(self, kind: pa.DataType) -> T:
        if pa.types.is_struct(kind):
            return self.struct_of({field.name: self.of(field.type) for field in kind})
        if pa.types.is_map(kind):
            return self.map_of(self.of(kind.item_type))
        if pa.types.is_list(kind):
            return self.list_of(self.of(kind.value_type))
        return self.scalars[kind]
