"""Where a redirect may lead, as a table."""

from __future__ import annotations

import pytest

from collector.reader.redirect import MAX_HOPS, Forbidden, next_url

ALLOWED = ("livestream.adobe.net", "adobe.com", "127.0.0.1")
HERE = "https://livestream.adobe.net/api/1/stream/shop?maxConnections=1"


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://eu.livestream.adobe.net/s?x=1", "https://eu.livestream.adobe.net/s?x=1"),
        ("https://EU.Adobe.com./s", "https://eu.adobe.com./s"),
        ("https://adobe.com", "https://adobe.com/"),
        ("https://adobe.com:8443/s#part", "https://adobe.com:8443/s"),
        ("/other", "https://livestream.adobe.net/other"),
        ("other?y=2", "https://livestream.adobe.net/api/1/stream/other?y=2"),
        ("//x.adobe.com/s", "https://x.adobe.com/s"),
        ("https://127.0.0.1:9/s", "https://127.0.0.1:9/s"),
    ],
)
def test_allowed(location: str, url: str) -> None:
    """Equal to or below an allowed name, relative or absolute; the fragment is dropped."""
    assert next_url([HERE], location, ALLOWED) == url


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("", "without Location"),
        ("http://livestream.adobe.net/s", "lesser scheme"),
        ("http://127.0.0.1/s", "lesser scheme"),
        ("file:///etc/passwd", "scheme file"),
        ("ftp://adobe.com/s", "scheme ftp"),
        ("javascript:alert(1)", "scheme javascript"),
        ("https://evil.com/s", "not allowed: evil.com"),
        ("https://evil-adobe.com/s", "not allowed"),
        ("https://adobe.com.evil.com/s", "not allowed"),
        ("https://adobe.com@evil.com/s", "user information"),
        ("https://u:p@adobe.com/s", "user information"),
        ("https://evil.com\\@adobe.com/s", "no URL"),
        ("https://evil.com\\.adobe.com/s", "no URL"),
        ("https://evil.com%2f.adobe.com/s", "no URL"),
        ("https://evil.com:80#.adobe.com/s", "not allowed"),
        ("https://evil.com?.adobe.com/s", "not allowed"),
        ("https://adobe.com:port/s", "no URL"),
        ("https://adobe.com:99999/s", "no URL"),
        ("https://[::1/s", "no URL"),
        ("https://adobe.com/a b", "no URL"),
        ("https://adobe.com/\r\nX: y", "no URL"),
        ("https://ädobe.com/s", "no URL"),
        (HERE, "loops"),
        ("?maxConnections=1", "loops"),
    ],
)
def test_forbidden(location: str, reason: str) -> None:
    """Other hosts, lesser schemes, user information, loops and what is no URL are not followed."""
    verdict = next_url([HERE], location, ALLOWED)
    assert isinstance(verdict, Forbidden)
    assert reason in verdict.reason


def test_plain_http_is_for_loopback_alone() -> None:
    """From a simulator on loopback to another port of it; never with credentials out of the machine."""
    here = "http://127.0.0.1:8000/s"
    assert next_url([here], "http://127.0.0.1:8001/s", ALLOWED) == "http://127.0.0.1:8001/s"
    assert isinstance(next_url([here], "http://adobe.com/s", ALLOWED), Forbidden)
    assert next_url([here], "http://[::1]:8001/s", ("::1",)) == "http://[::1]:8001/s"


def test_at_most_five_hops() -> None:
    """The sixth redirect of one attempt is one too many."""
    visited = [HERE]
    for hop in range(MAX_HOPS):
        url = next_url(visited, f"/hop{hop}", ALLOWED)
        assert isinstance(url, str)
        visited.append(url)
    assert isinstance(next_url(visited, "/once-more", ALLOWED), Forbidden)
