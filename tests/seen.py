"""What was seen on which system: with B9_RECORD=1 a run of tests writes it to docs/systems.json, of which the support matrix is made.

A test says so by the property "seen" of its node: (system, what was run, how the system was played).
"""

from __future__ import annotations

import datetime
import json
import os

from tests.conftest import ROOT

RECORD = ROOT / "docs/systems.json"


class Seen:
    """A plugin of pytest that counts."""

    def __init__(self):
        self.passed, self.failed = {}, set()

    def pytest_runtest_logreport(self, report):
        for key in [tuple(value) for name, value in report.user_properties if name == "seen"]:
            if report.failed:
                self.failed.add(key)
            elif report.when == "call" and report.passed:
                self.passed[key] = self.passed.get(key, 0) + 1

    def pytest_sessionfinish(self):
        known = {(row["system"], row["what"], row["how"]): row for row in json.loads(RECORD.read_text(encoding="utf-8"))} if RECORD.exists() else {}
        for key, number in self.passed.items():
            known[key] = dict(zip(("system", "what", "how"), key), tests=number, date=datetime.date.today().isoformat())
        for key in self.failed:
            known.pop(key, None)
        rows = sorted(known.values(), key=lambda row: (row["system"], row["what"], row["how"]))
        RECORD.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def register(config):
    """Count in this run, if it is to be written down."""
    if os.environ.get("B9_RECORD") and not config.pluginmanager.has_plugin("beta9-seen"):
        config.pluginmanager.register(Seen(), "beta9-seen")


def say(request, *keys):
    """Let a test tell what it saw."""
    request.node.user_properties.extend(("seen", key) for key in keys)
