#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: pool_info
short_description: List the pools of a gateway
version_added: "0.1.0"
description:
  - Asks with the admin token, usually from the controller.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
  - beta9.workers.attributes.reads
"""

EXAMPLES = r"""
- name: List the pools
  beta9.workers.pool_info:
    gateway_url: http://gateway.example.com:31994
    token_file: ~/.beta9/admin_token
"""

RETURN = r"""
pools:
  description:
    - One entry a pool, local pools included.
    - C(active) is what the gateway says, and gateways seen so far say V(false) for every pool. C(status) is the state
      of the pool's sizing in upper case, C(HEALTHY) or C(DEGRADED). A pool without a ready machine is degraded.
      C(schedules) tells whether the gateway keeps resources of the pool free, and so starts workers without being
      asked.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: gpu, active: false, gpu: A10G, min_free_gpu: 0, schedules: false, status: HEALTHY}
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

from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner

SPEC = machine_runner.specification({})


def fetch(client: api.GatewayClient, _params: dict[str, Any]) -> dict[str, Any]:
    """Return the pools, sorted by name."""
    return {"pools": sorted(client.list_pools(), key=lambda pool: pool["name"])}


plan = machine_runner.reads(fetch)


def main() -> None:
    machine_runner.run(SPEC, plan)


if __name__ == "__main__":
    main()
