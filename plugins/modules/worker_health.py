#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: worker_health
short_description: Look at a worker, or at the gateway's side, with all probes at once
version_added: "0.1.0"
description:
  - Runs the probes of one side side by side, each with its own time limit, all within one deadline, and returns what each saw.
  - What it means is decided by the action M(beta9.workers.health_report). Use role P(beta9.workers.health_check#role) for both.
  - A probe that hangs, crashes, or is not allowed to look is reported as such. The others go on.
  - Where the account may not become root, the probes run with its own rights, and RV(limited) says so.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: The module changes nothing, unless O(active=true), which has no effect in check mode.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: The module changes nothing, unless O(active=true).
options:
  side:
    description: Where this run looks from.
    type: str
    choices: [worker, gateway]
    default: worker
  only:
    description: Ids of the checks to run. All by default.
    type: list
    elements: str
    default: []
  skip:
    description: Ids of checks to leave out.
    type: list
    elements: str
    default: []
  active:
    description:
      - Also run probes that register the machine, send a keepalive, and have k3s run a Job that does nothing. The Job has 60 seconds
        beyond O(deadline_seconds).
    type: bool
    default: false
  canary_image:
    description: Image of that Job. It has to have the program C(true).
    type: str
    default: busybox:stable
  deadline_seconds:
    description: Longest time for all probes together.
    type: float
    default: 20
  nonce:
    description: A random word, with which the machine's token is hashed so that both sides can be compared. One is made by default.
    type: str
  connection:
    description: The worker's way to the gateway.
    type: str
    choices: [autossh, tailscale, direct]
    default: autossh
  gateway_url:
    description: The gateway's HTTP port as the worker reaches it. Empty for the one that its agent was given.
    type: str
    default: http://127.0.0.1:1994
  login_server:
    description: The tailnet's control server that the worker shall be logged in at. Not compared when left out.
    type: str
  ca_path:
    description: CA certificates to trust towards the gateway.
    type: path
  gpus:
    description: Number of GPUs that the worker shall have. By default as many as its bus shows.
    type: int
  k3s:
    description: Whether k3s is part of the worker's configuration.
    type: bool
    default: false
  inventory:
    description: What the inventory says of the worker, for M(beta9.workers.health_report). It is returned as it is.
    type: dict
    default: {}
    suboptions:
      pool:
        description: Its pool.
        type: str
      hostname:
        description: The name or address set for it.
        type: str
      gateway_url:
        description: The gateway's URL as the controller reaches it.
        type: str
  machines:
    description: With O(side=gateway), the machines to look at.
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
        description: The worker's way to the gateway.
        type: str
        default: autossh
      k3s:
        description: Whether k3s is part of the worker's configuration.
        type: bool
        default: false
      tailnet_addresses:
        description: The worker's addresses in the tailnet.
        type: list
        elements: str
      nonce:
        description: The worker's RV(nonce).
        type: str
      k3s_certificate:
        description: SHA-256 of the certificate that the worker's own k3s shows.
        type: str
      ready:
        description: Whether the operator's list has the machine as ready.
        type: bool
        default: false
  redis_url:
    description: With O(side=gateway), address of the gateway's Redis as C(redis://host:port/database). By default asked through its pod.
    type: str
  kube:
    description: With O(side=gateway), whether this host has kubectl and access to the gateway's cluster.
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
- name: Look at the worker
  beta9.workers.worker_health:
    gateway_url: http://127.0.0.1:1994
  register: seen
"""

RETURN = r"""
observations:
  description: What each probe saw. With O(side=gateway), of what all machines share.
  returned: always
  type: list
  elements: dict
  sample:
    - {id: T03, outcome: bad, code: refused, found: "127.0.0.1:1994: Connection refused", evidence: "", seconds: 0.001, data: {}}
machines:
  description: With O(side=gateway), the observations of each machine, by inventory name.
  returned: with O(side=gateway)
  type: dict
limited:
  description: Why the probes ran without root's rights.
  returned: when they did
  type: str
settings:
  description: O(inventory), O(connection) and O(k3s) as they were given.
  returned: with O(side=worker)
  type: dict
identity:
  description: The machine's identity as the worker holds it.
  returned: with O(side=worker)
  type: dict
started:
  description: When this look began, in seconds since 1970 by the controller's clock.
  returned: always
  type: float
nonce:
  description: O(nonce), or the one that was made.
  returned: always
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import host
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine, join
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gpu, machine, platform, tailnet, tunnel

WORKER_PROBES = dict(tunnel.PROBES, V03=tailnet.node, **dict(machine.PROBES, **dict(platform.PROBES, **gpu.PROBES)))
NODEPORT = catalog.BY_ID["G04"]._replace(id="nodeport")


def wanted(params, check):
    """Return whether a check is part of this run."""
    only = set(params["only"]).union(*(join.SOURCES.get(name, ()) for name in params["only"]))
    if check.id == "nodeport":
        return not only or "nodeport" in only
    if check.active and not params["active"]:
        return False
    return check.id not in params["skip"] and (not only or check.id in only)


def look_at_worker(params):
    """Return the observations of this worker."""
    identity = host.machine_fact()
    config = dict(params, machine_id=identity.get("machine_id", ""), pool=identity.get("pool", ""), provider=identity.get("provider", "generic"))
    config["gateway_url"] = params["gateway_url"] or tunnel.agents_gateway()
    probes = [
        (catalog.BY_ID[name], function)
        for name, function in WORKER_PROBES.items()
        if wanted(params, catalog.BY_ID[name]) and params["connection"] in catalog.BY_ID[name].modes
    ]
    config["probes"] = [check.id for check, _function in probes]
    settings = dict(params["inventory"], connection=params["connection"], k3s=params["k3s"])
    if not identity.get("machine_id"):
        return {"observations": [], "identity": {}, "settings": settings}
    context = engine.Context(config)
    for read in (machine.token_of, platform.k3s_token):  # before any probe may show them
        try:
            read(context)
        except engine.Unknown:
            pass
    seconds = params["deadline_seconds"] + (platform.CANARY_SECONDS if "G10" in config["probes"] else 0)
    return {"observations": engine.observe(probes, context, seconds), "identity": identity, "settings": settings}


def look_at_gateway(params):
    """Return the observations that all machines share, and those of each machine."""
    from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gateway_side  # pylint: disable=import-outside-toplevel

    shared = engine.Context(dict(params, machine={}))
    checks = [(NODEPORT if name == "nodeport" else catalog.BY_ID[name], function) for name, function in gateway_side.ONCE.items()]
    deadline = time.monotonic() + params["deadline_seconds"]
    common = engine.observe([(check, function) for check, function in checks if wanted(params, check)], shared, params["deadline_seconds"])
    result = {}
    for entry in params["machines"]:
        context = shared.narrowed(machine=entry)
        probes = [
            (catalog.BY_ID[name], function)
            for name, function in gateway_side.PER_MACHINE.items()
            if wanted(params, catalog.BY_ID[name]) and entry["connection"] in catalog.BY_ID[name].modes
        ]
        result[entry["host"]] = engine.observe(probes, context, max(1.0, deadline - time.monotonic())) if entry.get("machine_id") else []
    return {"observations": common, "machines": result}


def main():
    machine_options = {
        "host": {"type": "str", "required": True},
        "machine_id": {"type": "str"},
        "pool": {"type": "str"},
        "provider": {"type": "str", "default": "generic"},
        "connection": {"type": "str", "default": "autossh"},
        "k3s": {"type": "bool", "default": False},
        "tailnet_addresses": {"type": "list", "elements": "str"},
        "nonce": {"type": "str"},
        "k3s_certificate": {"type": "str"},
        "ready": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "side": {"type": "str", "choices": ["worker", "gateway"], "default": "worker"},
            "only": {"type": "list", "elements": "str", "default": []},
            "skip": {"type": "list", "elements": "str", "default": []},
            "active": {"type": "bool", "default": False},
            "canary_image": {"type": "str", "default": "busybox:stable"},
            "deadline_seconds": {"type": "float", "default": 20},
            "nonce": {"type": "str"},
            "connection": {"type": "str", "choices": ["autossh", "tailscale", "direct"], "default": "autossh"},
            "gateway_url": {"type": "str", "default": "http://127.0.0.1:1994"},
            "login_server": {"type": "str"},
            "ca_path": {"type": "path"},
            "gpus": {"type": "int"},
            "k3s": {"type": "bool", "default": False},
            "inventory": {"type": "dict", "default": {}, "options": {name: {"type": "str"} for name in ("pool", "hostname", "gateway_url")}},
            "machines": {"type": "list", "elements": "dict", "default": [], "options": machine_options},
            "redis_url": {"type": "str", "no_log": True},
            "kube": {"type": "bool", "default": False},
            "kubeconfig": {"type": "path"},
            "namespace": {"type": "str", "default": "beta9"},
        },
        supports_check_mode=True,
    )
    params = dict(module.params, active=module.params["active"] and not module.check_mode)
    unknown = sorted(set(params["only"] + params["skip"]) - set(catalog.BY_ID))
    if unknown:
        module.fail_json(msg="only, skip: expected ids of checks (T01, A01, ...), found %s" % ", ".join(unknown))
    found = look_at_worker(params) if params["side"] == "worker" else look_at_gateway(params)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
