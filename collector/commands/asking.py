"""Asking the running collector of a state folder what it is doing.

Used by the commands that look at a collector from beside it. It answers by the Unix socket in its state
folder, whether it has a status page or not.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Final

from collector.ipc.socketfile import connected
from collector.storage.layout import StateFolder

TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 64 << 20


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock: socket.socket = connected(self._path, self._timeout_s)


def ask(state_folder: Path, path: str, timeout_s: float = TIMEOUT_S) -> bytes | None:
    """The body of the answer to GET ``path``; ``None``: no collector answers, or it does not know that path.

    *Blocks* for at most some ``timeout_s``.
    """
    connection = _OverUnix(StateFolder(state_folder).socket, timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
        known = response.status != http.client.NOT_FOUND
    except (OSError, http.client.HTTPException):
        return None
    else:
        return body if known else None
    finally:
        connection.close()
