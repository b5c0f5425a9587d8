# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: problem_lines
short_description: The problems of many hosts as lines of text, each problem once
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Takes what preflight found on each host, and returns lines that name each problem once, with the hosts that have it.
author:
  - beta9.workers authors (@beta9)
options:
  _input:
    description: A dictionary of host names to lists of problems, as module M(beta9.workers.host_preflight#module)
      returns them.
    type: dict
    required: true
"""

EXAMPLES = r"""
lines: "{{ {'worker1': __preflight_host.problems} | beta9.workers.problem_lines }}"
"""

RETURN = r"""
_value:
  description: Lines of text. None where there is no problem.
  type: list
  elements: str
"""

from ansible_collections.beta9.workers.plugins.module_utils.host import preflight


class FilterModule:
    """The filter problem_lines."""

    def filters(self) -> dict:
        """Return it."""
        return {"problem_lines": preflight.lines}
