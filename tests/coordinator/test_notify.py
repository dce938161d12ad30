"""The notify protocol as such; with a whole collector it is tests/system/test_service_manager.py."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from collector.coordinator import notify
from collector.coordinator.notify import Notify
from collector.errors import ConfigurationError
from collector.escaping import conceal


@pytest.fixture
def manager(tmp_path):
    """The socket that stands in for systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        yield manager


@pytest.fixture
def told(manager):
    """A ``Notify`` that speaks to it; the socket it made ends with the test."""
    told = Notify(manager.getsockname())
    yield told
    told._socket.close()


@pytest.mark.parametrize(
    "address", ["", "nonsense", "vsock:2:1", "/nowhere/at/all", "@nobody", "/" + "x" * 200]
)
def test_an_address_without_a_listener_harms_nothing(address):
    """Whatever NOTIFY_SOCKET holds: no call blocks or raises."""
    told = Notify.taken_from({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "nonsense"})
    with told.last_words(), told.starting(), told.reloading():
        pass
    assert bool(told.companions) is address.startswith(("/", "@"))
    if told._socket is not None:
        told._socket.close()


def test_the_environment_keeps_nothing_of_it():
    """Whatever is started later cannot speak in the collector's name."""
    environ = {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notify.taken_from(environ)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("pid", "watchdog_s"), [("", 2.0), (str(os.getpid()), 2.0), (str(os.getpid() + 1), None), ("x", None)]
)
def test_the_watchdog_of_this_process_alone(pid, watchdog_s):
    """WATCHDOG_PID names whose signs of life are wanted; without it they are ours."""
    assert Notify.taken_from({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": pid})._watchdog_s == watchdog_s


def test_a_long_start_asks_for_more_time_again_and_again(manager, told, monkeypatch):
    """While recovery blocks the manager goes on waiting; afterwards nothing is asked for any more."""
    monkeypatch.setattr(notify, "EXTENSION_S", 0.03)
    before = threading.active_count()
    with told.starting():
        heard = [manager.recv(1024) for _ in range(4)]
    starting, *extensions = heard
    assert starting == b"STATUS=Starting: the work of the last run is taken up"
    assert extensions == [b"EXTEND_TIMEOUT_USEC=30000"] * 3
    assert threading.active_count() == before


def test_a_reload_begins_and_ends(manager, told):
    """RELOADING with the time that `Type=notify-reload` wants; then READY, whatever came of it."""
    with pytest.raises(ConfigurationError), told.reloading():
        raise ConfigurationError("no")
    reloading, _, monotonic = manager.recv(1024).decode().partition("\nMONOTONIC_USEC=")
    assert (reloading, monotonic.isdecimal()) == ("RELOADING=1", True)
    assert manager.recv(1024) == b"READY=1"


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigurationError("no\nREADY=1 hush-hush"), 2), (KeyError("x"), 1)],
)
def test_last_words_are_one_line_without_a_secret(manager, told, error, code):
    """Foreign text can make no second field, and the status is no place for a secret."""
    conceal("hush-hush")
    with pytest.raises(type(error)), told.last_words():
        raise error
    words = manager.recv(1024).decode()
    assert words.startswith(f"STATUS=Ended with exit code {code}: ")
    assert "\n" not in words
    assert "hush" not in words
