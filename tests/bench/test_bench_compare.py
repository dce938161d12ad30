from __future__ import annotations

import pytest

from bench import compare
from bench.compare import Verdict, changes, differences, only_in, text
from bench.figures import read
from tests.bench.made_results import rounds, write


def result(tmp_path, name, costs_us, **more):
    return read(write(tmp_path / f"{name}.json", rounds("stage: inflate", "test_inflate", costs_us), **more))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([10.0, 10.1, 10.2], [10.4, 10.4, 10.4], Verdict.SAME),
        ([10.0, 10.1, 10.2], [10.6, 10.6, 10.6], Verdict.SLOWER),
        ([10.6, 10.6, 10.6], [10.0, 10.1, 10.2], Verdict.FASTER),
        ([10.0, 11.0, 12.0], [11.9, 11.9, 11.9], Verdict.SAME),
        ([10.0, 10.0, 10.0], [11.0, 12.0, 12.0], Verdict.SAME),
        ([10.0, 11.0, 12.0], [12.1, 12.1, 12.1], Verdict.SLOWER),
        ([10.0], [20.0, 20.0], Verdict.UNKNOWN),
    ],
)
def test_slower_or_faster_is_what_lies_outside_the_noise_of_both(tmp_path, before, after, verdict):
    """5 %, or twice the spread of the noisier one."""
    one, other = result(tmp_path, "a", before), result(tmp_path, "b", after)
    assert [change.verdict for change in changes(one, other)] == [verdict]


def test_what_only_one_has_is_named(tmp_path):
    one = read(
        write(tmp_path / "a.json", rounds("stage: inflate", "t", [1.0]), rounds("stage: a", "t", [1.0]))
    )
    other = read(
        write(tmp_path / "b.json", rounds("stage: inflate", "t", [1.0]), rounds("stage: b", "t", [1.0]))
    )
    assert [figure.name for figure in only_in(one, other)] == ["stage: a"]
    assert "only in A: stage: a" in text(one, other)
    assert "only in B: stage: b" in text(one, other)


def test_machine_versions_and_size_are_said_first(tmp_path):
    one = result(tmp_path, "a", [1.0, 1.0])
    other = result(
        tmp_path,
        "b",
        [2.0, 2.0],
        machine={"cores": 4, "versions": {"pyarrow": "26.0", "isal": "1.7"}, "quick": True},
    )
    assert differences(one, other) == [
        "processor: 2 x Fast CPU | 4 x Fast CPU",
        "isal: none | 1.7",
        "pyarrow: 25.0 | 26.0",
        "size: full | quick",
    ]
    said = text(one, other)
    assert said.index("pyarrow: 25.0 | 26.0") < said.index("slower")


@pytest.mark.parametrize(("after", "code"), [([10.0, 10.0], 0), ([5.0, 5.0], 0), ([20.0, 20.0], 1)])
def test_exit_code_1_if_something_is_slower(tmp_path, monkeypatch, capsys, after, code):
    result(tmp_path, "a", [10.0, 10.0])
    result(tmp_path, "b", after)
    monkeypatch.setattr("sys.argv", ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert compare.main() == code
    assert "commit 0123456789ab" in capsys.readouterr().out


def test_exit_code_2_and_the_reason_if_a_file_is_no_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert compare.main() == 2
    assert "cannot be read" in capsys.readouterr().err
