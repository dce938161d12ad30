"""Settings as the text of a TOML file: a commented one to begin with, and the effective ones with sources.

Used by ``init`` and ``config show``. Everything is made from the table, so no file of ours can differ
from it; what is written loads, and no secret is in it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from collector.settings import Loaded
from collector.settings_kinds import Kind, Spec, toml_value
from collector.settings_table import SECTIONS, SPECS

_WIDTH: Final = 100


def commented(values: Mapping[str, Any], head: Sequence[str] = ()) -> str:
    """A file with these values, by full key, and every other setting as a comment with its default."""
    lines = [*_comment(head), ""]
    for section, group in SECTIONS.items():
        lines += [f"[{section}]", *_comment((group.__doc__ or "").split("\n\n"))]
        for key, spec in _of(section):
            name = key.partition(".")[2]
            lines += ["", *_comment([_meaning(spec)])]
            if key in values:
                lines.append(f"{name} = {toml_value(spec, values[key])}")
            else:
                lines.append(f"#{name} = {_default(spec)}")
        lines.append("")
    return "\n".join(lines)


def effective(loaded: Loaded, tail: Sequence[str] = ()) -> str:
    """Every setting that has a value, with where it came from; what has none is a comment."""
    lines = []
    for section in SECTIONS:
        lines.append(f"[{section}]")
        for key, spec in _of(section):
            name, value = key.partition(".")[2], value_of(loaded, key)
            if value is None or value == "":
                lines.append(f"#{name} is not set")
            else:
                lines.append(f"{name} = {toml_value(spec, value)}  # {source_of(loaded, key)}")
        lines.append("")
    return "\n".join([*lines, *_comment(tail)]).rstrip("\n") + "\n"


def value_of(loaded: Loaded, key: str) -> Any:
    """``section.key`` of the settings."""
    section, _, name = key.partition(".")
    return getattr(getattr(loaded.settings, section), name)


def source_of(loaded: Loaded, key: str) -> str:
    """Where it came from, in words."""
    if key in loaded.sources:
        return loaded.sources[key]
    return "default" if value_of(loaded, key) == SPECS[key].default else "follows from other settings"


def _of(section: str) -> Iterator[tuple[str, Spec]]:
    return ((key, spec) for key, spec in SPECS.items() if key.startswith(f"{section}."))


def _meaning(spec: Spec) -> str:
    flag = f" Flag {spec.flag}." if spec.flag else ""
    return f"{spec.doc} Allowed: {spec.allowed()}.{flag}"


def _default(spec: Spec) -> str:
    if spec.default is None:
        return '["..."]' if spec.kind is Kind.HOSTS else '"..."'
    return toml_value(spec, spec.default)


def _comment(paragraphs: Sequence[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        text = " ".join(paragraph.split()) if "\n" in paragraph else paragraph
        yield from (f"# {line}".rstrip() for line in textwrap.wrap(text, _WIDTH - 2) or [""])
