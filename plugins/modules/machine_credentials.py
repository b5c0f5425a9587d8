#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_credentials
short_description: Ensure a worker has its machine's token and identity
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Writes the token to a file that only root may read, and the identity (without secrets) to the local fact C(beta9).
  - The token is written first. A host that has the fact has the token too, wherever a run was interrupted.
  - While a token is rotated, the host holds the one before as well. The fact then names the machine that it belongs to
    as C(replaces), until it is known which of the two stays.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  diff_mode:
    support: partial
    description: The identity is shown, the token never.
options:
  state:
    description:
      - V(absent) removes the tokens and the identity.
      - V(confirmed) forgets what O(replaces) kept, V(restored) goes back to it. Both are content when nothing was kept.
    type: str
    choices: [present, absent, confirmed, restored]
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
  replaces:
    description: The machine that the host has, as its fact names it. Given, its token and identity are kept aside.
    type: dict
  seen:
    description:
      - Id of the machine that the host had when it was decided that it needs another one, empty for none.
      - Given, and another run gave the host still another one meanwhile, nothing is written. RV(taken) says so, and
        RV(machine) is that one.
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
taken:
  description: Whether the host holds the machine of another run, and nothing was written.
  returned: with O(seen)
  type: bool
dropped:
  description: The machine that the host held until now, and whose record at the gateway nobody needs any more.
  returned: when credentials were restored
  type: dict
  sample: {machine_id: 9c40e2d7, pool: gpu, provider: generic, token_mark: "5f…:81…"}
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn


TOKEN = "machine_token"
KEPT = "machine_token.before"


class Credentials:
    """The files, and the verbs on them. Each returns result keys, changed among them."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.params, self.check_mode = params, check_mode
        self.directory, self.fact_path = params["directory"], params["fact_path"]
        self.token, self.kept = os.path.join(self.directory, TOKEN), os.path.join(self.directory, KEPT)
        self.owner = os.path.join(self.directory, records.TOKEN_OWNER)
        self.before = records.machine_fact(self.fact_path)

    def _write_fact(self, identity: dict[str, Any]) -> bool:
        return secretfiles.write(self.fact_path, json.dumps(identity, sort_keys=True) + "\n", 0o644, self.check_mode)

    def _write_owner(self, identity: dict[str, Any], token: str) -> bool:
        """Say beside the token whose it is, so that another one in its place is noticed."""
        if records.token_owner(self.directory) and records.has_token(self.directory, identity):
            return False
        text = f"{identity['machine_id']} {protocol.token_mark(token)}\n"
        return secretfiles.write(self.owner, text, 0o600, self.check_mode)

    def _copy(self, source: str, target: str) -> None:
        with open(source, "rb") as stream:
            secretfiles.write(target, stream.read(), 0o600, self.check_mode)

    def _taken(self) -> bool:
        """Return whether another run gave this host a machine, with a token, since it was looked at."""
        try:
            held = protocol.machine_id(self.before.get("machine_id"))
        except protocol.InvalidField:
            return False
        seen = self.params["seen"]
        other = seen is not None and held not in (seen, self.params["machine_id"])
        return other and records.has_token(self.directory, self.before)

    def present(self) -> dict[str, Any]:
        """Write token, then identity."""
        identity: dict[str, Any] = {
            "machine_id": protocol.machine_id(self.params["machine_id"]),
            "pool": protocol.pool_name(self.params["pool"]),
            "provider": protocol.provider_name(self.params["provider"]),
        }
        token = protocol.token(self.params["machine_token"])
        if self._taken():
            return {"changed": False, "machine": self.before, "taken": True}
        changed = secretfiles.ensure_directory(self.directory, self.check_mode)
        if self.params["replaces"]:
            identity["replaces"] = {
                name: value
                for name, value in self.params["replaces"].items()
                if name in ("machine_id", "pool", "provider")
            }
            if os.path.exists(self.token):
                self._copy(self.token, self.kept)
        changed |= secretfiles.write(self.token, token, 0o600, self.check_mode)
        changed |= self._write_owner(identity, token)
        changed |= self._write_fact(identity)
        return {"changed": changed, "machine": identity}

    def absent(self) -> dict[str, Any]:
        """Remove identity, then tokens, so that an interrupted removal never leaves a fact without a token."""
        paths = [self.fact_path, self.token, self.kept, self.owner, os.path.join(self.directory, "k3s_token")]
        present = any(os.path.exists(path) for path in paths)
        if not self.check_mode:
            secretfiles.remove(paths)
            secretfiles.remove_empty(os.path.dirname(self.fact_path), 2)
        return {"changed": present, "machine": {}}

    def confirmed(self) -> dict[str, Any]:
        """Forget what was kept: the fact last, because it says that there is something to forget."""
        identity = {name: value for name, value in self.before.items() if name != "replaces"}
        changed = identity != self.before
        if changed and not self.check_mode:
            secretfiles.remove([self.kept])
            self._write_fact(identity)
        return {"changed": changed, "machine": identity}

    def restored(self) -> dict[str, Any]:
        """Go back to what was kept. A host that had no token before has none again."""
        identity = self.before.get("replaces")
        if not identity:
            return {"changed": False, "machine": self.before}
        dropped = {name: value for name, value in self.before.items() if name != "replaces"}
        dropped["token_mark"] = records.token_marks(self.directory, self.before).get(self.before.get("machine_id", ""))
        if not self.check_mode:
            if os.path.exists(self.kept):
                self._copy(self.kept, self.token)
                secretfiles.remove([self.owner])
                mark = records.token_marks(self.directory, identity).get(identity.get("machine_id"))
                if mark:
                    secretfiles.write(self.owner, f"{identity['machine_id']} {mark}\n")
            else:
                secretfiles.remove([self.token, self.owner])
            self._write_fact(identity)
            secretfiles.remove([self.kept])
        return {"changed": True, "machine": identity, "dropped": dropped}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent", "confirmed", "restored"], "default": "present"},
            "machine_id": {"type": "str"},
            "pool": {"type": "str"},
            "provider": {"type": "str", "default": "generic"},
            "machine_token": {"type": "str", "no_log": True},
            "replaces": {"type": "dict"},
            "seen": {"type": "str"},
            "directory": {"type": "path", "default": records.CREDENTIALS_DIR},
            "fact_path": {"type": "path", "default": records.MACHINE_FACT_PATH},
        },
        required_if=[("state", "present", ["machine_id", "pool", "machine_token"])],
        supports_check_mode=True,
    )
    turn.take(module)
    credentials = Credentials(module.params, module.check_mode)
    try:
        result = getattr(credentials, module.params["state"])()
    except protocol.InvalidField as error:
        module.fail_json(msg=str(error))
    module.exit_json(diff={"before": credentials.before, "after": result["machine"]}, **result)


if __name__ == "__main__":
    main()
