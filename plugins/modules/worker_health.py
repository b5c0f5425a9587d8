#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: worker_health
short_description: Check a worker with all probes at once
version_added: "0.1.0"
description:
  - Runs the probes of a worker side by side, each with its own time limit, all within one deadline, and returns what
    each saw.
  - What it means is decided by the action M(beta9.workers.health_report). Use role P(beta9.workers.health_check#role)
    for both.
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
      - Also run probes that register the machine, send a keepalive, and have k3s run a Job that does nothing. The Job
        has 60 seconds beyond O(deadline_seconds).
    type: bool
    default: false
  probes:
    description: The probes to run, with the longest time of each in seconds. Made from O(only), O(skip), O(active) and
      O(connection). With O(gateway), also with what each builds on.
    type: dict
    default: {}
  gateway:
    description:
      - Internal to M(beta9.workers.health_report), which has the gateway's side of workers looked at from this host
        instead of a worker.
      - One module has both sides because building a module takes the controller longer than most probes take.
    type: dict
    version_added: "0.2.0"
    suboptions:
      machines:
        description: The machines to check, as they follow from what their workers returned.
        type: list
        elements: dict
        default: []
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
  redis_url:
    description: With O(gateway), the address of the gateway's Redis as C(redis://host:port/database). By default asked
      through its pod.
    type: str
    version_added: "0.2.0"
  login:
    description:
      - Whether to log in at the gateway host with the tunnel's key although the tunnel carries. It shows what would
        keep the tunnel from coming up again. Where the tunnel carries nothing, this is always done. By default where a
        play has few hosts.
    type: bool
    default: true
    version_added: "0.2.0"
  canary_image:
    description: Image of that Job. It has to have the program C(true).
    type: str
    default: busybox:stable
  deadline_seconds:
    description: Longest time for all probes together.
    type: float
    default: 20
  nonce:
    description: A random word, with which the machine's token is hashed so that both sides can be compared. One is made
      by default.
    type: str
  asked:
    description: The controller's clock when it asked, in seconds since 1970. It tells whose clock is off where worker
      and gateway differ.
    type: float
    version_added: "0.2.0"
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
    description: The tailnet's control server that the worker must be logged in to. Not compared when left out.
    type: str
  ca_path:
    description: CA certificates to trust towards the gateway.
    type: path
  client_cert:
    description: Certificate to show to a gateway that demands one.
    type: path
  client_key:
    description: Key of O(client_cert).
    type: path
  gpus:
    description: Number of GPUs that the worker must have. By default as many as its bus shows.
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
"""

EXAMPLES = r"""
- name: Check the worker
  beta9.workers.worker_health:
    gateway_url: http://127.0.0.1:1994
  register: seen
"""

RETURN = r"""
observations:
  description: What each probe saw.
  returned: always
  type: list
  elements: dict
  sample:
    - {id: T03, outcome: bad, code: refused, found: "127.0.0.1:1994: Connection refused", evidence: "", seconds: 0.001,
      data: {}}
limited:
  description: Why the probes ran without root's rights.
  returned: when they did
  type: str
settings:
  description: O(inventory), O(connection) and O(k3s) as they were given.
  returned: always
  type: dict
identity:
  description: The machine's identity as the worker holds it.
  returned: always
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

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import connections

GATEWAY: dict[str, Any] = {
    "machines": {"type": "list", "elements": "dict", "default": []},
    "kube": {"type": "bool", "default": False},
    "kubeconfig": {"type": "path"},
    "namespace": {"type": "str", "default": "beta9"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "only": {"type": "list", "elements": "str", "default": []},
            "skip": {"type": "list", "elements": "str", "default": []},
            "active": {"type": "bool", "default": False},
            "probes": {"type": "dict", "default": {}},
            "gateway": {"type": "dict", "options": GATEWAY},
            "redis_url": {"type": "str", "no_log": True},  # no suboption: AnsibleModule would write those to syslog
            "login": {"type": "bool", "default": True},
            "canary_image": {"type": "str", "default": "busybox:stable"},
            "deadline_seconds": {"type": "float", "default": 20},
            "nonce": {"type": "str"},
            "asked": {"type": "float"},
            "connection": {"type": "str", "choices": list(connections.BY_NAME), "default": connections.DEFAULT},
            "gateway_url": {"type": "str", "default": "http://127.0.0.1:1994"},
            "login_server": {"type": "str"},
            **{name: {"type": "path"} for name in ("ca_path", "client_cert", "client_key")},
            "gpus": {"type": "int"},
            "k3s": {"type": "bool", "default": False},
            "inventory": {
                "type": "dict",
                "default": {},
                "options": {name: {"type": "str"} for name in ("pool", "hostname", "gateway_url")},
            },
        },
        supports_check_mode=True,
    )
    if module.params["gateway"]:  # each side loads its own: that takes longer than most probes
        from ansible_collections.beta9.workers.plugins.module_utils.health import gateway

        asked = {name: module.params[name] for name in ("probes", "deadline_seconds", "redis_url")}
        module.exit_json(changed=False, **gateway.observe(dict(module.params["gateway"], **asked)))
    from ansible_collections.beta9.workers.plugins.module_utils.health import worker

    module.exit_json(changed=False, **worker.observe(module.params))


if __name__ == "__main__":
    main()
