"""``config show``: what is in effect, from where, and no secret."""

from __future__ import annotations

import json
import tomllib

import pytest

from collector.commands.config import run
from collector.credentials import load_credentials
from collector.settings import Purpose, load_settings, load_with_sources
from collector.settings_table import SPECS

URL = "https://livestream.adobe.net/api/1/stream/shop"
ENVIRON = {
    "LIVESTREAM_RUN__DECODERS": "5",
    "LIVESTREAM_CLIENT_ID": "canary-id-1",
    "LIVESTREAM_CLIENT_SECRET": "canary-secret-2",
    "HTTPS_PROXY": "http://me:canary-pass@proxy.example:3128",
}


@pytest.fixture
def loaded(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(f'[stream]\nurl = "{URL}"\n[parts]\nmax_bytes = "1.5 GiB"\n[output]\nmode = "0640"\n')
    return load_with_sources(
        Purpose.RUN,
        config=config,
        environ=ENVIRON,
        options={"output.folder": str(tmp_path / 'a "b" \\ c')},
        assignments=["log.level=error"],
    )


def test_it_is_a_settings_file_itself(loaded, tmp_path, capsys):
    """Written into a file it gives the same settings."""
    assert run(loaded, ENVIRON, as_json=False) == 0
    text = capsys.readouterr().out
    copy = tmp_path / "copy.toml"
    copy.write_text(text)
    assert load_settings(Purpose.RUN, config=copy) == loaded.settings
    assert set(tomllib.loads(text)) == {key.partition(".")[0] for key in SPECS}


def test_each_value_says_where_it_comes_from(loaded, tmp_path, capsys):
    """A file, a variable, a flag, a default, or another setting."""
    run(loaded, ENVIRON, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    for line in (
        f'url = "{URL}"  # {tmp_path / "c.toml"}',
        "decoders = 5  # LIVESTREAM_RUN__DECODERS",
        'level = "error"  # --set log.level',
        "drain_s = 10  # default",
        'name = "shop"  # follows from other settings',
        'max_bytes = "1536 MiB"  # ' + str(tmp_path / "c.toml"),
        "#ca_file is not set",
        "# Requests go through the proxy http://proxy.example:3128.",
        "#   LIVESTREAM_CLIENT_SECRET: the environment (LIVESTREAM_CLIENT_SECRET)",
        "#   LIVESTREAM_TOKEN: not given",
    ):
        assert any(shown.startswith(line) for shown in lines), line


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_shown(loaded, capsys, as_json):
    """Neither one given nor one that stands in a proxy's address or strayed into a setting."""
    load_credentials(ENVIRON, loopback=False)
    run(loaded, ENVIRON, as_json=as_json)
    assert "canary" not in capsys.readouterr().out


def test_json_has_every_setting(loaded, capsys):
    """Value and source of each; of the secrets whether they are given."""
    run(loaded, ENVIRON, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert set(document["settings"]) == set(SPECS)
    assert document["settings"]["run.decoders"] == {"value": 5, "source": "LIVESTREAM_RUN__DECODERS"}
    assert document["secrets"]["LIVESTREAM_CLIENT_ID"]["given"] is True
    assert document["secrets"]["LIVESTREAM_TOKEN"]["given"] is False
