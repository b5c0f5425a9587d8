#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_ready
short_description: Wait until k3s is Ready, and go back to the version before if it does not become so
version_added: "0.2.0"
description:
  - Waits until the API is ready and the node is Ready, and where GPUs are expected, until exactly so many are allocatable.
  - If M(beta9.workers.k3s_install) upgraded k3s before and the new version does not become Ready, brings back program, database and
    configuration of the version before, waits until that one is Ready, and fails with what was seen.
  - That an upgrade is not decided yet is remembered on the host, so that a run that was interrupted is completed by the next one.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Looks once, changes nothing, and does not fail.
  diff_mode:
    support: none
    description: What changes is a running system.
  idempotent:
    support: full
    description: A k3s that is Ready is left alone.
options:
  wait_seconds:
    description: Longest time until the node is Ready.
    type: int
    default: 180
  gpus:
    description: Number of GPUs that the node has to offer. Not looked at when left out or 0.
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
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import k3s

CONTAINERD = k3s.DATA_DIR + "/agent/etc/containerd/config.toml"


def kubectl(module, *words):
    """Return (exit status, output) of k3s kubectl."""
    rc, out, err = module.run_command([k3s.BINARY, "kubectl", "--request-timeout=5s"] + list(words))
    return rc, out + err


def look(module):
    """Return (what is not Ready yet or an empty string, {"version", "gpus"})."""
    _rc, state, _err = module.run_command(["systemctl", "is-active", k3s.UNIT])
    if state.strip() in ("inactive", "failed"):
        return "the unit is %s" % state.strip(), {}
    rc, out = kubectl(module, "get", "--raw", "/readyz?verbose")
    if rc:
        failing = [line for line in out.splitlines() if line.startswith("[-]")]
        return "the API is not ready: %s" % ("; ".join(failing) or (out.strip().splitlines() or ["no answer"])[-1][:200]), {}
    rc, out = kubectl(module, "get", "nodes", "-o", "json")
    try:
        nodes = json.loads(out)["items"]
    except (ValueError, KeyError):
        return "the API does not list nodes: %s" % out.strip()[:200], {}
    if not nodes:
        return "the node has not joined", {}
    status = nodes[0]["status"]
    known = {
        "version": status.get("nodeInfo", {}).get("kubeletVersion", ""),
        "gpus": sum(int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for node in nodes),
    }
    for node in nodes:
        ready = [entry for entry in node["status"].get("conditions", []) if entry["type"] == "Ready"]
        if not ready or ready[0]["status"] != "True":
            return "the node is not Ready: %s" % (ready[0].get("message", "") if ready else "no condition"), known
    return "", known


def wait(module, seconds, gpus=None):
    """Return the last look, after success or when time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found, known = look(module)
        if not found and gpus is not None and known["gpus"] != gpus:
            found = "%d GPUs are allocatable" % known["gpus"]
        if not found or time.monotonic() >= deadline:
            return found, known
        time.sleep(0.5)


def has_runtime():
    """Return whether k3s found the NVIDIA container runtime when it started."""
    try:
        with open(CONTAINERD, encoding="utf-8") as stream:
            return "nvidia" in stream.read()
    except OSError:
        return False


def last_words(module):
    """Return the end of the unit's journal."""
    _rc, out, _err = module.run_command(["journalctl", "-u", k3s.UNIT, "-n", "3", "--no-pager", "-o", "cat"])
    return " | ".join(out.strip().splitlines())[-400:]


def go_back(module):
    """Bring back what the upgrade kept aside, and return its version. Copies first and renames then: it may be repeated."""
    module.run_command(["systemctl", "stop", k3s.UNIT], check_rc=True)
    for name, target in (("db", k3s.DATABASE_DIR), ("config.yaml.d", k3s.CONFIG_DIR)):
        source = os.path.join(k3s.PREVIOUS, name)
        if os.path.isdir(source):
            shutil.rmtree(target + ".old", ignore_errors=True)
            shutil.rmtree(target + ".new", ignore_errors=True)
            shutil.copytree(source, target + ".new", symlinks=True)
            if os.path.isdir(target):
                os.rename(target, target + ".old")
            os.rename(target + ".new", target)
            shutil.rmtree(target + ".old", ignore_errors=True)
    shutil.copy2(os.path.join(k3s.PREVIOUS, "k3s"), k3s.BINARY + ".old")
    os.replace(k3s.BINARY + ".old", k3s.BINARY)
    with open(os.path.join(k3s.PREVIOUS, "version"), encoding="utf-8") as stream:
        version = stream.read()
    k3s.remember(version, {k3s.BINARY: k3s.digest_of(k3s.BINARY)})
    module.run_command(["systemctl", "--no-block", "start", k3s.UNIT], check_rc=True)
    return version


def fail(module, code, found, remedy, **more):
    """Fail with what was seen and what to do."""
    module.fail_json(msg="%s. %s" % (found, remedy), code=code, cause=found, remedy=remedy, **more)


def main():
    module = AnsibleModule(
        argument_spec={
            "wait_seconds": {"type": "int", "default": 180},
            "gpus": {"type": "int"},
            "gpu_wait_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        _found, known = look(module) if os.path.exists(k3s.BINARY) else ("", {})
        module.exit_json(changed=False, **known)
    found, known = wait(module, params["wait_seconds"])
    undecided = os.path.isdir(k3s.PREVIOUS)
    if found:
        seen = "k3s: expected the node to be Ready within %d s, found: %s. Its log ends with: %s" % (params["wait_seconds"], found, last_words(module))
        if not undecided:
            fail(module, "k3s_not_ready", seen, "Read its log (journalctl -u k3s -n 50), mend what it tells of, and run again.")
        version = go_back(module)
        after, _known = wait(module, params["wait_seconds"])
        if not after:
            shutil.rmtree(k3s.PREVIOUS)
        state = "which is not Ready either: %s" % after if after else "which is Ready"
        remedy = "Went back to %s with its database and settings, %s. Keep k3s_version at %s until the cause is found." % (version, state, version)
        fail(module, "k3s_rolled_back", seen, remedy, rolled_back_to=version, changed=True)
    if undecided:
        shutil.rmtree(k3s.PREVIOUS)
    if params["gpus"]:
        if not has_runtime():
            seen = "k3s: expected the NVIDIA container runtime in containerd's configuration, found none of it in %s" % CONTAINERD
            remedy = "Install NVIDIA's container toolkit, then run again: k3s looks for runtimes only when it starts. Or set beta9_gpus: 0."
            fail(module, "k3s_runtime", seen, remedy, **known)
        found, known = wait(module, params["gpu_wait_seconds"], params["gpus"])
        if found:
            seen = "k3s: expected %d allocatable nvidia.com/gpu within %d s, found: %s" % (params["gpus"], params["gpu_wait_seconds"], found)
            remedy = (
                "Look at the device plugin (k3s kubectl get pods -n kube-system; k3s kubectl logs -n kube-system -l name=beta9-nvidia-device-plugin) "
                "and at the NVIDIA container runtime (grep nvidia /var/lib/rancher/k3s/agent/etc/containerd/config.toml), or correct beta9_gpus."
            )
            fail(module, "k3s_gpus", seen, remedy, **known)
    module.exit_json(changed=False, **known)


if __name__ == "__main__":
    main()
