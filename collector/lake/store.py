"""Where parts are shipped to: an object store through ``obstore``, or a folder elsewhere.

Run by the shipping process and by ``verify --remote``. Invariant: a part is whole under its final name or
not there at all, and nothing is ever replaced: what is there already must be the same, or it is an error.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from collector.core.shipping import SHIP_FAILURES, ShipFailure
from collector.errors import CollectorError, ExitCode
from collector.escaping import printable, without_secrets
from collector.storage.fs import DISK, Disk
from collector.storage.publish import folder_mode

_SHA256: Final = "sha256"
"""Of an object's own metadata: x-amz-meta-sha256 and so on."""

_CHUNK_BYTES: Final = 16 << 20
"""A larger part is sent in pieces of this size; S3 takes at most 10,000 of them."""

_PIECES_AT_ONCE: Final = 4
_REQUEST_TIMEOUT: Final = "300s"
_RETRIES: Final = 2
"""Of one request by the library, for what ends in a second; the shipping process waits out the rest."""

_REASON_CHARACTERS: Final = 300
_COPY_BYTES: Final = 1 << 20
_INCOMING: Final = ".incoming"


class ShipError(CollectorError):
    """Raised when a part cannot be shipped, or a table be written, for now; parts wait meanwhile."""

    exit_code = ExitCode.STORAGE

    def __init__(self, failure: ShipFailure, detail: str) -> None:
        remedy = SHIP_FAILURES[failure]
        super().__init__(f"{remedy.means}: {detail}. {remedy.do}")
        self.failure = failure
        self.detail = detail


class Stored(NamedTuple):
    """An object that is there."""

    size: int
    sha256: bytes | None
    """As it was recorded when it was put; ``None``: somebody else put it."""


class Store(Protocol):
    """Every call *blocks* for the network and *raises* ShipError. ``path`` is as below the output folder."""

    url: str

    def put_new(self, source: Path, path: str, size: int, sha256: bytes) -> None:
        """Durable under its name when this returns; there already with this content is fine, too."""

    def find(self, path: str) -> Stored | None: ...

    def read(self, path: str) -> bytes: ...


def open_store(url: str, *, endpoint: str = "", region: str = "") -> Store:
    """*Raises* ShipError, ModuleNotFoundError without the extra ``lake``."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderStore(DISK, Path(unquote(parts.path)))
    return ObjectStore(url, endpoint=endpoint, region=region)


def uri_of(url: str, path: str) -> str:
    """Of a part, as engines and tables name it."""
    return f"{url.rstrip('/')}/{path}"


class ObjectStore:
    """S3 and what speaks like it, Google Cloud Storage, Azure; credentials as their own tools take them."""

    def __init__(self, url: str, *, endpoint: str, region: str) -> None:
        import obstore  # noqa: PLC0415 - an extra
        from obstore.store import from_url  # noqa: PLC0415

        self.url = url
        self._obstore: Any = obstore
        options: dict[str, Any] = {}
        if urlsplit(url).scheme == "s3":
            options |= {"checksum_algorithm": "SHA256"}
            options |= {"endpoint": endpoint} if endpoint else {}
            options |= {"region": region} if region else {}
        with _translated(url):
            self._store: Any = from_url(
                url,
                client_options={"allow_http": endpoint.startswith("http:"), "timeout": _REQUEST_TIMEOUT},
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=30)},
                **options,
            )

    def put_new(self, source: Path, path: str, size: int, sha256: bytes) -> None:
        with _translated(path):
            try:
                self._obstore.put(
                    self._store,
                    path,
                    source,
                    mode="create",
                    attributes={_SHA256: sha256.hex()},
                    use_multipart=size > _CHUNK_BYTES,
                    chunk_size=_CHUNK_BYTES,
                    max_concurrency=_PIECES_AT_ONCE,
                )
            except self._obstore.exceptions.AlreadyExistsError:
                _refuse_other(self, path, size, sha256)

    def find(self, path: str) -> Stored | None:
        with _translated(path):
            try:
                found = self._obstore.get(self._store, path, options={"head": True})
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None
            return Stored(found.meta["size"], _hash(found.attributes))

    def read(self, path: str) -> bytes:
        with _translated(path):
            return bytes(self._obstore.get(self._store, path).bytes())


def _hash(attributes: Mapping[str, str]) -> bytes | None:
    """Names of metadata are not case-sensitive everywhere."""
    named = {name.lower(): value for name, value in attributes.items()}
    try:
        return bytes.fromhex(named.get(_SHA256, "")) or None
    except ValueError:
        return None


def _refuse_other(store: Store, path: str, size: int, sha256: bytes) -> None:
    """Already there is success only with the same content. *Raises* ShipError."""
    found = store.find(path)
    if found is not None and found.sha256 is None and found.size == size:
        found = Stored(size, _sha256(store.read(path)))
    if found != Stored(size, sha256):
        there = "nothing" if found is None else f"{found.size} bytes, sha256 {_hex(found.sha256)}"
        raise ShipError(
            ShipFailure.OTHER_CONTENT,
            f"{uri_of(store.url, path)}: found {there}, expected {size} bytes, sha256 {sha256.hex()}",
        )


def _hex(sha256: bytes | None) -> str:
    return "not recorded" if sha256 is None else sha256.hex()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class FolderStore:
    """A folder on another disk, or one that is mounted from elsewhere."""

    def __init__(self, disk: Disk, root: Path, *, mode: int = 0o644) -> None:
        self.url = f"file://{root}"
        self._disk = disk
        self._root = root
        self._mode = mode

    def put_new(self, source: Path, path: str, size: int, sha256: bytes) -> None:
        target = self._root / path
        incoming = self._root / _INCOMING / path.replace("/", "%")
        with _translated(str(target)):
            self._disk.make_folder(incoming.parent)
            with self._disk.removed_on_failure(incoming):
                self._copy(source, incoming)
            self._disk.make_folder(target.parent, folder_mode(self._mode))
            try:
                self._disk.rename_noreplace(incoming, target)
            except FileExistsError:
                self._disk.unlink(incoming)
                _refuse_other(self, path, size, sha256)
            self._disk.fsync_folder(target.parent)

    def find(self, path: str) -> Stored | None:
        with _translated(str(self._root / path)):
            try:
                return Stored(self._disk.size(self._root / path), self._disk.sha256(self._root / path))
            except FileNotFoundError:
                return None

    def read(self, path: str) -> bytes:
        with _translated(str(self._root / path)):
            return self._disk.read_file(self._root / path)

    def _copy(self, source: Path, target: Path) -> None:
        writer = self._disk.create_writer(target, self._mode)
        fd = self._disk.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            offset = 0
            while chunk := self._disk.pread(fd, _COPY_BYTES, offset):
                writer.write(chunk)
                offset += len(chunk)
            writer.sync()
        finally:
            self._disk.close(fd)
            writer.close()


# ---------------------------------------------------------------- what went wrong, in our words


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except (CollectorError, ModuleNotFoundError) as error:
        if isinstance(error, ShipError | ModuleNotFoundError):
            raise
        raise ShipError(ShipFailure.AWAY, str(error)) from error
    except Exception as error:
        raise ShipError(failure_of(error), f"{where}: {in_short(error)}") from error


_SAID: Final = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>")
"""Of an answer of S3 or Azure."""

_TAIL: Final = re.compile(r" in [0-9.]+\S*s - (.+)")
"""Behind the name of the request and how long it took. *Source*: obstore 0.12."""

_DENIED: Final = ("PermissionDeniedError", "UnauthenticatedError")
_DENIED_WORDS: Final = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "TokenRefreshRequired", "InvalidToken",
    "AccessDenied", "403 Forbidden", "401 Unauthorized", "169.254.169.254", "Account must be specified",
    "ACCESS_DENIED", "NoCredentials", "no credentials", "metadata.google.internal",
)  # fmt: skip
"""The last ones: without credentials a library asks the cloud's own host for them, where there is one."""


def failure_of(error: BaseException) -> ShipFailure:
    """Of what a library for object stores raised."""
    text = str(error)
    if type(error).__name__ in _DENIED or any(word in text for word in _DENIED_WORDS):
        return ShipFailure.DENIED
    if "NoSuchBucket" in text or "ContainerNotFound" in text or "bucket does not exist" in text:
        return ShipFailure.NO_BUCKET
    return ShipFailure.AWAY


def in_short(error: BaseException) -> str:
    """What the store said, without what libraries print for their own authors, and without secrets."""
    text = (str(error) or type(error).__name__).partition("\n\nDebug source")[0].replace("\n", " ")
    if (said := _SAID.search(text)) is not None:
        text = f"{said[1]}: {said[2]}"
    elif (tail := _TAIL.search(text)) is not None:
        text = tail[1]
    return printable(without_secrets(text), _REASON_CHARACTERS)
