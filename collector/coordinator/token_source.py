"""Where the token of the next request comes from: what every source of tokens can do, and how it fails.

Used in the coordinator. The invariant: no secret is in any message, log line or representation.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from collector.core.reconnect_events import TokenFailed
from collector.core.remedies import TokenFailure, token_in_words
from collector.credentials import Credentials
from collector.errors import CollectorError
from collector.escaping import printable, without_secrets

LOOK_S: Final = 60.0
"""How often the clock is looked at: time passes while the machine is suspended, a sleep does not notice."""

_MAX_DETAIL_CHARACTERS: Final = 300


class TokenSource(Protocol):
    """Gives the token of each request."""

    @property
    def expires_us(self) -> int | None:
        """When the token in hand ends, by the wall clock. ``None``: it does not say, or there is none yet."""

    @property
    def kind(self) -> Literal["static", "file", "oauth"]:
        """How the token comes."""

    @property
    def renews(self) -> bool:
        """Whether the collector itself gets a new one before that."""

    async def get(self, *, renew: bool) -> str:
        """A token for the next request. ``renew``: the last one was refused, so only a new one will do.

        *Raises* ``TokenError``.
        """

    def take(self, credentials: Credentials) -> None:
        """Use these secrets for the next token, where they can be others."""

    async def keep_fresh(self) -> None:
        """Renew it when it is due, or say in time that nobody does; until cancelled."""


class TokenError(CollectorError):
    """Raised when no token could be had. Its message has the remedy, ``detail`` only what happened."""

    failure = TokenFailure.NETWORK

    def __init__(self, detail: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        self.detail = printable(without_secrets(detail), _MAX_DETAIL_CHARACTERS)
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(token_in_words(self.failure, self.detail))

    def event(self) -> TokenFailed:
        """For the reconnect policy."""
        return TokenFailed(self.failure, self.detail, self.retry_after_s)


class TokenNetworkError(TokenError):
    """Raised when the token endpoint was not reached, failed, or gave an answer that is no token."""
