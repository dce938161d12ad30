"""Every component of the storage layer, the power failing after every disk call of it.

What was not synced is then kept, dropped or garbled, bytes and names alike, each by itself.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from components import COMPONENTS, Acknowledged, Component, attempt
from faulty_disk import Crashed, Fate, FaultyDisk, LossyDisk

KEPT, DROPPED, GARBLED = Fate.KEPT, Fate.DROPPED, Fate.GARBLED

EVERYDAY = range(4)
MATRIX = range(4, 40)
"""Numbers of ways to draw fates: all the same, in turns, then at random."""

SYNCED = [name for name in COMPONENTS if name != "lock"]
"""What the lock's files say is about processes, and these are gone with the power."""


def fates(number: int) -> Iterator[Fate]:
    chance = random.Random(number)
    patterns = [[KEPT], [DROPPED], [GARBLED], [DROPPED, KEPT, GARBLED], [KEPT, DROPPED], [DROPPED, KEPT]]
    while True:
        yield from patterns[number] if number < len(patterns) else [chance.choice([*Fate])]


@pytest.mark.parametrize("name", SYNCED)
@pytest.mark.parametrize("started", [False, True], ids=["power", "killed, started, power"])
@pytest.mark.parametrize(
    "ways", [EVERYDAY, pytest.param(MATRIX, marks=[pytest.mark.matrix, pytest.mark.timeout(1800)])], ids=repr
)
def test_what_was_acknowledged_outlives_the_power(
    memory_path: Path, name: str, started: bool, ways: range
) -> None:
    """After every call: it is there, what is there is what was written, and the next start takes it.

    Also when that start found everything as a killed process left it, and the power fails after it.
    """
    for call in range(1, 400):
        fired = [
            fail(memory_path / f"{call}-{number}", COMPONENTS[name], call, number, started=started)
            for number in ways
        ]
        if not all(fired):
            break
    assert not any(fired)


def fail(root: Path, component: Component, call: int, number: int, *, started: bool) -> bool:
    root.mkdir()
    component.prepare(root)
    lossy, acknowledged = LossyDisk(root.parent), Acknowledged(more={"can clean": False})
    disk = FaultyDisk(call, over=lossy)
    assert attempt(component, disk, root, acknowledged) in {None, Crashed}
    if started:
        component.judge(lossy, root, acknowledged)
    lossy.lose_power(fates(number).__next__, number)
    component.judge(FaultyDisk(), root, acknowledged)
    shutil.rmtree(root)
    return disk.fired
