# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: heal_plan
short_description: What may be healed on a host
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Of a host's root causes, those whose remedies are safe, or were asked for. A warning is left alone unless its remedy
    is safe.
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
  description: C(remedies) to run, and C(roots), each with what is done about it in C(does) - V(heal), V(ask), V(person)
    or V(watch).
  type: dict
"""

from typing import Callable

from ansible_collections.beta9.workers.plugins.plugin_utils import health_healing


class FilterModule:
    """The filter heal_plan."""

    def filters(self) -> dict[str, Callable]:
        """Return it."""
        return {"heal_plan": health_healing.plan}
