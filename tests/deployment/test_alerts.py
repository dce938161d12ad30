"""The alert rules: those that `explain` knows, about metrics that there are, each with its paragraph."""

from __future__ import annotations

import copy
import re

import pytest
import yaml
from dockerfile import ROOT
from prometheus_rig import headings, metrics_of, promtool, uncatalogued

from collector.explanations.alerts import ALERTS

FOLDER = ROOT / "docs" / "deployment"
FILE = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
RULES = FILE["groups"][0]["rules"]
CASES = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())["tests"]
MEANS = {alert.code: alert.means for alert in ALERTS}


def test_the_rules_are_the_table():
    """Whoever is paged finds the alert's name in `explain`, and none is explained that never fires."""
    assert [rule["alert"] for rule in RULES] == list(MEANS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_what_it_means_and_where_more_is(rule):
    """The words of `explain`, a paragraph that exists, and whether it is for the night."""
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["description"] == MEANS[rule["alert"]]
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in headings(ROOT / path)
    assert rule["alert"] in (ROOT / path).read_text()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_metrics_that_there_are(rule):
    """A misspelt name would never fire, and nobody would notice."""
    assert list(metrics_of(rule["expr"]))
    assert uncatalogued(rule["expr"]) == set()


@pytest.mark.parametrize("alert", MEANS)
def test_each_alert_is_shown_to_fire_and_not_to_fire(alert):
    """In alerts.test.yaml, at some time each."""
    expected = {
        bool(at["exp_samples"])
        for case in CASES
        for at in case["promql_expr_test"]
        if f'alertname="{alert}"' in at["expr"]
    }
    assert expected == {True, False}


def test_prometheus_takes_the_rules_and_they_do_as_they_should():
    """`promtool check rules`, and `promtool test rules`."""
    checked = promtool("check", "rules", "--lint-fatal", FOLDER / "alerts.yaml")
    assert checked.returncode == 0, checked.stdout
    tested = promtool("test", "rules", FOLDER / "alerts.test.yaml")
    assert tested.returncode == 0, tested.stdout


def test_prometheus_takes_the_configuration_of_the_documentation(tmp_path):
    """With the job that LivestreamDown asks for, and the rules beside it."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    (found,) = re.findall(r"```yaml\n(# prometheus.yml.*?)```", page, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(found)
    (tmp_path / "alerts.yaml").write_text((FOLDER / "alerts.yaml").read_text())
    checked = promtool("check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout
    job = yaml.safe_load(found)["scrape_configs"][0]["job_name"]
    assert f'up{{job="{job}"}}' in RULES[0]["expr"]


@pytest.mark.parametrize("number", range(len(RULES)), ids=MEANS)
def test_the_cases_notice_a_rule_that_is_off(number, tmp_path):
    """With any other threshold a case of that alert fails."""
    wrong = copy.deepcopy(FILE)
    rule = wrong["groups"][0]["rules"][number]
    rule["expr"] = re.sub(r"([<>]=? |== )(\d)", r"\g<1>100\2", rule["expr"])
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(wrong))
    (tmp_path / "alerts.test.yaml").write_text((FOLDER / "alerts.test.yaml").read_text())
    tested = promtool("test", "rules", tmp_path / "alerts.test.yaml")
    assert tested.returncode != 0
    assert rule["alert"] in tested.stdout
