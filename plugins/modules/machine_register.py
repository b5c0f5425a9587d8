#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_register
short_description: Register a machine with the gateway, unless it is ready with the same facts
version_added: "0.1.0"
description:
  - Runs on the worker, with the machine's token.
  - Registering a machine that is C(ready) takes it out of the pool until its next keepalive. So the gateway's view is
    compared first, and only a machine that is not ready, or whose facts differ, is registered.
  - The agent registers by itself. This module is for hosts without it, and for tests.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
attributes:
  check_mode:
    support: full
    description: Says whether the machine would be registered.
  diff_mode:
    support: full
    description: Shows the facts that the gateway has, and those of the host.
  idempotent:
    support: partial
    description: For a machine that is ready. One that is only registered can't be seen by its own token, and is
      registered again.
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
  hostname:
    description: Name or address at which the gateway reaches the host's k3s.
    type: str
    required: true
  cpu:
    description: CPU to offer, as C(8000m). By default all of the host's.
    type: str
  memory:
    description: Memory to offer, as C(16Gi) or C(16384Mi). By default all of the host's.
    type: str
  gpu_count:
    description: Number of GPUs to offer. By default the NVIDIA devices on the PCI bus.
    type: int
  private_ip:
    description: The host's own address. By default the one it uses towards the gateway.
    type: str
  k3s_token_file:
    description:
      - File with the service-account token that the gateway uses at the host's k3s.
      - Without it, the machine's own token is sent, as the guide does. Such a machine becomes ready, but no pod can run
        on it.
    type: path
  force:
    description: Register also a machine that is ready with the same facts.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Register this host
  beta9.workers.machine_register:
    gateway_url: http://127.0.0.1:1994
    token_file: /etc/beta9/credentials/machine_token
    machine_id: 1165a9b6
    pool: gpu
    hostname: 127.77.12.201
"""

RETURN = r"""
machine:
  description: The machine's state, without secrets.
  returned: success
  type: dict
  sample: {id: 1165a9b6, pool: gpu, status: registered, ttl_seconds: 300}
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

import os
from urllib.parse import urlsplit
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner, protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import linux

SPEC = machine_runner.specification(
    {
        "machine_id": {"type": "str", "required": True},
        "pool": {"type": "str", "required": True},
        "provider": {"type": "str", "default": "generic"},
        "hostname": {"type": "str", "required": True},
        "cpu": {"type": "str"},
        "memory": {"type": "str"},
        "gpu_count": {"type": "int"},
        "private_ip": {"type": "str"},
        "k3s_token_file": {"type": "path", "no_log": False},
        "force": {"type": "bool", "default": False},
    }
)

COMPARED = ("hostname", "cpu_millicores", "memory_mib", "gpu_count", "private_ip")


def payload_of(params: dict[str, Any]) -> dict[str, str]:
    """Return the validated body; what was not given is measured on this host."""
    peer = urlsplit(params["gateway_url"]).hostname
    token = params["token"] or api.read_token(params["token_file"])
    return protocol.register_payload(
        token=api.read_token(params["k3s_token_file"]) if params["k3s_token_file"] else token,
        machine_id=params["machine_id"],
        hostname=params["hostname"],
        pool_name=params["pool"],
        provider_name=params["provider"],
        cpu=params["cpu"] or f"{1000 * (os.cpu_count() or 1)}m",
        memory=params["memory"] or f"{linux.memory_mib()}Mi",
        gpu_count=linux.nvidia_pci_count() if params["gpu_count"] is None else params["gpu_count"],
        private_ip=params["private_ip"] or linux.source_address(peer if protocol.is_ip(peer) else "192.0.2.1"),
    )


def facts_of(payload: dict[str, str]) -> dict[str, Any]:
    """Return the comparable facts of a payload."""
    return {
        "hostname": payload["hostname"],
        "cpu_millicores": protocol.cpu_millicores(payload["cpu"]),
        "memory_mib": protocol.memory_mib(payload["memory"]),
        "gpu_count": int(payload["gpu_count"]),
        "private_ip": payload["private_ip"],
    }


def plan(client: api.GatewayClient, params: dict[str, Any]) -> machine_runner.Plan:
    """Return the plan: nothing for a ready machine with the same facts."""
    payload = payload_of(params)
    listed = next(
        (
            machine
            for machine in client.list_ready(payload["pool_name"], payload["provider_name"])
            if machine["id"] == payload["machine_id"]
        ),
        None,
    )
    desired = facts_of(payload)
    before = {name: listed[name] for name in COMPARED} if listed else {}
    if before.get("hostname", "").startswith(desired["hostname"] + "."):  # a gateway on a tailnet adds the suffix
        before["hostname"] = desired["hostname"]
    if listed and before == desired and not params["force"]:
        return machine_runner.Plan(
            before,
            desired,
            None,
            {"machine": {"id": listed["id"], "pool": listed["pool"], "status": "ready", "ttl_seconds": None}},
        )

    def apply() -> dict[str, Any]:
        state = client.register(payload)
        return {
            "machine": {
                "id": payload["machine_id"],
                "pool": payload["pool_name"],
                "status": state.status,
                "ttl_seconds": state.ttl_seconds,
            }
        }

    expected = {"id": payload["machine_id"], "pool": payload["pool_name"], "status": "registered", "ttl_seconds": None}
    return machine_runner.Plan(before, dict(desired, status="registered"), apply, {"machine": expected})


def main() -> None:
    machine_runner.run(SPEC, plan)


if __name__ == "__main__":
    main()
