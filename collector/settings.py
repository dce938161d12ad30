"""Settings in layers: defaults < TOML file < environment < flags, checked all at once.

Imported by the commands. A ``Settings`` object is complete and consistent, or does not exist: whatever
is wrong in any layer is collected and raised as one ``ConfigurationError``.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from collector.errors import ConfigurationError
from collector.escaping import printable
from collector.settings_kinds import GIB, MIB
from collector.settings_rules import broken_rules, default_hosts, default_name
from collector.settings_table import SECTIONS, SPECS, Settings, environment_name
from collector.settings_values import Refusal, parse

__all__ = ["Loaded", "Purpose", "Settings", "load_settings", "load_with_sources"]

_SECRETS: Final[Mapping[str, str]] = {
    "token": "LIVESTREAM_TOKEN",
    "access_token": "LIVESTREAM_TOKEN",
    "bearer": "LIVESTREAM_TOKEN",
    "authorization": "LIVESTREAM_TOKEN",
    "client_id": "LIVESTREAM_CLIENT_ID",
    "api_key": "LIVESTREAM_CLIENT_ID",
    "client_secret": "LIVESTREAM_CLIENT_SECRET",
    "secret": "LIVESTREAM_CLIENT_SECRET",
    "password": "LIVESTREAM_PROXY_PASSWORD",
    "privacy_key": "LIVESTREAM_PRIVACY_KEY",
    "key": "LIVESTREAM_PRIVACY_KEY",
}
_CREDENTIALS: Final = frozenset(_SECRETS.values()) | {f"{name}_FILE" for name in _SECRETS.values()}
_PREFIX: Final = "LIVESTREAM_"
_SHOWN_CHARACTERS: Final = 80
_MAX_FILE_BYTES: Final = 1 << 20
"""Far above any settings file: a device or a wrong file is not read to its end."""

_BY_ENVIRONMENT_NAME: Final = {environment_name(key): key for key in SPECS}


class Purpose(enum.Enum):
    """What the settings are for, which says what is required and what stands in for what is missing."""

    RUN = "run"
    DECODE = "decode"
    REJECTS = "rejects"
    """To run the rejects of a stream again."""
    STATE = "state"
    """To look into or change the state folder of a collector that has run before."""
    LOOK = "look"
    """The same of all streams, if none is named: the name may be empty, and the state folder that of all."""


_REQUIRED: Final[Mapping[Purpose, tuple[str, ...]]] = {
    Purpose.RUN: ("stream.url", "output.folder"),
    Purpose.DECODE: ("output.folder",),
    Purpose.REJECTS: ("output.folder",),
    Purpose.STATE: ("output.folder",),
    Purpose.LOOK: ("output.folder",),
}
_OF_FILES: Final = {
    "journal.durability": "memory",
    "journal.max_bytes": 2 * GIB,
    "journal.segment_bytes": 16 * MIB,
}
"""A file waits, so no more of it is taken into memory than what keeps the decoders busy."""

_OWN_DEFAULTS: Final[Mapping[Purpose, Mapping[str, Any]]] = {
    Purpose.RUN: {},
    Purpose.DECODE: {"stream.name": "files", **_OF_FILES},
    Purpose.REJECTS: _OF_FILES,
    Purpose.STATE: {},
    Purpose.LOOK: {},
}
_STATE_SUFFIX: Final[Mapping[Purpose, str]] = {Purpose.DECODE: ".files", Purpose.REJECTS: ".rejects"}
"""Of the default state folder's name. What reads saved files has no business with the stream's address."""


class Loaded(NamedTuple):
    """Settings, and where each came from."""

    settings: Settings
    sources: Mapping[str, str]
    """By full key: a file, an environment variable, a flag. What is not here is the default."""


class _Given(NamedTuple):
    key: str
    value: object
    source: str
    """Where it was written, in words: a file, an environment variable, a flag."""


@dataclasses.dataclass(slots=True)
class _Gathered:
    values: dict[str, Any]
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)
    bad: set[str] = dataclasses.field(default_factory=set)

    def add_fault(self, key: str, source: str, text: str) -> None:
        self.faults.append(f"{key} ({source}): {text}" if source else f"{key}: {text}")
        self.bad.add(key)


def load_settings(
    purpose: Purpose,
    *,
    config: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    assignments: Sequence[str] = (),
) -> Settings:
    """Checked settings from all layers, the later ones winning.

    ``options`` are flags by full key, ``None`` where not given; ``assignments`` are ``section.key=value``.
    Relative paths are relative to the current folder. *Blocks* while reading ``config``.
    *Raises* ``ConfigurationError`` with every fault of every layer.
    """
    return load_with_sources(
        purpose, config=config, environ=environ, options=options, assignments=assignments
    ).settings


def load_with_sources(
    purpose: Purpose,
    *,
    config: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    assignments: Sequence[str] = (),
) -> Loaded:
    """As ``load_settings``, for those who show them."""
    own = _OWN_DEFAULTS[purpose]
    gathered = _Gathered({key: own.get(key, spec.default) for key, spec in SPECS.items()})
    for given in _layers(gathered, config, environ or {}, options or {}, assignments):
        _take(gathered, given)
    for key in _REQUIRED[purpose]:
        if gathered.values[key] is None and key not in gathered.bad:
            ways = f"{SPECS[key].flag}, {environment_name(key)} or {key} in a settings file"
            gathered.add_fault(key, "", f"required: give {ways}")
    _complete(gathered, purpose)
    for key, why in broken_rules(gathered.values, frozenset(gathered.bad)):
        shown = _shown(gathered.values[key])
        gathered.add_fault(key, gathered.sources.get(key, "default"), f"{shown} cannot be used: {why}")
    if gathered.faults:
        raise ConfigurationError(_message(gathered.faults))
    return Loaded(_built(gathered.values), gathered.sources)


def _layers(
    gathered: _Gathered,
    config: str | Path | None,
    environ: Mapping[str, str],
    options: Mapping[str, object],
    assignments: Sequence[str],
) -> Iterator[_Given]:
    if config is not None:
        yield from _from_file(gathered, str(config))
    yield from _from_environment(gathered, environ)
    yield from _from_assignments(gathered, assignments)
    for key, value in options.items():
        if value is not None:
            yield _Given(key, value, SPECS[key].flag or f"--set {key}")


def _take(gathered: _Gathered, given: _Given) -> None:
    key, value, source = given
    secret = _SECRETS.get(key.rpartition(".")[2].lower())
    if secret is not None:
        text = f"secrets are taken from the environment only: set {secret} or {secret}_FILE"
        gathered.add_fault(key, source, text)
        return
    if key not in SPECS:
        gathered.add_fault(printable(key), source, "unknown setting" + _nearest(key))
        return
    spec = SPECS[key]
    try:
        gathered.values[key] = parse(spec, value)
    except Refusal as refusal:
        why = f" ({refusal})" if str(refusal) else ""
        gathered.add_fault(key, source, f"{_shown(value)} cannot be used{why}; allowed: {spec.allowed()}")
    gathered.sources[key] = source


def _from_file(gathered: _Gathered, path: str) -> Iterator[_Given]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ValueError(f"longer than {_MAX_FILE_BYTES >> 20} MiB")  # noqa: TRY301 - told as the others
        document = tomllib.loads(content.decode())
    except OSError as error:
        gathered.faults.append(f"{printable(path)} (--config): cannot be read: {error.strerror}")
        return
    except (ValueError, RecursionError) as error:  # tomllib lets those of Python's own readers through
        gathered.faults.append(f"{printable(path)} (--config): no valid TOML: {printable(str(error))}")
        return
    for section, content in document.items():
        if not isinstance(content, dict):
            yield _Given(section, content, printable(path))
            continue
        if section not in SECTIONS and not content:
            gathered.faults.append(f"[{printable(section)}] ({printable(path)}): unknown section")
        for key, value in content.items():
            yield _Given(f"{section}.{key}", value, printable(path))


def _from_environment(gathered: _Gathered, environ: Mapping[str, str]) -> Iterator[_Given]:
    """An empty variable counts as not given, as compose files and unit files write it."""
    for name, value in sorted(environ.items()):
        if not name.startswith(_PREFIX) or name in _CREDENTIALS or not value:
            continue
        if name in _BY_ENVIRONMENT_NAME:
            yield _Given(_BY_ENVIRONMENT_NAME[name], value, name)
            continue
        _refuse_variable(gathered, name)


def _refuse_variable(gathered: _Gathered, name: str) -> None:
    """A name without the double underscore is a fault only where it nearly is one of ours.

    Foreign variables with our prefix exist: an orchestrator's, for a service called livestream.
    """
    secret = _SECRETS.get(name.rpartition("__")[2].lower())
    if "__" in name and secret is not None:
        gathered.faults.append(f"{name}: a secret is taken from {secret} or {secret}_FILE only")
        return
    ours = {known.removeprefix(_PREFIX): known for known in (*_BY_ENVIRONMENT_NAME, *sorted(_CREDENTIALS))}
    near = difflib.get_close_matches(name.removeprefix(_PREFIX), ours, 1, 0.6 if "__" in name else 0.85)
    if near or "__" in name:
        hint = f"; did you mean {ours[near[0]]}?" if near else ""
        gathered.faults.append(f"{printable(name)} (environment): unknown setting{hint}")


def _from_assignments(gathered: _Gathered, assignments: Sequence[str]) -> Iterator[_Given]:
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            gathered.faults.append(f"--set {_shown(assignment)}: allowed: section.key=value")
            continue
        yield _Given(key.strip(), value, f"--set {printable(key.strip())}")


def _complete(gathered: _Gathered, purpose: Purpose) -> None:
    """Fill what has no fixed default, from what is known by now."""
    values, bad = gathered.values, gathered.bad
    if values["stream.name"] is None and not bad & {"stream.name", "stream.url", "output.folder"}:
        name, fault = default_name(values["stream.url"], values["output.folder"])
        explicit_state = purpose is Purpose.STATE and values["state.folder"] is not None
        values["stream.name"] = name
        if fault and not explicit_state and purpose is not Purpose.LOOK:
            gathered.add_fault("stream.name", "", fault)
    if values["stream.url"] is None or purpose in _STATE_SUFFIX:
        values["stream.url"] = ""
    if values["stream.allowed_hosts"] is None and "stream.url" not in bad:
        values["stream.allowed_hosts"] = default_hosts(values["stream.url"])
    known = values["stream.name"] is not None and not bad & {"stream.name", "output.folder"}
    if values["state.folder"] is None and known:
        folder = values["stream.name"] + _STATE_SUFFIX.get(purpose, "")
        values["state.folder"] = values["output.folder"] / ".state" / folder


def _built(values: Mapping[str, Any]) -> Settings:
    sections = {
        section: group(
            **{field.name: values[f"{section}.{field.name}"] for field in dataclasses.fields(group)}
        )
        for section, group in SECTIONS.items()
    }
    return Settings(**sections)


def _nearest(key: str) -> str:
    candidates = {known: known for known in SPECS} | {known.partition(".")[2]: known for known in SPECS}
    near = difflib.get_close_matches(key, candidates, 1) or difflib.get_close_matches(
        key.rpartition(".")[2], candidates, 1
    )
    return f"; did you mean {candidates[near[0]]}?" if near else ""


def _message(faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return f"cannot start: {faults[0]}"
    return f"cannot start, {len(faults)} faults in the settings:\n" + "\n".join(
        f"  - {fault}" for fault in faults
    )


def _shown(value: object) -> str:
    """The value as written, shortened; what may hold a secret is not shown."""
    try:
        text = printable(str(value))
    except ValueError:  # thousands of digits
        return "(a number too long to be shown)"
    if "eyJ" in text or "@" in text:
        return "(a value that may hold a secret, not shown)"
    shortened = printable(text, _SHOWN_CHARACTERS)
    return f'"{shortened}"' if isinstance(value, str | os.PathLike) else shortened
