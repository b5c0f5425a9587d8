#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_drain
short_description: Drain a machine, so that its workers end what they run and get nothing more
version_added: "0.2.0"
description:
  - Cordons the workers that the gateway runs on a machine, stops their containers through the gateway, and waits until
    it counts none.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
options:
  machine_id:
    description: Id of the machine.
    type: str
    required: true
  wait_seconds:
    description: Longest time until the last container has ended. The module fails after it.
    type: int
    default: 120
  prove_owner:
    description:
      - The id is a host's word. Go on only where O(token_mark) or O(k3s_mark) is of the token that the gateway has for
        this machine, or O(confirmed) is set. Only ready machines can be proven. One that is not ready is left to
        expire.
    type: bool
    default: false
  confirmed:
    description: The operator says that the machine is the host's.
    type: bool
    default: false
  k3s_mark:
    description: What tells the token of the host's k3s, as M(beta9.workers.host_preflight) returns it in
      C(facts.k3s_mark).
    type: str
  token_mark:
    description: What tells the machine's token, as M(beta9.workers.host_preflight) returns it in C(facts.token_marks).
    type: str
attributes:
  check_mode:
    support: full
    description: Says which workers would be drained.
  diff_mode:
    support: full
    description: Shows each worker's status and number of containers before and after.
  idempotent:
    support: full
    description: A machine without workers that take or run something is left alone.
"""

EXAMPLES = r"""
- name: Drain the machine
  beta9.workers.machine_drain:
    gateway_url: http://gateway.example.com:31994
    token_file: /etc/beta9/admin_token
    machine_id: 1165a9b6
"""

RETURN = r"""
workers:
  description: Ids of the machine's workers.
  returned: success
  type: list
  elements: str
code:
  description: Stable code of the failure.
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
"""

import time
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner, protocol

SPEC = machine_runner.specification(
    {
        "machine_id": {"type": "str", "required": True},
        "wait_seconds": {"type": "int", "default": 120},
        **machine_runner.OWNER_SPEC,
    }
)


def shape(workers: list[dict[str, Any]]) -> dict[str, str]:
    """Return {id: what matters here} as a diff shows it."""
    return {worker["id"]: f"{worker['status']}, {worker['containers']} containers" for worker in workers}


def drain(client: api.GatewayClient, machine_id: str, seconds: float) -> dict[str, Any]:
    """Cordon before draining: a stopped container must not find its way back. Raises InvalidField when time is over."""
    for worker in client.list_workers(machine_id):
        if worker["status"] != protocol.WORKER_CORDONED:
            client.cordon_worker(worker["id"])
    deadline = time.monotonic() + seconds
    asked = set()
    while True:
        busy = [worker for worker in client.list_workers(machine_id) if worker["containers"]]
        for worker in busy:
            if worker["id"] not in asked:
                client.drain_worker(worker["id"])
                asked.add(worker["id"])
        if not busy:
            return {}
        if time.monotonic() >= deadline:
            running = ", ".join(f"{worker['id']} runs {worker['containers']}" for worker in busy)
            raise protocol.InvalidField(
                f"machine {machine_id}", f"no container on its workers after {int(seconds)} s", running
            )
        time.sleep(1)


def plan(client: api.GatewayClient, params: dict[str, Any]) -> machine_runner.Plan:
    """Return the plan."""
    machine_id = protocol.machine_id(params["machine_id"])
    if params["prove_owner"]:
        listed = next((machine for machine in client.list_machines() if machine["id"] == machine_id), None)
        if machine_runner.require_owner(client, params, listed):
            return machine_runner.Plan({}, {}, None, {"workers": []})  # it is not ready, so that nothing runs there
    workers = client.list_workers(machine_id)
    after = [dict(worker, status=protocol.WORKER_CORDONED, containers=0) for worker in workers]
    apply = (lambda: drain(client, machine_id, params["wait_seconds"])) if after != workers else None
    return machine_runner.Plan(
        shape(workers), shape(after), apply, {"workers": sorted(worker["id"] for worker in workers)}
    )


def main() -> None:
    machine_runner.run(SPEC, plan)


if __name__ == "__main__":
    main()
