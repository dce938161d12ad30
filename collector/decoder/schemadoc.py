"""The schema in words, made from its definitions: the text of ``docs/schema.md``.

Run by hand (``python -m collector.decoder.schema > docs/schema.md``); a test keeps the file up to date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from collector.decoder.schema import (
    COLLECTOR_COLUMNS,
    CONNECTIONS_SCHEMA,
    HIT_FIELDS,
    HITS_SCHEMA,
    REJECTS_SCHEMA,
    RESENDS_SCHEMA,
    Kind,
    ListOf,
    MapOf,
    Object,
    Variant,
    Wrapped,
)
from collector.storage.layout import SCHEMA_VERSION

_HEAD: Final = f"""# Schema

Made from `collector/hit_fields.py` and `collector/decoder/schema.py` by
`python -m collector.decoder.schema > docs/schema.md`.
All parts under `v={SCHEMA_VERSION}` have these columns in this order. Null and empty mean the same.

## hits

One row per hit. Every column is nullable. Times are `timestamp[us, UTC]`; 64-bit ids are
`decimal(20,0)`, which every engine reads exactly; `evars['evar1']` is an eVar of the hit.

**The columns with `extra` laid over them are what was sent.** A value that its column cannot hold
exactly, and a field that has no column, is in `extra` under its path, as the JSON text it was sent
as: `geoDMA`, `products[0].x`, `evars["a.b"]` (keys other than `[A-Za-z0-9_]+` are quoted as in
JSON). The smallest misfit moves: a member, a map entry, a list item; in a list null stays in its
place. Where the table names a second shape, the column shows it in its own type, and `extra` has
what was really sent. Integers are taken only without fraction and exponent, numbers only if the
float64 gives them back. Half of a surrogate pair (`"\\ud800"`) is no text of a column, so it is in
`extra`, still escaped. Of equal keys in an object the last one wins.

`evars` is `{{"evars": {{...}}}}` on the wire; the inner object's entries are the column. Any other
shape is shown as far as it can be, and is in `extra` whole, under `evars`.

A record is a reject only if it is not a JSON object in valid UTF-8, or nested deeper than 128 levels.
"""


def document() -> str:
    """Markdown, ended by one LF."""
    return "\n".join(
        [
            _HEAD,
            _table(("column", "type", "documented as", "meaning"), _api_rows()),
            "",
            "The collector's own columns:",
            "",
            _table(("column", "type", "meaning"), _own_rows()),
            "",
            "## rejects",
            "",
            "One row per record that is no hit, with the bytes that came (of an oversized one its head).",
            "`raw` is null where [privacy](privacy.md) hides something.",
            "",
            _plain(REJECTS_SCHEMA),
            "",
            "## connections",
            "",
            "One row per connection and UTC hour it spans (`kind` is `connection`), one per gap (`gap`).",
            "",
            _plain(CONNECTIONS_SCHEMA),
            "",
            "## resends",
            "",
            "In the state folder: hits that came again and were left out, by id, block and line.",
            "",
            _plain(RESENDS_SCHEMA),
            "",
        ]
    )


def _api_rows() -> Iterator[tuple[str, ...]]:
    for field in HIT_FIELDS:
        shapes = "".join(
            f"; `{path}`: {variant.value}" for path, variant in _variants(field.kind, field.name)
        )
        kind = type_name(HITS_SCHEMA.field(field.name).type)
        yield f"`{field.name}`", f"`{kind}`", field.documented, field.meaning + shapes


def _own_rows() -> Iterator[tuple[str, ...]]:
    for name, kind, meaning in COLLECTOR_COLUMNS:
        yield f"`{name}`", f"`{type_name(kind)}`", meaning


def _variants(kind: Kind, path: str) -> Iterator[tuple[str, Variant]]:
    variant = getattr(kind, "variant", None)
    if variant is not None:
        yield path, variant
    match kind:
        case Object(fields):
            for member in fields:
                yield from _variants(member.kind, f"{path}.{member.name}")
        case ListOf(item):
            yield from _variants(item, f"{path}[]")
        case MapOf(value):
            yield from _variants(value, f"{path}.*")
        case Wrapped(_, inner):
            yield from _variants(inner, path)


def type_name(kind: pa.DataType) -> str:
    """A type as the documentation writes it."""
    if pa.types.is_map(kind):
        return f"map<{type_name(kind.key_type)}, {type_name(kind.item_type)}>"
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {type_name(field.type)}' for field in kind)}>"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return str(kind).replace("tz=", "")


def _plain(schema: pa.Schema) -> str:
    return _table(("column", "type"), ((f"`{field.name}`", f"`{type_name(field.type)}`") for field in schema))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))
