# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: batches
short_description: How many hosts at a time, from text or a list
version_added: "0.2.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Makes the list that a play's C(serial) takes of what a survey, a command line or an inventory gives.
author:
  - beta9.workers authors (@beta9)
options:
  _input:
    description: A number of hosts, a percentage, text with several of them separated by commas, or a list.
    type: raw
    required: true
"""

EXAMPLES = r"""
serial: "{{ '1,10%,100%' | beta9.workers.batches }}"
"""

RETURN = r"""
_value:
  description: Numbers (at least 1) and percentages (V(1%) to V(100%)).
  type: list
  elements: raw
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.beta9.workers.plugins.module_utils import grammar


def batches(given: Any) -> list[int | str]:
    """Return the batches. Raises AnsibleFilterError that says what was expected and found."""
    try:
        return grammar.batches(given)
    except grammar.InvalidField as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"batches": batches}
