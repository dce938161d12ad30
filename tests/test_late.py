"""Imports that wait until they are needed."""

from __future__ import annotations

import sys
import threading

from collector.late import import_late

TOGETHER_S = 0.3
"""So long the first import waits for the second to begin beside it, which it must not."""

FIRST = f"""
import sys
began, second_began = sys.modules["late_stage"].events
began.set()
beside = second_began.wait({TOGETHER_S})
"""
SECOND = """
import sys
sys.modules["late_stage"].events[1].set()
"""


def test_one_import_at_a_time(tmp_path, monkeypatch):
    """The page and the first token need one package at once, right after the start, from two threads."""
    (tmp_path / "late_first.py").write_text(FIRST)
    (tmp_path / "late_second.py").write_text(SECOND)
    monkeypatch.syspath_prepend(tmp_path)
    stage = type(sys)("late_stage")
    stage.events = began, second_began = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "late_stage", stage)
    threads = [threading.Thread(target=import_late, args=(name,)) for name in ("late_first", "late_second")]
    threads[0].start()
    assert began.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert second_began.is_set()
    assert not sys.modules["late_first"].beside
    for name in ("late_first", "late_second"):
        del sys.modules[name]
