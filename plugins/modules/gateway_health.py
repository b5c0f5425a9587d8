#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_health
short_description: Check the gateway's side of workers with all probes at once
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Runs the probes of the gateway's cluster and Redis side by side, each with its own time limit, all within one
    deadline, and returns
    what each saw. It runs on a host that reaches them.
  - The action M(beta9.workers.health_report) calls it, and decides what it means.
  - A probe that hangs, crashes, or has no access is reported as such. The others go on.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.reads]
options:
  probes:
    description: The probes to run by id, each with C(seconds), its longest time, and C(builds_on), what a worker's
      connection has to have for it.
    type: dict
    required: true
  deadline_seconds:
    description: Longest time for all probes together.
    type: float
    default: 20
  machines:
    description: The machines to check.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Inventory name.
        type: str
        required: true
      machine_id:
        description: The machine's id.
        type: str
      pool:
        description: The machine's pool.
        type: str
      provider:
        description: The machine's provider.
        type: str
        default: generic
      connection:
        description: How worker and gateway are connected. Without it, only checks that fit every connection are run.
        type: str
        default: ""
      k3s:
        description: Whether k3s is part of the worker's configuration.
        type: bool
        default: false
      tailnet_addresses:
        description: The worker's addresses in the tailnet.
        type: list
        elements: str
      nonce:
        description: The nonce that M(beta9.workers.worker_health) returned.
        type: str
      k3s_certificate:
        description: SHA-256 of the certificate that the worker's own k3s shows.
        type: str
      tunnel:
        description: What the worker's ssh makes of its tunnel's configuration.
        type: dict
        suboptions:
          target:
            description: The tunnel's target on the gateway host, as host:port.
            type: str
          listen:
            description: The worker's listen address on the gateway host, as address:port.
            type: str
          port:
            description: Port of the gateway host's sshd.
            type: int
          user:
            description: The tunnel's account on the gateway host.
            type: str
      ready:
        description: Whether the operator's list has the machine as ready.
        type: bool
        default: false
  redis_url:
    description: Address of the gateway's Redis as C(redis://host:port/database). By default asked through its pod.
    type: str
  kube:
    description: Whether this host has kubectl and access to the gateway's cluster.
    type: bool
    default: false
  kubeconfig:
    description: Kubeconfig for kubectl. By default kubectl's own.
    type: path
  namespace:
    description: The gateway's namespace.
    type: str
    default: beta9
"""

EXAMPLES = r"""
- name: Check the gateway's side of a machine
  beta9.workers.gateway_health:
    redis_url: redis://127.0.0.1:6379/0
    probes:
      M02: {seconds: 5, builds_on: ""}
    machines:
      - host: gpu-07
        machine_id: 1a2b3c4d
        pool: gpu
  delegate_to: gateway.example.com
  register: seen
"""

RETURN = r"""
observations:
  description: What each probe saw of what all machines share.
  returned: always
  type: list
  elements: dict
  sample:
    - {id: G01, outcome: ok, code: "", found: "Redis answers", evidence: "", seconds: 0.001, data: {}}
machines:
  description: The observations of each machine, by inventory name.
  returned: always
  type: dict
"""

import time
from collections import namedtuple
from typing import Any, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import (
    gateway_files,
    gateway_host,
    gateway_side,
)

PER_MACHINE = dict(gateway_side.PER_MACHINE, G11=gateway_host.target, T07=gateway_files.files, T09=gateway_host.sshd)
Probe = namedtuple("Probe", "id timeout_seconds")


def probes(
    functions: Mapping[str, engine.Probing], params: dict[str, Any], connection: str | None = None
) -> list[tuple[Any, engine.Probing]]:
    """Return [(probe, function)] of those that are asked for, and belong to a connection."""
    wanted = params["probes"]
    return [
        (Probe(name, float(wanted[name]["seconds"])), function)
        for name, function in functions.items()
        if name in wanted and (connection is None or connections.gives(connection, wanted[name]["builds_on"]))
    ]


def observe(params: dict[str, Any]) -> dict[str, Any]:
    """Return the observations that all machines share, and those of each machine."""
    shared = engine.Context(dict(params, machine={}))
    deadline = time.monotonic() + params["deadline_seconds"]
    common = engine.observe(probes(gateway_side.ONCE, params), shared, params["deadline_seconds"])
    result = {}
    for entry in params["machines"]:
        functions = probes(PER_MACHINE, params, entry["connection"]) if entry["machine_id"] else []
        result[entry["host"]] = engine.observe(
            functions, shared.narrowed(machine=entry), max(1.0, deadline - time.monotonic())
        )
    return {"observations": common, "machines": result}


def main() -> None:
    machine_options = {
        "host": {"type": "str", "required": True},
        "machine_id": {"type": "str"},
        "pool": {"type": "str"},
        "provider": {"type": "str", "default": "generic"},
        "connection": {"type": "str", "default": ""},
        "k3s": {"type": "bool", "default": False},
        "tailnet_addresses": {"type": "list", "elements": "str"},
        "nonce": {"type": "str"},
        "k3s_certificate": {"type": "str"},
        "tunnel": {
            "type": "dict",
            "options": {
                "target": {"type": "str"},
                "listen": {"type": "str"},
                "port": {"type": "int"},
                "user": {"type": "str"},
            },
        },
        "ready": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "probes": {"type": "dict", "required": True},
            "deadline_seconds": {"type": "float", "default": 20},
            "machines": {"type": "list", "elements": "dict", "default": [], "options": machine_options},
            "redis_url": {"type": "str", "no_log": True},
            "kube": {"type": "bool", "default": False},
            "kubeconfig": {"type": "path"},
            "namespace": {"type": "str", "default": "beta9"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **observe(module.params))


if __name__ == "__main__":
    main()
