# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: health_machines
short_description: The machines that the gateway's side shall be asked about
version_added: "0.1.0"
description:
  - Turns what M(beta9.workers.worker_health) found on each worker into its option O(beta9.workers.worker_health#module:machines).
author:
  - beta9.workers authors (@beta9)
positional: hostvars, variable
options:
  _input:
    description: Inventory names.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts.
    type: dict
    required: true
  variable:
    description: Name of the variable that holds each host's result.
    type: str
    required: true
  listed:
    description: Result of M(beta9.workers.machine_info).
    type: dict
    default: {}
"""

EXAMPLES = r"""
machines: "{{ ansible_play_hosts | beta9.workers.health_machines(hostvars, 'seen') }}"
"""

RETURN = r"""
_value:
  description: One entry for each host that could be asked and holds a machine.
  type: list
  elements: dict
"""


def health_machines(names, hostvars, variable, listed=None):
    """Return the machines of the hosts that could be asked and hold one."""
    ready = {machine["id"] for machine in (listed or {}).get("machines") or [] if machine["status"] == "ready"}
    found = []
    for name in names:
        variables = hostvars[name]
        seen = variables[variable] if variable in variables else {}
        identity = seen.get("identity") or {}
        if not identity.get("machine_id"):
            continue
        data = {entry["id"]: entry.get("data") or {} for entry in seen.get("observations", [])}
        entry = {
            "host": name,
            "machine_id": identity["machine_id"],
            "pool": identity.get("pool"),
            "provider": identity.get("provider", "generic"),
            "connection": seen["settings"]["connection"],
            "k3s": seen["settings"]["k3s"],
            "ready": identity["machine_id"] in ready,
        }
        if data.get("V03", {}).get("addresses"):
            entry["tailnet_addresses"] = data["V03"]["addresses"]
        certificate = data.get("K03", {}).get("certificate")
        found.append(dict(entry, k3s_certificate=certificate) if certificate else entry)
    return found


class FilterModule:
    """Filters of the health check."""

    def filters(self):
        """Return them."""
        return {"health_machines": health_machines}
