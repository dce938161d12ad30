"""A token in a file that somebody else renews: read again, refused, ending."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest

from collector.coordinator.given_token import GivenToken, TokenFileError, TokenUnchangedError
from collector.core.remedies import TokenFailure
from collector.core.token_life import DAY_US
from collector.credentials import Secret
from collector.errors import ExitCode
from collector.telemetry import configure


def write(path: Path, token: str) -> None:
    """As a renewer does: whole, or not at all."""
    new = path.with_suffix(".new")
    new.write_text(token)
    new.chmod(0o600)
    os.replace(new, path)


def ending(at_us: int) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": at_us // 1_000_000}).encode()).decode()
    return f"eyJh.{claims.rstrip('=')}.c2ln"


@pytest.fixture
def lines():
    shown: list[str] = []
    configure(form="json", write=shown.append)
    yield lambda: [json.loads(line) for line in shown]
    configure()


def test_the_newest_token_is_used(tmp_path, lines):
    """Each request reads the file; what an outside process wrote meanwhile is what is sent."""
    path = tmp_path / "token"
    write(path, "canary-first")
    tokens = GivenToken(Secret("canary-first"), file=str(path))
    assert asyncio.run(tokens.get(renew=False)) == "canary-first"
    write(path, "canary-second")
    assert asyncio.run(tokens.get(renew=False)) == "canary-second"
    write(path, "canary-third")
    assert asyncio.run(tokens.get(renew=True)) == "canary-third"
    assert [line["event"] for line in lines()] == ["token.renewed", "token.renewed"]
    assert "canary" not in str(lines())


def test_a_refused_token_that_stands_unchanged_is_the_end(tmp_path):
    """As a static token: exit 3, and what to do."""
    path = tmp_path / "token"
    write(path, "canary-only")
    for tokens in (GivenToken(Secret("canary-only"), file=str(path)), GivenToken(Secret("canary-only"))):
        with pytest.raises(TokenUnchangedError) as caught:
            asyncio.run(tokens.get(renew=True))
        assert caught.value.exit_code is ExitCode.REFUSED
        assert caught.value.event().failure is TokenFailure.UNCHANGED
        assert "canary" not in str(caught.value)


def test_a_file_that_is_gone_leaves_the_last_token(tmp_path, lines):
    """Said, and used on; a refused one is not."""
    tokens = GivenToken(Secret("canary-last"), file=str(tmp_path / "none"))
    assert asyncio.run(tokens.get(renew=False)) == "canary-last"
    assert [line["event"] for line in lines()] == ["token.failed"]
    with pytest.raises(TokenFileError) as caught:
        asyncio.run(tokens.get(renew=True))
    assert caught.value.event().failure is TokenFailure.FILE


def test_a_file_that_others_can_read_now_is_refused(tmp_path):
    """Also while running: its token may be anybody's."""
    path = tmp_path / "token"
    path.write_text("canary-new")
    path.chmod(0o644)
    with pytest.raises(TokenFileError, match="chmod 600"):
        asyncio.run(GivenToken(Secret("canary-old"), file=str(path)).get(renew=True))


def test_the_end_is_announced_days_ahead(tmp_path, lines):
    """A warning while there is time, an error when there is none; not for a token that says nothing."""
    now_us = 1_800_000_000_000_000
    for token in (ending(now_us + 2 * DAY_US), ending(now_us - 1_000_000), "says-nothing"):
        tokens = GivenToken(Secret(token), now_us=lambda: now_us)
        tokens.announce()
        tokens.announce()
    expiring, expired = lines()
    assert (expiring["event"], expiring["level"], expiring["left_s"]) == (
        "token.expiring",
        "warning",
        172_800,
    )
    assert expiring["expires"] == "2027-01-17T08:00:00Z"
    assert (expired["event"], expired["level"]) == ("token.expired", "error")
    assert "LIVESTREAM_TOKEN" in expired["remedy"]


def test_a_file_is_looked_into_between_requests(tmp_path, lines):
    """What status says of the end is of the token that is there now."""
    path = tmp_path / "token"
    now_us = 1_800_000_000_000_000
    write(path, ending(now_us + 20 * DAY_US))
    tokens = GivenToken(Secret(ending(now_us + DAY_US)), file=str(path), now_us=lambda: now_us)
    assert tokens.expires_us == now_us + DAY_US

    async def look() -> None:
        renewed = asyncio.Event()
        configure(write=lambda line: renewed.set() if "token.renewed" in line else None)
        keeper = asyncio.create_task(tokens.keep_fresh())
        async with asyncio.timeout(20):
            await renewed.wait()
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)

    asyncio.run(look())
    assert tokens.expires_us == now_us + 20 * DAY_US
