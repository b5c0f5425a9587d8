#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_key
short_description: Ensure a worker has an SSH key pair for the tunnel
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Makes a key without passphrase where there is none. The private key never leaves the host and is never returned.
  - A private key that can't be read as one (a half-written file, say) is replaced.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  diff_mode:
    support: none
    description: A key is nothing to show.
options:
  path:
    description: File of the private key. Its directory is made, for root alone.
    type: path
    default: /etc/beta9/credentials/tunnel_key
  type:
    description:
      - Type of the key, as C(ssh-keygen -t) names it. A key of another type is replaced.
      - By default an existing key is kept, and a new one is of the first type that C(ssh-keygen) makes on this host.
      - On a host in FIPS mode no key is an Ed25519 one, and an existing one of that type is replaced.
    type: str
    choices: [ed25519, ecdsa, rsa]
  renew:
    description: Replace the key, because it is another host's as well.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Ensure a key for the tunnel
  beta9.workers.tunnel_key:
  register: key
"""

RETURN = r"""
public_key:
  description: The public key as one line. Empty in check mode when there is no key yet.
  returned: always
  type: str
running:
  description: Whether a tunnel of this host is running, with this key or an earlier one.
  returned: always
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, secretfiles, turn
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import sshd_effective


SSH_CONFIG = "/etc/beta9/tunnel/ssh_config"
FIPS = "/proc/sys/crypto/fips_enabled"
TYPES = [name for name, _algorithm in sshd_effective.KEY_TYPES]


def usable_types() -> list[str]:
    """Return the types of keys that this host's ssh signs with, the preferred one first."""
    try:
        with open(FIPS, encoding="ascii") as stream:
            fips = stream.read().strip() == "1"
    except OSError:
        fips = False
    return [name for name in TYPES if not (fips and name == "ed25519")]


def public_key(module: AnsibleModule, path: str) -> str:
    """Return the public half of the private key at path, or an empty string when there is no usable key."""
    if not os.path.isfile(path):
        return ""
    rc, out, _err = module.run_command(["ssh-keygen", "-y", "-P", "", "-f", path])
    return " ".join(out.split()[:2]) if rc == 0 else ""


def running() -> bool:
    """Return whether an ssh of the tunnel runs."""
    return any(
        words[0].rpartition("/")[2] == "ssh" and "-G" not in words and SSH_CONFIG in words
        for _pid, _parent, words in linux.processes()
    )


def make(module: AnsibleModule, path: str, types: list[str]) -> None:
    """Make a key of the first type that ssh-keygen makes here."""
    temporary = path + ".new"
    for name in types:
        secretfiles.remove([temporary, temporary + ".pub", path + ".pub"])
        rc, _out, err = module.run_command(
            ["ssh-keygen", "-q", "-t", name, "-N", "", "-C", "beta9-worker", "-f", temporary]
        )
        if rc == 0:
            os.replace(temporary, path)
            secretfiles.remove([temporary + ".pub"])
            return
    module.fail_json(msg=f"expected ssh-keygen to make a key ({', '.join(types)}), found: {err.strip()}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/beta9/credentials/tunnel_key"},
            "type": {"type": "str", "choices": TYPES},
            "renew": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    turn.take(module)
    path, wanted, usable = module.params["path"], module.params["type"], usable_types()
    if wanted and wanted not in usable:
        expected = f"type: expected one that this host signs with in FIPS mode ({', '.join(usable)}), found {wanted}"
        module.fail_json(msg=f"{expected}. Let the gateway host's sshd take one of them: PubkeyAcceptedAlgorithms")
    changed = secretfiles.ensure_directory(os.path.dirname(path), module.check_mode)
    if os.path.isfile(path):
        changed |= secretfiles.ensure_mode(path, 0o600, module.check_mode)
    if module.check_mode and not module.get_bin_path("ssh-keygen"):
        module.exit_json(changed=True, public_key="", running=running())
    key = public_key(module, path)
    kind = sshd_effective.key_type(key) if key else ""
    if module.params["renew"] or (wanted and kind != wanted) or kind in set(TYPES) - set(usable):
        key = ""
    if not key and not module.check_mode:
        make(module, path, [wanted] if wanted else usable)
        key = public_key(module, path)
        changed = True
    module.exit_json(changed=changed or not key, public_key=key, running=running())


if __name__ == "__main__":
    main()
