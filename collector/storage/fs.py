"""Every disk call there is, so that each can be made to fail.

Runs in every process. Invariant: an ``OSError`` leaves as ``StorageError``, or as ``NoSpaceError``
where a write met a full disk, naming the call and the path. ``FileNotFoundError`` and
``FileExistsError`` pass through: they are answers, not faults.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

from collector.errors import NoSpaceError, StorageError, SyncFailedError

AnyPath: TypeAlias = str | os.PathLike[str]
Bytes: TypeAlias = bytes | bytearray | memoryview

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_NO_RENAMEAT2: Final = frozenset({errno.EINVAL, errno.ENOSYS})
_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_READ_BYTES: Final = 1 << 16
"""So little that each read has the memory of the one before; of 1 MiB each byte would be on a new page."""
_WRITE_BUFFER_BYTES: Final = 256 << 10

_libc: Final = ctypes.CDLL(None, use_errno=True)


def storage_error(call: str, path: AnyPath | int, error: OSError) -> OSError | StorageError:
    """What a failed call is raised as. A failed sync is never a mere lack of space: the pages may be lost."""
    if isinstance(error, FileNotFoundError | FileExistsError):
        return error
    name = _path_of(path) if isinstance(path, int) else os.fspath(path)
    if "sync" in call:
        kind: type[StorageError] = SyncFailedError
    else:
        kind = NoSpaceError if error.errno in _NO_SPACE else StorageError
    return kind(f"{call} of {name} failed: {os.strerror(error.errno or 0)}")


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"


@contextmanager
def _translated(call: str, path: AnyPath | int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raised = storage_error(call, path, error)
        if raised is error:
            raise
        raise raised from error


class Disk:
    """The real disk. Stateless; every method *blocks* for as long as the device does.

    *Raises*: ``NoSpaceError``, ``StorageError``, ``FileNotFoundError``, ``FileExistsError``.
    """

    # ------------------------------------------------------------ descriptors

    def open(self, path: AnyPath, flags: int, mode: int = 0o600) -> int:
        """Close-on-exec. A created file gets ``mode`` as the umask leaves it."""
        with _translated("open", path):
            return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        """Never fails: what a descriptor still has to tell, a sync would have told."""
        try:
            os.close(fd)
        except OSError as error:
            if error.errno == errno.EBADF:  # a defect of ours
                raise

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """As many of ``count`` bytes as there are."""
        with _translated("read", fd):
            return os.pread(fd, count, offset)

    def pwritev(self, fd: int, buffers: Sequence[Bytes], offset: int) -> int:
        """May be short."""
        with _translated("write", fd):
            return os.pwritev(fd, buffers, offset)

    def write(self, fd: int, data: Bytes) -> int:
        """May be short."""
        with _translated("write", fd):
            return os.write(fd, data)

    def pwritev_all(self, fd: int, buffers: Sequence[Bytes], offset: int) -> None:
        """All of the buffers one after the other, without joining them."""
        waiting = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        while waiting:
            written = self.pwritev(fd, waiting, offset)
            offset += written
            while waiting and written >= len(waiting[0]):
                written -= len(waiting.pop(0))
            if written:
                waiting[0] = waiting[0][written:]

    def pwrite_all(self, fd: int, data: Bytes, offset: int) -> None:
        self.pwritev_all(fd, [data], offset)

    def write_all(self, fd: int, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[self.write(fd, view) :]

    def fdatasync(self, fd: int) -> None:
        """*Raises* SyncFailedError: never to be retried on this descriptor, its dirty pages may be gone."""
        with _translated("fdatasync", fd):
            os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        """*Raises* SyncFailedError: never to be retried on this descriptor, its dirty pages may be gone."""
        with _translated("fsync", fd):
            os.fsync(fd)

    def allocate(self, fd: int, size_bytes: int) -> None:
        """Give the file its size and its blocks. After a failure it may have some of them."""
        with _translated("allocate", fd):
            os.posix_fallocate(fd, 0, size_bytes)

    def truncate(self, fd: int, size_bytes: int) -> None:
        with _translated("truncate", fd):
            os.ftruncate(fd, size_bytes)

    def set_mode(self, fd: int, mode: int) -> None:
        with _translated("chmod", fd):
            os.fchmod(fd, mode)

    def owner_and_mode(self, fd: int) -> tuple[int, int]:
        """User id, and permission bits."""
        with _translated("stat", fd):
            found = os.fstat(fd)
        return found.st_uid, stat.S_IMODE(found.st_mode)

    def map_read_only(self, fd: int) -> mmap.mmap:
        """Shared mapping of the whole file, which must not be empty."""
        with _translated("mmap", fd):
            return mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)

    # ------------------------------------------------------------ names

    def fsync_folder(self, path: AnyPath) -> None:
        """Make the names in this folder durable."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        with _translated("rename", source):
            os.rename(source, target)

    def rename_noreplace(self, source: AnyPath, target: AnyPath) -> None:
        """Never replaces a file. *Raises* FileExistsError when ``target`` exists.

        Where the file system has no RENAME_NOREPLACE it is a link and an unlink; a crash between
        them leaves both names on one file.
        """
        with _translated("rename", source):
            try:
                _renameat2(os.fsencode(source), os.fsencode(target))
            except OSError as error:
                if error.errno not in _NO_RENAMEAT2:
                    raise
                os.link(source, target, follow_symlinks=False)
                os.unlink(source)

    def unlink(self, path: AnyPath) -> None:
        with _translated("unlink", path):
            os.unlink(path)

    def remove_empty_folder(self, path: AnyPath) -> bool:
        """Whether it is gone now. One that holds anything stays."""
        with _translated("rmdir", path):
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno not in _NOT_EMPTY:
                    raise
                return False
        return True

    def remove_folder(self, path: AnyPath) -> None:
        """It and the files in it. For what lives in memory only: nothing is synced."""
        for name in self.listdir(path):
            self.unlink(os.path.join(path, name))
        with _translated("rmdir", path):
            os.rmdir(path)

    def make_folder(self, path: AnyPath, mode: int = 0o700) -> None:
        """With missing parents. New ones have exactly ``mode`` and are synced into their parent."""
        missing = [os.path.abspath(path)]
        while not os.path.isdir(missing[-1]):
            missing.append(os.path.dirname(missing[-1]))
        for name in reversed(missing[:-1]):
            with suppress(FileExistsError):  # somebody made it meanwhile
                self.mkdir(name, mode)
            self.fsync_folder(os.path.dirname(name))

    def settle_folder(self, path: AnyPath) -> None:
        """Its name, and those of the folders above it, are durable from now on.

        A process that was killed may have made them and synced nothing.
        """
        folder = os.path.dirname(os.path.abspath(path))
        while os.access(folder, os.R_OK | os.W_OK):  # else it was not made by us, nor what is above it
            self.fsync_folder(folder)
            if folder == os.path.dirname(folder):
                return
            folder = os.path.dirname(folder)

    def mkdir(self, path: AnyPath, mode: int) -> None:
        """Exactly ``mode``, whatever the umask."""
        with _translated("mkdir", path):
            os.mkdir(path, mode)
            os.chmod(path, mode)

    def listdir(self, path: AnyPath) -> list[str]:
        """Names in the folder, sorted."""
        with _translated("listdir", path):
            return sorted(os.listdir(path))

    def size(self, path: AnyPath) -> int:
        """Of a regular file, bytes. *Raises* StorageError for anything else, a symbolic link included."""
        with _translated("stat", path):
            found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{os.fspath(path)} is not a regular file; remove it or put the real one back")
        return found.st_size

    def exists(self, path: AnyPath) -> bool:
        return os.path.lexists(path)

    def free_bytes(self, path: AnyPath) -> int:
        """What an ordinary user may still write to the file system that ``path`` is on."""
        with _translated("statvfs", path):
            found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def total_bytes(self, path: AnyPath) -> int:
        """Size of the file system that ``path`` is on."""
        with _translated("statvfs", path):
            found = os.statvfs(path)
        return found.f_blocks * found.f_frsize

    # ------------------------------------------------------------ whole files

    def read_file(self, path: AnyPath, limit_bytes: int = sys.maxsize) -> bytes:
        """All of it, or its beginning. What is not a regular file is refused, never waited for."""
        return b"".join(self._chunks(path, limit_bytes))

    def sha256(self, path: AnyPath) -> bytes:
        digest = hashlib.sha256()
        for chunk in self._chunks(path):
            digest.update(chunk)
        return digest.digest()

    def _chunks(self, path: AnyPath, limit_bytes: int = sys.maxsize) -> Iterator[bytes]:
        fd = self.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            offset = 0
            while chunk := self.pread(fd, min(_READ_BYTES, limit_bytes - offset), offset):
                offset += len(chunk)
                yield chunk
        finally:
            self.close(fd)

    def write_file_durably(self, path: AnyPath, data: Bytes) -> None:
        """The old content or the new one, never a mixture; the new one once this returns.

        *Raises*: NoSpaceError, and then the old content is in place and nothing is left beside it.
        """
        folder, name = os.path.split(os.path.abspath(path))
        temporary = os.path.join(folder, f".{name}.new")
        with self.removed_on_failure(temporary):
            self._write_and_sync(temporary, data)
            self.rename(temporary, path)
        self.fsync_folder(folder)

    def _write_and_sync(self, path: AnyPath, data: Bytes) -> None:
        writer = self.create_writer(path)
        try:
            writer.write(data)
            writer.sync()
        finally:
            writer.close()

    @contextmanager
    def removed_on_failure(self, path: AnyPath) -> Iterator[None]:
        """What is made at ``path`` in this block is of no use unless all of the block is done."""
        try:
            yield
        except BaseException:
            with suppress(FileNotFoundError, StorageError):  # the first failure is the one to tell
                self.unlink(path)
            raise

    def create_writer(self, path: AnyPath, mode: int = 0o600) -> FileWriter:
        """A new file (an old one of that name is emptied) with exactly ``mode``, for writing in sequence."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        writer = FileWriter(self, fd)
        try:
            self.set_mode(fd, mode)
        except BaseException:
            writer.close()
            raise
        return writer


class FileWriter:
    """A file object over a ``Disk``, buffered; ``pyarrow.PythonFile`` takes it as its handle.

    ``close`` drops what was neither flushed nor synced: a part that is not synced is not a part.
    """

    def __init__(self, disk: Disk, fd: int) -> None:
        self._disk = disk
        self._fd = fd
        self._buffer = bytearray()
        self._written_bytes = 0
        self.closed = False

    def write(self, data: Bytes) -> int:
        size = memoryview(data).nbytes
        if size >= _WRITE_BUFFER_BYTES:
            self.flush()
            self._disk.write_all(self._fd, data)
            self._written_bytes += size
            return size
        self._buffer += data
        if len(self._buffer) >= _WRITE_BUFFER_BYTES:
            self.flush()
        return size

    def tell(self) -> int:
        return self._written_bytes + len(self._buffer)

    def flush(self) -> None:
        if self._buffer:
            self._disk.write_all(self._fd, self._buffer)
            self._written_bytes += len(self._buffer)
            self._buffer = bytearray()

    def sync(self) -> None:
        """Content and size are durable; the name is once its folder is synced."""
        self.flush()
        self._disk.fsync(self._fd)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._disk.close(self._fd)

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _renameat2(source: bytes, target: bytes) -> None:
    call = getattr(_libc, "renameat2", None)
    if call is None:  # an old musl
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


DISK: Final = Disk()
