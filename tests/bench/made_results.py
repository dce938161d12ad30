"""Results as ``scripts/bench`` writes them, with figures of the test's choice."""

from __future__ import annotations

import json

MACHINE = {
    "python_version": "3.11.7",
    "system": "Linux",
    "release": "6.1",
    "cpu_model": "Fast CPU",
    "cores": 2,
    "collector": "1.0",
    "versions": {"pyarrow": "25.0"},
    "quick": False,
}


def record(group, test, cost_us, round_=0, extra=None, **params):
    ids = "-".join([f"round{round_}", *map(str, params.values())])
    return {
        "group": group,
        "name": f"{test}[{ids}]",
        "fullname": f"bench/{test}.py::{test}[{ids}]",
        "params": {"round_": round_, **params},
        "extra_info": {"hits": 1000, "cpu_us_per_hit": cost_us, **(extra or {})},
        "stats": {"min": 1.0},
    }


def rounds(group, test, costs_us, extra=None, **params):
    return [record(group, test, cost_us, at, extra, **params) for at, cost_us in enumerate(costs_us)]


def write(path, *groups, machine=None, commit="0123456789abcdef", dirty=False):
    content = {
        "machine_info": MACHINE | (machine or {}),
        "commit_info": {"id": commit, "dirty": dirty},
        "benchmarks": [one for group in groups for one in group],
        "datetime": "2026-11-24T02:25:54.773253+00:00",
        "version": "5.3.1",
    }
    path.write_text(json.dumps(content))
    return path
