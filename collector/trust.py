"""Which CA bundle the service's certificate is checked against.

Used by the coordinator at start and by the reader. The invariant: a bundle somebody named is the
one that is used, or the start fails; verification is never weakened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

import certifi

from collector.errors import ConfigurationError

DISTRIBUTION_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat, Fedora
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Red Hat, Fedora, newer
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, BSD
)
"""The curl of pycurl's wheel has the path of the machine it was built on, which others do not have."""


def find_ca_file(
    setting: str, environ: Mapping[str, str], bundles: Sequence[str] = DISTRIBUTION_BUNDLES
) -> str:
    """The bundle's path: the setting, ``SSL_CERT_FILE``, the distribution's, certifi's.

    *Raises* ``ConfigurationError`` when the one that was named cannot be read.
    """
    named = (("tls.ca_file", setting), ("SSL_CERT_FILE", environ.get("SSL_CERT_FILE", "")))
    for source, path in named:
        if path:
            return _readable(source, path)
    for path in bundles:
        if os.path.isfile(path):
            return path
    return certifi.where()


def _readable(source: str, path: str) -> str:
    try:
        with open(path, "rb") as bundle:
            found = b"-----BEGIN" in bundle.read()
    except OSError as error:
        raise ConfigurationError(
            f"{source} = {path!r}: cannot be read ({error.strerror}); name a PEM file with CA certificates"
        ) from error
    if not found:
        raise ConfigurationError(
            f"{source} = {path!r}: no certificate in it; name a PEM file with CA certificates"
        )
    return path
