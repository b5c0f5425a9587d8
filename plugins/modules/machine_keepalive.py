#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_keepalive
short_description: Send one keepalive of a machine
version_added: "0.1.0"
description:
  - Runs on the worker, with the machine's token. A registered machine becomes C(ready) by its first keepalive.
  - The agent does this every minute. This module is for hosts without it, for diagnosis, and for tests.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
attributes:
  check_mode:
    support: full
    description: Sends nothing. Says whether the machine would become ready.
  diff_mode:
    support: full
    description: Shows the status before and after.
  idempotent:
    support: full
    description: Changed only when the machine was not ready before. The keepalive itself is always sent.
options:
  machine_id:
    description: Id of the machine.
    type: str
    required: true
  pool:
    description: Name of the pool.
    type: str
    required: true
  provider:
    description: Name of the provider.
    type: str
    default: generic
  agent_version:
    description: The agent's version, as the gateway shows it.
    type: str
    default: ansible
  metrics:
    description: Metrics to send, by their names in the protocol. Whole numbers where it wants whole numbers.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Send a keepalive
  beta9.workers.machine_keepalive:
    gateway_url: http://127.0.0.1:1994
    token_file: /etc/beta9/credentials/machine_token
    machine_id: 1165a9b6
    pool: gpu
"""

RETURN = r"""
machine:
  description: The machine's state after the keepalive.
  returned: success
  type: dict
  sample: {id: 1165a9b6, pool: gpu, status: ready, ttl_seconds: 300, last_keepalive: 1790000000}
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

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner, protocol

SPEC = machine_runner.specification(
    {
        "machine_id": {"type": "str", "required": True},
        "pool": {"type": "str", "required": True},
        "provider": {"type": "str", "default": "generic"},
        "agent_version": {"type": "str", "default": "ansible"},
        "metrics": {"type": "dict", "default": {}},
    }
)


def plan(client: api.GatewayClient, params: dict[str, Any]) -> machine_runner.Plan:
    """Return the plan. A keepalive of a ready machine is sent as well, and changes nothing that counts."""
    payload = protocol.keepalive_payload(
        params["machine_id"], params["pool"], params["provider"], params["agent_version"], params["metrics"]
    )
    ready = any(
        machine["id"] == payload["machine_id"]
        for machine in client.list_ready(payload["pool_name"], payload["provider_name"])
    )
    return machine_runner.Plan(
        {"status": "ready" if ready else "not ready"},
        {"status": "ready"},
        lambda: send(client, payload),
        {"machine": {"id": payload["machine_id"], "pool": payload["pool_name"], "status": "ready"}},
    )


def send(client: api.GatewayClient, payload: dict[str, Any]) -> dict[str, Any]:
    """Send it and return the machine as the gateway has it now."""
    state = client.keepalive(payload)
    return {
        "machine": {
            "id": payload["machine_id"],
            "pool": payload["pool_name"],
            "status": state.status,
            "ttl_seconds": state.ttl_seconds,
            "last_keepalive": state.last_keepalive,
        }
    }


def main() -> None:
    machine_runner.run(SPEC, plan)


if __name__ == "__main__":
    main()
