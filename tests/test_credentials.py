"""Secrets: where they come from, and that nothing shows them."""

from __future__ import annotations

import copy
import os
import pickle

import pytest

from collector import escaping
from collector.credentials import (
    Secret,
    SecretFileError,
    conceal_store_secrets,
    load_credentials,
    load_privacy_key,
    read_secret_file,
    scrubbed_environment,
    shipping_environment,
)
from collector.errors import ConfigurationError
from collector.escaping import without_secrets

TOKEN = "canary-token-5d1c"
PAIR = {"LIVESTREAM_CLIENT_ID": "canary-id-11", "LIVESTREAM_CLIENT_SECRET": "canary-secret-22"}


def fault(environ: dict[str, str], *, loopback: bool = False) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_credentials(environ, loopback=loopback)
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_a_pair_gets_tokens():
    """Client id and secret: OAuth Server-to-Server."""
    credentials = load_credentials(PAIR, loopback=False)
    assert not credentials.is_static
    assert credentials.api_key.reveal() == "canary-id-11"
    assert credentials.client_secret is not None
    assert credentials.client_secret.reveal() == "canary-secret-22"


def test_a_static_token_goes_with_the_client_id():
    """The service wants the client id as x-api-key in both modes."""
    environ = {"LIVESTREAM_TOKEN": TOKEN, "LIVESTREAM_CLIENT_ID": "canary-id-11"}
    credentials = load_credentials(environ, loopback=False)
    assert credentials.is_static
    assert credentials.token is not None
    assert credentials.token.reveal() == TOKEN
    assert "LIVESTREAM_CLIENT_ID is missing" in fault({"LIVESTREAM_TOKEN": TOKEN})


def test_loopback_alone_does_without_the_client_id():
    """A rehearsal with a token needs no key; getting tokens always does."""
    assert load_credentials({"LIVESTREAM_TOKEN": TOKEN}, loopback=True).api_key.reveal()
    assert "LIVESTREAM_CLIENT_ID is missing" in fault({"LIVESTREAM_CLIENT_SECRET": "canary-x"}, loopback=True)


def test_each_may_come_from_a_file(tmp_path):
    """With or without a line end behind it."""
    environ = {}
    for name, value in PAIR.items():
        path = tmp_path / name
        path.write_text(value + "\n")
        path.chmod(0o600)
        environ[f"{name}_FILE"] = str(path)
    assert load_credentials(environ, loopback=False).api_key.reveal() == "canary-id-11"


def test_files_that_hold_nothing_are_named(tmp_path):
    """Missing and empty files are faults, together."""
    empty = tmp_path / "empty"
    empty.touch(0o600)
    message = fault(
        {"LIVESTREAM_CLIENT_ID_FILE": str(empty), "LIVESTREAM_TOKEN_FILE": str(tmp_path / "none")}
    )
    assert "LIVESTREAM_CLIENT_ID_FILE" in message
    assert f"{tmp_path / 'none'} cannot be read" in message


@pytest.mark.parametrize(
    ("mode", "root", "good"),
    [
        (0o600, False, True),
        (0o400, False, True),
        (0o640, False, False),
        (0o604, False, False),
        (0o620, False, False),
        (0o440, True, True),
        (0o640, True, True),
        (0o660, True, False),
        (0o444, True, False),
    ],
)
def test_a_secret_file_is_its_owners(tmp_path, mode, root, good):
    """Others can't read it; root's may be its group's to read, as mounts of secrets are."""
    path = tmp_path / "a token's"
    path.write_text(TOKEN)
    path.chmod(mode)
    if os.geteuid() != 0 and root:
        pytest.skip("only root makes files of root's")
    if os.geteuid() == 0 and not root:
        os.chown(path, 65534, 65534)
    link = tmp_path / "link"
    link.symlink_to(path)
    environ = {"LIVESTREAM_CLIENT_ID": "canary-id", "LIVESTREAM_TOKEN_FILE": str(link)}
    if good:
        assert load_credentials(environ, loopback=False).token.reveal() == TOKEN
    else:
        message = fault(environ)
        assert f"(mode {mode:04o})" in message
        assert f"chmod 600 {link}" in message


def test_the_command_that_mends_can_be_typed(tmp_path):
    """Blanks and quotes in a path do not break it."""
    path = tmp_path / "my token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    with pytest.raises(SecretFileError) as caught:
        read_secret_file(str(path))
    assert f"chmod 600 '{path}'" in str(caught.value)


def test_a_token_file_may_be_a_setting(tmp_path):
    """As if the variable named it; two that differ are a fault."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    credentials = load_credentials({"LIVESTREAM_CLIENT_ID": "canary-id"}, loopback=False, token_file=path)
    assert (credentials.token_file, credentials.is_static) == (str(path), False)
    environ = {"LIVESTREAM_CLIENT_ID": "canary-id", "LIVESTREAM_TOKEN_FILE": "/other"}
    with pytest.raises(ConfigurationError, match=r"auth\.token_file and LIVESTREAM_TOKEN_FILE name two"):
        load_credentials(environ, loopback=False, token_file=path)


@pytest.mark.parametrize(
    "value", ["Bearer canary-1", "canary 1", "canary\r\nHost: evil", "canary\x00", "canary\u00e9"]
)
def test_what_would_break_a_header_is_refused(value):
    """A slip of the hand or an injection is a configuration error that does not repeat the value."""
    assert "LIVESTREAM_TOKEN:" in fault({"LIVESTREAM_TOKEN": value, "LIVESTREAM_CLIENT_ID": "x"})


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "LIVESTREAM_CLIENT_SECRET"),
        ({**PAIR, "LIVESTREAM_TOKEN": TOKEN}, "LIVESTREAM_TOKEN and LIVESTREAM_CLIENT_SECRET are both given"),
        ({**PAIR, "LIVESTREAM_CLIENT_ID_FILE": "/x"}, "LIVESTREAM_CLIENT_ID_FILE are both given"),
    ],
)
def test_nothing_or_too_much_is_refused(environ, named):
    """Which credentials count is never guessed."""
    assert named in fault(environ)


def test_a_secret_shows_itself_masked():
    """Printing, formatting, copying and pickling give nothing away."""
    credentials = load_credentials(PAIR, loopback=False)
    shown = f"{credentials} {credentials!r} {credentials.api_key} {credentials.client_secret!r:>40}"
    assert "canary" not in shown
    for copier in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not written"):
            copier(credentials.api_key)


def test_a_secret_is_masked_wherever_it_is_echoed():
    """From the moment it is read, in any text that goes through ``without_secrets``."""
    Secret("canary-echoed-91")
    assert without_secrets("bad token canary-echoed-91!") == "bad token ***!"


def test_tokens_that_pass_are_masked_while_they_may_be_echoed():
    """Renewed for years, only the newest are kept; what was configured is masked for ever."""
    Secret("canary-configured")
    tokens = [Secret(f"canary-token-{n:03d}", passing=True) for n in range(100)]
    assert without_secrets(f"canary-configured {tokens[99].reveal()} {tokens[98].reveal()}") == "*** *** ***"
    assert len(escaping._passing) < 50


def test_children_get_no_secret():
    """Neither the values nor the files' paths; everything else stays."""
    environ = {**PAIR, "LIVESTREAM_TOKEN": TOKEN, "LIVESTREAM_TOKEN_FILE": "/run/t", "PATH": "/bin"}
    assert scrubbed_environment(environ) == {"PATH": "/bin"}


# ---------------------------------------------------------------- the key of privacy.hash

KEY = "canary0123456789abcdef0123456789abcdef"


def key_fault(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_privacy_key(environ, wanted=True)
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_the_privacy_key_comes_from_a_variable_or_a_file(tmp_path):
    """It is read where hashes are wanted only, and masked like every secret."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    for environ in ({"LIVESTREAM_PRIVACY_KEY": KEY}, {"LIVESTREAM_PRIVACY_KEY_FILE": str(path)}):
        key = load_privacy_key(environ, wanted=True)
        assert key is not None
        assert key.reveal() == KEY
        assert KEY not in without_secrets(f"a {KEY} b")
        assert scrubbed_environment({**environ, "HOME": "/"}) == {"HOME": "/"}
    assert load_privacy_key({"LIVESTREAM_PRIVACY_KEY": "short"}, wanted=False) is None


def test_a_privacy_key_that_is_missing_short_or_open_is_refused_with_how_to_make_one(tmp_path):
    """Whoever knows some values could find a short key by trying."""
    assert "privacy.hash wants a key: make one with `openssl rand -hex 32`" in key_fault({})
    assert "has 12 characters, at least 32 are wanted" in key_fault(
        {"LIVESTREAM_PRIVACY_KEY": "canary345678"}
    )
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o644)
    assert "chmod 600" in key_fault({"LIVESTREAM_PRIVACY_KEY_FILE": str(path)})
    assert "both given" in key_fault(
        {"LIVESTREAM_PRIVACY_KEY_FILE": str(path), "LIVESTREAM_PRIVACY_KEY": KEY}
    )


def test_the_stores_credentials_reach_the_shipping_process_alone():
    """And it gets nothing of the stream's; readers and decoders get neither."""
    store = {
        "AWS_ACCESS_KEY_ID": "canary-key",
        "AWS_SECRET_ACCESS_KEY": "canary-store-secret",
        "AZURE_STORAGE_ACCOUNT_KEY": "canary-azure",
        "GOOGLE_APPLICATION_CREDENTIALS": "/run/key.json",
        "PYICEBERG_CATALOG__X__CREDENTIAL": "canary-catalog",
    }
    common = {"PATH": "/bin"}
    environ = {**PAIR, **store, **common, "LIVESTREAM_TOKEN_FILE": "/run/t"}
    assert scrubbed_environment(environ) == common
    assert shipping_environment(environ) == {**store, **common}


def test_what_a_store_echoes_of_its_keys_is_masked():
    """Paths of key files are no secrets, and are needed to find a fault."""
    conceal_store_secrets({"AWS_SECRET_ACCESS_KEY": "canary-store-secret", "AWS_CONFIG_FILE": "/etc/aws"})
    conceal_store_secrets({"GOOGLE_APPLICATION_CREDENTIALS": "/run/key.json", "HOME": "/home/canary"})
    said = without_secrets("canary-store-secret /etc/aws /run/key.json /home/canary")
    assert said == "*** /etc/aws /run/key.json /home/canary"
