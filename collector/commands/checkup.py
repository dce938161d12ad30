"""What the steps of ``check`` hand on to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from collector.core.proxy import Proxy
from collector.credentials import Credentials
from collector.settings import Loaded, Settings


@dataclass(slots=True)
class Checkup:
    """A step fills in what those that need it may use."""

    load: Callable[[], Loaded]
    environ: Mapping[str, str]
    hits_per_s: float | None
    has_file: bool
    """Of settings."""
    loaded: Loaded | None = None
    credentials: Credentials | None = field(default=None, repr=False)
    ca_file: str = ""
    proxy: Proxy | None = None

    @property
    def settings(self) -> Settings:
        assert self.loaded is not None  # noqa: S101 - every step but the first needs it
        return self.loaded.settings
