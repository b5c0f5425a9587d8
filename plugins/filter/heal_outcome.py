# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: heal_outcome
short_description: What healing came to
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Says for one host what was healed, what was not, and what is left for a person.
author:
  - beta9.workers authors (@beta9)
positional: health, failure, check
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
  check:
    description: Whether nothing was done, because it is check mode.
    type: bool
    default: false
"""

EXAMPLES = r"""
result: "{{ heal_plan | beta9.workers.heal_outcome(health_check_results.hosts[inventory_hostname]) }}"
"""

RETURN = r"""
_value:
  description: C(healthy), a C(message) in one line, and C(rows) of root cause, what was done, and result.
  type: dict
"""

from typing import Callable

from ansible_collections.beta9.workers.plugins.plugin_utils import health_healing


class FilterModule:
    """The filter heal_outcome."""

    def filters(self) -> dict[str, Callable]:
        """Return it."""
        return {"heal_outcome": health_healing.outcome}
