"""The one table of what a hit is: the documented fields and their kinds.

Pure data, imported by everybody: by the decoder, which makes every schema from it (``decoder.schema``), and
by the settings, which name fields. Invariant: all parts under one schema version have the same columns in
the same order; a change here is a new schema version.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

EXTRA: Final = "extra"
"""The column that holds what no other column can: path to JSON text."""

MAX_EXACT_INTEGER: Final = 2**53
"""Largest integer below which every integer is a float64 (IEEE 754 binary64)."""


class Variant(enum.Enum):
    """A second documented shape of a value that is also shown in the column's own type.

    What was really sent stands in ``extra`` as well, so the two shapes can always be told apart.
    """

    NUMBER = "a number is shown as its text"
    BOOLEAN = "a boolean is shown as `true` or `false`"
    CHARACTER = "a string of one character is shown as its code point"
    PARTS = "a list of strings is shown joined by its `delim`"
    OBJECTS = "a list of objects is shown as one object"


@dataclass(frozen=True, slots=True)
class Text:
    """A JSON string."""

    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Integer:
    """A JSON integer of 64 bits with sign, written without fraction and exponent."""

    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Id:
    """A JSON integer from 0 to 2**64 - 1."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A JSON number that a float64 gives back exactly."""


@dataclass(frozen=True, slots=True)
class Count:
    """An ``Amount`` that is an integer but for rare cases, which the strict pass leaves to the repair."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A JSON boolean."""


@dataclass(frozen=True, slots=True)
class Object:
    """A JSON object with known members."""

    fields: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A JSON array."""

    item: Kind


@dataclass(frozen=True, slots=True)
class MapOf:
    """A JSON object with free keys."""

    value: Kind
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Wrapped:
    """``{key: {free keys}}`` on the wire, the inner map alone in the column."""

    key: str
    inner: MapOf


Kind = Text | Integer | Id | Amount | Count | Flag | Object | ListOf | MapOf | Wrapped


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Field:
    """A documented top-level field of a hit."""

    name: str
    kind: Kind
    documented: str
    """Its documented JSON type."""
    meaning: str


def _members(**kinds: Kind) -> Object:
    return Object(tuple(Member(name, kind) for name, kind in kinds.items()))


_TEXT = Text()
_INTEGER = Integer()
_ID = Id()
_FLAG = Flag()
_DEVICE_SUPPORT = Text(Variant.BOOLEAN)
_EVARS = MapOf(Text(Variant.NUMBER))
_EVENT = _members(count=Count(), exponent=_INTEGER, unique=_TEXT)
_EVENTS = MapOf(ListOf(_EVENT), Variant.OBJECTS)
_VALUES = _members(values=ListOf(_TEXT), delim=Integer(Variant.CHARACTER))
_EXCLUDE = _members(id=Text(Variant.NUMBER), value=_TEXT, description=_TEXT)
_HIERARCHY = _members(delim=Integer(Variant.CHARACTER), values=Text(Variant.PARTS))
_CAMPAIGN = _members(campaignId=_TEXT, recipeId=_TEXT, trafficType=_TEXT, actionId=_TEXT, actionName=_TEXT)
_PRODUCT = _members(
    category=_TEXT,
    evars=_EVARS,
    events=_EVENTS,
    name=_TEXT,
    revenue=Amount(),
    units=Count(),
)

HIT_FIELDS: Final[tuple[Field, ...]] = (
    Field("bot", _TEXT, "string", "Name of the bot, or `<Not a bot>`"),
    Field("browser", _TEXT, "string", "Browser and its version"),
    Field("browserHeight", _INTEGER, "number", "Height of the browser window, pixels"),
    Field("browserType", _TEXT, "string", "Browser's maker"),
    Field("browserWidth", _INTEGER, "number", "Width of the browser window, pixels"),
    Field("carrier", _TEXT, "string", "Mobile carrier or network provider"),
    Field("connectionType", _TEXT, "string", "Kind of connection, such as `LAN/WiFi`"),
    Field("currency", _TEXT, "string", "Currency code of the hit"),
    Field("customVisId", _TEXT, "string", "Visitor id set by the site"),
    Field("domain", _TEXT, "string", "Domain of the visitor's provider"),
    Field("evars", Wrapped("evars", _EVARS), "object", "`campaign` and `evar1` to `evar250`"),
    Field("events", _EVENTS, "object", "`event1` and so on, each with count, exponent and unique id"),
    Field("exclude", _EXCLUDE, "object", "Whether and why the hit is excluded from reports"),
    Field("geoCity", _TEXT, "string", "City, from the IP address"),
    Field("geoCountry", _TEXT, "string", "Country, from the IP address"),
    Field("geoDMA", _INTEGER, "number", "Designated market area, from the IP address"),
    Field("geoRegion", _TEXT, "string", "Region, from the IP address"),
    Field("geoZip", _TEXT, "string", "Postal code, from the IP address"),
    Field(
        "hierarchies", MapOf(_HIERARCHY), "object", "`hier1` and so on: levels and the delimiter's code point"
    ),
    Field("hitIdHigh", _ID, "number", "Upper 64 bits of the hit's id"),
    Field("hitIdLow", _ID, "number", "Lower 64 bits of the hit's id"),
    Field("hitSource", _INTEGER, "number", "Where the hit came from"),
    Field("ip", _TEXT, "string", "IP address"),
    Field("isErrorPage", _FLAG, "boolean", "Whether the page is an error page"),
    Field("javaEnabled", _FLAG, "boolean", "Whether Java is enabled"),
    Field("language", _TEXT, "string", "Language of the browser"),
    Field("languageAbbrev", _TEXT, "string", "Language code, such as `en-US`"),
    Field("lat", _TEXT, "string", "Latitude"),
    Field("lon", _TEXT, "string", "Longitude"),
    Field("mcAudiences", _VALUES, "object", "Experience Cloud audiences and the delimiter's code point"),
    Field("mcVisIdHigh", _ID, "number", "Upper 64 bits of the Experience Cloud visitor id"),
    Field("mcVisIdLow", _ID, "number", "Lower 64 bits of the Experience Cloud visitor id"),
    Field(
        "mobileAudioSupport", _DEVICE_SUPPORT, "boolean", "Audio formats of the device, or whether it has any"
    ),
    Field("mobileColorDepth", _INTEGER, "number", "Color depth of the device"),
    Field("mobileCookieSupport", _FLAG, "boolean", "Whether the device takes cookies"),
    Field("mobileDeviceName", _TEXT, "string", "Name of the device"),
    Field("mobileDeviceType", _TEXT, "string", "Kind of device"),
    Field("mobileManufacturer", _TEXT, "string", "Maker of the device"),
    Field("mobileScreenHeight", _INTEGER, "number", "Screen height of the device, pixels"),
    Field("mobileScreenWidth", _INTEGER, "number", "Screen width of the device, pixels"),
    Field(
        "mobileVideoSupport", _DEVICE_SUPPORT, "boolean", "Video formats of the device, or whether it has any"
    ),
    Field("monitorColorDepth", _TEXT, "string", "Color depth of the monitor"),
    Field("monitorHeight", _INTEGER, "number", "Height of the monitor, pixels"),
    Field("monitorWidth", _INTEGER, "number", "Width of the monitor, pixels"),
    Field("mvvars", MapOf(_members(m=_VALUES)), "object", "List variables, each with values and delimiter"),
    Field("operatingSystem", _TEXT, "string", "Operating system"),
    Field("pageName", _TEXT, "string", "Name of the page"),
    Field("pageURL", _TEXT, "string", "Address of the page"),
    Field(
        "products",
        ListOf(_PRODUCT),
        "object[]",
        "Products with category, name, revenue, units, eVars, events",
    ),
    Field("props", MapOf(_TEXT), "object", "`prop1` to `prop75` and `site_section`"),
    Field("purchaseId", _TEXT, "string", "Id of the purchase"),
    Field("receivedTimeGMT", _INTEGER, "number", "When Adobe received the hit, Unix seconds"),
    Field("referrer", _TEXT, "string", "Address the visitor came from"),
    Field("reportSuite", _TEXT, "string", "Report suite"),
    Field("searchEngine", _TEXT, "string", "Search engine the visitor came from"),
    Field("service", _TEXT, "string", "Kind of hit, such as `ss`"),
    Field("timeGMT", _INTEGER, "number", "When the hit happened, Unix seconds"),
    Field("topLevelDomain", _TEXT, "string", "Top-level domain of the visitor's provider"),
    Field("tnt", ListOf(_CAMPAIGN), "object", "Target campaigns"),
    Field("tntAction", ListOf(_CAMPAIGN), "object", "Target campaigns with the actions taken"),
    Field("transactionId", _TEXT, "string", "Id that ties offline data to the hit"),
    Field("truncated", _FLAG, "boolean", "Whether the request was cut"),
    Field("userAgent", _TEXT, "string", "User agent"),
    Field("usesPersistentCookie", _INTEGER, "number", "Whether the visitor's cookie persists"),
    Field("visIdHigh", _ID, "number", "Upper 64 bits of the visitor id"),
    Field("visIdLow", _ID, "number", "Lower 64 bits of the visitor id"),
    Field("visIdType", _INTEGER, "number", "Kind of visitor id"),
    Field("zip", _TEXT, "string", "Postal code set by the site"),
)
"""In the order of the wire, which is what the strict pass is fastest with."""

FIELD_KINDS: Final = {field.name: field.kind for field in HIT_FIELDS}
ID_COLUMNS: Final = tuple(field.name for field in HIT_FIELDS if isinstance(field.kind, Id))


def holds(kind: Kind, wanted: type[Kind]) -> bool:
    """Whether a kind is of this class or has one of it inside."""
    match kind:
        case Object(fields):
            inside: tuple[Kind, ...] = tuple(member.kind for member in fields)
        case ListOf(item):
            inside = (item,)
        case MapOf(value):
            inside = (value,)
        case Wrapped(_, inner):
            inside = (inner,)
        case _:
            inside = ()
    return isinstance(kind, wanted) or any(holds(part, wanted) for part in inside)
