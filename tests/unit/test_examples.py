# Copyright: beta9.workers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alert rules and dashboard are what Prometheus and Grafana read, and name metrics that the agent writes, with labels
that these have."""

from __future__ import annotations

import collections
import json
import pathlib
import re
import types

import yaml
from beta9_agent import gpu_health, report
from beta9_agent.gpus import Health, Reading
from beta9_agent.history import History

ROOT = pathlib.Path(__file__).parents[2]
RULES = ROOT / "examples/monitoring/beta9-alerts.yml"
BOARD = ROOT / "examples/monitoring/beta9-gpus.json"
METRIC = re.compile(r"\b(beta9_agent_\w+)(?:\{([^}]*)\})?")
TARGET = {"instance", "job"}  # labels that Prometheus adds


def written() -> dict[str, set[str]]:
    """Names of the metrics that the agent writes of a GPU with a problem, with their labels."""
    gpu = {
        "index": 0,
        "uuid": "GPU-a",
        "temperature": 40,
        "power": 90000,
        "power_limits": [4, 4],
        "uncorrected": 1,
        "links": [12, 12, 0],
        "pcie": [4, 4, 16, 16],
    }
    health = Health((gpu,), (gpu_health.Finding("U11", "", 0, "errors", "grave"),), {"GPU-a": False}, 1.0)
    history = History(counts=collections.Counter({"keepalives": 1, "registrations": 1, "refused": 1}))
    shot = report.Snapshot(
        now=2.0,
        epoch=2.0,
        config=types.SimpleNamespace(machine_id="a", pool_name="b", provider_name="c", keepalive_interval=60),
        status="ready",
        problem=None,
        failures=0,
        action="keepalive",
        due=60.0,
        ttl_seconds=300,
        last_accepted=1.0,
        gateway_epoch=None,
        registrations=(),
        gpu=Reading(health=health),
        troubles={"gpu": "x"},
        history=history,
    )
    text = report.prometheus(shot)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {re.match(r"\w+", line)[0]: set(re.findall(r'(\w+)="', line)) for line in lines}


def expressions() -> list[str]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert all(
        {"alert", "expr", "labels", "annotations"} <= set(rule)
        and rule["labels"]["severity"] in ("critical", "warning")
        for rule in rules
    )
    board = json.loads(BOARD.read_text())
    identities = [panel["id"] for panel in board["panels"]]
    assert len(set(identities)) == len(identities) and board["schemaVersion"] and board["title"]
    texts = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries = [entry["query"] for entry in board["templating"]["list"] if entry["type"] == "query"]
    shown = [text for rule in rules for text in rule["annotations"].values()]
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(shown)))
    assert used <= TARGET | {"gpu", "uuid", "check", "code"}
    return [rule["expr"] for rule in rules] + texts + queries


def test_every_metric_and_label_is_one_that_the_agent_writes():
    metrics, named = written(), set()
    for expression in expressions():
        assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}"), (
            expression
        )
        for name, labels in METRIC.findall(expression):
            named.add(name)
            assert name in metrics, "%s in %s" % (name, expression)
            assert set(re.findall(r"(\w+)[!=]=?~?\"", labels)) <= metrics[name] | TARGET, expression
    assert len(named) > 10


def test_every_metric_of_a_gpu_is_shown_or_alerted():
    named = {name for expression in expressions() for name, _labels in METRIC.findall(expression)}
    own = {name for name in written() if name.startswith("beta9_agent_gpu_")}
    assert own - named <= {"beta9_agent_gpu_health_timestamp_seconds", "beta9_agent_gpu_pcie_link_generation"}
