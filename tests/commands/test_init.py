"""``init``: a file that loads, asked for or given by flags, and never a secret."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from collector.commands.init import Way, run
from collector.errors import ConfigurationError
from collector.settings import Purpose, load_settings
from collector.settings_kinds import toml_value
from collector.settings_table import SPECS

URL = "https://livestream.adobe.net/api/1/stream/shop"


def write(path: Path, *, way: Way | None = None, force: bool = False, **options: str) -> str:
    given = {"stream.url": URL, "output.folder": "/data"} | options
    assert run(str(path), given, ["run.decoders=3"], way=way, force=force, ask=False) == 0
    return path.read_text()


def test_what_is_written_loads(tmp_path):
    """The essentials as given, everything else the default."""
    path = tmp_path / "c.toml"
    write(path)
    written = load_settings(Purpose.RUN, config=path)
    given = {"stream.url": URL, "output.folder": "/data", "run.decoders": "3"}
    assert written == load_settings(Purpose.RUN, options=given)


def test_every_setting_stands_there_with_its_default(tmp_path):
    """Uncommented, the defaults load and change nothing: the file cannot differ from the table."""
    path = tmp_path / "c.toml"
    text = write(path)
    for key, spec in SPECS.items():
        name = key.partition(".")[2]
        assert re.search(rf"^#?{name} = ", text, re.MULTILINE), key
        assert (
            spec.default is None
            or f"{name} = {toml_value(spec, spec.default)}" in text
            or key == "run.decoders"
        )
    settings = load_settings(Purpose.RUN, config=path)
    path.write_text(re.sub(r"^#([a-z_]+ = (?!.*\.\.\.))", r"\1", text, flags=re.MULTILINE))
    assert path.read_text() != text
    assert load_settings(Purpose.RUN, config=path) == settings


def test_a_file_that_is_there_stays(tmp_path):
    """Unless --force says otherwise; a link that leads nowhere counts as one."""
    path = tmp_path / "c.toml"
    path.write_text("# mine\n")
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nowhere")
    for there in (path, link):
        with pytest.raises(ConfigurationError, match="--force"):
            write(there)
    assert path.read_text() == "# mine\n"
    assert "mine" not in write(path, force=True)


def test_all_that_is_missing_is_told_at_once(tmp_path):
    """Without a terminal nobody can be asked; nothing is written."""
    with pytest.raises(ConfigurationError) as caught:
        run(str(tmp_path / "c.toml"), {}, ["run.decoders=0"], way=None, force=False, ask=False)
    for named in ("stream.url", "output.folder", "run.decoders"):
        assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_how_credentials_come(tmp_path, capsys):
    """A token file is a setting; what is left to type is said; the other ways leave no trace but words."""
    text = write(tmp_path / "a.toml", **{"auth.token_file": "/run/token"})
    assert '\ntoken_file = "/run/token"\n' in text
    said = capsys.readouterr().out
    assert "export LIVESTREAM_CLIENT_ID\n" in said
    assert "LIVESTREAM_TOKEN" not in said
    assert "LIVESTREAM_TOKEN" in write(tmp_path / "b.toml", way=Way.TOKEN)
    assert "export LIVESTREAM_TOKEN\n" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="--token-file PATH"):
        write(tmp_path / "c.toml", way=Way.TOKEN_FILE)


def test_a_terminal_is_asked(tmp_path):
    """Until each answer is right; the token is not among the questions; the commands to type work."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "collector", "init"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
    ) as process:
        os.close(theirs)
        seen = ""
        for question, answer in [
            ("stream/NAME):", "http://example.com/s/x"),
            ("stream/NAME):", URL),
            ("Parquet:", "out"),
            ("[1]:", "token"),
            ("[1]:", "2"),
            ("token:", "tok en"),
        ]:
            heard = ""
            while not heard.rstrip().endswith(question):
                heard += os.read(ours, 4096).decode()
            seen += heard
            os.write(ours, f"{answer}\n".encode())
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(20) == 0
    os.close(ours)
    assert "http:// would send the token in the clear" in seen
    assert "'token' is none of them: 1 to 3" in seen
    settings = load_settings(Purpose.RUN, config=tmp_path / "livestream.toml")
    assert (settings.stream.url, settings.output.folder) == (URL, tmp_path / "out")
    assert settings.auth.token_file == tmp_path / "tok en"
    assert said.endswith(
        "  livestream-collector check --config livestream.toml\n"
        "  livestream-collector run --config livestream.toml\n"
    )
