#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_ready
short_description: Wait until k3s is Ready, and roll back to the previous version if it does not become so
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Waits until the API is ready and the node is Ready, and where GPUs are expected, until exactly so many are
    allocatable.
  - If M(beta9.workers.k3s_install) upgraded k3s before and the new version does not become Ready, brings back program,
    database and configuration of the version before, waits until that one is Ready, and fails with what was seen.
  - That an upgrade is not decided yet is remembered on the host, so that a run that was interrupted is completed by the
    next one.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  check_mode:
    support: full
    description: Looks once, changes nothing, and does not fail.
  diff_mode:
    support: none
    description: What changes is a running system.
options:
  version:
    description: Version that the node has to tell, as C(v1.36.2+k3s1). Any when left out.
    type: str
  pull_secret:
    description: Name of a Secret of the namespace C(default) with which pods of its service account C(default) pull
      images.
    type: str
  unwanted:
    description: Files of manifests that are not wanted any more. What they had k3s deploy is deleted, then the file.
    type: list
    elements: path
    default: []
  wait_seconds:
    description: Longest time until the node is Ready.
    type: int
    default: 180
  gpus:
    description: Number of GPUs that the node has to offer. Not verified when left out or 0.
    type: int
  gpu_wait_seconds:
    description: Longest time from then until they are allocatable. The device plugin's image may have to be fetched.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Wait until k3s is ready with its GPU
  beta9.workers.k3s_ready:
    gpus: 1
"""

RETURN = r"""
version:
  description: Version that the node tells.
  returned: when the API answers
  type: str
gpus:
  description: GPUs that the node offers.
  returned: when the API answers
  type: int
others:
  description: Names of Nodes besides this host's, which an earlier host name left over.
  returned: when the API answers
  type: list
  elements: str
rolled_back_to:
  description: Version that was brought back.
  returned: when an upgrade failed
  type: str
code:
  description: Stable code of the failure.
  returned: failure
  type: str
cause:
  description: What was seen.
  returned: failure
  type: str
remedy:
  description: What to do.
  returned: failure
  type: str
"""

import json
import os
import re
import shutil
import time
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import units
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api, installer

CONTAINERD = installer.DATA_DIR + "/agent/etc/containerd/config.toml"
UNIT_PROPERTIES = ("ActiveState", "SubState", "ActiveEnterTimestampMonotonic", "ExecMainStartTimestampMonotonic")
# k3s' own lines and the kubelet's, among those of systemd about the unit
REASON = re.compile(r"level=(?:fatal|error)\b|^[EF]\d{4} ")


def unit_of(module: AnsibleModule) -> dict:
    """Return the unit's properties as systemd tells them, {} when it tells none."""
    _rc, text, _err = module.run_command(
        ["systemctl", "show", installer.UNIT, "--property=" + ",".join(UNIT_PROPERTIES)]
    )
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def seconds_since(unit: dict, name: str) -> float:
    """Return how long ago the unit's monotonic timestamp was."""
    return time.monotonic() - int(unit.get(name) or 0) / 1e6


def beats(lease: dict, unit: dict) -> bool:
    """Return whether the kubelet renewed its Lease after k3s was started."""
    try:
        text = lease["spec"]["renewTime"].partition(".")[0].rstrip("Z")
        renewed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    # the Lease's time is cut to seconds
    return renewed + 1 > time.time() - seconds_since(unit, "ExecMainStartTimestampMonotonic")


def nodes_of(module: AnsibleModule) -> tuple:
    """Return (what went wrong or an empty string, this host's Node or None, names of other Nodes, its Lease)."""
    rc, out, err = installer.kubectl(module, "get", "nodes,leases", "-n", "kube-node-lease", "-o", "json")
    if rc:
        return f"the API does not list nodes: {api.complaint(err)}", None, [], {}
    try:
        items = json.loads(out)["items"]
        own, others = api.own_node([item for item in items if item["kind"] == "Node"])
        name = own["metadata"]["name"] if own else ""
        leases = [item for item in items if item["kind"] == "Lease" and item["metadata"]["name"] == name]
    except (ValueError, KeyError, TypeError):
        return "the API does not list nodes", None, [], {}
    return "", own, others, leases[0] if leases else {}


def inspect(module: AnsibleModule, version: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return (what is not Ready yet or an empty string, {"version", "gpus", "others"}).

    After a restart the API shows the node as it was before for some time. So what counts is this start of k3s: it
    lasts, its node tells the version, and its kubelet renewed the node's Lease.
    """
    unit = unit_of(module)
    if unit.get("ActiveState") in ("inactive", "failed"):
        return f"the unit is {unit['ActiveState']}", {}
    rc, _out, err = installer.kubectl(module, "get", "--raw", "/readyz?verbose")
    if rc:
        return f"the API is not ready: {', '.join(api.failing_parts(err)) or api.complaint(err)}", {}
    found, own, others, lease = nodes_of(module)
    if found or not own:
        return (
            found or f"the node {api.node_name()} has not joined{', only ' + ', '.join(others) if others else ''}",
            {},
        )
    status = own["status"]
    told = status.get("nodeInfo", {}).get("kubeletVersion", "")
    known = {"version": told, "gpus": int(status.get("allocatable", {}).get("nvidia.com/gpu", 0)), "others": others}
    ready = [entry for entry in status.get("conditions", []) if entry["type"] == "Ready"]
    if not ready or ready[0]["status"] != "True":
        return f"the node is not Ready: {ready[0].get('message', '') if ready else 'no condition'}", known
    if version and told != version:
        return f"the node reports version {told}", known
    if unit.get("ActiveState") != "active":
        return f"the unit is {unit.get('ActiveState', 'unknown')} ({unit.get('SubState', '')})", known
    if not beats(lease, unit):
        return "the kubelet sent no heartbeat since k3s was started: the node is shown as it was before", known
    if seconds_since(unit, "ActiveEnterTimestampMonotonic") <= installer.RESTART_SECONDS:
        return f"k3s has run for less than {int(installer.RESTART_SECONDS)} s", known
    return "", known


def wait(
    module: AnsibleModule, seconds: float, version: str | None = None, gpus: int | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the last look, after success or when time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found, known = inspect(module, version)
        if not found and gpus is not None and known["gpus"] != gpus:
            found = f"{known['gpus']} GPUs are allocatable"
        if not found or time.monotonic() >= deadline:
            return found, known
        time.sleep(0.5)


def has_runtime() -> bool:
    """Return whether k3s found the NVIDIA container runtime when it started."""
    try:
        with open(CONTAINERD, encoding="utf-8") as stream:
            return "nvidia" in stream.read()
    except OSError:
        return False


def last_words(module: AnsibleModule) -> str:
    """Return why k3s ended in its own words: its last errors, else the end of the unit's journal."""
    said = units.said(units.of_module(module), installer.UNIT, 100)
    lines = [re.sub(r'^(?:\S+\[\d+\]: )?(?:time="[^"]*" )?', "", line) for line in said.splitlines()]
    lines = list(dict.fromkeys(lines))  # each once: it may have ended often
    return " | ".join((list(filter(REASON.search, lines)) or lines)[-3:])[-400:]


def use_pull_secret(module: AnsibleModule, name: str) -> bool:
    """Have the service account "default" name a Secret for images. Return whether it did not before."""
    account = ["serviceaccount", "default", "-n", "default"]
    rc, out, err = installer.kubectl(module, "get", *account, "-o", "json")
    try:
        if rc == 0 and name in [entry.get("name") for entry in json.loads(out).get("imagePullSecrets") or []]:
            return False
    except (ValueError, AttributeError):
        rc, err = 1, "no account can be read"
    if rc == 0 and not module.check_mode:
        rc, _out, err = installer.kubectl(
            module, "patch", *account, "-p", json.dumps({"imagePullSecrets": [{"name": name}]})
        )
    if rc:
        seen = f"k3s: expected a service account default that takes k3s_image_pull_secrets, found: {api.complaint(err)}"
        fail(module, "k3s_pull_secret", seen, "Check k3s (k3s kubectl get serviceaccounts -n default), and run again.")
    return True


def take_away(module: AnsibleModule, manifests: list[str]) -> bool:
    """Delete what manifests that are not wanted any more had k3s deploy, then the files. Return whether there were
    any."""
    there = [path for path in manifests if os.path.exists(path)]
    for path in there if not module.check_mode else []:
        rc, _out, err = installer.kubectl(module, "delete", "-f", path, "--ignore-not-found", "--wait=false")
        if rc:
            seen = f"k3s: expected that what {path} deployed can be deleted, found: {api.complaint(err)}"
            fail(module, "k3s_delete", seen, "Check k3s (journalctl -u k3s -n 50), and run again.")
        os.unlink(path)
    return bool(there)


def go_back(module: AnsibleModule) -> str:
    """Bring back what the upgrade kept aside, and return its version. Copies first and renames then: it may be
    repeated."""
    module.run_command(["systemctl", "stop", installer.UNIT], check_rc=True)
    for name, target in (("db", installer.DATABASE_DIR), ("config.yaml.d", installer.CONFIG_DIR)):
        source = os.path.join(installer.PREVIOUS, name)
        if os.path.isdir(source):
            shutil.rmtree(target + ".old", ignore_errors=True)
            shutil.rmtree(target + ".new", ignore_errors=True)
            shutil.copytree(source, target + ".new", symlinks=True)
            if os.path.isdir(target):
                os.rename(target, target + ".old")
            os.rename(target + ".new", target)
            shutil.rmtree(target + ".old", ignore_errors=True)
    shutil.copy2(os.path.join(installer.PREVIOUS, "k3s"), installer.BINARY + ".old")
    os.replace(installer.BINARY + ".old", installer.BINARY)
    with open(os.path.join(installer.PREVIOUS, "version"), encoding="utf-8") as stream:
        version = stream.read()
    installer.remember(version, {installer.BINARY: installer.digest_of(installer.BINARY)})
    module.run_command(["systemctl", "--no-block", "start", installer.UNIT], check_rc=True)
    return version


def fail(module: AnsibleModule, code: str, found: str, remedy: str, **more: Any) -> None:
    """Fail with what was seen and what to do."""
    module.fail_json(msg=f"{found}. {remedy}", code=code, cause=found, remedy=remedy, **more)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str"},
            "pull_secret": {"type": "str", "no_log": False},  # its name
            "unwanted": {"type": "list", "elements": "path", "default": []},
            "wait_seconds": {"type": "int", "default": 180},
            "gpus": {"type": "int"},
            "gpu_wait_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        _found, known = inspect(module) if os.path.exists(installer.BINARY) else ("", {})
        module.exit_json(changed=take_away(module, params["unwanted"]), **known)
    found, known = wait(module, params["wait_seconds"], params["version"])
    undecided = os.path.isdir(installer.PREVIOUS)
    if found:
        seen = (
            f"k3s: expected the node to be Ready within {params['wait_seconds']} s, found: {found}. Its log "
            f"ends with: {last_words(module)}"
        )
        if not undecided:
            fail(
                module,
                "k3s_not_ready",
                seen,
                "Read its log (journalctl -u k3s -n 50), fix what it reports, and run again.",
            )
        version = go_back(module)
        after, _known = wait(module, params["wait_seconds"], version)
        if not after:
            shutil.rmtree(installer.PREVIOUS)
        state = f"which is not Ready either: {after}" if after else "which is Ready"
        remedy = (
            f"Went back to {version} with its database and settings, {state}. Keep k3s_version at {version} "
            f"until the cause is found."
        )
        fail(module, "k3s_rolled_back", seen, remedy, rolled_back_to=version, changed=True)
    if undecided:
        shutil.rmtree(installer.PREVIOUS)
    if known["others"]:
        others = ", ".join(known["others"])
        module.warn(
            f"k3s: besides this host's Node {api.node_name()} there is {others}, of an earlier host name. "
            "Delete it: k3s kubectl delete node NAME."
        )
    changed = take_away(module, params["unwanted"])
    if params["pull_secret"]:
        changed |= use_pull_secret(module, params["pull_secret"])
    if params["gpus"]:
        if not has_runtime():
            seen = (
                f"k3s: expected the NVIDIA container runtime in containerd's configuration, found none of it in "
                f"{CONTAINERD}"
            )
            remedy = (
                "Install NVIDIA's container toolkit, then run again: k3s looks for runtimes only when it starts. "
                "Or set beta9_gpus: 0."
            )
            fail(module, "k3s_runtime", seen, remedy, **known)
        found, known = wait(module, params["gpu_wait_seconds"], params["version"], params["gpus"])
        if found:
            seen = (
                f"k3s: expected {params['gpus']} allocatable nvidia.com/gpu within "
                f"{params['gpu_wait_seconds']} s, found: {found}"
            )
            remedy = (
                "Look at the device plugin (k3s kubectl get pods -n kube-system; k3s kubectl logs -n kube-system -l "
                "name=beta9-nvidia-device-plugin) and at the NVIDIA container runtime (grep nvidia "
                "/var/lib/rancher/k3s/agent/etc/containerd/config.toml), or correct beta9_gpus."
            )
            fail(module, "k3s_gpus", seen, remedy, **known)
    module.exit_json(changed=changed, **known)


if __name__ == "__main__":
    main()
