"""The texts of the simulator's hits: one template per visitor profile and step, in the documented shapes.

The simulator's process and every checker that recomputes a hit run it. Invariant: template ``number``
is a function of (seed, number) alone, and takes its changing values in the order of ``CHANGING``
(``purchaseId`` only where ``is_purchase(number)``).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

PROFILES = 64
"""Visitors share this many devices, places and networks."""

STEPS = 64
"""Templates per profile; the last ``PURCHASE_STEPS`` of them are purchases."""

PURCHASE_STEPS = 4
TEMPLATES = PROFILES * STEPS

CHANGING = (
    "hitIdHigh",
    "hitIdLow",
    "mcVisIdHigh",
    "mcVisIdLow",
    "purchaseId",
    "receivedTimeGMT",
    "timeGMT",
    "visIdHigh",
    "visIdLow",
)
"""What differs from hit to hit of one template, in wire order."""

ODD_EVERY = 10
"""One template in this many carries one of ``ODDITIES``."""

PAGES = 400
CAMPAIGNS = 120

_PLACES = (
    # geoCity, geoCountry, geoRegion, zip, geoDMA, lat, lon, language, languageAbbrev, currency
    ("paris", "fra", "j", "75001", 410, "48.85", "2.35", "French", "fr-FR", "EUR"),
    ("münchen", "deu", "by", "80331", 276, "48.14", "11.58", "German", "de-DE", "EUR"),
    ("new york", "usa", "ny", "10001", 501, "40.71", "-74.01", "English", "en-US", "USD"),
    ("san francisco", "usa", "ca", "94103", 807, "37.77", "-122.42", "English", "en-US", "USD"),
    ("são paulo", "bra", "sp", "01001-000", 0, "-23.55", "-46.63", "Portuguese", "pt-BR", "BRL"),
    ("東京", "jpn", "13", "100-0001", 0, "35.68", "139.69", "Japanese", "ja-JP", "JPY"),
    ("london", "gbr", "eng", "EC1A", 826, "51.51", "-0.13", "English", "en-GB", "GBP"),
    ("zürich", "che", "zh", "8001", 0, "47.37", "8.54", "German", "de-CH", "CHF"),
)
_NETWORKS = (
    ("sfr.net", ".net", "LAN/WiFi", ""),
    ("comcast.net", ".net", "LAN/WiFi", ""),
    ("t-ipconnect.de", ".de", "LAN/WiFi", ""),
    ("vodafone.com", ".com", "Mobile Carrier", "Vodafone"),
    ("att.com", ".com", "Mobile Carrier", "AT&T"),
)
_SEARCH_ENGINES = ("Google", "Bing", "DuckDuckGo", "Typed/Bookmarked")
_COLOURS = ("red", "blue", "black", "green & white", 'the 5" one', "été")
_SECTIONS = ("home", "mens", "womens", "shoes", "sale", "blog", "support", "account")

_encode = msgspec.json.Encoder().encode


def is_purchase(number: int) -> bool:
    """Whether template ``number`` takes a ``purchaseId``."""
    return number % STEPS >= STEPS - PURCHASE_STEPS


def build(seed: int, number: int) -> bytes:
    """One hit as a ``%``-format over the values of ``CHANGING``, without line end."""
    profile, step = divmod(number, STEPS)
    visitor = random.Random(f"{seed} profile {profile}")  # noqa: S311 - repeatable
    draw = random.Random(f"{seed} template {profile} {step}")  # noqa: S311 - repeatable
    hit = _visitor_fields(visitor) | _page_fields(draw)
    purchase = is_purchase(number)
    hit |= _commerce_fields(draw, purchase=purchase)
    hit |= _markers(purchase=purchase)
    if number % ODD_EVERY == 0:
        ODDITIES[number // ODD_EVERY % len(ODDITIES)](hit, draw)
    return _as_format(hit)


def _as_format(hit: dict[str, Any]) -> bytes:
    text = _encode({name: hit[name] for name in sorted(hit, key=_wire_order)}).replace(b"%", b"%%")
    for name in CHANGING:
        marker = _encode(_marker(name))
        text = text.replace(marker, b'"T%d"' if name == "purchaseId" else b"%d")
    return text


def _wire_order(name: str) -> str:
    return "tm" if name == "topLevelDomain" else name  # the documented example has it before "tnt"


def _marker(name: str) -> str:
    return f"<changing {name}>"


def _markers(*, purchase: bool) -> dict[str, Any]:
    return {name: _marker(name) for name in CHANGING if purchase or name != "purchaseId"}


def _skewed(draw: random.Random, size: int) -> int:
    """Zipf-like: half of all draws are the first eighth of the range."""
    return int(size * draw.random() ** 3)


def _page(draw: random.Random) -> tuple[str, str]:
    page = _skewed(draw, PAGES)
    section = _SECTIONS[page % len(_SECTIONS)]
    return f"site:{section}:page {page}", section


def _visitor_fields(draw: random.Random) -> dict[str, Any]:
    city, country, region, zip_code, dma, lat, lon, language, abbreviation, currency = draw.choice(_PLACES)
    domain, top_level, connection, carrier = draw.choice(_NETWORKS)
    version = 110 + _skewed(draw, 40)
    fields: dict[str, Any] = {
        "bot": "<Not a bot>",
        "browser": f"Google Chrome {version}.0",
        "browserHeight": draw.randrange(500, 1500),
        "browserType": "Google",
        "browserWidth": draw.randrange(800, 2800),
        "carrier": carrier,
        "connectionType": connection,
        "currency": currency,
        "customVisId": str(draw.randrange(10**6)),
        "domain": domain,
        "geoCity": city,
        "geoCountry": country,
        "geoDMA": dma,
        "geoRegion": region,
        "geoZip": zip_code,
        "ip": f"{draw.randrange(11, 224)}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}",
        "javaEnabled": draw.random() < 0.5,
        "language": language,
        "languageAbbrev": abbreviation,
        "lat": lat,
        "lon": lon,
        "monitorColorDepth": "16 million colors",
        "monitorHeight": draw.choice((768, 900, 1080, 1440)),
        "monitorWidth": draw.choice((1366, 1600, 1920, 2560)),
        "operatingSystem": draw.choice(("Macintosh", "Windows 10", "Linux", "Android 14", "iOS 17.5")),
        "topLevelDomain": top_level,
        "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{version}.0.{draw.randrange(3000)}.0 Safari/537.36",
        "usesPersistentCookie": 1,
        "visIdType": 3,
        "zip": zip_code,
    }
    return fields | (_mobile_fields(draw) if carrier else {})


def _mobile_fields(draw: random.Random) -> dict[str, Any]:
    return {
        "mobileAudioSupport": True,
        "mobileColorDepth": 24,
        "mobileCookieSupport": draw.random() < 0.9,
        "mobileDeviceName": draw.choice(("Phone X", "Galaxy S24", "Pixel 9")),
        "mobileDeviceType": draw.choice(("Mobile Phone", "Tablet")),
        "mobileManufacturer": draw.choice(("Apple", "Samsung", "Google")),
        "mobileScreenHeight": draw.choice((1792, 2340, 2532)),
        "mobileScreenWidth": draw.choice((828, 1080, 1170)),
        "mobileVideoSupport": True,
    }


def _page_fields(draw: random.Random) -> dict[str, Any]:
    page, section = _page(draw)
    campaign = f"DFA:{1000 + _skewed(draw, CAMPAIGNS)}:{7883}"
    evars = {"campaign": campaign}
    for number in draw.sample(range(1, 251), 19):
        evars[f"evar{number}"] = f"value {number}:{draw.randrange(1000)} {_page(draw)[0]}"
    props = {f"prop{number}": f"p{number} {draw.randrange(500)}" for number in draw.sample(range(1, 76), 13)}
    events = {f"event{draw.randrange(1, 1001)}": _event(draw) for _ in range(draw.randrange(1, 6))}
    return {
        "evars": {"evars": evars},
        "events": events,
        "exclude": {"id": "0", "value": "no", "description": "include"},
        "hierarchies": {"hier1": {"delim": 58, "values": f"home page:{section}:{page}"}},
        "hitSource": 1,
        "isErrorPage": False,
        "mvvars": {"1": {"m": {"values": ["event_category:summer sale", "event_type:click"], "delim": 44}}},
        "pageName": page,
        "pageURL": "https://example.com/" + page.replace(" ", "%20"),
        "props": props | {"site_section": section},
        "referrer": "https://www.example.com/" + _page(draw)[0].replace(" ", "+"),
        "reportSuite": "examplecomprod",
        "searchEngine": draw.choice(_SEARCH_ENGINES),
        "service": "ss",
        "tnt": [_experience(draw, action="")],
        "tntAction": [_experience(draw, action="Experience Visit")],
        "transactionId": "",
        "truncated": False,
    }


def _experience(draw: random.Random, *, action: str) -> dict[str, str]:
    return {
        "campaignId": str(13000 + _skewed(draw, 300)),
        "recipeId": str(draw.randrange(40)),
        "trafficType": "0",
        "actionId": "1" if action else "",
        "actionName": action,
    }


def _event(draw: random.Random) -> list[dict[str, Any]]:
    return [{"count": draw.randrange(1, 5), "exponent": 0, "unique": ""}]


def _commerce_fields(draw: random.Random, *, purchase: bool) -> dict[str, Any]:
    count = draw.randrange(1, 4) if purchase or draw.random() < 0.3 else 0
    return {"products": [_product(draw) for _ in range(count)]}


def _product(draw: random.Random) -> dict[str, Any]:
    return {
        "category": "Clothing",
        "evars": {"evar7": draw.choice(_COLOURS)},
        "events": {"event61": _event(draw)},
        "name": f"SKU{1000 + _skewed(draw, 9000)}",
        "revenue": draw.randrange(500, 200_000) / 100,
        "units": draw.randrange(1, 20),
    }


def _set(name: str, value: Any) -> Callable[[dict[str, Any], random.Random], None]:
    def oddity(hit: dict[str, Any], _: random.Random) -> None:
        hit[name] = value

    return oddity


def _lose_fields(hit: dict[str, Any], _: random.Random) -> None:
    for name in ("isErrorPage", "customVisId"):
        hit.pop(name, None)
    hit["geoCity"] = None


def _count_evar(hit: dict[str, Any], _: random.Random) -> None:
    hit["evars"]["evars"]["evar9"] = 1.0


def _split_hierarchy(hit: dict[str, Any], draw: random.Random) -> None:
    hit["hierarchies"]["hier1"] = {"delim": ":", "values": ["home page", _page(draw)[1], "mens"]}


def _list_product_events(hit: dict[str, Any], _: random.Random) -> None:
    event = {"event61": [{"count": 1.5, "exponent": 2, "unique": "abc"}]}
    hit["products"].append(
        {"category": "", "evars": {}, "events": [event], "name": "SKU1", "revenue": 19.99, "units": 1}
    )


def _top_campaign(hit: dict[str, Any], _: random.Random) -> None:
    hit["campaign"] = hit["evars"]["evars"]["campaign"]


def _support_as_text(hit: dict[str, Any], _: random.Random) -> None:
    hit |= {"mobileAudioSupport": "MP3,AAC", "mobileVideoSupport": "MP4,3GPP", "mobileDeviceName": "Phone X"}


ODDITIES: tuple[Callable[[dict[str, Any], random.Random], None], ...] = (
    _set("exclude", {"id": 0, "value": "no", "description": "include"}),
    _split_hierarchy,
    _list_product_events,
    _count_evar,
    _set("tnt", {"delim": 44, "values": ["1:2:3"]}),
    _support_as_text,
    _set("mcAudiences", {"values": ["101", "202"], "delim": 44}),
    _set("newDimension2027", {"a": [1, "x", None]}),
    _lose_fields,
    _set("geoDMA", "501"),
    _top_campaign,
    _set("anotherNewField", "now you see me"),
)
"""The disagreements in shape that the documentation has, and fields it does not have."""
