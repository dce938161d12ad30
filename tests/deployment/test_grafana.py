"""The dashboard: every expression parses and names catalogued metrics."""

from __future__ import annotations

import itertools
import json

import pytest
import yaml
from dockerfile import ROOT
from prometheus_rig import metrics_of, promtool, uncatalogued

from collector.metrics import METRICS

DASHBOARD = json.loads((ROOT / "docs" / "deployment" / "grafana.json").read_text())
PANELS = DASHBOARD["panels"]
TARGETS = [target for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [at["expr"] for at in (*TARGETS, *DASHBOARD["annotations"]["list"])]


def filled(expression: str) -> str:
    """As Grafana sends it."""
    return expression.replace("$stream", "web").replace("$__rate_interval", "5m")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_that_there_are(expression):
    """Of the streams that were chosen, and no others."""
    assert list(metrics_of(expression))
    assert uncatalogued(expression) == set()
    assert expression.count('stream=~"$stream"') == len(list(metrics_of(expression)))


def test_every_expression_parses(tmp_path):
    """By Prometheus itself, as rules that record them."""
    rules = [{"record": f"panel:{n}", "expr": filled(text)} for n, text in enumerate(EXPRESSIONS)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stdout
    path.write_text(path.read_text().replace("5m", "5 parsecs"))
    assert promtool("check", "rules", path).returncode != 0


def test_the_choices_at_the_top():
    """Which Prometheus, and which streams, asked for by a metric that there is."""
    source, stream = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    query = stream["query"]["query"]
    assert query.removeprefix("label_values(").removesuffix(", stream)") in METRICS
    assert {at["datasource"]["uid"] for at in (stream, *PANELS, *TARGETS)} == {"${datasource}"}


def test_panels_say_what_they_show():
    """Title, meaning and unit; none lies over another."""
    taken = set()
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        at = panel["gridPos"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = set(itertools.product(columns, rows))
        assert max(columns) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
