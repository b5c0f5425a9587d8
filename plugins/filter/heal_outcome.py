# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.health import remedies

DOCUMENTATION = r"""
name: heal_outcome
short_description: What healing came to, in words
version_added: "0.1.0"
description:
  - Says for one host what was healed, what was not, and what is left for a person.
author:
  - beta9.workers authors (@beta9)
positional: health, failure
options:
  _input:
    description: What the filter P(beta9.workers.heal_plan#filter) gave for the host.
    type: dict
    required: true
  health:
    description: The host's entry in RV(beta9.workers.health_report#module:hosts) after healing.
    type: dict
    required: true
  failure:
    description: What went wrong while healing. Nothing if empty.
    type: str
    default: ""
"""

EXAMPLES = r"""
msg: "{{ heal_plan | beta9.workers.heal_outcome(health_check_results.hosts[inventory_hostname]) }}"
"""

RETURN = r"""
_value:
  description: One line.
  type: str
"""


def heal_outcome(plan, health, failure=""):
    """Return one line: what was healed, and what needs a person."""
    still = [verdict["id"] for verdict in health["verdicts"] if verdict["id"] in plan["healing"] and verdict["status"] not in ("pass", "not_applicable")]
    healed = [name for name in plan["healing"] if name not in still]
    parts = []
    if healed:
        parts.append("healed: %s" % ", ".join(healed))
    if failure and not still:
        parts.append("a remedy did not run to its end: %s" % failure)
    if still:
        parts.append("not healed: %s%s" % (", ".join(still), " (%s)" % failure if failure else ""))
    parts += ["needs a person: %s %s. Do: %s" % (entry["id"], entry["cause"], remedies.text(entry["remedy"])) for entry in plan["left"]]
    return "; ".join(parts) or "nothing to heal"


class FilterModule:
    """The filter heal_outcome."""

    def filters(self):
        """Return it."""
        return {"heal_outcome": heal_outcome}
