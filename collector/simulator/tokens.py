"""The token endpoint in the shape of Adobe IMS, and which bearer tokens the service takes.

The simulator's process runs it. Invariant: a token handed out is accepted until it expires, then never.
*Source* developer.adobe.com, guides/authentication/ServerToServerAuthentication.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import parse_qs

from collector.simulator.settings import SimulatorSettings

PATH = "/ims/token/v3"


class Tokens:
    """Tokens of one service."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._expiry_s: dict[str, float] = {}

    def accepts(self, authorization: str, now_s: float) -> bool:
        """Whether an ``Authorization`` header opens the door."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return False
        if token in self._expiry_s:
            return now_s < self._expiry_s[token]
        return self._settings.token is None or hmac.compare_digest(
            token.encode("utf-8", "surrogateescape"), self._settings.token.encode()
        )

    def answer(self, form: str, now_s: float) -> tuple[int, dict[str, object]]:
        """Status and JSON body for a token request."""
        fields = {name: values[0] for name, values in parse_qs(form).items()}
        if fields.get("grant_type") != "client_credentials":
            return 400, _error("unsupported_grant_type", "unsupported grant_type parameter")
        if fields.get("client_id") != self._settings.client_id:
            return 400, _error("invalid_client", "invalid client_id parameter")
        if fields.get("client_secret") != self._settings.client_secret:
            return 401, _error("invalid_client", "invalid client_secret parameter")
        if not fields.get("scope"):
            return 400, _error("invalid_scope", "missing scope parameter")
        token = secrets.token_urlsafe(32)
        self._expiry_s[token] = now_s + self._settings.token_expires_s
        return 200, {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": self._settings.token_expires_s,
        }


def _error(code: str, description: str) -> dict[str, object]:
    return {"error": code, "error_description": description}
