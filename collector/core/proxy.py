"""The proxy as the processes tell each other of it. ``collector.proxy`` finds it and says who uses it."""

from __future__ import annotations

import msgspec


class Proxy(msgspec.Struct, frozen=True, array_like=True):
    """The HTTP proxy that requests to other machines go through."""

    url: str
    """Scheme, host and port alone."""
    user: str = ""
    password: str = ""
    exempt: tuple[str, ...] = ()
    """Hosts that are reached directly, as ``NO_PROXY`` lists them."""

    def __repr__(self) -> str:
        return f"Proxy({self.url})"
