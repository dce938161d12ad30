"""The matrix: every step of the way from the socket to a committed part, and everything that can befall it.

A line is a step and a fault. Everyday runs draw a sample (its seed is printed, ``--fault-seed`` repeats
it); ``--all`` plays every line. After each one the oracle judges everything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from fault_rig import Rig
from faults.plan import CONNECTIONS, ROTATION, RUNNING, Fault, Point, named, sticky

RARE = ("hour-folder", "resends-published")
"""Steps that come once in these streams."""

RECOVERY_CALLS = 40
"""That a start after a crash makes to change the disk, and some more."""


@dataclass(frozen=True)
class Line:
    name: str
    play: Callable[[Rig, Fault], None]
    fault: Fault


# ---------------------------------------------------------------- killed


def killed(rig: Rig, fault: Fault) -> None:
    """One process or all of them, before or after a step: the next run, or the next child, goes on."""
    rig.add(fault)
    rig.start()
    rig.until_fired(fault)
    restart_if_dead(rig, fault)
    rig.finish()


def restart_if_dead(rig: Rig, fault: Fault) -> None:
    if fault.process == "coordinator" or fault.effect == "kill_all":
        rig.ends(-9)
        rig.start()
    else:
        rig.wait_until(lambda: rig.collector.events("child.died"), "its death to be noticed")


def killed_later(rig: Rig, fault: Fault) -> None:
    """The same for a step that the first start takes for another reason."""
    rig.add(fault, armed=False)
    rig.start()
    rig.until_rows(300)
    rig.faults.arm(fault)
    rig.until_fired(fault)
    restart_if_dead(rig, fault)
    rig.finish()


def killed_in_drain(rig: Rig, fault: Fault) -> None:
    """The same for what only a drain does."""
    rig.add(fault)
    rig.start()
    rig.until_rows(500)
    rig.collector.process.terminate()
    rig.until_fired(fault)
    survives = fault.process == "decoder" and fault.effect == "kill"
    rig.ends(0 if survives else -9)
    rig.start()
    rig.finish()


def killed_again(rig: Rig, fault: Fault) -> None:
    """Everything dies between a decision and its renames; the next start is killed at one of its steps."""
    rig.add(named("hits published").fault("kill_all", nth=3))
    rig.add(fault, armed=False)
    rig.start()
    rig.ends(-9)
    rig.faults.arm(fault)
    rig.start()
    rig.until_fired(fault)
    rig.ends(-9)
    rig.start()
    rig.finish()


# ---------------------------------------------------------------- errors


def begin(rig: Rig, fault: Fault) -> None:
    """A fault in the middle of the work, or at the first call where there are few."""
    early = any(name in fault.name for name in RARE)
    rig.add(fault, armed=early)
    rig.start()
    if not early:
        rig.until_rows(300)
        rig.faults.arm(fault)
    rig.until_fired(fault)


def full(rig: Rig, fault: Fault) -> None:
    """No room until somebody makes room: work waits, nothing partial is visible, it resumes by itself."""
    begin(rig, fault)
    rig.wait_until(lambda: rig.collector.events("storage.full"), "it to be said")
    rig.assert_nothing_partial()
    rig.faults.lift(fault)
    rig.finish()
    assert rig.collector.events("child.died") == []
    assert len(rig.service.requests) == 1


def full_once(rig: Rig, fault: Fault) -> None:
    """One write finds no room, the next one does."""
    begin(rig, fault)
    rig.finish()
    assert rig.collector.events("child.died") == []


def full_while_cut(rig: Rig, fault: Fault) -> None:
    """The journal has no room and the service closes: no request until there is room again."""
    begin(rig, fault)
    rig.wait_until(lambda: rig.collector.events("storage.full"), "it to be said")
    rig.wait_until(lambda: rig.collector.events("connection.paused"), "the transfer to pause")
    rig.service.cut("rst")
    fired = rig.faults.fired(fault)
    rig.until_fired(fault, fired + 3)  # tried again every second, and the floor is shorter
    assert len(rig.service.requests) == 1, "no request while there is no room"
    rig.faults.lift(fault)
    rig.finish()


def broken(rig: Rig, fault: Fault) -> None:
    """What must not be tried again ends the collector with exit 4; the next run misses nothing."""
    begin(rig, fault)
    rig.ends(4)
    rig.assert_nothing_partial()
    rig.start()
    rig.finish()


def staged_anew(rig: Rig, fault: Fault) -> None:
    """A staged file that cannot be synced is deleted and staged again; nobody dies."""
    full_once(rig, fault)


def unharmed(rig: Rig, fault: Fault) -> None:
    """A disk that is slow for five seconds or writes half: nobody is killed, the connection stays."""
    begin(rig, fault)
    rig.finish()
    assert rig.collector.events("child.died") == []
    assert len(rig.service.requests) == 1


# ---------------------------------------------------------------- the table


def line(play: Callable[[Rig, Fault], None], fault: Fault) -> Line:
    return Line(f"{play.__name__}-{fault.name}", play, fault)


def kills(points: tuple[Point, ...], play: Callable[[Rig, Fault], None]) -> Iterator[Line]:
    for point in points:
        for effect in ("kill", "kill_all"):
            for when in ("before", "after"):
                yield line(play, point.fault(effect, when))


def errors(play: Callable[[Rig, Fault], None], effects: str, points: str) -> Iterator[Line]:
    for name in points.split(", "):
        for effect in effects.split():
            yield line(play, named(name).fault(effect))


def lasting(play: Callable[[Rig, Fault], None], effects: str, points: str) -> Iterator[Line]:
    for found in errors(play, effects, points):
        yield line(play, sticky(found.fault))


WAITS = "segment allocated, segment header, part written, part created, ids written, hour folder made"
LOGGED = "intent appended, committed appended, hits published, resends published"
TABLE: dict[str, list[Line]] = {
    "killed": [*kills(RUNNING, killed)],
    "killed in a rotation": [*kills(ROTATION, killed_later)],
    "killed in a drain": [*kills(CONNECTIONS, killed_in_drain)],
    "killed in recovery": [
        line(
            killed_again,
            Fault(f"again-{effect}-{nth}", "coordinator", "*", effect=effect, nth=nth, when=when),
        )
        for nth in range(1, RECOVERY_CALLS)
        for effect, when in [("kill", "after")]
    ],
    "full": [
        *lasting(full, "ENOSPC EDQUOT", f"journal append, {WAITS}, {LOGGED}, ids merge written"),
        *errors(full_once, "ENOSPC", f"journal append, {WAITS}, {LOGGED}, ids merge written"),
        *errors(full_once, "ENOSPC", "archive written, log written anew"),
        *lasting(full_while_cut, "ENOSPC", "segment allocated, journal append"),
    ],
    "broken": [
        *errors(broken, "EIO EROFS", "journal append, segment named, part written, intent appended"),
        *errors(broken, "EIO EROFS", "hits published, ids published, floor written, segment freed"),
        *errors(broken, "EIO ENOSPC", "journal sync, segment synced, intent synced, committed synced"),
        *errors(broken, "EIO ENOSPC", "floor synced, hour folder synced, ids merge synced"),
        *errors(broken, "EIO", "archive synced, archive named, log synced anew, log replaced"),
    ],
    "staged anew": [*errors(staged_anew, "EIO ENOSPC", "part synced, ids synced")],
    "slow": [
        line(unharmed, named(name).fault("delay", delay_s=5.0))
        for name in ("journal sync", "segment synced", "part synced", "intent synced", "floor synced")
    ],
    "short": [
        *errors(
            unharmed, "short", "journal append, part written, ids written, intent appended, floor written"
        )
    ],
}
SAMPLE = {
    "killed": 3,
    "killed in a rotation": 1,
    "killed in a drain": 1,
    "killed in recovery": 1,
    "full": 1,
    "broken": 1,
    "slow": 1,
}


def pytest_generate_tests(metafunc):
    if "line" not in metafunc.fixturenames:
        return
    draw = random.Random(metafunc.config.getoption("--fault-seed"))
    chosen = {found.name for group, size in SAMPLE.items() for found in draw.sample(TABLE[group], size)}
    metafunc.parametrize(
        "line",
        [
            pytest.param(found, id=found.name, marks=() if found.name in chosen else pytest.mark.matrix)
            for group in TABLE.values()
            for found in group
        ],
    )


@pytest.fixture
def rig(tmp_path) -> Iterator[Rig]:
    found = Rig(tmp_path / "rig", overlap_s=30.0)
    yield found
    found.close()


def test_line(rig, line):
    """A fault at a step: nothing is lost, doubled, invented or left over, and it goes on."""
    line.play(rig, line.fault)
