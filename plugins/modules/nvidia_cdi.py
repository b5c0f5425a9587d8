#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_cdi
short_description: Ensure the CDI specification of a host's GPUs is current
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Where the container toolkit brings C(nvidia-cdi-refresh.service) (1.18 and newer), that unit owns the specification,
    and this module sees to it that it ran with the current driver. A file of our own beside it would name every device
    twice, and is removed.
  - Elsewhere has C(nvidia-ctk) make it, and writes it if it differs. Device numbers in it change between boots.
  - Fails if it names no device.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
options: {}
"""

EXAMPLES = r"""
- name: Keep the specification
  beta9.workers.nvidia_cdi:
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
devices:
  description: Names of the devices in it.
  returned: always
  type: list
  elements: str
  sample: ["0", all]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_host

OURS = "/etc/cdi/nvidia.yaml"
REFRESHED = "/var/run/cdi/nvidia.yaml"
MARK = "# Managed by Ansible (beta9.workers.nvidia_cdi)\n"
UNIT = "nvidia-cdi-refresh.service"


def read(path: str) -> str:
    """Return a file's text, or an empty string."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""


def generate(module: AnsibleModule) -> str:
    """Return what nvidia-ctk makes of the GPUs as they are now."""
    rc, out, err = module.run_command(["nvidia-ctk", "cdi", "generate"])
    if rc or not gpu_host.cdi_names(out):
        found = " | ".join(err.strip().splitlines()[-3:]) or "a specification without devices"
        module.fail_json(
            msg=f"nvidia-ctk cdi generate: expected at least one device, found {found}. See nvidia-smi and nvidia-ctk "
            f"--debug cdi generate."
        )
    return MARK + out


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    turn.take(module)
    if not module.get_bin_path("nvidia-ctk"):
        if module.check_mode:
            module.exit_json(
                changed=True,
                path=OURS,
                devices=[],
                diff={"before": "", "after": "(by nvidia-ctk, which is not installed yet)\n"},
            )
        module.fail_json(
            msg="nvidia-ctk: expected the container toolkit, found no such program. Install it first (nvidia_toolkit)."
        )
    _rc, out, _err = module.run_command(["systemctl", "show", UNIT, "--property=LoadState"])
    if "LoadState=loaded" in out:
        library = gpu_host.library_version()[1]
        before, ours = read(REFRESHED), read(OURS).startswith(MARK)
        stale = not gpu_host.cdi_names(before) or (library and os.stat(library).st_ctime > os.stat(REFRESHED).st_mtime)
        if not module.check_mode:
            if ours:
                os.unlink(OURS)
            if stale:
                module.run_command(["systemctl", "enable", "nvidia-cdi-refresh.path", UNIT])
                module.run_command(["systemctl", "restart", UNIT])
        path, after, changed = REFRESHED, before if module.check_mode else read(REFRESHED), bool(stale or ours)
        if not module.check_mode and not gpu_host.cdi_names(after):
            module.fail_json(
                msg=f"{UNIT}: expected it to write {REFRESHED} with devices, found none. See journalctl -u {UNIT}."
            )
    else:
        path, before, after = OURS, read(OURS), generate(module)
        changed = before != after
        if changed and not module.check_mode:
            secretfiles.write(OURS, after, 0o644)
    diff = {
        "before": "".join(name + "\n" for name in gpu_host.cdi_names(before)),
        "after": "".join(name + "\n" for name in gpu_host.cdi_names(after)),
    }
    module.exit_json(changed=changed, path=path, devices=gpu_host.cdi_names(after), diff=diff)


if __name__ == "__main__":
    main()
