"""Where a redirect may lead.

Pure; used by the reader. The invariant: the credentials are only ever sent to an allowed host, never
over a lesser scheme, and curl is given exactly the URL that was checked here.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from collector.settings_values import is_loopback

MAX_HOPS: Final = 5

STATUSES: Final = frozenset({301, 302, 303, 307, 308})
"""*Source*: RFC 9110, 15.4; the service documents 302."""

_PLAIN_TEXT: Final = re.compile(r"[!-\[\]-~]+")
"""Printable ASCII without space and backslash, which parsers of URLs read differently."""

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True)
class Forbidden:
    """Why a redirect is not followed, in words."""

    reason: str


def next_url(visited: list[str], location: str, allowed_hosts: Iterable[str]) -> str | Forbidden:
    """The URL to go to from ``visited[-1]``, or why not."""
    if not location:
        return Forbidden("a redirect without Location")
    if len(visited) > MAX_HOPS:
        return Forbidden(f"more than {MAX_HOPS} redirects in one attempt")
    if not _PLAIN_TEXT.fullmatch(location):
        return Forbidden("a redirect whose Location is no URL")
    try:
        old, new = urlsplit(visited[-1]), urlsplit(urljoin(visited[-1], location))
        reason = _objection(old, new, allowed_hosts)
        url = "" if reason else _rebuilt(new)
    except ValueError:
        return Forbidden("a redirect whose Location is no URL")
    if url in visited:
        reason = "a redirect that loops"
    return Forbidden(reason) if reason else url


def _objection(old: SplitResult, new: SplitResult, allowed_hosts: Iterable[str]) -> str:
    host = new.hostname or ""
    if new.scheme not in {"http", "https"}:
        return f"a redirect to the scheme {new.scheme}"
    if "@" in new.netloc:
        return "a redirect with user information"
    if new.scheme == "http" and (old.scheme == "https" or not is_loopback(new.geturl())):
        return "a redirect to a lesser scheme"
    if not any(_is_at_or_below(host, allowed) for allowed in allowed_hosts):
        return f"a redirect to a host that is not allowed: {host}"
    return ""


def _is_at_or_below(host: str, allowed: str) -> bool:
    host, allowed = (name.lower().rstrip(".") for name in (host, allowed))
    return bool(allowed) and (host == allowed or host.endswith("." + allowed))


def _rebuilt(url: SplitResult) -> str:
    """The URL from its checked parts alone. *Raises* ``ValueError`` for a host or port that is none."""
    host = url.hostname or ""
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host)}]"
    elif not _HOST.fullmatch(host.rstrip(".")):
        raise ValueError(host)
    port = "" if url.port is None else f":{url.port}"
    query = f"?{url.query}" if url.query else ""
    return f"{url.scheme}://{host}{port}{url.path or '/'}{query}"
