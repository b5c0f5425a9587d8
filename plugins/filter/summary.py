# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: summary
short_description: A table, and below it what hosts have to say, as a list of lines
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Returns a line a row with aligned columns, then each message once with the hosts that have it.
author:
  - beta9.workers authors (@beta9)
options:
  _input:
    description:
      - C(rows), lists of cells, the first of them the heads of the columns.
      - C(notes) and C(failures), both messages by host. An empty message is left out.
    type: dict
    required: true
"""

EXAMPLES = r"""
lines: "{{ {'rows': [['HOST', 'STATUS'], ['worker1', 'ready']], 'failures': {'worker2': 'no space left'}} |
  beta9.workers.summary }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.beta9.workers.plugins.plugin_utils import tables


def summary(found: dict[str, Any]) -> list[str]:
    """Return the lines of a table, of notes, and of failures."""
    return (
        tables.aligned(found["rows"])
        + tables.grouped("WARNING", found.get("notes", {}))
        + tables.grouped("FAILED", found.get("failures", {}))
    )


class FilterModule:
    """The filter summary."""

    def filters(self) -> dict:
        """Return it."""
        return {"summary": summary}
