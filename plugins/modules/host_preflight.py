#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_preflight
short_description: Report all problems that prevent onboarding a host, at once
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Inspects a host, and on the controller the variables set for it, changes nothing, and returns I(all) problems in one
    list, each with what was expected, what was found and what to do.
  - Returns the facts that later steps need as well, so that no other fact gathering is necessary.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.reads]
options:
  settings:
    description:
      - What onboarding is to use. What is left out is not judged.
      - Besides these, every variable that a role documents is judged as it is set for the host, and no other variable
        may begin with C(beta9_).
    type: dict
    default: {}
    suboptions:
      pool:
        description: Name of the pool. Empty is a problem.
        type: str
      pools:
        description: Names of the pools that the gateway has.
        type: list
        elements: str
      gateway_url:
        description: Address of the gateway's HTTP port. Empty is a problem.
        type: str
      token:
        description: Whether an admin's token was given.
        type: bool
      connection:
        description: Connection to the gateway.
        type: str
      gateway_host:
        description: The gateway's SSH host. Empty is a problem where the connection to the gateway needs it.
        type: str
      gpus:
        description: Number of GPUs that the host has to have.
        type: int
      identity:
        description: Which is right where the host holds another one's credentials. Empty is a problem then.
        type: str
        choices: ["", this, new]
        default: ""
      files:
        description: Files that have to be on this host, by the variables that name them.
        type: dict
        default: {}
  systems:
    description:
      - Systems that are accepted besides those of the support matrix and those that say that they are made of one, as
        C(id) or C(id version) of os-release.
      - Without it the system is not judged.
    type: list
    elements: str
  resolve:
    description: Names this host must be able to resolve.
    type: list
    elements: str
    default: []
  tunnel_port:
    description: TCP port that the tunnel will listen on. Nothing but C(ssh) may listen there. 0 for none.
    type: int
    default: 0
  min_memory_mib:
    description: Least memory, in MiB.
    type: int
    default: 0
  min_disk_mib:
    description: Least free disk space at /opt, in MiB.
    type: int
    default: 0
  controller_epoch:
    description: The controller's clock in seconds since 1970, to compare this host's clock with. 0 to leave out.
    type: float
    default: 0
  max_clock_skew_seconds:
    description: Largest difference allowed between both clocks.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Verify everything before anything is changed
  beta9.workers.host_preflight:
    settings:
      pool: gpu
      pools: [gpu, cpu]
      gateway_url: http://gateway.example.com:31994
    systems: []
    resolve: [gateway.example.com]
    tunnel_port: 1994
  register: host
"""

RETURN = r"""
problems:
  description: The problems found. Empty if there are none.
  returned: always
  type: list
  elements: dict
  sample:
    - {what: beta9_pool, expected: "one of the gateway's pools: cpu, gpu", found: gqu, remedy: "Did you mean gpu?"}
facts:
  description: What the host says of itself.
  returned: always
  type: dict
  sample: {architecture: x86_64, cpu_millicores: 8000, memory_mib: 15989, private_ip: 10.0.0.7, machine: {machine_id:
    1165a9b6}}
"""

import functools
import os
import platform
import shutil
import socket
import sys
import time
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import connections, grammar
from ansible_collections.beta9.workers.plugins.module_utils.agent import records, service
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import identity, linux, preflight, systems
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_record


def unfinished() -> list:
    """Return the names of the sets of packages that a run of module host_packages began and did not end."""
    try:
        return sorted(name[: -len(".json")] for name in os.listdir(linux.PACKAGE_SETS_DIR) if name.endswith(".json"))
    except OSError:
        return []


def gather(params: dict[str, Any], run: Callable[..., tuple[int, str, str]]) -> dict[str, Any]:
    """Return the facts of this host. Nothing here raises for a fact that can't be read: it is None."""
    release = linux.os_release()
    found = systems.identify(release)
    gateway = grammar.url_host((params["settings"] or {}).get("gateway_url") or "")
    resolved = {}
    for name in params["resolve"]:
        try:
            resolved[name] = sorted({entry[4][0] for entry in socket.getaddrinfo(name, None)})
        except OSError:
            resolved[name] = []
    return {
        "architecture": platform.machine(),
        "system": found.name,
        "system_family": found.family,
        "system_base": found.system.name if found.system else "",
        "system_how": found.how,
        "system_remedy": systems.remedy(release),
        "agent_python": service.interpreter(),
        "agent_python_package": found.system.python if found.system else "",
        "container": linux.container(),
        "tegra": linux.tegra(),
        "manager": linux.package_manager(),
        "usr_read_only": linux.read_only("/usr"),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "interpreter": getattr(sys, "_base_executable", None) or sys.executable,
        "interpreter_hidden": linux.hidden_from_units(getattr(sys, "_base_executable", None) or sys.executable),
        "noexec": linux.noexec(preflight.DISK_PATH),
        "root": os.geteuid() == 0,
        "systemd": os.path.isdir("/run/systemd/system"),
        "cpu_millicores": (os.cpu_count() or 0) * 1000,
        "memory_mib": linux.memory_mib(),
        "disk_free_mib": linux.disk_free_mib(preflight.DISK_PATH),
        "epoch": time.time(),
        "resolved": resolved,
        "tunnel_listeners": linux.listeners(params["tunnel_port"]) if params["tunnel_port"] else [],
        "commands": {
            name: shutil.which(name)
            for name in ("autossh", "ssh", "ssh-keygen", "nvidia-smi", "k3s", "tailscale", "nft")
        },
        "packages_unfinished": unfinished(),
        "private_ip": linux.source_address(gateway) if protocol.is_ip(gateway) else linux.source_address("192.0.2.1"),
        "gpu_pci_count": linux.nvidia_pci_count(),
        "gpu_offered": gpu_record.offered(gpu_record.kept().get("gpus", [])),
        "machine": records.machine_fact(),
        "connections": [mode.name for mode in connections.MODES if mode.left and os.path.lexists(mode.left)],
        "agent_settings": records.agent_settings(),
        "token_marks": records.token_marks(records.CREDENTIALS_DIR, records.machine_fact()),
        "host_id": identity.host_id(),
        "copied": identity.copied(records.agent_settings(), identity.host_id()),
        "agent_quiet_seconds": identity.quiet_seconds(run),
        "has_token": records.has_token(records.CREDENTIALS_DIR, records.machine_fact()),
        "k3s_mark": records.token_file_mark(os.path.join(records.CREDENTIALS_DIR, "k3s_token")),
    }


def file_problems(name: str, path: str) -> list[dict]:
    """Return what is wrong with a file that a variable names: it has to be there, and what holds a private key is
    closed to others."""
    if not os.path.isfile(path):
        return [preflight.problem(name, "a file on this host", f"none at {path}", "Put it there, or correct the path.")]
    try:
        with open(path, "rb") as file:
            mode, private = os.fstat(file.fileno()).st_mode & 0o7777, b"PRIVATE KEY-----" in file.read(1024 * 1024)
    except OSError as error:
        return [
            preflight.problem(
                name,
                "a file that can be read",
                f"{path}: {error.strerror}",
                "Correct its permissions, or run with become.",
            )
        ]
    if private and mode & 0o077:
        return [
            preflight.problem(
                name,
                "a private key that only its owner can read",
                f"{path} of mode {mode:04o}",
                f"Run chmod 600 {path}.",
            )
        ]
    return []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "settings": {
                "type": "dict",
                "default": {},
                "options": {
                    "pool": {"type": "str"},
                    "pools": {"type": "list", "elements": "str"},
                    "gateway_url": {"type": "str"},
                    "token": {"type": "bool", "no_log": False},
                    "connection": {"type": "str"},
                    "gateway_host": {"type": "str"},
                    "gpus": {"type": "int"},
                    "identity": {"type": "str", "choices": ["", "this", "new"], "default": ""},
                    "files": {"type": "dict", "default": {}},
                },
            },
            "systems": {"type": "list", "elements": "str"},
            "resolve": {"type": "list", "elements": "str", "default": []},
            "tunnel_port": {"type": "int", "default": 0},
            "min_memory_mib": {"type": "int", "default": 0},
            "min_disk_mib": {"type": "int", "default": 0},
            "controller_epoch": {"type": "float", "default": 0},
            "max_clock_skew_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    facts = gather(module.params, functools.partial(module.run_command, handle_exceptions=False))
    problems = preflight.problems(module.params, facts)
    if module.params["systems"] is not None:
        for text in preflight.warnings(facts):
            module.warn(text)
    settings = module.params["settings"] or {}
    for name, path in (settings.get("files") or {}).items():
        problems += file_problems(name, str(path))
    if not settings.get("identity"):
        problems += identity.problems(facts["agent_settings"], facts["host_id"])
    module.exit_json(changed=False, facts=facts, problems=problems)


if __name__ == "__main__":
    main()
