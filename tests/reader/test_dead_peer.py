"""Peers that are gone without a word, and peers that are only quiet."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from attempt_rig import drive, options, order_for
from hostile_server import STREAM_HEAD, HostileServer, Peer

from collector.reader.attempt import Attempt
from collector.reader.session import DRAINED


def test_the_kernel_is_told_to_look_after_the_peer() -> None:
    """Keepalive is on, with the documented times: the first probe after 30 s, 3 of them 10 s apart."""

    def script(peer: Peer) -> None:
        peer.send(STREAM_HEAD)
        peer.until_closed()

    with HostileServer(script) as server, selectors.DefaultSelector() as selector:
        attempt = Attempt(order_for(server.url()), options(), selector)
        drive(attempt, selector, lambda: attempt.stream is not None)
        found = [_keepalive_of(fd) for fd in selector.get_map()]
        attempt.close(DRAINED)
    assert {"on": 1, "idle_s": 30, "between_s": 10, "probes": 3} in found


def _keepalive_of(fd: int) -> dict[str, int]:
    """Empty: it is no TCP socket."""
    if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
        return {}
    with socket.socket(fileno=os.dup(fd)) as connection:
        if connection.family != socket.AF_INET:
            return {}
        return {
            "on": connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            "idle_s": connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            "between_s": connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            "probes": connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        }


SERVER = """
import socket, subprocess, sys
print("there", flush=True)
sys.stdin.readline()  # the other end of the link is made
for command in ("addr add 10.9.8.2/24 dev there", "link set there up"):
    subprocess.run(["ip", *command.split()], check=True)
with socket.create_server(("10.9.8.2", 8080)) as server:
    print("listens", flush=True)
    peer, _ = server.accept()
    peer.recv(65536)
    peer.sendall(bytes.fromhex(sys.argv[1]))
    sys.stdin.readline()
    subprocess.run("ip link set there down".split(), check=True)
    print("dropped", flush=True)
    sys.stdin.readline()
"""

CLIENT = """
import selectors, subprocess, sys, time
sys.path[:0] = sys.argv[3:]
from attempt_rig import drive, options, order_for
from collector.reader.attempt import Attempt

peer = subprocess.Popen(
    ["unshare", "-n", sys.executable, "-c", sys.argv[1], sys.argv[2]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
)

def tell(answer):
    peer.stdin.write("\\n")
    assert peer.stdout.readline().strip() == answer

assert peer.stdout.readline().strip() == "there"
for command in (
    f"link add here type veth peer name there netns {peer.pid}",
    "addr add 10.9.8.1/24 dev here", "link set here up",
):
    subprocess.run(["ip", *command.split()], check=True)
tell("listens")
order = order_for("http://10.9.8.2:8080/", idle_timeout_s=60)
with selectors.DefaultSelector() as selector:
    attempt = Attempt(order, options(keepalive=(1, 1, 1), connect_timeout_s=5.0), selector)
    drive(attempt, selector, lambda: attempt.stream is not None)
    quiet_until = time.monotonic() + 3.2
    while (left := quiet_until - time.monotonic()) > 0:
        for key, events in selector.select(left):
            key.data(events)
        attempt.tick(time.monotonic())
    print(attempt.verdict)
    tell("dropped")
    began = time.monotonic()
    drive(attempt, selector, lambda: attempt.verdict is not None, guard_s=30)
    print(attempt.verdict.outcome, time.monotonic() - began < 15, attempt.verdict.detail)
    again = Attempt(order, options(connect_timeout_s=0.5), selector)
    drive(again, selector, lambda: again.verdict is not None)
    print(again.verdict.outcome)
peer.communicate("\\n")
"""


def test_a_dropped_link_is_found_by_keepalive_alone() -> None:
    """A quiet peer that answers the probes keeps its connection; one behind a dropped link is lost
    without a byte, long before the idle time; then nothing can be reached."""
    isolated = ["unshare", "-rn"]
    probe = [*isolated, "ip", "link", "add", "here", "type", "veth", "peer", "name", "there"]
    can = shutil.which("ip") and shutil.which("unshare")
    if not can or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("needs ip, and a network namespace of its own with veth pairs")
    tests = Path(__file__).parent
    script = [sys.executable, "-c", CLIENT, SERVER, STREAM_HEAD.hex(), str(tests), str(tests.parents[1])]
    ran = subprocess.run([*isolated, *script], check=False, capture_output=True, text=True, timeout=60)
    quiet, lost, unreached = ran.stdout.splitlines() or ["", "", ran.stderr]
    assert quiet == "None", ran.stderr
    assert lost.startswith("lost True 10.9.8.2:8080: "), lost
    assert "imed out" in lost, lost
    assert unreached == "unreached"
