#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_remove
short_description: Remove k3s, and verify that nothing of it is left
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Stops k3s and the containers that it started, unmounts their file systems, removes their network interfaces and
    firewall rules, and removes its files. Then looks for what is left, and fails if it finds something.
  - Takes away only a k3s that P(beta9.workers.k3s#role) installed.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
"""

EXAMPLES = r"""
- name: Remove k3s
  beta9.workers.k3s_remove:
"""

RETURN = r"""
left:
  description: What could not be removed.
  returned: always
  type: list
  elements: str
"""

import glob
import os
import re
import shutil
import signal
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, turn
from ansible_collections.beta9.workers.plugins.module_utils.k3s import installer

PATHS = (
    installer.UNIT_FILE,
    installer.BINARY,
    "/etc/rancher/k3s",
    installer.DATA_DIR,
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/run/k3s",
    "/run/flannel",
    "/var/log/pods",
    "/var/log/containers",
    installer.STATE_DIR,
)
# The kubelet's directory for plugins, which it makes also where there are none
PLUGINS_DIR = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"
IDENTITY_DIR = "/etc/rancher/node"  # RKE2's as well
BUNDLED = installer.DATA_DIR + "/data/*/bin/aux/"
# Chains that kube-proxy, the kubelet, k3s' network policies, flannel and the CNI plugins make
OUR_CHAIN = re.compile(r"(?:KUBE|CNI|FLANNEL)-")
MOUNTS = ("/run/k3s", "/var/lib/kubelet", "/run/netns/cni-", installer.DATA_DIR)
LINKS = ("cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "kube-ipvs0")
STOP_SECONDS = 10


def processes() -> list[int]:
    """Return the ids of container shims and all that they started; k3s leaves containers running when it stops."""
    table = list(linux.processes())
    found = [
        pid
        for pid, _parent, argv in table
        if argv[0].startswith(installer.DATA_DIR + "/data/") and "/bin/containerd-shim" in argv[0]
    ]
    for pid in found:
        found += [child for child, parent, _argv in table if parent == pid and child not in found]
    return found


def mounts() -> list:
    """Return mount points of containers, innermost first."""
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        points = [line.split()[1].replace("\\040", " ") for line in stream]
    return sorted((point for point in points if point.startswith(MOUNTS)), reverse=True)


def links() -> list:
    """Return the network interfaces that k3s made."""
    return [name for name in LINKS if os.path.exists("/sys/class/net/" + name)]


def present() -> list[str]:
    """Return the paths that are there."""
    found = [path for path in PATHS if os.path.lexists(path)] + sorted(glob.glob("/run/netns/cni-*"))
    if os.path.isdir(IDENTITY_DIR) and not os.path.isdir("/etc/rancher/rke2"):
        found.append(IDENTITY_DIR)
    return found


def savers(module: AnsibleModule) -> list:
    """Return the programs that list the packet filter's rules: the host's, of each of the two kinds, and those that k3s
    brings along."""
    found = []
    for family in ("iptables", "ip6tables"):
        for kind in ("", "-nft", "-legacy"):
            found.append(module.get_bin_path(f"{family}{kind}-save"))
        found += sorted(glob.glob(BUNDLED + family + "-save"))
    return [path for path in found if path]


def commands_of(rules: str) -> list:
    """Return the lines for iptables-restore --noflush that take k3s' chains, and rules that lead to them, out of what
    iptables-save told."""
    out = []
    for table in re.split(r"^\*", rules, flags=re.M)[1:]:
        lines = table.splitlines()
        ours = [line.split()[0][1:] for line in lines if line.startswith(":") and OUR_CHAIN.match(line[1:])]
        jumps = []
        for line in lines:
            chain = re.match(r"-A (\S+)", line)
            if chain and chain.group(1) not in ours and _is_ours(line):
                jumps.append("-D" + line[2:])
        if ours or jumps:
            out += [
                "*" + lines[0],
                *jumps,
                *("-F " + name for name in ours),
                *("-X " + name for name in ours),
                "COMMIT",
            ]
    return out


def _is_ours(rule: str) -> bool:
    """Return whether a rule of a chain that is not k3s' leads to one of k3s', or was made by flannel in its older
    way."""
    target = re.search(r" -[jg] (\S+)", rule)
    return bool(target and OUR_CHAIN.match(target.group(1))) or '--comment "flanneld ' in rule


def rules(module: AnsibleModule) -> list[tuple[str, list[str]]]:
    """Return [(program, lines for its restore)] where rules of k3s are left."""
    found = []
    for program in savers(module):
        _rc, text, _err = module.run_command([program])
        commands = commands_of(text)
        if commands:
            found.append((program, commands))
    return found


def stop(module: AnsibleModule) -> None:
    """End k3s, then its containers."""
    if os.path.exists(installer.UNIT_FILE):
        module.run_command(["systemctl", "disable", "--now", installer.UNIT], check_rc=True)
        module.run_command(["systemctl", "reset-failed", installer.UNIT])  # refused when it ended well
    deadline = time.monotonic() + STOP_SECONDS
    while processes() and time.monotonic() < deadline:
        for pid in processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended by itself
        time.sleep(0.2)


def clean_network(module: AnsibleModule) -> None:
    """Remove interfaces and firewall rules."""
    for name in links():
        module.run_command(["ip", "link", "delete", name])
    for program, commands in rules(module):
        module.run_command(
            [program.replace("-save", "-restore"), "--noflush"], data="\n".join(commands) + "\n", check_rc=True
        )


def remove(module: AnsibleModule) -> list[tuple[str, list[str]]]:
    """Remove it all; what resists is found by left(). Rules go while the programs that k3s brings along are there."""
    stop(module)
    for point in mounts():
        module.run_command(["umount", "--force", point])
    clean_network(module)
    resisting = rules(module)
    for path in present():
        if path == installer.STATE_DIR:
            continue  # last: it tells that k3s is ours, should this be interrupted
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    for path in ("/etc/rancher", "/var/lib/rancher"):  # RKE2 has its files there too
        remove_empty(path)
    path = PLUGINS_DIR
    while path != "/usr/libexec":
        remove_empty(path)
        path = os.path.dirname(path)
    module.run_command(["systemctl", "daemon-reload"], check_rc=True)
    return resisting


def remove_empty(path: str) -> None:
    """Remove a directory that has nothing in it."""
    if os.path.isdir(path) and not os.listdir(path):
        os.rmdir(path)


def left(resisting: list[tuple[str, list[str]]]) -> list[str]:
    """Return what is still there, as text."""
    found = (
        [f"process {pid}" for pid in processes()]
        + [f"mount {point}" for point in mounts()]
        + [f"interface {name}" for name in links()]
    )
    found += [
        f"{len(commands) - 2} rules of {os.path.basename(program).replace('-save', '')}"
        for program, commands in resisting
    ]
    found += [f"{path}" for path in present() if path != installer.STATE_DIR]
    found += [
        f"listener on port 6443 (pid {listener['pid']})"
        for listener in linux.listeners(6443)
        if listener["pid"] and installer.in_unit(listener["pid"])
    ]
    return found


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    turn.take(module)
    paths = present()
    if installer.is_foreign() or not (
        paths and (os.path.isdir(installer.STATE_DIR) or os.path.exists(installer.UNIT_FILE))
    ):
        module.exit_json(changed=False, left=[])
    result = {"changed": True, "diff": {"before": "\n".join(paths) + "\n", "after": ""}}
    if module.check_mode:
        module.exit_json(left=[], **result)
    found = left(remove(module))
    if found:
        remedy = "Reboot the host, which ends what holds them, and run again."
        module.fail_json(
            msg=f"k3s: expected nothing to be left, found: {', '.join(found)}. {remedy}", left=found, **result
        )
    shutil.rmtree(installer.STATE_DIR, ignore_errors=True)
    module.exit_json(left=[], **result)


if __name__ == "__main__":
    main()
