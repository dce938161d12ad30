"""Which proxy a request goes through: the setting, ``HTTPS_PROXY``, and whom ``NO_PROXY`` exempts.

Used by the coordinator, which alone reads the password, and by the reader, which is told through its
channel. The invariant: what never leaves the machine never goes through a proxy.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from collector.core.proxy import Proxy
from collector.credentials import load_proxy_password
from collector.errors import ConfigurationError
from collector.escaping import conceal
from collector.settings_values import Refusal, is_address, is_loopback, split_url

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def find_proxy(url: str | None, user: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """The settings ``proxy.url`` and ``proxy.user``, else ``HTTPS_PROXY``; ``None``: there is none.

    Lower case counts before upper case, and an empty variable as not given, as with curl.
    *Blocks* while reading the file of the password. *Raises* ``ConfigurationError``; it shows no password.
    """
    name, text = ("proxy.url", url) if url else ("HTTPS_PROXY", _variable(environ, "https_proxy"))
    password = load_proxy_password(environ)
    if not text:
        return None
    found = _proxy_in(name, text)
    found_user = user or found.user
    found_password = password.reveal() if password is not None else found.password
    if found_password and not found_user:
        raise ConfigurationError("the proxy has a password but no user name: give proxy.user")
    exempt = tuple(filter(None, (entry.strip() for entry in _variable(environ, "no_proxy").split(","))))
    return Proxy(found.url, found_user, found_password, exempt)


def proxy_for(url: str, proxy: Proxy | None) -> Proxy | None:
    """The proxy for this address; ``None``: none, it is this machine or exempt."""
    if proxy is None or is_loopback(url):
        return None
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    host = (parts.hostname or "").rstrip(".")
    return None if any(_covers(entry.lower(), host, port) for entry in proxy.exempt) else proxy


def proxy_headers(proxy: Proxy) -> dict[str, str]:
    """What a CONNECT carries for the proxy itself. *Source*: RFC 7617, UTF-8."""
    if not proxy.user:
        return {}
    pair = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {pair}"}


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _proxy_in(name: str, text: str) -> Proxy:
    try:
        parts = split_url(text if "://" in text else f"http://{text}")
    except Refusal:
        parts = split_url("none://")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    for secret in (password, parts.password or ""):
        conceal(secret)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path.strip("/"):
        raise ConfigurationError(
            f"{name} is no proxy that can be used: give http://host:port or https://host:port"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Proxy(f"{parts.scheme}://{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}", user, password)


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of ``NO_PROXY`` means this host: ``*``, a domain, an address or a range of them."""
    if entry == "*":
        return True
    if is_address(host):
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    domain, _, own_port = entry.partition(":")
    domain = domain.removeprefix("*").strip(".")
    fits = host == domain or host.endswith(f".{domain}")
    return bool(domain) and fits and own_port in {"", str(port)}
