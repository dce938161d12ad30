"""An S3 server as its own process, for whoever ships: moto, on a free port, with one bucket."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import obstore
from obstore.store import S3Store

BUCKET = "lake"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test-key-id",
    "AWS_SECRET_ACCESS_KEY": "test-secret-key",
    "AWS_REGION": "us-east-1",
}
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class S3:
    """Stopped and started again it has forgotten everything: moto keeps objects in memory."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, object]:
        return {"ship.url": f"s3://{BUCKET}/raw", "ship.endpoint": self.endpoint, "ship.region": "us-east-1"}

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_up():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.request("PUT", f"/{BUCKET}")

    def is_up(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            return connection.getresponse().read()

    def refuse_everybody(self) -> None:
        """From now on every request must be signed with keys that it knows, and it knows none."""
        self.request("POST", "/moto-api/reset-auth", b"0")

    def accept_everybody(self) -> None:
        self.request("POST", "/moto-api/reset-auth", b"Infinity")

    def empty(self) -> None:
        self.request("POST", "/moto-api/reset")
        self.request("PUT", f"/{BUCKET}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def store(self) -> Any:
        """Independent of ours."""
        return S3Store(
            BUCKET,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )

    def names(self) -> list[str]:
        return sorted(each["path"] for page in obstore.list(self.store()) for each in page)

    def get(self, name: str) -> bytes:
        return bytes(obstore.get(self.store(), name).bytes())


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    server = S3()
    server.start()
    try:
        yield server
    finally:
        server.stop()
