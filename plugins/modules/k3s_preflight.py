#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_preflight
short_description: Report all problems that prevent k3s on a host, at once
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Inspects the host, and where a release has to be downloaded, the list of checksums where it is served. Changes
    nothing.
  - Returns I(all) problems, in the form of M(beta9.workers.host_preflight).
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.reads]
options:
  version:
    description: Release to install.
    type: str
    required: true
  artifact_url:
    description: Where the host downloads it. Left out when the files are brought from the controller.
    type: str
  binary_sha256:
    description: Checksum that the program has to have.
    type: str
  insecure_mirror:
    description: Whether files may come over plain http without a checksum from elsewhere.
    type: bool
    default: false
  ca_path:
    description: CA certificates to trust at O(artifact_url).
    type: path
  inbound:
    description: Whether the gateway connects to the API's port from outside, instead of through the worker's own
      tunnel. Where firewalld runs, it has to open it.
    type: bool
    default: false
  pod_network:
    description: Addresses of pods, as C(cluster-cidr) of k3s. Where firewalld runs, it has to accept them.
    type: str
    default: 10.42.0.0/16
  service_network:
    description: Addresses of services, as C(service-cidr) of k3s.
    type: str
    default: 10.43.0.0/16
  min_disk_mib:
    description: Least space free at /var/lib/rancher before k3s is installed, in MiB.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Inspect the host
  beta9.workers.k3s_preflight:
    version: v1.36.2+k3s1
    artifact_url: https://mirror.example.com/k3s
  register: found
"""

RETURN = r"""
problems:
  description: The problems found. Empty if there are none.
  returned: always
  type: list
  elements: dict
  sample:
    - {what: port 6443, expected: "free, or held by k3s", found: "nginx (pid 812) listens on 0.0.0.0", remedy: Stop that
      program.}
node_name:
  description: Name of this host's Node. k3s' settings have it once k3s is installed, so that another host name makes no
    other Node.
  returned: always
  type: str
  sample: worker1
files:
  description: Names of the release's files for this host's CPU architecture. Empty for one that k3s does not know.
  returned: always
  type: dict
  sample: {binary: k3s, sums: sha256sum-amd64.txt, images: k3s-airgap-images-amd64.tar.zst}
"""

import os
import platform
import re
import socket
import time
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import firewalld, linux, preflight, selinux
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api, installer

PORT = protocol.K3S_API_PORT
SELINUX_POLICY = "/usr/share/selinux/packages/k3s.pp"
CGROUP_V2 = "/sys/fs/cgroup/cgroup.controllers"


def strangers(port: int) -> list:
    """Return what else than k3s listens at a port. Looks twice: a k3s that ends again and again may have ended while it
    was looked at."""
    found = []
    for pause_seconds in (0, 0.5):
        time.sleep(pause_seconds)
        found = [
            listener
            for listener in linux.listeners(port)
            if not (listener["pid"] and installer.in_unit(listener["pid"]))
        ]
        if not found:
            break
    return found


def of_host(module: AnsibleModule) -> Iterator[dict[str, Any]]:
    """Yield the problems of this host."""
    params = module.params
    foreign = installer.is_foreign()
    if foreign:
        remedy = (
            "Uninstall it (k3s-uninstall.sh), or set beta9_k3s: false. Its cluster may be somebody else's, so it "
            "is not taken over."
        )
        yield preflight.problem(
            "k3s", "none, or one that this collection installed", f"{foreign} of another origin", remedy
        )
    for listener in [] if foreign else strangers(PORT):
        found = f"{listener['process']} (pid {listener['pid']}) listens on {listener['address']}"
        remedy = "Stop that program: the gateway asks for this port and no other."
        yield preflight.problem(f"port {PORT}", "free, or held by k3s", found, remedy)
    name = socket.gethostname().lower()
    if not re.match(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", name):
        remedy = "Rename the host: hostnamectl set-hostname NAME."
        yield preflight.problem("host name", "letters, digits and hyphens, as Kubernetes wants of a node", name, remedy)
    if selinux.enforcing() and not os.path.exists(SELINUX_POLICY):
        remedy = "Install the package k3s-selinux from Rancher's repository, as k3s' documentation says."
        yield preflight.problem(
            "SELinux", "k3s' policy, because SELinux is enforcing", f"{SELINUX_POLICY} does not exist", remedy
        )
    if module.get_bin_path(firewalld.PROGRAM) and firewalld.running(module.run_command):
        yield from of_firewalld(params, firewalld.zones(module.run_command))


def of_firewalld(params: dict[str, Any], active: list[firewalld.Zone]) -> Iterator[dict[str, Any]]:
    """Yield what firewalld refuses of what k3s needs. Nothing is opened here: that is the administrator's decision."""
    pods = params["pod_network"].split(",")
    networks = pods + params["service_network"].split(",")
    if not all(firewalld.accepts_pods(active, network) for network in pods):
        found = f"a zone that refuses them (active: {', '.join(zone.name for zone in active) or 'none'})"
        sources = " ".join("--add-source=" + network for network in networks)
        remedy = f"Run: firewall-cmd --permanent --zone=trusted {sources} && firewall-cmd --reload"
        yield preflight.problem(
            "firewalld", f"the addresses of pods ({', '.join(pods)}) in a zone that accepts them", found, remedy
        )
    if params["inbound"] and not any(zone.opens(PORT) for zone in active if zone.is_for_others(networks)):
        remedy = (
            f"Run: firewall-cmd --permanent --add-port={PORT}/tcp && firewall-cmd --reload. Who of those may "
            f"reach it, k3s_api_networks decides."
        )
        yield preflight.problem(
            "firewalld", f"port {PORT} open, because the gateway connects to it", "no active zone that opens it", remedy
        )


def of_release(module: AnsibleModule, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the problems of the release that shall be installed; none where it is."""
    params = module.params
    pinned, known = params["binary_sha256"] or "", installer.record()
    installer.version_key(params["version"])
    installer.check_step(installer.installed_version(module.run_command), params["version"])
    if installer.version_key(params["version"])[:2] >= (1, 35) and not os.path.exists(CGROUP_V2):
        remedy = (
            "Boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line, or set k3s_version to a "
            "release of v1.34."
        )
        yield preflight.problem("cgroups", "version 2, which k3s needs from v1.35 on", "version 1", remedy)
    if known.get("version") == params["version"] and installer.in_place(installer.BINARY, known):
        if not pinned or known["files"][installer.BINARY]["sha256"] == pinned.lower():
            return
    free = linux.disk_free_mib(installer.DATA_DIR)
    if free < params["min_disk_mib"]:
        remedy = "Free some space, or lower k3s_min_disk_mib."
        yield preflight.problem(
            "disk", f"{params['min_disk_mib']} MiB free at {installer.DATA_DIR}", f"{free} MiB", remedy
        )
    if params["artifact_url"]:
        installer.check_mirror(params["artifact_url"], names["binary"], pinned, params["insecure_mirror"])
        sums = installer.fetch_sums(params["artifact_url"], params["version"], names["sums"], params["ca_path"])
        installer.expected_sum(sums, names["binary"], pinned, params["artifact_url"])


def inspect(module: AnsibleModule) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return every problem, and the names of the release's files."""
    found, files = list(of_host(module)), {}
    try:
        files = installer.release(platform.machine())
        found += list(of_release(module, files))
    except installer.Refused as refused:
        found.append(refused.problem())
    return found, files


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "artifact_url": {"type": "str"},
            "binary_sha256": {"type": "str"},
            "insecure_mirror": {"type": "bool", "default": False},
            "ca_path": {"type": "path"},
            "inbound": {"type": "bool", "default": False},
            "pod_network": {"type": "str", "default": "10.42.0.0/16"},
            "service_network": {"type": "str", "default": "10.43.0.0/16"},
            "min_disk_mib": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    problems, files = inspect(module)
    module.exit_json(changed=False, problems=problems, files=files, node_name=api.node_name())


if __name__ == "__main__":
    main()
