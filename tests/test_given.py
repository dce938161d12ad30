"""What becomes of settings and secrets that are given anew while a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.errors import ConfigurationError
from collector.given import LIVE, Changes, Given, Layers, changes
from collector.settings import Purpose
from collector.settings_table import SPECS

KEY = "0123456789abcdef0123456789abcdef"
ENVIRON = {"LIVESTREAM_CLIENT_ID": "id", "LIVESTREAM_CLIENT_SECRET": "secret", "LIVESTREAM_PRIVACY_KEY": KEY}


def given(*assignments: str, environ: dict[str, str] | None = None) -> Given:
    options = {"stream.url": "https://livestream.adobe.net/api/1/stream/shop", "output.folder": "/data"}
    return Layers(Purpose.RUN, environ or ENVIRON, None, options, assignments).load()


def changed(*assignments: str, before: tuple[str, ...] = (), terminal: bool = False) -> Changes:
    return changes(given(*before), given(*assignments), terminal=terminal)


def test_nothing_changed_is_nothing_taken():
    """A second SIGHUP does nothing."""
    found = changed("parts.max_age_s=5", before=("parts.max_age_s=5",))
    assert (found.taken, found.waiting, found.roll) == ((), (), False)


def test_what_may_change_is_in_force_and_the_rest_keeps_its_value():
    """Both named; what waits is compared with what is in force the next time, so it is named again."""
    found = changed("parts.max_age_s=5", "reconnect.wait_s=90", "run.decoders=3")
    assert found.taken == ("parts.max_age_s", "run.decoders")
    assert found.waiting == ("reconnect.wait_s",)
    settings = found.given.settings
    assert (settings.parts.max_age_s, settings.run.decoders, settings.reconnect.wait_s) == (5, 3, 60)
    again = changes(found.given, given("reconnect.wait_s=90", "run.decoders=3"))
    assert again.waiting == ("reconnect.wait_s",)


@pytest.mark.parametrize(
    ("assignment", "rolls"),
    [
        ("privacy.drop=ip", True),
        ("privacy.hash=userAgent", True),
        ("decode.kernel=off", True),
        ("run.decoders=5", False),
        ("parts.max_bytes=1 MiB", False),
        ("log.level=error", False),
        ("retention.hits_max_age_days=5", False),
    ],
)
def test_decoders_are_replaced_for_what_they_are_told_at_their_start(assignment, rolls):
    """And for nothing else."""
    found = changed(assignment)
    assert (found.roll, found.waiting) == (rolls, ())


def test_every_live_setting_is_one():
    """A renamed setting is not forgotten here."""
    assert set(SPECS) >= LIVE


def test_the_bound_of_the_journal_waits_with_what_it_was_checked_against():
    """Merged settings must keep the rules between them; in memory the room was measured at the start."""
    more = "journal.max_bytes=32 GiB"
    assert changed(more).taken == ("journal.max_bytes",)
    assert changed(more, "journal.segment_bytes=1 MiB").taken == ()
    found = changed(more, "journal.durability=memory", before=("journal.durability=memory",))
    assert (found.taken, found.waiting) == ((), ("journal.max_bytes",))


def test_log_lines_on_a_terminal_keep_their_form():
    """They are drawn above the view."""
    assert changed("log.format=json", terminal=True).waiting == ("log.format",)


def test_secrets_in_files_are_compared(tmp_path):
    """A client secret is used for the next token, another key rolls; another client id waits."""
    files = {name: tmp_path / name for name in ("LIVESTREAM_CLIENT_SECRET", "LIVESTREAM_PRIVACY_KEY")}
    environ = {"LIVESTREAM_CLIENT_ID": "id", **{f"{name}_FILE": str(path) for name, path in files.items()}}
    write(files["LIVESTREAM_CLIENT_SECRET"], "one")
    write(files["LIVESTREAM_PRIVACY_KEY"], KEY)
    first = given("privacy.hash=ip", environ=environ)
    write(files["LIVESTREAM_CLIENT_SECRET"], "two")
    second = changes(first, given("privacy.hash=ip", environ=environ))
    assert (second.taken, second.roll) == (("LIVESTREAM_CLIENT_SECRET",), False)
    write(files["LIVESTREAM_PRIVACY_KEY"], KEY[::-1])
    third = changes(second.given, given("privacy.hash=ip", environ=environ))
    assert (third.taken, third.roll) == (("LIVESTREAM_PRIVACY_KEY",), True)
    assert third.given.privacy.key == KEY[::-1].encode()
    other = {**ENVIRON, "LIVESTREAM_CLIENT_ID": "another"}
    assert changes(given(), given(environ=other)).waiting == ("LIVESTREAM_CLIENT_ID",)


def test_every_fault_of_settings_is_said_and_then_every_fault_of_secrets(tmp_path):
    """So nothing is in force that was not checked."""
    with pytest.raises(ConfigurationError) as caught:
        given("privacy.drop=zap", "run.decoders=0")
    assert "privacy.drop" in str(caught.value)
    assert "run.decoders" in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        given("privacy.hash=ip", environ={"LIVESTREAM_CLIENT_ID": "id"})
    assert "privacy.hash wants a key" in str(caught.value)
    assert "no usable credentials" in str(caught.value)


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
