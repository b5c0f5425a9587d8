#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_key
short_description: Keep an SSH key pair for the tunnel on a worker
version_added: "0.1.0"
description:
  - Makes an Ed25519 key without passphrase where there is none. The private key never leaves the host and is never returned.
  - A private key that can't be read as one (a half-written file, say) is replaced.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Says whether a key would be made.
  diff_mode:
    support: none
    description: A key is nothing to show.
  idempotent:
    support: full
    description: An existing key is kept.
options:
  path:
    description: File of the private key. Its directory is made, for root alone.
    type: path
    default: /etc/beta9/credentials/tunnel_key
"""

EXAMPLES = r"""
- name: Keep a key for the tunnel
  beta9.workers.tunnel_key:
  register: key
"""

RETURN = r"""
public_key:
  description: The public key as one line. Empty in check mode when there is no key yet.
  returned: always
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import secretfiles


def public_key(module, path):
    """Return the public half of the private key at path, or an empty string when there is no usable key."""
    if not os.path.isfile(path):
        return ""
    rc, out, _err = module.run_command(["ssh-keygen", "-y", "-P", "", "-f", path])
    return " ".join(out.split()[:2]) if rc == 0 else ""


def main():
    module = AnsibleModule(argument_spec={"path": {"type": "path", "default": "/etc/beta9/credentials/tunnel_key"}}, supports_check_mode=True)
    path = module.params["path"]
    changed = secretfiles.ensure_directory(os.path.dirname(path), module.check_mode)
    if os.path.isfile(path):
        changed |= secretfiles.ensure_mode(path, 0o600, module.check_mode)
    if module.check_mode and not module.get_bin_path("ssh-keygen"):
        module.exit_json(changed=True, public_key="")
    key = public_key(module, path)
    if not key and not module.check_mode:
        temporary = path + ".new"
        secretfiles.remove([temporary, temporary + ".pub", path + ".pub"])
        module.run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "beta9-worker", "-f", temporary], check_rc=True)
        os.replace(temporary, path)
        secretfiles.remove([temporary + ".pub"])
        key = public_key(module, path)
        changed = True
    module.exit_json(changed=changed or not key, public_key=key)


if __name__ == "__main__":
    main()
