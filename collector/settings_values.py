"""Reads one value of one kind, from TOML (typed) or from text (environment, flags).

Imported by ``collector.settings``. A value is taken exactly or refused: nothing is rounded into range.
"""

from __future__ import annotations

import ipaddress
import math
import os.path
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import SplitResult, urlsplit

from collector import privacy_fields
from collector.settings_kinds import NAME_PATTERN, Kind, Spec

_LONGEST: Final = 4096
"""Characters of a value. *Source*: PATH_MAX; Python refuses to read integers of more than 4300 digits."""

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kKMGT]i?)?)B?", re.ASCII)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LABELS: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_-]+)*")
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63}){1,4}")
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s/]+):(\d{1,5})")


class Refusal(ValueError):  # noqa: N818 - it is an answer, not a failure
    """Raised when a value cannot be taken; the message says why, where the bounds alone do not."""


def parse(spec: Spec, value: object) -> Any:
    """The typed value. *Raises* ``Refusal``."""
    if isinstance(value, str) and len(value) > _LONGEST:
        _refuse("too long")
    parsed = _READERS[spec.kind](value)
    if spec.choices and parsed not in spec.choices:
        raise Refusal
    outside = spec.minimum is not None and not isinstance(parsed, str) and not _within(spec, parsed)
    if outside:
        raise Refusal
    return parsed


def _within(spec: Spec, number: float) -> bool:
    low = -math.inf if spec.minimum is None else spec.minimum
    high = math.inf if spec.maximum is None else spec.maximum
    return low <= number <= high


def _refuse(reason: str = "") -> NoReturn:
    raise Refusal(reason)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        _refuse()
    return value.strip()


def _name(value: object) -> str:
    text = _text(value)
    if re.fullmatch(NAME_PATTERN, text) is None:
        _refuse()
    return text


def _path(value: object) -> Path:
    """Absolute: children may run elsewhere. A leading ``~`` is the home folder."""
    text = _text(value)
    return Path(os.path.abspath(os.path.expanduser(text)))


def _count(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(_[0-9]+)*", text := value.strip()):
        return int(text)  # stripped: to int() the separators U+001C to U+001F are no white space
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _refuse()


def _size(value: object) -> int:
    if not isinstance(value, str):
        return _count(value)
    match = _SIZE.fullmatch(value.replace("_", "").strip())
    if match is None:
        _refuse()
    number, unit = match.groups()
    factor = (1024 if unit.endswith("i") else 1000) ** _POWERS[unit.removesuffix("i").lower()]
    size = Fraction(number) * factor
    return int(size) if size.denominator == 1 else _refuse("not a whole number of bytes")


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        _refuse()
    try:
        number = float(value)
    except (ValueError, OverflowError):
        _refuse()
    return number if math.isfinite(number) else _refuse()


def _seconds_or_auto(value: object) -> float | str:
    return "auto" if value == "auto" else _number(value)


def _seconds_or_always(value: object) -> float | str:
    return "always" if value == "always" else _number(value)


def _store(value: object) -> str:
    """Without a slash at its end."""
    text = _text(value).rstrip("/")
    parts = split_url(text)
    if parts.scheme not in {"s3", "gs", "az", "file"}:
        _refuse()
    if "@" in parts.netloc:
        _refuse("it must not hold a user name or password")
    if parts.query or parts.fragment:
        _refuse("it must have no query (?) and no fragment (#)")
    named = parts.path.strip("/") if parts.scheme == "file" else parts.netloc
    if not named or (parts.scheme == "file" and parts.netloc):
        _refuse("it names no bucket" if parts.scheme != "file" else "write three slashes: file:///folder")
    if ".." in parts.path.split("/"):
        _refuse("it must not lead upwards (..)")
    return text


def _table_name(value: object) -> str:
    text = _text(value)
    return text if _TABLE.fullmatch(text) else _refuse()


def _mode(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]{3,4}", value.strip()):
        value = int(value.strip().removeprefix("0o"), 8)
    mode = _count(value) if not isinstance(value, str) else _refuse()
    return mode if mode & 0o400 else _refuse("the owner must be able to read")


def _hosts(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        _refuse()
    return tuple(_host(name) for name in names)


def _fields(value: object, *, hashed: bool = False) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        _refuse()
    texts = [_text(name) for name in names if name != ""]
    if faults := [why for name in texts if (why := privacy_fields.fault(name, hashed=hashed))]:
        _refuse("; ".join(faults))
    return tuple(dict.fromkeys(texts))


def _host(value: object) -> str:
    text = _text(value).lower().rstrip(".")
    if is_address(text.strip("[]")):
        return text.strip("[]")
    return text if _LABELS.fullmatch(text) else _refuse(f"{text} is no host name")


def is_address(text: str) -> bool:
    """Whether it is one of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _address(value: object) -> str:
    text = _text(value)
    if text == "off":
        return text
    match = _ADDRESS.fullmatch(text)
    return text if match is not None and int(match.group(2)) <= 65_535 else _refuse()


def _url(value: object) -> str:
    text = _text(value)
    parts = split_url(text)
    if parts.scheme not in {"http", "https"}:
        _refuse()
    if parts.username is not None or parts.password is not None:
        _refuse("it must not hold a user name or password")
    if not parts.hostname:
        _refuse("it names no host")
    _host(parts.hostname)
    if parts.fragment:
        _refuse("it must not have a fragment (#)")
    return text


def split_url(text: str) -> SplitResult:
    """*Raises* ``Refusal`` where the standard library would guess, or fail late."""
    if not text.isascii() or any(char.isspace() for char in text):
        _refuse("other than ASCII, or blanks: write those percent-encoded")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise Refusal(str(error)) from error
    return parts


def is_loopback(url: str) -> bool:
    """Whether the address can only lead to this machine: 127.0.0.0/8, ::1 or localhost."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    return is_address(host) and ipaddress.ip_address(host).is_loopback


_READERS: Final[Mapping[Kind, Callable[[object], Any]]] = {
    Kind.TEXT: _text,
    Kind.NAME: _name,
    Kind.URL: _url,
    Kind.PATH: _path,
    Kind.CHOICE: _text,
    Kind.COUNT: _count,
    Kind.SIZE: _size,
    Kind.SECONDS: _number,
    Kind.SECONDS_OR_AUTO: _seconds_or_auto,
    Kind.DAYS: _number,
    Kind.SECONDS_OR_ALWAYS: _seconds_or_always,
    Kind.STORE: _store,
    Kind.TABLE_NAME: _table_name,
    Kind.MODE: _mode,
    Kind.HOSTS: _hosts,
    Kind.FIELDS: _fields,
    Kind.TEXT_FIELDS: partial(_fields, hashed=True),
    Kind.ADDRESS: _address,
}
