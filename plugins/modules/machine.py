#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine
short_description: Create or delete a machine of a gateway
version_added: "0.1.0"
description:
  - Runs where the gateway's admin token is, usually on the controller.
  - Every create at the gateway makes another machine. Give O(machine_id) for a host that has one, and none is made.
  - For a worker in an inventory use role P(beta9.workers.machine#role), which brings the credentials to the host as
    well.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
attributes:
  check_mode:
    support: full
    description: Says whether a machine would be created or deleted.
  diff_mode:
    support: full
    description: Shows the machine before and after.
  idempotent:
    support: partial
    description: >-
      With O(machine_id) only. Without it, O(state=present) creates a machine each time.
options:
  state:
    description: Whether the machine should exist.
    type: str
    choices: [present, absent]
    default: present
  pool:
    description: Name of the pool.
    type: str
    required: true
  machine_id:
    description:
      - Id of a machine that was created before. Required with O(state=absent).
      - If the gateway does not list it, its state expired. It is not created again then, because registering brings it
        back under the same id and token. Its status is C(absent) in the result.
    type: str
  token_mark:
    description:
      - With O(state=absent), what tells the machine's token among others, without telling it, as
        M(beta9.workers.host_preflight) returns it in C(facts.token_marks). The gateway leaves a machine's token valid
        when the machine is deleted, and with it the machine comes back. Given this, the token is revoked as well. The
        gateway's cache honours it for up to ten minutes more.
    type: str
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
  provider:
    description: Name of the provider.
    type: str
    default: generic
seealso:
  - module: beta9.workers.machine_enrol
  - module: beta9.workers.machine_info
"""

EXAMPLES = r"""
- name: Create a machine
  beta9.workers.machine:
    gateway_url: http://gateway.example.com:31994
    token_file: ~/.beta9/admin_token
    pool: gpu
  register: created
  no_log: true

- name: Delete it
  beta9.workers.machine:
    gateway_url: http://gateway.example.com:31994
    token_file: ~/.beta9/admin_token
    pool: gpu
    machine_id: 1165a9b6
    state: absent
    token_mark: "{{ host.facts.token_marks['1165a9b6'] }}"
"""

RETURN = r"""
machine:
  description: The machine, without secrets. Empty when it was deleted.
  returned: success
  type: dict
  sample: {id: 1165a9b6, pool: gpu, provider: generic, status: pending}
registration_token:
  description: The machine's token. Keep it; the gateway does not show it again. Use C(no_log) on the task.
  returned: when a machine was created
  type: str
token_revoked:
  description: Whether the gateway had the token of O(token_mark), and has it no more.
  returned: when a machine was deleted
  type: bool
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
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "pool": {"type": "str", "required": True},
        "machine_id": {"type": "str"},
        **machine_runner.OWNER_SPEC,
        "provider": {"type": "str", "default": "generic"},
    }
)
CONSTRAINTS = {"required_if": [("state", "absent", ["machine_id"])]}


def plan(client: api.GatewayClient, params: dict[str, Any]) -> machine_runner.Plan:
    """Return the plan: look for the machine in all pools, so that a wrong pool is an error and not another machine."""
    desired = {
        "id": params["machine_id"] or "",
        "pool": protocol.pool_name(params["pool"]),
        "provider": protocol.provider_name(params["provider"]),
    }
    if not params["machine_id"]:
        return _create(client, desired)
    protocol.machine_id(params["machine_id"])
    found = next((machine for machine in client.list_machines() if machine["id"] == params["machine_id"]), None)
    left = machine_runner.require_owner(client, params, found)
    if found and found["pool"] != desired["pool"]:
        # a host's record can be wrong; which machine it is was proven by its token
        if not params["prove_owner"] or params["confirmed"]:
            raise protocol.InvalidField("pool", f"{found['pool']}, the pool of machine {found['id']}", desired["pool"])
        desired["pool"] = found["pool"]
    if params["state"] == "absent":
        return _delete(client, found, dict(desired, id=params["machine_id"]), params["token_mark"], left)
    machine = dict(found or dict(desired, status="absent"), provider=desired["provider"])
    return machine_runner.Plan(machine, machine, None, {"machine": machine})


def _create(client: api.GatewayClient, desired: dict[str, Any]) -> machine_runner.Plan:
    # refuses an unknown pool, and a local one, whose create would leave a token behind
    client.list_machines(desired["pool"])

    def apply() -> dict[str, Any]:
        created = client.create_machine(desired["pool"])
        token = created.pop("registration_token")
        return {"machine": dict(created, pool=desired["pool"], status="pending"), "registration_token": token}

    after = dict(desired, id="(given by the gateway)", status="pending")
    return machine_runner.Plan({}, after, apply, {"machine": after})


def _delete(
    client: api.GatewayClient, found: dict[str, Any] | None, desired: dict[str, Any], token_mark: str | None, left: str
) -> machine_runner.Plan:
    """Return the plan. The token goes first: with it a machine that was deleted comes back."""
    if not found:
        client.list_machines(desired["pool"])  # refuses a pool that has no machines
    token_id = client.token_id(token_mark) if token_mark else None

    def apply() -> dict[str, Any]:
        if token_id:
            client.delete_token(token_id)
        if not left:
            client.delete_machine(desired["id"], desired["pool"])
        return {}

    token = {"token": "valid"} if token_id else {}
    after = found or {} if left else {}
    result = {"machine": after, "token_revoked": bool(token_id), **({"warnings": [left]} if left else {})}
    return machine_runner.Plan(dict(found or {}, **token), after, apply, result)


def main() -> None:
    machine_runner.run(SPEC, plan, **CONSTRAINTS)


if __name__ == "__main__":
    main()
