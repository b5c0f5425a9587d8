# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: heal_table
short_description: What healing did, as one table for people
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - A line for each root cause of each host, with what was done about it and what came of it.
author:
  - beta9.workers authors (@beta9)
options:
  _input:
    description: What the filter P(beta9.workers.heal_outcome#filter) gave, by host.
    type: dict
    required: true
"""

EXAMPLES = r"""
msg: "{{ {'gpu-1': heal_result} | beta9.workers.heal_table }}"
"""

RETURN = r"""
_value:
  description: Its lines.
  type: list
  elements: str
"""

from typing import Callable

from ansible_collections.beta9.workers.plugins.plugin_utils import health_healing


class FilterModule:
    """The filter heal_table."""

    def filters(self) -> dict[str, Callable]:
        """Return it."""
        return {"heal_table": health_healing.table}
