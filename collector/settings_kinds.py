"""How a setting's value is written: kinds of values, and the row that describes one setting.

Imported by the table of settings and by whoever reads or documents it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any, Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB
NAME_PATTERN: Final = r"[A-Za-z0-9_-]{1,64}"
"""Of a stream: it becomes a folder's name and a path key, so nothing in it can lead elsewhere."""


class Kind(enum.Enum):
    """How a value is written. The value is what it is called in messages and in the reference."""

    TEXT = "text"
    NAME = f"a name of the form {NAME_PATTERN}"
    URL = "http:// or https:// address"
    PATH = "path"
    CHOICE = "one of"
    COUNT = "integer"
    SIZE = 'bytes: integer or text such as "8 GiB"'
    SECONDS = "seconds: number"
    SECONDS_OR_AUTO = 'seconds: number, or "auto"'
    DAYS = "days: number"
    SECONDS_OR_ALWAYS = 'seconds: number, or "always"'
    STORE = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"
    TABLE_NAME = "namespace.table of letters, digits and _"
    MODE = 'file mode: octal such as "0644"'
    HOSTS = "list of host names"
    FIELDS = "list of fields of a hit, or entries of its maps such as `evars.evar5`"
    TEXT_FIELDS = "list of string fields of a hit, or entries of `evars` and `props` such as `evars.evar5`"
    ADDRESS = 'host:port, or "off"'


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """One row of the table."""

    kind: Kind
    default: Any
    """``None``: see ``doc`` for what stands in for it."""
    doc: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    flag: str = ""
    """The command-line option that sets it; every key can also be given with ``--set``."""

    def allowed(self) -> str:
        """What is allowed, in words that complete "allowed: ..."."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.minimum is None:
            return self.kind.value
        bounds = (self.minimum, self.maximum)
        low, high = (format_value(self.kind, bound) for bound in bounds)
        return f"{self.kind.value}, from {low} to {high}"


def format_value(kind: Kind, value: Any) -> str:
    """The shortest text that reads back as ``value``."""
    if kind is Kind.MODE:
        return f"{int(value):04o}"
    if kind is Kind.SIZE:
        return _format_size(int(value))
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


def toml_value(spec: Spec, value: Any) -> str:
    """The value as a settings file has it, so that it reads back the same."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_quoted(str(item)) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    text = format_value(spec.kind, value)
    is_number = isinstance(value, int | float) and spec.kind is not Kind.MODE and " " not in text
    return text if is_number else _quoted(text)


def _quoted(text: str) -> str:
    """A basic string of TOML, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _format_size(size: int) -> str:
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)


def setting(kind: Kind, default: Any, doc: str, **more: Any) -> Any:
    return dataclasses.field(metadata={"spec": Spec(kind, default, doc, **more)})
