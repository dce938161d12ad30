"""All that a run is given from outside: settings, and the secrets that go with them.

Read at the start, and again when the collector is told to: the same file, the environment of the start,
the same flags. Invariant: either all of it is good, or nothing of it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from collector.core.privacy import Privacy
from collector.credentials import Credentials, load_credentials, load_privacy_key
from collector.errors import ConfigurationError
from collector.settings import Purpose, Settings, load_settings
from collector.settings_values import is_loopback

T = TypeVar("T")


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
