"""Unix sockets with a name in a folder, however long the folder's path is.

Used by the coordinator, which listens, and by the commands that ask it. An address has room for 107 bytes, so
the folder is opened and the name reached through its descriptor.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def listening(path: Path) -> socket.socket:
    """Bound for this user alone; a socket that a killed run left there is replaced.

    Call it only where nobody else can be listening. *Raises* OSError, and for a file that is no socket
    FileExistsError.
    """
    with _address(path) as address:
        if os.path.lexists(address):
            if not stat.S_ISSOCK(os.lstat(address).st_mode):
                raise FileExistsError(f"{path} is there and no socket: remove it")
            os.unlink(address)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(bound.fileno(), 0o600)  # what the name will have, from the first moment
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
        return bound


def connected(path: Path, timeout_s: float) -> socket.socket:
    """*Raises* OSError: ``FileNotFoundError`` and ``ConnectionRefusedError`` where nobody listens."""
    with _address(path) as address:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.settimeout(timeout_s)
            peer.connect(address)
        except BaseException:
            peer.close()
            raise
        return peer


@contextmanager
def _address(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
