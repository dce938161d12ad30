"""What the image promises, as far as its recipe shows it; tests/system/test_image.py runs its steps."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import pytest
from dockerfile import ROOT, stages

from collector.settings_table import SPECS

BUILD, IMAGE = stages()


def test_everything_that_is_copied_is_in_the_build_context():
    """.dockerignore lets through what the recipe copies, and nothing else: no test, no secret beside it."""
    ignored, *allowed = [line for line in (ROOT / ".dockerignore").read_text().split() if "**" not in line]
    copied = {source for origin, sources, _ in BUILD.copies() if not origin for source in sources}
    assert ignored == "*"
    assert {name.removeprefix("!") for name in allowed} == copied
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_has_only_what_was_installed():
    """One folder comes from the build stage; the compiler, pip and the source stay there."""
    assert IMAGE.copies() == [("build", ["/opt/livestream-collector"], "/opt/livestream-collector")]
    assert not any(name == "RUN" and "apt-get" in rest for name, rest in IMAGE.steps)


def test_not_root_by_number():
    """Kubernetes can only tell by a number that `runAsNonRoot` holds."""
    assert IMAGE.last("USER") == "10001:10001"


def test_signals_reach_the_collector():
    """It is PID 1 itself, without a shell, and gets the signal that it drains upon."""
    assert IMAGE.arguments("ENTRYPOINT") == ["livestream-collector"]
    assert IMAGE.last("STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_asks_the_page(status, code):
    """Healthy with an answer of 200 at the page's usual port; not with another one, nor without any."""
    asked = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    python, *arguments = IMAGE.health_check()
    usual = SPECS["status.listen"].default.partition(":")[2]
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_port
        if status is None:
            server.shutdown()
            server.socket.close()
        arguments = [text.replace(usual, str(port)) for text in arguments]
        proxy = {"http_proxy": "http://127.0.0.1:1"}
        found = subprocess.run([sys.executable, *arguments], env=proxy, capture_output=True, check=False)
        server.shutdown()
        thread.join()
    assert python == "python"
    assert found.returncode == code
    assert asked == ([] if status is None else ["/healthz"])


@pytest.mark.parametrize("stage", [BUILD, IMAGE], ids=["build", "image"])
def test_everything_that_is_downloaded_is_locked(stage):
    """Every `pip install` names hashes, or may not reach an index at all."""
    for name, rest in stage.steps:
        for command in rest.split("&&") if name == "RUN" else ():
            if "pip" in command and (" install " in command or " wheel " in command):
                assert "--require-hashes" in command or "--no-index" in command, command
