"""A scenario: what the simulated service does to which request, read from TOML.

The simulator's process runs it. Invariant: a ``Scenario`` that was read is complete and can be
played; every fault of the file is named at once.
"""

from __future__ import annotations

import enum
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from collector.errors import ConfigurationError

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Status = Annotated[int, Meta(ge=200, le=599)]
BytesPerSecond = Annotated[float, Meta(gt=0, le=1e9)]


class How(enum.StrEnum):
    """How the service ends a stream."""

    CLEAN = "clean"
    """The gzip stream ends, the last chunk is sent, the slot is free at once."""
    FIN = "fin"
    """The socket is shut without a last chunk."""
    RST = "rst"


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """Answer this instead of a stream."""

    status: Status
    body: str = ""
    headers: dict[str, str] = {}


class Redirect(Struct, frozen=True, forbid_unknown_fields=True):
    """Answer a redirect; ``location`` is sent as it stands, left out: not at all."""

    location: str | UnsetType = UNSET
    status: Literal[301, 302, 303, 307, 308] = 302


class SlowHeaders(Struct, frozen=True, forbid_unknown_fields=True):
    """Take time over the status line and the headers."""

    delay_s: Seconds = 0.0
    bytes_per_second: BytesPerSecond | UnsetType = UNSET
    endless: bool = False
    """Header lines without end."""


class Effect(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happens once to an open stream, when both moments have come."""

    after_hits: Count = 0
    """Of this connection."""
    after_s: Seconds = 0.0
    """Since the stream opened."""


class Cut(Effect, frozen=True, forbid_unknown_fields=True):
    """End the stream."""

    how: How = How.RST
    where: Literal["record", "mid-record", "mid-gzip"] = "record"
    """Behind the last record; half-way through the next; in the middle of a deflate block."""
    after_bytes: Count | UnsetType = UNSET
    """Of the whole response, headers too; 0: no answer at all. Stands in for the other moments."""


class Stall(Effect, frozen=True, forbid_unknown_fields=True):
    """Send nothing, empty lines neither."""

    for_s: Seconds | UnsetType = UNSET
    """Left out: for ever."""


class Trickle(Effect, frozen=True, forbid_unknown_fields=True):
    """Send one byte at a time."""

    bytes_per_second: BytesPerSecond = 1.0
    for_s: Seconds | UnsetType = UNSET
    """Left out: for ever."""


class BadGzip(Effect, frozen=True, forbid_unknown_fields=True):
    """End the member with a wrong CRC, or put random bytes into the gzip stream."""

    kind: Literal["crc", "garbage"] = "crc"


class Resend(Effect, frozen=True, forbid_unknown_fields=True):
    """Send the last hits again."""

    last: Positive = 100
    times: Positive = 1


class Members(Struct, frozen=True, forbid_unknown_fields=True):
    """Begin a new gzip member again and again."""

    every_hits: Positive = 1000
    inside_record: bool = False
    """Put the border into the middle of a record."""
    empty: bool = False
    """Put an empty member between."""


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """Which requests, and what happens to them. ``requests`` counts from 1, per endpoint."""

    endpoint: Literal["stream", "token", "enable"] = "stream"
    requests: str = ""
    """``"3"``, ``"2-5"``, ``"7-"`` or several with commas; empty: all."""
    from_s: Seconds = 0.0
    """Since the simulator started."""
    until_s: Seconds | UnsetType = UNSET
    answer: Answer | UnsetType = UNSET
    redirect: Redirect | UnsetType = UNSET
    slow_headers: SlowHeaders | UnsetType = UNSET
    cut: Cut | UnsetType = UNSET
    stall: Stall | UnsetType = UNSET
    trickle: Trickle | UnsetType = UNSET
    bad_gzip: BadGzip | UnsetType = UNSET
    resend: Resend | UnsetType = UNSET
    members: Members | UnsetType = UNSET

    def matches(self, endpoint: str, number: int, elapsed_s: float) -> bool:
        """Whether this rule decides about request ``number`` of ``endpoint``."""
        if endpoint != self.endpoint or elapsed_s < self.from_s:
            return False
        if self.until_s is not UNSET and elapsed_s >= self.until_s:
            return False
        return not self.requests or any(first <= number <= last for first, last in ranges(self.requests))

    def effects(self) -> list[Effect]:
        """What happens to the open stream, first things first; a cut last."""
        found = (self.bad_gzip, self.resend, self.trickle, self.stall, self.cut)
        return sorted((it for it in found if it is not UNSET), key=lambda it: (it.after_hits, it.after_s))


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario file."""

    rules: tuple[Rule, ...] = ()
    service: dict[str, Any] = {}
    """Settings of the service by name, below those given on the command line."""


NO_RULE = Rule()

_ENDS = {"answer", "redirect"}
_STREAM_ONLY = {"cut", "stall", "trickle", "bad_gzip", "resend", "members"}
_SERVICE: dict[str, Any] = {
    "resume": Literal["overlap", "exact", "lossy"],
    "ghost_s": Seconds,
    "ghost_status": Literal["alternate", "409", "503"],
    "backfill_window_s": Seconds,
    "overlap_s": Seconds,
    "heartbeat_s": Seconds,
    "chunk_bytes": Positive,
    "hours": Seconds,
    "redirect": bool,
    "needs_enabling": bool,
    "enable_after_s": Seconds,
    "token_expires_s": Positive,
}

_S = TypeVar("_S", bound=Struct)


def ranges(requests: str) -> list[tuple[int, float]]:
    """``"1,3-5,8-"`` as inclusive ranges. *Raises* ``ValueError``."""
    found: list[tuple[int, float]] = []
    for part in requests.split(","):
        match = re.fullmatch(r"\s*([1-9][0-9]*)\s*(-?)\s*([0-9]*)\s*", part)
        if match is None or (match[3] and not match[2]):
            raise ValueError(part)
        first = int(match[1])
        found.append((first, int(match[3]) if match[3] else float("inf") if match[2] else first))
    return found


def load(path: Path) -> Scenario:
    """The scenario in a file. *Raises* ``ConfigurationError``, naming every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"scenario file {path} cannot be read: {error}") from error
    try:
        return parse(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"scenario file {path}: {error}") from error


def parse(text: str) -> Scenario:
    """The scenario in a TOML text. *Raises* ``ConfigurationError``, naming every fault."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"not TOML: {error}") from error
    faults = [f"{key}: unknown, must be rule or service" for key in table if key not in ("rule", "service")]
    service = _service(table.get("service", {}), faults)
    rules = table.get("rule", [])
    if not isinstance(rules, list):
        faults.append("rule: must be written as [[rule]]")
        rules = []
    built = [_rule(rule, f"rule {number}", faults) for number, rule in enumerate(rules, start=1)]
    if faults:
        raise ConfigurationError("; ".join(faults))
    return Scenario(rules=tuple(rule for rule in built if rule is not None), service=service)


def _service(table: Any, faults: list[str]) -> dict[str, Any]:
    if not isinstance(table, dict):
        faults.append("service: must be a table")
        return {}
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _SERVICE:
            faults.append(f"service.{name}: unknown, must be one of {', '.join(_SERVICE)}")
            continue
        found[name] = _value(value, _SERVICE[name], f"service.{name}", faults)
    return found


def _rule(table: Any, path: str, faults: list[str]) -> Rule | None:
    before = len(faults)
    rule = _struct(table, Rule, path, faults)
    if rule is None or len(faults) > before:
        return None
    given = set(table)
    if rule.requests:
        try:
            ranges(rule.requests)
        except ValueError as error:
            faults.append(f"{path}.requests: {error} is no number or range such as 3, 2-5 or 7-")
    if given >= _ENDS:
        faults.append(f"{path}: answer and redirect exclude each other")
    if given & _ENDS and given & _STREAM_ONLY - {"cut"}:
        faults.append(
            f"{path}: {', '.join(sorted(given & _STREAM_ONLY))} needs a stream, and this rule opens none"
        )
    if rule.endpoint != "stream" and given & _STREAM_ONLY - {"cut"}:
        faults.append(f'{path}: {", ".join(sorted(given & _STREAM_ONLY))} is for endpoint = "stream" only')
    if rule.cut is not UNSET and rule.cut.after_bytes is not UNSET and rule.cut.how is How.CLEAN:
        faults.append(f"{path}.cut: a clean end cannot come after_bytes, use after_hits")
    return rule


def _struct(table: Any, kind: type[_S], path: str, faults: list[str]) -> _S | None:
    """``table`` as ``kind``, each key by itself so that all faults are found."""
    if not isinstance(table, dict):
        faults.append(f"{path}: must be a table")
        return None
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    before = len(faults)
    for name, value in table.items():
        where = f"{path}.{name}"
        if name not in fields:
            faults.append(f"{where}: unknown, must be one of {', '.join(fields)}")
            continue
        inner = _inner(fields[name].type)
        values[name] = (
            _struct(value, inner, where, faults) if inner else _value(value, fields[name].type, where, faults)
        )
    missing = [name for name, field in fields.items() if field.required and name not in table]
    faults.extend(f"{path}.{name}: missing" for name in missing)
    return kind(**values) if len(faults) == before else None


def _inner(annotation: Any) -> type[Struct] | None:
    """The struct in ``X | UnsetType``."""
    for part in getattr(annotation, "__args__", ()):
        if isinstance(part, type) and issubclass(part, Struct):
            return part
    return None


def _value(value: Any, kind: Any, path: str, faults: list[str]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        faults.append(f"{path}: {value!r}: {error}")
        return None
