"""All that a run is given from outside: settings, and the secrets that go with them.

Read at the start, and again when the collector is told to: the same file, the environment of the start,
the same flags. Invariant: either all of it is good, or nothing of it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from collector.core.privacy import Privacy
from collector.credentials import Credentials, Secret, load_credentials, load_privacy_key
from collector.errors import ConfigurationError
from collector.settings import Purpose, Settings, load_settings
from collector.settings_table import SPECS
from collector.settings_values import is_loopback

T = TypeVar("T")

LIVE: Final = frozenset(
    {
        *("parts.max_age_s", "parts.max_bytes", "journal.max_bytes", "journal.reserve_bytes"),
        *("decode.kernel", "privacy.drop", "privacy.hash", "run.decoders", "run.drain_s"),
        *("log.format", "log.level"),
        *(key for key in SPECS if key.startswith("retention.")),
    }
)
"""What a run takes over while it goes on; the rest wants another connection or another start."""

_ROLLS: Final = frozenset({"privacy.drop", "privacy.hash", "decode.kernel"})
"""What a decoder is told once, at its start."""

_PRIVACY_KEY: Final = "LIVESTREAM_PRIVACY_KEY"
_CLIENT_SECRET: Final = "LIVESTREAM_CLIENT_SECRET"  # noqa: S105 - a variable's name


@dataclass(frozen=True, slots=True)
class Given:
    settings: Settings
    privacy: Privacy
    credentials: Credentials | None = None
    """``None``: nothing is asked of the service."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Where it comes from."""

    purpose: Purpose
    environ: Mapping[str, str]
    config: Path | None = None
    options: Mapping[str, object] | None = None
    assignments: Sequence[str] = ()

    def load(self) -> Given:
        """*Blocks* while reading files. *Raises* ``ConfigurationError`` with every fault."""
        settings = load_settings(
            self.purpose,
            config=self.config,
            environ=self.environ,
            options=self.options,
            assignments=self.assignments,
        )
        faults: list[str] = []
        key = _tried(faults, lambda: load_privacy_key(self.environ, wanted=bool(settings.privacy.hash)))
        credentials = None
        if self.purpose is Purpose.RUN:
            credentials = _tried(faults, lambda: self._credentials(settings))
        if faults:
            raise ConfigurationError("\n".join(faults))
        hidden = settings.privacy
        privacy = Privacy(hidden.drop, hidden.hash, key.reveal().encode() if key is not None else b"")
        return Given(settings, privacy, credentials)

    def _credentials(self, settings: Settings) -> Credentials:
        loopback = is_loopback(settings.stream.url)
        return load_credentials(self.environ, loopback=loopback, token_file=settings.auth.token_file)


def _tried(faults: list[str], work: Callable[[], T]) -> T | None:
    try:
        return work()
    except ConfigurationError as error:
        faults.append(str(error))
        return None


# ---------------------------------------------------------------- given anew


@dataclass(frozen=True, slots=True)
class Changes:
    """What becomes of what is given while a run goes on."""

    given: Given
    """In force from now on: the new values of ``taken``, the old ones of ``waiting``."""
    taken: tuple[str, ...]
    """Settings and secrets, by name."""
    waiting: tuple[str, ...]
    """Those that want another connection, or another start."""

    @property
    def roll(self) -> bool:
        """Every decoder is to be replaced."""
        return not _ROLLS.isdisjoint(self.taken) or _PRIVACY_KEY in self.taken


def changes(old: Given, new: Given, *, terminal: bool = False) -> Changes:
    """``terminal``: log lines are drawn there, in one form."""
    changed = [key for key in SPECS if _value(old.settings, key) != _value(new.settings, key)]
    waiting = [key for key in changed if key not in LIVE or (terminal and key.startswith("log."))]
    held = old.settings.journal.durability == "memory" or any(key.startswith("journal.") for key in waiting)
    if held and "journal.max_bytes" in changed:  # what it was checked against, or fitted into, stays
        waiting.append("journal.max_bytes")
    taken = [key for key in changed if key not in waiting]
    settings = old.settings
    for key in taken:
        section, _, name = key.partition(".")
        group = dataclasses.replace(getattr(settings, section), **{name: _value(new.settings, key)})
        settings = dataclasses.replace(settings, **{section: group})
    if old.privacy.hash and new.privacy.hash and old.privacy.key != new.privacy.key:
        taken.append(_PRIVACY_KEY)
    credentials = old.credentials
    secrets = list(_other_secrets(old.credentials, new.credentials))
    if secrets == [_CLIENT_SECRET]:
        taken, credentials = [*taken, *secrets], new.credentials
    else:
        waiting += secrets
    return Changes(Given(settings, new.privacy, credentials), tuple(taken), tuple(waiting))


def _value(settings: Settings, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def _other_secrets(old: Credentials | None, new: Credentials | None) -> Iterator[str]:
    """A token file is none of them: it is read before each request."""
    if old is None or new is None:
        return
    pairs = {
        "LIVESTREAM_CLIENT_ID": (old.api_key, new.api_key),
        _CLIENT_SECRET: (old.client_secret, new.client_secret),
        "LIVESTREAM_TOKEN": (None, None) if old.token_file and new.token_file else (old.token, new.token),
    }
    yield from (name for name, (before, after) in pairs.items() if _text(before) != _text(after))


def _text(secret: Secret | None) -> str:
    return "" if secret is None else secret.reveal()
