#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_credentials
short_description: Keep a machine's token and identity on the worker
version_added: "0.1.0"
description:
  - Writes the token to a file that only root may read, and the identity (without secrets) to the local fact C(beta9).
  - The token is written first. A host that has the fact has the token too, wherever a run was interrupted.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Says what would change.
  diff_mode:
    support: partial
    description: The identity is shown, the token never.
  idempotent:
    support: full
    description: A second call with the same values changes nothing.
options:
  state:
    description: V(absent) removes the token and the identity.
    type: str
    choices: [present, absent]
    default: present
  machine_id:
    description: Id that the gateway gave the machine.
    type: str
  pool:
    description: Pool of the machine.
    type: str
  provider:
    description: Provider of the machine.
    type: str
    default: generic
  machine_token:
    description: The machine's token. Required with O(state=present).
    type: str
  directory:
    description: Directory of the credentials, mode 0700.
    type: path
    default: /etc/beta9/credentials
  fact_path:
    description: File of the local fact.
    type: path
    default: /etc/ansible/facts.d/beta9.fact
seealso:
  - module: beta9.workers.machine_enrol
"""

EXAMPLES = r"""
- name: Forget the machine
  beta9.workers.machine_credentials:
    state: absent
"""

RETURN = r"""
machine:
  description: The identity that the host holds now, without secrets.
  returned: always
  type: dict
  sample: {machine_id: 1165a9b6, pool: gpu, provider: generic}
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import host, protocol, secretfiles


def keep(params, check_mode):
    """Write token, then identity. Return whether anything changed and the new identity."""
    identity = {
        "machine_id": protocol.machine_id(params["machine_id"]),
        "pool": protocol.pool_name(params["pool"]),
        "provider": protocol.provider_name(params["provider"]),
    }
    token = protocol.token(params["machine_token"])
    changed = secretfiles.ensure_directory(params["directory"], check_mode)
    if not check_mode:
        os.makedirs(os.path.dirname(params["fact_path"]), mode=0o755, exist_ok=True)
    changed |= secretfiles.write(os.path.join(params["directory"], "machine_token"), token, 0o600, check_mode)
    changed |= secretfiles.write(params["fact_path"], json.dumps(identity, sort_keys=True) + "\n", 0o644, check_mode)
    return changed, identity


def forget(params, check_mode):
    """Remove identity, then token, so that an interrupted removal never leaves a fact without a token."""
    paths = [params["fact_path"], os.path.join(params["directory"], "machine_token"), os.path.join(params["directory"], "k3s_token")]
    present = any(os.path.exists(path) for path in paths)
    if not check_mode:
        secretfiles.remove(paths)
    return present, {}


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "machine_id": {"type": "str"},
            "pool": {"type": "str"},
            "provider": {"type": "str", "default": "generic"},
            "machine_token": {"type": "str", "no_log": True},
            "directory": {"type": "path", "default": host.CREDENTIALS_DIR},
            "fact_path": {"type": "path", "default": host.MACHINE_FACT_PATH},
        },
        required_if=[("state", "present", ["machine_id", "pool", "machine_token"])],
        supports_check_mode=True,
    )
    before = host.machine_fact(module.params["fact_path"])
    try:
        changed, after = (keep if module.params["state"] == "present" else forget)(module.params, module.check_mode)
    except protocol.InvalidField as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, machine=after, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
