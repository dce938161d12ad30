"""Where the CA bundle is found."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from collector.errors import ConfigurationError
from collector.trust import find_ca_file

PEM = "-----BEGIN CERTIFICATE-----\n"


def test_the_setting_goes_before_the_environment(tmp_path: Path) -> None:
    """Setting, then SSL_CERT_FILE, then the first of the distribution's that is there, then certifi."""
    setting, environment, distribution = (tmp_path / name for name in ("setting", "environment", "third"))
    for path in (setting, environment, distribution):
        path.write_text(PEM)
    environ = {"SSL_CERT_FILE": str(environment)}
    bundles = [str(tmp_path / "missing"), str(distribution)]
    assert find_ca_file(str(setting), environ, bundles) == str(setting)
    assert find_ca_file("", environ, bundles) == str(environment)
    assert find_ca_file("", {}, bundles) == str(distribution)
    assert find_ca_file("", {}, bundles[:1]) == certifi.where()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_named_bundle_that_is_none_stops_the_start(tmp_path: Path, content: str | None) -> None:
    """Never another bundle than the one that was asked for."""
    path = tmp_path / "bundle"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"tls\.ca_file"):
        find_ca_file(str(path), {})
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        find_ca_file("", {"SSL_CERT_FILE": str(path)})
