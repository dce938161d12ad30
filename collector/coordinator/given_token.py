"""A token that was given: in the environment for good, or in a file that somebody else renews.

Runs in the coordinator. The invariants: a file is read before each request, so the newest token is the one
that is used; a token that was refused is not sent again; its end is announced days ahead.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Literal

from collector.coordinator.clock import now_us
from collector.coordinator.token_source import LOOK_S, TokenError
from collector.core.remedies import TokenFailure
from collector.core.token_life import Announcements, expires_us
from collector.credentials import Credentials, Secret, SecretFileError, read_secret_file
from collector.errors import RefusedError
from collector.escaping import printable
from collector.telemetry import log


class TokenFileError(TokenError):
    """Raised when the token file cannot be used; it may be in order again a moment later."""

    failure = TokenFailure.FILE


class TokenUnchangedError(TokenError, RefusedError):
    """Raised when the token was refused and there is no other."""

    failure = TokenFailure.UNCHANGED


class GivenToken:
    """The one token there is, or with ``file`` whatever is in it at the time of a request."""

    renews = False

    def __init__(self, token: Secret, *, file: str = "", now_us: Callable[[], int] = now_us) -> None:
        self._token = token
        self._file = file
        self._now_us = now_us
        self._announcements = Announcements()
        self._one_at_a_time = asyncio.Lock()  # of two reads the older must not win

    @property
    def expires_us(self) -> int | None:
        """When the token ends, if it says so."""
        return expires_us(self._token.reveal())

    @property
    def kind(self) -> Literal["static", "file"]:
        return "file" if self._file else "static"

    async def get(self, *, renew: bool) -> str:
        """The token. A file that cannot be read leaves the last one, unless that was refused.

        *Blocks* not the loop: the file is read in a thread. *Raises* ``TokenError``.
        """
        refused = self._token.reveal() if renew else ""
        try:
            await self._read()
        except TokenFileError as error:
            if renew:
                raise
            log("token.failed", reason=str(error))
        if self._token.reveal() == refused:
            where = f"{printable(self._file)} still holds" if self._file else "LIVESTREAM_TOKEN is"
            raise TokenUnchangedError(f"{where} the token that was refused")
        return self._token.reveal()

    def take(self, credentials: Credentials) -> None:
        """A file is read anyway, and the environment of a process does not change."""

    async def keep_fresh(self) -> None:
        """Say in time that the token ends; a file is looked into now and then, as it may be a new one."""
        while True:
            try:
                await self._read()
            except TokenFileError as error:
                log("token.failed", reason=str(error), retry_s=LOOK_S)
            self.announce()
            await asyncio.sleep(LOOK_S)

    async def _read(self) -> None:
        if not self._file:
            return
        async with self._one_at_a_time:
            try:
                text = await asyncio.to_thread(read_secret_file, self._file)
            except SecretFileError as error:
                raise TokenFileError(str(error)) from error
            if text != self._token.reveal():
                self._token = Secret(text, passing=True)
                log("token.renewed", expires_in_s=self._left_s())

    def _left_s(self) -> float | None:
        ends_us = self.expires_us
        return None if ends_us is None else (ends_us - self._now_us()) / 1e6

    def announce(self) -> None:
        """Say that the token ends, if a step towards that was reached since the last time."""
        ends_us = self.expires_us
        if not self._announcements.due(ends_us, self._now_us()) or ends_us is None:
            return
        left_s = (ends_us - self._now_us()) / 1e6
        log(
            "token.expiring" if left_s > 0 else "token.expired",
            expires=f"{dt.datetime.fromtimestamp(ends_us / 1e6, dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
            left_s=max(0.0, left_s),
            remedy=f"write a new token into {printable(self._file)}"
            if self._file
            else "start again with a new LIVESTREAM_TOKEN, or use LIVESTREAM_TOKEN_FILE or OAuth",
        )
