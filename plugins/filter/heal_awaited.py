# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: heal_awaited
short_description: Which hosts may still become healthy by what was done
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Of the hosts that are not healthy yet, those whose healed causes are still seen, and those that have no other cause.
author:
  - beta9.workers authors (@beta9)
positional: hosts
options:
  _input:
    description: What the filter P(beta9.workers.heal_plan#filter) gave, by host.
    type: dict
    required: true
  hosts:
    description: RV(beta9.workers.health_report#module:hosts) as it is now.
    type: dict
    required: true
"""

EXAMPLES = r"""
awaited: "{{ {'gpu-1': heal_plan} | beta9.workers.heal_awaited(health_check_results.hosts) }}"
"""

RETURN = r"""
_value:
  description: Names of hosts.
  type: list
  elements: str
"""

from typing import Callable

from ansible_collections.beta9.workers.plugins.plugin_utils import health_healing


class FilterModule:
    """The filter heal_awaited."""

    def filters(self) -> dict[str, Callable]:
        """Return it."""
        return {"heal_awaited": health_healing.awaited}
