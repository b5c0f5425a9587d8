#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_initramfs
short_description: Ensure the initial RAM file systems hold the current configuration of kernel modules
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Rebuilds the images when one of them is older than one of the files. The need is read from the host, so that a run
    that was killed between writing a file and rebuilding is completed by the next one.
  - A host without such images (a container, or a kernel that needs none) is left alone, and RV(reason) says so.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Says what would be rebuilt. Files that do not exist yet are counted as new.
  diff_mode:
    support: none
    description: The images are nothing to show.
  idempotent:
    support: full
    description: Images newer than the files are left alone.
options:
  files:
    description: Files that the images hold a copy of.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
- name: Have the blacklist known at boot
  beta9.workers.host_initramfs:
    files: [/etc/modprobe.d/blacklist-example.conf]
"""

RETURN = r"""
rebuilt:
  description: Images that were older than a file.
  returned: always
  type: list
  elements: str
reason:
  description: Why.
  returned: always
  type: str
"""

import glob
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import turn

# image of a kernel, and the tool that rebuilds it for all kernels
KINDS = (
    ("/boot/initrd.img-%s", "update-initramfs", ["-u", "-k", "all"]),
    ("/boot/initramfs-%s.img", "dracut", ["--force", "--regenerate-all"]),
    ("/boot/initrd.img-%s", "dracut", ["--force", "--regenerate-all"]),
)


def images(pattern: str) -> list[str]:
    """Return the images of kernels that are installed."""
    kernels = [os.path.basename(path) for path in glob.glob("/lib/modules/*")]
    return sorted(pattern % kernel for kernel in kernels if os.path.exists(pattern % kernel))


def main() -> None:
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "path", "required": True}}, supports_check_mode=True
    )
    turn.take(module)
    kind = next(
        ((pattern, tool, words) for pattern, tool, words in KINDS if images(pattern) and module.get_bin_path(tool)),
        None,
    )
    if not kind:
        return module.exit_json(
            changed=False, rebuilt=[], reason="this host has no initramfs, or no tool that makes it"
        )
    pattern, tool, words = kind
    # ctime: a file put in place by rename keeps the time at which it was written
    newest = max(os.lstat(path).st_ctime if os.path.lexists(path) else float("inf") for path in module.params["files"])
    if newest == float("inf") and not module.check_mode:
        module.fail_json(
            msg=f"files: expected files that exist, found one missing of {', '.join(module.params['files'])}"
        )
    old = [path for path in images(pattern) if os.stat(path).st_mtime < newest]
    if old and not module.check_mode:
        rc, out, err = module.run_command([tool] + words)
        left = [path for path in old if os.stat(path).st_mtime < newest]
        if rc or left:
            said = " | ".join((err or out).strip().splitlines()[-5:])
            module.fail_json(
                msg=f"{tool}: expected new images, found {said or ', '.join(left)} (exit status {rc}). Free space in "
                f"/boot, then run again."
            )
    module.exit_json(
        changed=bool(old), rebuilt=old, reason=f"{'images are' if old else 'no image is'} older than the files"
    )


if __name__ == "__main__":
    main()
