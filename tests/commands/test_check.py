"""``check``: a tick or a cross for each step, against real sockets; the stream is never asked."""

from __future__ import annotations

import base64
import datetime as dt
import fcntl
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from connect_proxy import ConnectProxy

from collector.commands import check
from collector.core.messages import Outcome
from collector.core.remedies import OUTCOMES, PROXIES, TOKENS, TokenFailure
from collector.errors import ExitCode
from collector.settings import Loaded, Purpose, load_with_sources

HOST = "livestream.test"
STATIC = {"LIVESTREAM_CLIENT_ID": "canary-id-1", "LIVESTREAM_TOKEN": "canary-token-2"}
STEPS = [step.name for step in check.STEPS]


class Service:
    """Takes connections and a handshake, and notes what else comes."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._stopping = False
        self.port: int = self._socket.getsockname()[1]
        self.heard: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if self._stopping:
                    return
                connection.settimeout(20)
                try:
                    stream = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
                    with stream:
                        self.heard.append(stream.recv(4096))
                except OSError:
                    continue


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> Callable[..., ssl.SSLContext]:
    def make(issuer: trustme.CA = authority, **more: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(HOST, "127.0.0.1", **more).configure_cert(context)
        return context

    return make


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], bundle: str) -> Iterator[Callable[..., Any]]:
    """The exit code, and of each step its mark, what it said and what to do."""

    def checked(
        url: str,
        *assignments: str,
        environ: Mapping[str, str] = STATIC,
        output: Path = tmp_path / "out",
        hits_per_s: float | None = None,
    ) -> tuple[int, dict[str, dict[str, str]]]:
        def load() -> Loaded:
            options = {"stream.url": url, "output.folder": str(output), "tls.ca_file": bundle}
            return load_with_sources(
                Purpose.RUN, options=options, assignments=["status.listen=off", *assignments]
            )

        code = check.run(load, environ, ["--config", "c.toml"], hits_per_s=hits_per_s, as_json=True)
        text = capsys.readouterr().out
        assert "canary" not in text
        document = json.loads(text)
        assert document["exit_code"] == code
        assert [step["name"] for step in document["steps"]] == STEPS
        return code, {step["name"]: step for step in document["steps"]}

    yield checked
    assert not (tmp_path / "out").exists(), "check makes nothing"


def marks(steps: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: step["mark"] for name, step in steps.items()}


def test_all_is_well_and_the_stream_was_not_asked(checked, tls):
    """A handshake is all its host sees."""
    with Service(tls()) as service:
        code, steps = checked(f"https://127.0.0.1:{service.port}/s/shop", hits_per_s=10.0)
    assert code == 0
    assert set(marks(steps).values()) <= {"ok", "note"}
    assert service.heard
    assert not any(service.heard)
    assert "days left" in steps["tls"]["said"]


def test_the_way_on_is_shown(tls, tmp_path, bundle, capsys, monkeypatch):
    """For people: a sign for each step, and the command that tries the stream; exit 0."""
    monkeypatch.setenv("NO_COLOR", "1")
    with Service(tls()) as service:
        options = {
            "stream.url": f"https://127.0.0.1:{service.port}/s/shop",
            "output.folder": str(tmp_path / "out"),
            "tls.ca_file": bundle,
        }

        def load() -> Loaded:
            return load_with_sources(Purpose.RUN, options=options)

        assert check.run(load, STATIC, ["--config", "my c.toml"], hits_per_s=None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "  livestream-collector run --config 'my c.toml' --stop-after 30"
    assert any(line.startswith("\u2713 tls ") for line in lines)


def test_what_failed_is_said_in_the_end(tmp_path, capsys):
    """By name; without a settings file also how to come by one."""

    def load() -> Loaded:
        return load_with_sources(Purpose.RUN, options={"output.folder": str(tmp_path / "out")})

    assert check.run(load, {}, [], hits_per_s=None, as_json=False) == ExitCode.CONFIGURATION
    text = capsys.readouterr().out
    assert "init` writes a settings file" in text
    assert text.splitlines()[-1].startswith("Not ready: settings. ")


def test_faults_in_the_settings_are_all_told(checked):
    """The first cross; whatever needs them is skipped, and nothing else is."""
    code, steps = checked("http://example.com/s/x", "run.decoders=0")
    assert code == ExitCode.CONFIGURATION
    assert "run.decoders" in steps["settings"]["said"]
    assert "http:// would send" in steps["settings"]["said"]
    assert set(marks(steps).values()) == {"cross", "skipped", steps["clock"]["mark"]}


def test_folders_that_cannot_be_used(checked, tmp_path):
    """A file where a folder must be: exit 4, and room is not looked for there."""
    (tmp_path / "file").touch()
    code, steps = checked("http://127.0.0.1:1/s/x", output=tmp_path / "file" / "out")
    assert code == ExitCode.STORAGE
    assert steps["output"]["said"] == f"{tmp_path / 'file'} is no folder"
    assert steps["state"]["mark"] == steps["room"]["mark"] == "skipped"


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
def test_state_on_another_file_system(checked, tmp_path):
    """A part becomes visible by a rename."""
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system")
    code, steps = checked("http://127.0.0.1:1/s/x", "state.folder=/dev/shm/nobody-made-this")
    assert code == ExitCode.CONFIGURATION
    assert "different file systems" in steps["state"]["said"]


def test_a_disk_without_room(checked):
    """Exit 4: a run would be paused at once."""
    code, steps = checked("http://127.0.0.1:1/s/x", "journal.reserve_bytes=16 TiB")
    assert (code, steps["room"]["mark"]) == (ExitCode.STORAGE, "cross")


def test_a_rate_that_is_too_much(checked):
    """Cores, memory and disk are compared with what there is."""
    _, steps = checked("http://127.0.0.1:1/s/x", hits_per_s=1e9)
    assert steps["size"]["mark"] == "cross"
    assert "cores" in steps["size"]["do"]
    assert "disk" in steps["size"]["do"]


def test_a_collector_that_is_running_is_seen(checked, tmp_path):
    """And not disturbed: its lock is looked up, not tried."""
    state = tmp_path / "state"
    state.mkdir()
    assignment = f"state.folder={state}"
    with (state / "lock").open("w") as lock:
        _, steps = checked("http://127.0.0.1:1/s/x", assignment)
        assert steps["state"]["mark"] == "ok"
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, steps = checked("http://127.0.0.1:1/s/x", assignment)
        assert steps["state"]["mark"] == "note"
        assert f"process {os.getpid()} collects there" in steps["state"]["said"]


def test_a_taken_status_port_is_a_note(checked):
    """Intake goes on without the page."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        _, steps = checked("http://127.0.0.1:1/s/x", f"status.listen={listen}")
    assert steps["status page"]["mark"] == "note"
    assert listen in steps["status page"]["said"]


def test_nobody_there(checked):
    """The words are those of ``explain``; what comes after it is skipped, the token is not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        code, steps = checked(f"http://127.0.0.1:{taken.getsockname()[1]}/s/x")
    assert code == ExitCode.CONFIGURATION
    assert steps["tcp"]["do"] == OUTCOMES[Outcome.UNREACHED].do
    assert (steps["tls"]["mark"], steps["token"]["mark"]) == ("skipped", "ok")


def test_a_name_that_does_not_exist(checked):
    """Neither does the rest."""
    code, steps = checked("https://nobody.invalid/s/x")
    assert code == ExitCode.CONFIGURATION
    assert "nobody.invalid" in steps["dns"]["said"]
    assert (steps["dns"]["mark"], steps["tcp"]["mark"]) == ("cross", "skipped")


def test_a_certificate_that_is_not_trusted(checked, tls):
    """Of an authority that the bundle does not have."""
    with Service(tls(trustme.CA())) as service:
        code, steps = checked(f"https://127.0.0.1:{service.port}/s/x")
    assert code == ExitCode.CONFIGURATION
    assert steps["tls"]["do"] == OUTCOMES[Outcome.UNTRUSTED].do


def test_a_certificate_that_ends_soon(checked, tls):
    """A note with the days that are left."""
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=5, hours=1)
    with Service(tls(not_after=soon)) as service:
        code, steps = checked(f"https://127.0.0.1:{service.port}/s/x")
    assert (code, steps["tls"]["mark"]) == (0, "note")
    assert "5 days left" in steps["tls"]["said"]


@pytest.mark.parametrize("encrypted", [False, True])
def test_through_a_proxy(checked, tls, encrypted):
    """It looks up the name and makes the tunnel, also where TLS leads up to it."""
    with (
        Service(tls()) as service,
        ConnectProxy(
            {f"{HOST}:443": service.port}, wanted="me:canary-right", tls=tls() if encrypted else None
        ) as proxy,
    ):
        environ = STATIC | {"HTTPS_PROXY": proxy.url.replace("//", "//me:canary-right@")}
        code, steps = checked(f"https://{HOST}/s/x", environ=environ)
        assert set(proxy.asked) == {f"{HOST}:443"}
    assert code == 0, steps
    assert steps["tls"]["said"].startswith("TLSv1.3")
    assert not any(service.heard)


@pytest.mark.parametrize("status", [403, 407])
def test_a_proxy_that_refuses(checked, status):
    """Its words, not the service's."""
    with ConnectProxy(status=status) as proxy:
        code, steps = checked(f"https://{HOST}/s/x", f"proxy.url={proxy.url}")
    assert code == ExitCode.CONFIGURATION
    assert steps["tcp"]["do"] == PROXIES[status].do


def ending(at_s: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(at_s)}).encode()).decode().rstrip("=")
    return f"canary.{claims}.sig"


@pytest.mark.parametrize(
    ("left_s", "mark", "code"), [(-5, "cross", 3), (86_400, "note", 2), (30 * 86_400, "ok", 2)]
)
def test_a_token_that_ends(checked, left_s, mark, code, tmp_path):
    """Ended: exit 3, as the service would have it. (2 is the closed port's, which comes first.)"""
    path = tmp_path / "token"
    path.write_text(ending(time.time() + left_s))
    path.chmod(0o600)
    environ = {"LIVESTREAM_CLIENT_ID": "canary-id-1", "LIVESTREAM_TOKEN_FILE": str(path)}
    with Service(None) as service:
        got, steps = checked(f"http://127.0.0.1:{service.port}/s/x", environ=environ)
    assert steps["token"]["mark"] == mark
    assert got == (code if mark == "cross" else 0)


def test_lax_permissions_say_how_to_mend_them(checked, tmp_path):
    """The command can be copied."""
    path = tmp_path / "token"
    path.write_text("canary-token")
    path.chmod(0o644)
    environ = {"LIVESTREAM_CLIENT_ID": "canary-id-1", "LIVESTREAM_TOKEN_FILE": str(path)}
    code, steps = checked("http://127.0.0.1:1/s/x", environ=environ)
    assert code == ExitCode.CONFIGURATION
    assert f"chmod 600 {path}" in steps["credentials"]["said"]
    assert steps["token"]["mark"] == "skipped"


@pytest.mark.parametrize(
    ("answer", "mark", "expected"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n{"access_token":"canary-got-1","expires_in":86400}', "ok", 0),
        (b'HTTP/1.1 400 Bad\r\n\r\n{"error":"invalid_client"}', "cross", 3),
        (b"HTTP/1.1 500 Oh\r\n\r\n", "cross", 2),
    ],
)
def test_a_token_is_got(checked, answer, mark, expected):
    """OAuth: the endpoint is asked as a run would ask it."""
    environ = {"LIVESTREAM_CLIENT_ID": "canary-id-1", "LIVESTREAM_CLIENT_SECRET": "canary-secret-3"}
    asked = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(65_536))
            connection.sendall(answer)

    with Service(None) as service, socket.create_server(("127.0.0.1", 0)) as endpoint:
        thread = threading.Thread(target=serve, args=(endpoint,))
        thread.start()
        token_url = f"http://127.0.0.1:{endpoint.getsockname()[1]}/token"
        code, steps = checked(
            f"http://127.0.0.1:{service.port}/s/x", f"auth.token_url={token_url}", environ=environ
        )
        thread.join()
    assert (steps["token"]["mark"], code) == (mark, expected)
    assert asked[0].startswith(b"POST /token ")
    if expected == 3:
        assert steps["token"]["do"] == TOKENS[TokenFailure.INVALID_CLIENT].do


def test_a_store_that_is_not_reached_is_a_note(checked, monkeypatch):
    """The collector would start all the same, and parts would wait; a missing package is a cross."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = ["ship.url=s3://lake/raw", f"ship.endpoint=http://127.0.0.1:{port}", "ship.region=us-east-1"]
    steps = checked("http://127.0.0.1:1/s/shop", *store)[1]
    assert steps["store"]["mark"] == "note"
    assert "not reached" in steps["store"]["said"]
    assert steps["store"]["do"].endswith("Until then parts wait on this disk.")
    monkeypatch.setitem(sys.modules, "obstore", None)
    code, steps = checked("http://127.0.0.1:1/s/shop", *store)
    assert (steps["store"]["mark"], code) == ("cross", ExitCode.CONFIGURATION)
    assert "pip install 'livestream-collector[lake]'" in steps["store"]["said"]


def test_a_store_is_asked_and_nothing_is_written(checked, tmp_path):
    """A folder here; by default nothing is to be shipped, and that is well."""
    assert "parts stay where they are" in checked("http://127.0.0.1:1/s/shop")[1]["store"]["said"]
    steps = checked("http://127.0.0.1:1/s/shop", f"ship.url=file://{tmp_path}/lake")[1]
    assert (steps["store"]["mark"], (tmp_path / "lake").exists()) == ("ok", False)
