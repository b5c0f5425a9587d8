# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: heal_plan
short_description: What may be healed on a host, and which checks tell whether it helped
version_added: "0.1.0"
description:
  - Of a host's verdicts, the remedies of root causes that are safe, or that were asked for.
author:
  - beta9.workers authors (@beta9)
positional: opt_in
options:
  _input:
    description: The host's entry in RV(beta9.workers.health_report#module:hosts).
    type: dict
    required: true
  opt_in:
    description: Whether remedies that change the machine's registration or token may run.
    type: bool
    default: false
"""

EXAMPLES = r"""
plan: "{{ health | beta9.workers.heal_plan }}"
"""

RETURN = r"""
_value:
  description: C(remedies) to run, C(checks) to look at afterwards, C(healing) and C(left) root causes.
  type: dict
"""


def heal_plan(health, opt_in=False):
    """Return the plan for one host."""
    roots = [verdict for verdict in health["verdicts"] if verdict["root"]]
    classes = ("safe", "opt_in") if opt_in else ("safe",)
    healing = [verdict for verdict in roots if verdict["heal"] and verdict["heal_class"] in classes]
    ids = {verdict["id"] for verdict in healing}
    checks = [verdict["id"] for verdict in health["verdicts"] if verdict["id"] in ids or ids & set(verdict["because"])]
    left = [
        {"id": verdict["id"], "cause": verdict["cause"], "remedy": verdict["remedy"]}
        for verdict in roots
        if verdict["id"] not in ids and verdict["status"] == "fail"
    ]
    return {"remedies": sorted({verdict["heal"] for verdict in healing}), "checks": checks, "healing": sorted(ids), "left": left}


class FilterModule:
    """The filter heal_plan."""

    def filters(self):
        """Return it."""
        return {"heal_plan": heal_plan}
