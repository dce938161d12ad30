"""``livestream-collector config show``: the settings in effect, and where each comes from.

The invariant: of a secret is shown that it is given and from where, never what it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collector.credentials import given_secrets
from collector.escaping import without_secrets
from collector.proxy import find_proxy
from collector.settings import Loaded
from collector.settings_table import SPECS
from collector.settings_text import effective, source_of, value_of


def run(loaded: Loaded, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Print them. *Raises* ``ConfigurationError`` for a proxy that cannot be used."""
    sys.stdout.write(as_document(loaded, environ) if as_json else as_file(loaded, environ))
    return 0


def as_file(loaded: Loaded, environ: Mapping[str, str]) -> str:
    """A settings file that has the same effect; secrets and the proxy are told in comments."""
    secrets, proxy = _asides(loaded, environ)
    tail = ["Secrets, which are never shown:"]
    tail += [f"  {name}: {source or 'not given'}" for name, source in secrets.items()]
    if proxy is not None:
        tail.append(f"Requests go through the proxy {proxy}.")
    return _masked(effective(loaded, tail))


def as_document(loaded: Loaded, environ: Mapping[str, str]) -> str:
    """JSON."""
    return _masked(json.dumps(_document(loaded, *_asides(loaded, environ)), indent=2) + "\n")


def _asides(loaded: Loaded, environ: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    settings = loaded.settings
    proxy = find_proxy(settings.proxy.url, settings.proxy.user, environ)
    return given_secrets(environ, settings.auth.token_file), None if proxy is None else proxy.url


def _masked(text: str) -> str:
    return "\n".join(without_secrets(line) for line in text.split("\n"))


def _document(loaded: Loaded, secrets: Mapping[str, str], proxy: str | None) -> dict[str, Any]:
    return {
        "settings": {
            key: {"value": _plain(value_of(loaded, key)), "source": source_of(loaded, key)} for key in SPECS
        },
        "secrets": {name: {"given": bool(source), "source": source} for name, source in secrets.items()},
        "proxy": proxy,
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
