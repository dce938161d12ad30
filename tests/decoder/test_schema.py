"""The schema is one table, portable, and documented as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from collector.decoder.partfile import leaves
from collector.decoder.schema import (
    CONNECTIONS_SCHEMA,
    HITS_SCHEMA,
    REJECTS_SCHEMA,
    RESENDS_SCHEMA,
)
from collector.decoder.schemadoc import document
from collector.storage.layout import SCHEMA_VERSION

ROOT = Path(__file__).parents[2]

PORTABLE = {
    pa.string(),
    pa.binary(),
    pa.int32(),
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    pa.decimal128(20, 0),
    pa.timestamp("us", tz="UTC"),
}


def test_the_documentation_is_up_to_date():
    """``python -m collector.decoder.schema > docs/schema.md`` has been run."""
    assert (ROOT / "docs" / "schema.md").read_text() == document()


@pytest.mark.parametrize("schema", [HITS_SCHEMA, REJECTS_SCHEMA, RESENDS_SCHEMA, CONNECTIONS_SCHEMA])
def test_every_leaf_has_a_type_that_all_engines_read_exactly(schema):
    """No dictionaries, no unsigned integers, no nanoseconds, no empty objects."""
    found = dict(leaves(schema))
    assert set(found.values()) <= PORTABLE
    assert {leaf.split(".")[0] for leaf in found} == set(schema.names)


def test_no_name_is_used_twice():
    """An API field never has the name of a column of ours, nor differs by case alone (Spark, DuckDB)."""
    names = [name.lower() for name in HITS_SCHEMA.names]
    assert len(set(names)) == len(names)


def test_the_schema_of_version_1_is_frozen():
    """All parts of one version have one schema: another one needs another ``SCHEMA_VERSION`` and digest."""
    digest = hashlib.sha256(HITS_SCHEMA.to_string().encode()).hexdigest()
    assert (SCHEMA_VERSION, digest[:16]) == (1, "481d173900c1a534")
