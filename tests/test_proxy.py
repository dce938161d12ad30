"""Which proxy a request goes through, and that its password stays where it belongs."""

from __future__ import annotations

import msgspec
import pytest

from collector.core.messages import Connect
from collector.core.proxy import Proxy
from collector.credentials import scrubbed_environment
from collector.errors import ConfigurationError
from collector.escaping import without_secrets
from collector.proxy import find_proxy, proxy_for

STREAM = "https://livestream.adobe.net/api/1/stream/shop"


@pytest.mark.parametrize(
    ("setting", "environ", "expected"),
    [
        (None, {}, None),
        (None, {"HTTPS_PROXY": "", "https_proxy": ""}, None),
        (None, {"HTTPS_PROXY": "http://up:1"}, "http://up:1"),
        (None, {"HTTPS_PROXY": "http://up:1", "https_proxy": "http://low:2"}, "http://low:2"),
        (None, {"https_proxy": "bare:3128"}, "http://bare:3128"),
        (None, {"https_proxy": "https://tls.example/"}, "https://tls.example:443"),
        (None, {"https_proxy": "http://[::1]:9"}, "http://[::1]:9"),
        (None, {"HTTP_PROXY": "http://other:1", "ALL_PROXY": "http://other:1"}, None),
        ("http://set:3128", {"HTTPS_PROXY": "http://up:1"}, "http://set:3128"),
    ],
)
def test_the_setting_counts_before_the_environment(setting, environ, expected):
    """Then lower case before upper case; an empty variable is none."""
    found = find_proxy(setting, None, environ)
    assert (found.url if found else None) == expected


def test_user_and_password(tmp_path):
    """From the variable's address, or the user from the setting and the password from variable or file."""
    found = find_proxy(None, None, {"HTTPS_PROXY": "http://us%40er:canary%2Fpass@up:1"})
    assert (found.url, found.user, found.password) == ("http://up:1", "us@er", "canary/pass")
    path = tmp_path / "password"
    path.write_text("canary-file\n")
    path.chmod(0o600)
    found = find_proxy("http://set:1", "me", {"LIVESTREAM_PROXY_PASSWORD_FILE": str(path)})
    assert (found.user, found.password) == ("me", "canary-file")
    assert "canary" not in repr(found)
    assert without_secrets("canary%2Fpass canary/pass canary-file") == "*** *** ***"
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        find_proxy("http://set:1", "me", {"LIVESTREAM_PROXY_PASSWORD_FILE": str(path)})
    with pytest.raises(ConfigurationError, match=r"give proxy\.user"):
        find_proxy("http://set:1", None, {"LIVESTREAM_PROXY_PASSWORD": "canary-only"})


@pytest.mark.parametrize(
    "text", ["socks5://canary:canary@x:1", "http://", "http://canary@x:99999", "http://x/p"]
)
def test_what_is_no_http_proxy_is_refused(text):
    """Exit 2, and what may hold a password is not shown."""
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY is no proxy that can be used") as caught:
        find_proxy(None, None, {"HTTPS_PROXY": text})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("exempt", "url", "direct"),
    [
        ("", STREAM, False),
        ("*", STREAM, True),
        ("adobe.net", STREAM, True),
        (".adobe.net", STREAM, True),
        ("*.adobe.net", STREAM, True),
        ("be.net", STREAM, False),
        ("other.example, LiveStream.Adobe.net", STREAM, True),
        ("livestream.adobe.net:443", STREAM, True),
        ("livestream.adobe.net:8443", STREAM, False),
        ("10.0.0.0/8", "https://10.1.2.3/s/x", True),
        ("10.0.0.0/8", "https://11.1.2.3/s/x", False),
        ("10.0.0.0/8, nonsense/8", STREAM, False),
        ("2001:db8::/32", "https://[2001:db8::5]/s/x", True),
        ("", "https://127.0.0.1/s/x", True),
        ("", "http://localhost:99/s/x", True),
    ],
)
def test_who_is_reached_directly(exempt, url, direct):
    """Domains at a label border, addresses, ranges, everything; this machine always."""
    proxy = find_proxy("http://set:1", None, {"NO_PROXY": exempt})
    assert (proxy_for(url, proxy) is None) is direct


def test_children_are_told_by_message_alone():
    """No variable of a proxy reaches them, as it may hold a password."""
    environ = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"), "canary")
    environ |= {"LIVESTREAM_PROXY_PASSWORD": "canary", "LIVESTREAM_PROXY_PASSWORD_FILE": "x", "PATH": "/bin"}
    assert scrubbed_environment(environ) == {"PATH": "/bin"}
    order = Connect(1, STREAM, "t", "k", (), 1.0, 0, Proxy("http://set:1", "me", "canary", ("a",)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(order), type=Connect) == order
