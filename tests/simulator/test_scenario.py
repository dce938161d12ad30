"""Scenario files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collector.errors import ConfigurationError
from collector.simulator.scenario import How, load, parse


def faults(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    return str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    """Whoever mends a scenario reads of every fault, each with its place."""
    message = faults(
        """
        colour = 1
        [service]
        ghosts = 3
        overlap_s = -1
        [[rule]]
        request = "2"
        [rule.answer]
        status = "503"
        [[rule]]
        requests = "2-x"
        [rule.cut]
        how = "axe"
        after = 3
        """
    )
    for part in (
        "colour",
        "service.ghosts",
        "service.overlap_s: -1",
        "rule 1.request:",
        "rule 1.answer.status: '503'",
        "rule 2.cut.how: 'axe'",
        "rule 2.cut.after:",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[[rule]]\nrequests = '2-x'", "rule 1.requests"),
        ("[[rule]]\nrequests = '0'", "rule 1.requests"),
        ("[[rule]]\nanswer = {body = 'x'}", "rule 1.answer.status: missing"),
        ("[[rule]]\nanswer = 503", "rule 1.answer: must be a table"),
        ("[[rule]]\nanswer = {status = 503}\nredirect = {}", "exclude each other"),
        ("[[rule]]\nanswer = {status = 503}\nstall = {}", "opens none"),
        ("[[rule]]\nendpoint = 'token'\nstall = {}", "only"),
        ("[[rule]]\ncut = {how = 'clean', after_bytes = 3}", "rule 1.cut"),
        ("[[rule]]\ntrickle = {bytes_per_second = 0}", "rule 1.trickle.bytes_per_second"),
        ("rule = 3", "[[rule]]"),
        ("service = 3", "service"),
        ("a = ", "not TOML"),
    ],
)
def test_each_fault_has_its_place(text: str, part: str) -> None:
    """A fault is named with the key it is at."""
    assert part in faults(text)


def test_missing_file_is_a_configuration_error(tmp_path) -> None:
    """A scenario that cannot be read is told by its path."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        load(tmp_path / "nowhere.toml")


def test_file_names_itself_in_faults(tmp_path) -> None:
    """A faulty scenario file is told by its path."""
    (tmp_path / "bad.toml").write_text("colour = 1")
    with pytest.raises(ConfigurationError, match=r"bad\.toml: colour"):
        load(tmp_path / "bad.toml")


def test_rules_match_by_number_and_time() -> None:
    """A rule decides about its endpoint's requests of its numbers in its time."""
    rule = parse("[[rule]]\nrequests = '1, 3-4,7-'\nfrom_s = 5\nuntil_s = 10").rules[0]
    assert [n for n in range(1, 10) if rule.matches("stream", n, 5.0)] == [1, 3, 4, 7, 8, 9]
    assert not rule.matches("stream", 1, 4.9)
    assert not rule.matches("stream", 1, 10.0)
    assert not rule.matches("token", 1, 6.0)


def test_examples_of_the_documentation_are_scenarios() -> None:
    """What docs/simulator.md shows can be played."""
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert [len(parse(example).rules) for example in examples] == [3, 4]


def test_effects_come_in_order_and_the_cut_last() -> None:
    """Effects of the same moment end with the cut."""
    text = (
        "[[rule]]\ncut = {after_hits = 5, how = 'fin'}\nresend = {after_hits = 5}\nstall = {after_hits = 2}"
    )
    effects = parse(text).rules[0].effects()
    assert [type(it).__name__ for it in effects] == ["Stall", "Resend", "Cut"]
    assert parse(text).rules[0].cut.how is How.FIN
