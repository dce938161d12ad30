"""What each answer of the service means, what causes it and what to do, in words for people.

Imported by the coordinator and the commands; the one place these words are, so that the log, the
terminal, the exit message and ``explain`` say the same. The invariant: every status the service is
known to give, every ``Outcome`` and every ``TokenFailure`` has its words.

Source: Adobe's Livestream guides (troubleshooting, faq) and knowledge-base article KA-16598.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from collector.core.messages import Closed, Outcome
from collector.core.reconnect_table import Row


class TokenFailure(enum.StrEnum):
    """How getting a token failed."""

    NETWORK = "network"
    """Not reached, 5xx, or an answer that is no token."""
    UNTRUSTED = "untrusted"
    """The token endpoint's certificate is not trusted."""
    INVALID_CLIENT = "invalid_client"
    """The endpoint knows us and says no: waiting cures nothing."""
    FILE = "file"
    """The token file cannot be used at the moment."""
    UNCHANGED = "unchanged"
    """The service refused the token, and no other was given: waiting cures nothing."""


@dataclass(frozen=True, slots=True)
class Remedy:
    means: str
    """One sentence without its full stop, beginning in lower case."""
    causes: tuple[str, ...]
    """Likely ones, the likeliest first."""
    do: str
    """One or more sentences."""


_CUSTOMER_CARE = "Adobe Customer Care (give data center, login company and report suite)"

STATUSES: Final[Mapping[int, Remedy]] = {
    302: Remedy(
        "the service says another endpoint serves this stream (302)",
        ("the stream was moved to another data center or host",),
        "Nothing to do: the collector goes there, and starts again at the configured URL after a loss.",
    ),
    400: Remedy(
        "the service says a parameter of the request is wrong (400)",
        ("stream.max_connections outside 1 to 8", "an unknown or malformed parameter in stream.url"),
        "Correct stream.max_connections or the query of stream.url, then start again.",
    ),
    401: Remedy(
        "the service does not accept the token (401)",
        (
            "the token has expired or is incomplete",
            "the client id does not belong to the token",
            "the project lacks the Livestream service",
        ),
        "Check LIVESTREAM_TOKEN or the client id and secret, and that the project in Adobe's developer"
        " console has the Analytics service and a product profile with Livestream.",
    ),
    403: Remedy(
        "the service knows the token but does not allow it to read this stream (403)",
        (
            "the project or its product profile lacks the permission",
            "the client id belongs to another organization",
        ),
        "Check the product profile of the project in Adobe's developer console and its permissions.",
    ),
    404: Remedy(
        "the service does not know this stream (404)",
        (
            "the name in stream.url is wrong",
            "the stream was disabled because nobody connected for 90 days",
        ),
        f"Check stream.url; if it is right, ask {_CUSTOMER_CARE} to enable the stream again.",
    ),
    405: Remedy(
        "the service says the request is not a GET (405)",
        ("a proxy in between changed the request", "a defect of the collector"),
        "Check the proxy, if there is one; else report it as a defect of the collector.",
    ),
    406: Remedy(
        "the service says the request does not accept gzip (406)",
        ("a proxy in between removed Accept-Encoding", "a defect of the collector"),
        "Check the proxy, if there is one; else report it as a defect of the collector.",
    ),
    409: Remedy(
        "the service says another client is connected (409)",
        (
            "the service has not noticed yet that the last connection is gone",
            "another collector or client reads this stream",
            "as many as stream.max_connections says, eight at most, read it already",
            "the clients of this stream disagree on maxConnections",
        ),
        "Another collector may be running: close it, or wait until the service has noticed the lost one."
        " All clients of a stream must use the same stream.max_connections, and no more than that may run.",
    ),
    424: Remedy(
        "the stream is not enabled for the latest API (424)",
        ("the stream was made for an older version of Livestream",),
        "Send a GET to https://livestream.adobe.net/api/2/enable/<stream> with the same headers (it takes"
        f" about 15 minutes), or ask {_CUSTOMER_CARE}.",
    ),
    429: Remedy(
        "the service says too many requests were made (429)",
        ("several clients share this client id", "another client connects again and again"),
        "Close the other clients; the collector waits as long as the service asks for.",
    ),
    500: Remedy(
        "the service failed (500)",
        ("trouble at Adobe",),
        f"Nothing to do: the collector tries again. If it lasts, ask {_CUSTOMER_CARE}.",
    ),
    503: Remedy(
        "the service cannot serve the stream now (503)",
        (
            "no hits were received for the report suite",
            "the stream is being moved to another endpoint",
            "the service has not noticed yet that the last connection is gone",
        ),
        "Nothing at first: the collector waits. Check that the report suite receives hits. If it lasts for"
        " long, `livestream-collector reset VALUE` starts the stream anew, which can lose data.",
    ),
    505: Remedy(
        "the service says the request is not HTTP/1.1 (505)",
        ("a proxy in between changed the request", "a defect of the collector"),
        "Check the proxy, if there is one; else report it as a defect of the collector.",
    ),
}

OUTCOMES: Final[Mapping[Outcome, Remedy]] = {
    Outcome.DRAINED: Remedy(
        "the collector closed the connection itself",
        ("it was told to stop",),
        "Nothing to do: the next start waits until the service has noticed.",
    ),
    Outcome.ENDED: Remedy(
        "the service ended the connection",
        ("maintenance", "the stream is being moved to another endpoint"),
        "Nothing: this is expected now and then, and the collector connects again.",
    ),
    Outcome.LOST: Remedy(
        "the connection was lost",
        ("trouble in the network between here and Adobe", "a proxy or firewall that cuts long connections"),
        "Nothing to do: the collector connects again. If it happens often, check proxies and firewalls.",
    ),
    Outcome.STALLED: Remedy(
        "nothing came for so long that the connection counts as dead",
        ("the report suite received no hits", "the connection died without a word"),
        "Nothing to do: the collector connects again. If the report suite is that quiet, raise"
        " reconnect.idle_timeout_s.",
    ),
    Outcome.NO_STATUS: Remedy(
        "the request was sent, but no answer came",
        ("trouble in the network between here and Adobe", "trouble at Adobe"),
        "Nothing to do: the collector tries again, after the wait of a lost connection.",
    ),
    Outcome.STATUS: Remedy(
        "the service gave an answer that it is not known to give",
        ("trouble at Adobe", "a proxy in between answered"),
        f"Nothing to do: the collector tries again. If it lasts, check the proxy, then ask {_CUSTOMER_CARE}.",
    ),
    Outcome.UNREACHED: Remedy(
        "the service was not reached",
        ("this machine has no network or no DNS", "a firewall or proxy in between", "trouble at Adobe"),
        "Check the network, DNS, proxy and firewall; the collector tries again.",
    ),
    Outcome.UNTRUSTED: Remedy(
        "the certificate of the service is not trusted",
        (
            "a proxy in between opens TLS with a certificate of its own",
            "the CA bundle is missing or old",
            "the clock of this machine is wrong",
            "someone pretends to be the service",
        ),
        "Set tls.ca_file (or SSL_CERT_FILE) to a bundle with the right authority and check the clock."
        " Nothing was sent to that host, and checks are never made weaker.",
    ),
    Outcome.REDIRECT: Remedy(
        "the service sent us to an address that cannot be used",
        ("the redirect leads in a circle, to a foreign host or to a lesser scheme", "its target failed"),
        f"Nothing to do: the collector tries again at stream.url. If it lasts, ask {_CUSTOMER_CARE}.",
    ),
    Outcome.READER_DIED: Remedy(
        "the process that holds the connection died",
        ("the system killed it, perhaps for want of memory", "a defect of the collector"),
        "Nothing: it is started again. Check the system's log for the reason.",
    ),
}

TOKENS: Final[Mapping[TokenFailure, Remedy]] = {
    TokenFailure.NETWORK: Remedy(
        "no token could be had from the token endpoint",
        ("this machine has no network or no DNS", "a firewall or proxy in between", "trouble at Adobe"),
        "Check the network, DNS, proxy and firewall; the collector tries again.",
    ),
    TokenFailure.UNTRUSTED: Remedy(
        "the certificate of the token endpoint is not trusted",
        OUTCOMES[Outcome.UNTRUSTED].causes,
        OUTCOMES[Outcome.UNTRUSTED].do,
    ),
    TokenFailure.INVALID_CLIENT: Remedy(
        "the token endpoint does not accept the client",
        (
            "the client id or the client secret is wrong or was rotated",
            "a scope is asked for that the project does not have",
        ),
        "Check LIVESTREAM_CLIENT_ID, LIVESTREAM_CLIENT_SECRET and the scopes against the project's"
        " OAuth Server-to-Server credential in Adobe's developer console.",
    ),
    TokenFailure.FILE: Remedy(
        "the token file cannot be used",
        ("whatever renews the token has removed it", "its permissions are too open or too narrow"),
        "Write the token into it, readable by the collector's user alone; the collector tries again.",
    ),
    TokenFailure.UNCHANGED: Remedy(
        "the service does not accept the token (401, 403), and there is no other",
        (
            "the token has expired and nothing has renewed it",
            "the client id does not belong to the token",
            "the project lacks the Livestream service",
        ),
        "Give a new token, then start again; with LIVESTREAM_CLIENT_SECRET instead tokens are renewed.",
    ),
}

PROXIES: Final[Mapping[int, Remedy]] = {
    403: Remedy(
        "the proxy does not allow this host (403)",
        ("the proxy lets through known hosts only",),
        "Ask whoever runs the proxy to allow the host and its port.",
    ),
    407: Remedy(
        "the proxy wants a user name and a password (407)",
        ("none are given", "they are wrong or have expired"),
        "Set proxy.user, and LIVESTREAM_PROXY_PASSWORD or LIVESTREAM_PROXY_PASSWORD_FILE.",
    ),
}
"""What a proxy answers instead of letting us through: nothing was reached."""

REJECTS_REMEDY: Final = (
    "nothing is lost and nothing need be stopped; look at raw and reason under rejects/, stream={stream};"
    " once a version knows these records, run decode --rejects --stream {stream} with it"
)
"""For records that are no hits."""

ROWS: Final[Mapping[Row, str]] = {
    Row.LOST: "the connection was lost",
    Row.BUSY: "the service said another client is connected, or cannot serve the stream now (409, 503)",
    Row.FAILED: "the service failed",
    Row.TOKEN_REFUSED: "the service refused the token (401, 403)",
    Row.TOKEN_UNREACHED: "no token could be had",
    Row.UNREACHED: "the service was not reached",
    Row.UNTRUSTED: "a certificate is not trusted",
    Row.THROTTLED: "the service said too many requests were made (429)",
    Row.REDIRECT: "a redirect could not be followed",
    Row.REFUSED: "the service refused these settings",
    Row.RETRIED: "the service refused these settings",
    Row.DRAINED: "the collector closed its connection",
    Row.UNKNOWN_END: "when the last connection ended is not known",
}
"""What a wait is for, where only its row is known: after a restart."""

CODES: Final[Mapping[Row, str]] = {
    Row.LOST: "lost",
    Row.BUSY: "409",
    Row.FAILED: "500",
    Row.TOKEN_REFUSED: "401",
    Row.TOKEN_UNREACHED: "network",
    Row.UNREACHED: "unreached",
    Row.UNTRUSTED: "untrusted",
    Row.THROTTLED: "429",
    Row.REDIRECT: "redirect",
    Row.REFUSED: "refused",
    Row.RETRIED: "refused",
    Row.DRAINED: "drained",
    Row.UNKNOWN_END: "",
}
"""What ``explain`` says more about, where only the row is known."""


def for_closed(closed: Closed) -> Remedy:
    """The words for how a request ended."""
    if closed.outcome is Outcome.STATUS:
        return for_status(closed.status)
    return OUTCOMES[closed.outcome]


def for_status(status: int) -> Remedy:
    """The words for a status, known or not."""
    if status in STATUSES:
        return STATUSES[status]
    unknown = OUTCOMES[Outcome.STATUS]
    return Remedy(f"{unknown.means} ({status})", unknown.causes, unknown.do)


def for_proxy(status: int) -> Remedy:
    """The words for a proxy's refusal, known or not."""
    unknown = Remedy(
        f"the proxy did not let us through ({status})",
        ("it cannot reach the host", "it does not allow it"),
        "Check proxy.url, HTTPS_PROXY and NO_PROXY, or ask whoever runs the proxy.",
    )
    return PROXIES.get(status, unknown)


def closed_in_words(closed: Closed) -> str:
    """What happened and what to do, with what the service itself said (which arrives escaped)."""
    return _in_words(for_closed(closed), closed.error_description or closed.detail)


def token_in_words(failure: TokenFailure, detail: str) -> str:
    """What happened and what to do, with what the endpoint itself said (which arrives escaped)."""
    return _in_words(TOKENS[failure], detail)


def quoted(said: str) -> str:
    """Words of somebody else. Quotes in them do not end ours: by these a page tells where a sentence ends."""
    return '"' + said.replace('"', "'") + '"'


def _in_words(remedy: Remedy, said: str) -> str:
    said = ": " + quoted(said) if said else ""
    return f"{remedy.means}{said}. {remedy.do}"
