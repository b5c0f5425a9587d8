#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_info
short_description: List the machines of a gateway
version_added: "0.1.0"
description:
  - Asks with the admin token, usually from the controller. No token is ever part of the result.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
  - beta9.workers.attributes.reads
options:
  pool:
    description: Only machines of this pool.
    type: str
  machine_id:
    description: Only the machine with this id.
    type: str
  wait_ready:
    description: Ids of machines to wait for until all of them are C(ready). That they are not in the end is no failure
      of this module.
    type: list
    elements: str
    default: []
  wait_seconds:
    description: How long to wait for O(wait_ready), asking once a second.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: List the machines
  beta9.workers.machine_info:
    gateway_url: http://gateway.example.com:31994
    token_file: ~/.beta9/admin_token
  register: found

- name: Give those that were just onboarded a moment
  beta9.workers.machine_info:
    gateway_url: http://gateway.example.com:31994
    token_file: ~/.beta9/admin_token
    wait_ready: [1165a9b6, 9c40e2d7]
  register: found

- name: Name those that are not ready
  ansible.builtin.debug:
    msg: "{{ found.machines | rejectattr('status', 'equalto', 'ready') | map(attribute='id') }}"
"""

RETURN = r"""
machines:
  description: One entry a machine. CPU in millicores, memory in MiB, times in seconds since 1970.
  returned: success
  type: list
  elements: dict
  sample:
    - {id: 1165a9b6, pool: gpu, provider: generic, status: ready, gpu: A10G, gpu_count: 1, cpu_millicores: 8000,
      memory_mib: 16384,
       last_keepalive: 1790000000, created: 1789990000, agent_version: 0.1.0, metrics: {free_gpu_count: 1}}
code:
  description:
    - Stable code of the failure, C(machine_not_found) for example.
  returned: failure
  type: str
cause:
  description: What the failure means.
  returned: failure
  type: str
remedy:
  description: What to do.
  returned: failure
  type: str
retryable:
  description: Whether the same call may succeed later without any change.
  returned: failure
  type: bool
"""

import time
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner, protocol

SPEC = machine_runner.specification(
    {
        "pool": {"type": "str"},
        "machine_id": {"type": "str"},
        "wait_ready": {"type": "list", "elements": "str", "default": []},
        "wait_seconds": {"type": "int", "default": 10},
    }
)


def fetch(client: api.GatewayClient, params: dict[str, Any]) -> dict[str, Any]:
    """Return the machines, sorted by pool and id."""
    if params["pool"]:
        protocol.pool_name(params["pool"])
    if params["machine_id"]:
        protocol.machine_id(params["machine_id"])
    deadline = time.monotonic() + params["wait_seconds"]
    while True:
        machines = [
            machine for machine in client.list_machines(params["pool"]) if params["machine_id"] in (None, machine["id"])
        ]
        ready = {machine["id"] for machine in machines if machine["status"] == "ready"}
        if ready.issuperset(params["wait_ready"]) or time.monotonic() > deadline:
            return {"machines": sorted(machines, key=lambda machine: (machine["pool"], machine["id"]))}
        time.sleep(1)


plan = machine_runner.reads(fetch)


def main() -> None:
    machine_runner.run(SPEC, plan)


if __name__ == "__main__":
    main()
