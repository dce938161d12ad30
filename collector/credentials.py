"""The secrets: read from the environment or from files it names, never from arguments or settings.

The coordinator's process alone reads them. A ``Secret`` shows itself masked whatever prints it, and its
text is masked in every log line from the moment it is read.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from collector.errors import ConfigurationError
from collector.escaping import MASK, conceal, printable

_TOKEN: Final = "LIVESTREAM_TOKEN"  # noqa: S105 - a variable's name
_CLIENT_ID: Final = "LIVESTREAM_CLIENT_ID"
_CLIENT_SECRET: Final = "LIVESTREAM_CLIENT_SECRET"  # noqa: S105 - a variable's name
_PROXY_PASSWORD: Final = "LIVESTREAM_PROXY_PASSWORD"  # noqa: S105 - a variable's name
_PRIVACY_KEY: Final = "LIVESTREAM_PRIVACY_KEY"
_LEAST_KEY_CHARACTERS: Final = 32
"""Of the hexadecimal digits of 128 bits: whoever knows some values must not find the key by trying."""
_VARIABLES: Final = (_TOKEN, _CLIENT_ID, _CLIENT_SECRET)
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
"""Variables of others that may hold a password; whoever needs the proxy is told of it."""
_OF_STORES: Final = ("AWS_", "AMAZON_", "AZURE_", "GOOGLE_", "GCP_", "PYICEBERG_", "MSI_", "IDENTITY_")
"""How variables begin that libraries for object stores and catalogs take, secrets among them."""

_FILE: Final = "_FILE"
_PATHS: Final = ("_FILE", "_APPLICATION_CREDENTIALS")
_SECRET_WORDS: Final = ("SECRET", "TOKEN", "KEY", "PASSWORD", "CREDENTIAL", "SAS")
_FLAGS: Final = {
    "--token": _TOKEN,
    "--bearer": _TOKEN,
    "--client-id": _CLIENT_ID,
    "--api-key": _CLIENT_ID,
    "--client-secret": _CLIENT_SECRET,
    "--secret": _CLIENT_SECRET,
    "--password": _PROXY_PASSWORD,
    "--proxy-password": _PROXY_PASSWORD,
    "--privacy-key": _PRIVACY_KEY,
}
_MAX_BYTES: Final = 64 * 1024
"""Far above any token; a device or a wrong file is not read to its end."""

_LOOPBACK_KEY: Final = "simulator-key"
"""What the simulator expects unless it is told otherwise."""


class Secret:
    """A text that is shown as ``***`` and given out by ``reveal`` alone."""

    __slots__ = ("_text",)

    def __init__(self, text: str, *, passing: bool = False) -> None:
        conceal(text, passing=passing)
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """A static token, or the pair that gets tokens; and the key that goes with either."""

    api_key: Secret
    """The client id, sent as ``x-api-key``."""
    token: Secret | None = None
    client_secret: Secret | None = None
    token_file: str = ""
    """Where the token came from, to be read again before each request; empty: it cannot change."""

    @property
    def is_static(self) -> bool:
        return self.token is not None and not self.token_file


class SecretFileError(ConfigurationError):
    """Raised when a file that holds a secret cannot be used. The message has no secret in it."""


def load_credentials(
    environ: Mapping[str, str], *, loopback: bool, token_file: str | os.PathLike[str] | None = None
) -> Credentials:
    """The credentials of a run. For ``loopback`` hosts alone the client id may be left out.

    ``token_file`` is the setting ``auth.token_file``: ``LIVESTREAM_TOKEN_FILE`` by another name.
    *Blocks* while reading the files that ``*_FILE`` variables name.
    *Raises* ``ConfigurationError`` with every fault, without any secret in it.
    """
    faults: list[str] = []
    environ = _with_token_file(environ, token_file, faults)
    token, client_id, client_secret = (_read(environ, name, faults) for name in _VARIABLES)
    if not faults:
        faults.extend(_missing(token, client_id, client_secret, loopback=loopback))
    if faults:
        raise ConfigurationError("no usable credentials:\n" + "\n".join(f"  - {fault}" for fault in faults))
    return Credentials(
        api_key=Secret(client_id or _LOOPBACK_KEY),
        token=Secret(token) if token else None,
        client_secret=Secret(client_secret) if client_secret else None,
        token_file=environ.get(_TOKEN + _FILE, ""),
    )


def load_proxy_password(environ: Mapping[str, str]) -> Secret | None:
    """The proxy's password, if one is given. *Blocks*. *Raises* ``ConfigurationError``."""
    faults: list[str] = []
    password = _read(environ, _PROXY_PASSWORD, faults)
    if faults:
        raise ConfigurationError(faults[0])
    return Secret(password) if password else None


def load_privacy_key(environ: Mapping[str, str], *, wanted: bool) -> Secret | None:
    """The key of the hashes; ``None`` where none is ``wanted``. *Blocks*. *Raises* ``ConfigurationError``."""
    if not wanted:
        return None
    faults: list[str] = []
    key = _read(environ, _PRIVACY_KEY, faults)
    how = f"make one with `openssl rand -hex 32`, and give it in {_PRIVACY_KEY}, or in a file named by"
    how += f" {_PRIVACY_KEY}{_FILE}"
    if not faults and not key:
        faults.append(f"privacy.hash wants a key: {how}")
    elif not faults and len(key) < _LEAST_KEY_CHARACTERS:
        least = f"at least {_LEAST_KEY_CHARACTERS} are wanted"
        faults.append(f"{_PRIVACY_KEY} has {len(key)} characters, {least}: {how}")
    if faults:
        raise ConfigurationError(faults[0])
    return Secret(key)


def read_secret_file(path: str) -> str:
    """The secret in a file, without the blanks around it. *Blocks*. *Raises* ``SecretFileError``."""
    try:
        with open(path, "rb") as file:
            fault = _lax(os.fstat(file.fileno()), path)
            text = "" if fault else file.read(_MAX_BYTES).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise SecretFileError(f"the file {printable(path)} cannot be read: {error.strerror}") from error
    fault = fault or _form_fault(text) or ("" if text else f"the file {printable(path)} is empty")
    if fault:
        raise SecretFileError(fault)
    return text


def _lax(status: os.stat_result, path: str) -> str:
    """Why such a file is no place for a secret: others can read it.

    One of root's that its group may read, and only read, is how Kubernetes (``fsGroup``) and systemd
    (``LoadCredential``) hand secrets to a service: whoever made the mount chose that group.
    """
    mode = stat.S_IMODE(status.st_mode)
    mounted = status.st_uid == 0 and not mode & (stat.S_IWGRP | stat.S_IXGRP)
    if not mode & stat.S_IRWXO and (mounted or not mode & stat.S_IRWXG):
        return ""
    others = "others" if mode & stat.S_IRWXO else "its group"
    return (
        f"the file {printable(path)} is open to {others} (mode {mode:04o}): chmod 600 {shlex.quote(path)}"
        " (a mounted secret: give the mount mode 0440)"
    )


def given_secrets(
    environ: Mapping[str, str], token_file: str | os.PathLike[str] | None = None
) -> dict[str, str]:
    """Of every secret where it comes from, in words that hold none of it; empty: it is not given."""
    given = {}
    for name in (*_VARIABLES, _PROXY_PASSWORD, _PRIVACY_KEY):
        path = environ.get(name + _FILE, "")
        source = f"the file {printable(path)} ({name}{_FILE})" if path else ""
        given[name] = source or (f"the environment ({name})" if environ.get(name) else "")
    if token_file is not None and not given[_TOKEN]:
        given[_TOKEN] = f"the file {printable(str(token_file))} (auth.token_file)"
    return given


def refuse_secret_arguments(arguments: Sequence[str]) -> None:
    """*Raises* ``ConfigurationError`` for a flag that would hold one, and says where it belongs."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag in _FLAGS:
            raise ConfigurationError(
                f"{flag}: secrets are never taken from arguments, where every process can read them: set"
                f" {_FLAGS[flag]}, or {_FLAGS[flag]}{_FILE} to a file's path"
            )


def scrubbed_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What children get: everything but the credentials and the files they are in."""
    return {
        name: value
        for name, value in shipping_environment(environ).items()
        if name.lower() not in _PROXIES and not name.startswith(_OF_STORES)
    }


def shipping_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the shipping process gets: the store's credentials and the proxy, nothing of the stream's."""
    names = (*_VARIABLES, _PROXY_PASSWORD, _PRIVACY_KEY)
    secret = {*names, *(name + _FILE for name in names)}
    return {name: value for name, value in environ.items() if name not in secret}


def conceal_store_secrets(environ: Mapping[str, str]) -> None:
    """From now on they are masked, should a store or a library echo them."""
    for name, value in environ.items():
        secret = name.startswith(_OF_STORES) and any(word in name for word in _SECRET_WORDS)
        if secret and not name.endswith(_PATHS):
            conceal(value)


def _with_token_file(
    environ: Mapping[str, str], token_file: str | os.PathLike[str] | None, faults: list[str]
) -> Mapping[str, str]:
    if token_file is None:
        return environ
    given = environ.get(_TOKEN + _FILE, "")
    if given and os.path.abspath(given) != os.path.abspath(token_file):
        faults.append(f"auth.token_file and {_TOKEN}{_FILE} name two files: keep one")
    return {**environ, _TOKEN + _FILE: os.fspath(token_file)}


def _missing(token: str, client_id: str, client_secret: str, *, loopback: bool) -> list[str]:
    faults = []
    if token and client_secret:
        faults.append(f"{_TOKEN} and {_CLIENT_SECRET} are both given: keep the one to be used")
    if not token and not client_secret:
        faults.append(
            f"give {_CLIENT_ID} and {_CLIENT_SECRET} (OAuth Server-to-Server: tokens are renewed), or "
            f"{_CLIENT_ID} and {_TOKEN} (a static token); each may be in a file instead, named by "
            f"{_CLIENT_ID}{_FILE} and so on"
        )
    elif not client_id and not (loopback and token):
        faults.append(f"{_CLIENT_ID} is missing: the service wants it as x-api-key, with a static token too")
    return faults


def _read(environ: Mapping[str, str], name: str, faults: list[str]) -> str:
    direct, path = environ.get(name, ""), environ.get(name + _FILE, "")
    if direct and path:
        faults.append(f"{name} and {name}{_FILE} are both given: keep one")
        return ""
    if path:
        try:
            return read_secret_file(path)
        except SecretFileError as error:
            faults.append(f"{name}{_FILE}: {error}")
            return ""
    text = direct.strip()
    if fault := _form_fault(text):
        faults.append(f"{name}: {fault}")
    return text


def _form_fault(text: str) -> str:
    """What would break a header, or is a common slip of the hand."""
    if text.lower().startswith("bearer "):
        return 'begins with "Bearer": give the token alone'
    if not all("!" <= char <= "~" for char in text):
        return "holds blanks, line ends or other than ASCII characters"
    return ""
