#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_peer
short_description: Authorize a worker's key on the gateway host for its tunnel, and nothing else
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Runs on the gateway host. Keeps one restricted line per worker in the tunnel account's C(authorized_keys) and gives
    every worker a listen address of its own, so that two workers can both offer port 6443.
  - Many workers may be added at the same time. The file is locked while it changes and replaced in one step.
  - Before it lets a worker in, it asks sshd what it would do with that worker's connection (C(sshd -T -C)), and fails
    with file, line and remedy where that is not what a tunnel needs.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  check_mode:
    support: full
    description: Says what would change and which address the worker would get.
options:
  name:
    description: Name of the worker, as in the inventory.
    type: str
    required: true
  state:
    description: Whether the worker may open its tunnel.
    type: str
    choices: [present, absent]
    default: present
  public_key:
    description: The worker's public key, one line. Required with O(state=present), except in check mode, where a key
      may not exist yet.
    type: str
  user:
    description: The tunnel account.
    type: str
    default: beta9-tunnel
  identity:
    description:
      - Which is right where the key is in another worker's line, or where the worker's tunnel is up with another key.
      - V(this) lets this key in and takes the other line, or the other tunnel, away. V(new) asks for a new key where
        this one is another worker's. Empty refuses.
    type: str
    choices: ["", this, new]
    default: ""
  tunnel_runs:
    description: Whether a tunnel of this worker runs on it. One that is up with another key is its own then, from
      before its key was lost.
    type: bool
    default: true
  worker_address:
    description: Address of the worker as the gateway host sees it. sshd may treat addresses differently.
    type: str
  path:
    description: The tunnel account's authorized_keys file. Its directory must exist.
    type: path
    default: /etc/ssh/beta9-tunnel/authorized_keys
  listen_address:
    description: Address on the gateway host at which this worker's k3s is offered. By default one of loopback
      (127.77.0.0/16), where only the gateway host itself can connect, fixed by the name.
    type: str
  listen_port:
    description: Port of that address.
    type: int
    default: 6443
  permit_open:
    description: Addresses as C(host:port) that the worker may reach through the tunnel.
    type: list
    elements: str
    default: ["localhost:31994"]
"""

EXAMPLES = r"""
- name: Authorize the worker
  beta9.workers.tunnel_peer:
    name: "{{ inventory_hostname }}"
    public_key: "{{ key.public_key }}"
  delegate_to: gateway
  register: peer
"""

RETURN = r"""
listen_address:
  description: The worker's own address on the gateway host.
  returned: when O(state=present)
  type: str
  sample: 127.77.3.9
host_keys:
  description: The gateway host's public host keys, for the worker to pin.
  returned: when O(state=present)
  type: list
  elements: str
key_types:
  description:
    - Types of keys, as C(ssh-keygen -t) names them, of which sshd takes one, where it does not take the type of
      O(public_key). Nothing was changed then.
  returned: when another key is needed
  type: list
  elements: str
copied:
  description: Whether that is because this one is another worker's. With O(identity=new).
  returned: when another key is needed
  type: bool
"""

import contextlib
import fcntl
import os
import pwd
import signal
import socket
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, secretfiles
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers, sshd_effective


NETWORK = "127.77.0.0/16"  # where listen addresses are taken from


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Hold the register's lock; released by the kernel if this process dies."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read(path: str) -> str:
    """Return the text of a file, empty if there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def occupied(address: str, port: int, user: str) -> str | None:
    """Return who but the tunnel account listens where the worker's forward would, as text, or None."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
        return None
    except OSError as error:
        listeners = linux.listeners(port)
        # by the account, not by the program: a session is sshd, or from OpenSSH 9.8 on sshd-session
        if any(
            listener["uid"] == pwd.getpwnam(user).pw_uid and listener["address"] == address for listener in listeners
        ):
            return None
        others = [f"{listener['process']} (pid {listener['pid']}) on {listener['address']}" for listener in listeners]
        return "; ".join(others) or str(error)


def other_tunnel(params: dict[str, Any], peer: dict[str, Any] | None, key: str) -> int | None:
    """Return the process of a tunnel that is up in this worker's name with another key, or raise PeerError where it is
    not to be ended."""
    if not peer or peer["key"] in (None, key) or params["tunnel_runs"]:
        return None
    account = pwd.getpwnam(params["user"]).pw_uid
    up = [
        entry
        for entry in linux.listeners(params["listen_port"])
        if entry["uid"] == account and entry["address"] == peer["address"]
    ]
    if up and params["identity"] != "this":
        raise peers.PeerError(
            "the tunnel of a host of this name is up, with another key: two hosts with one name. Give one of them "
            f"another name in the inventory. If {params['name']} was replaced by this host, onboard it once with "
            "beta9_identity=this: the other one is no longer authorized"
        )
    return up[0]["pid"] if up else None


def verify(
    module: AnsibleModule, params: dict[str, Any], address: str, repaired: list[str]
) -> tuple[list[str], list[str]]:
    """Ask sshd what it would do with this worker's connection. Return the host keys that it shows, and the types of
    keys that it takes."""
    need = sshd_effective.Need(
        params["user"],
        params["path"],
        params["worker_address"],
        (address, params["listen_port"]),
        tuple(params["permit_open"]),
    )
    try:
        answer = sshd_effective.ask(module.run_command, params["user"], params["worker_address"])
    except sshd_effective.SshdError as error:
        raise peers.PeerError(str(error)) from None
    # in check mode what would be repaired is still as it was
    problems = [
        problem
        for problem in sshd_effective.problems(answer, need)
        if not (module.check_mode and problem.what in repaired)
    ]
    if problems:
        raise peers.PeerError("the gateway host's sshd would not carry its tunnel. " + " ".join(map(str, problems)))
    keys = sshd_effective.host_keys(module.run_command, answer)
    if not keys:
        places = ", ".join(answer.settings.get("hostkey", [])) or "none configured"
        raise peers.PeerError(
            f"HostKey: expected a public host key of the gateway host to pin, found {places}. Make the missing keys: "
            f"ssh-keygen -A"
        )
    return keys, sshd_effective.key_types(answer)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "public_key": {"type": "str"},
            "user": {"type": "str", "default": "beta9-tunnel"},
            "identity": {"type": "str", "choices": ["", "this", "new"], "default": ""},
            "tunnel_runs": {"type": "bool", "default": True},
            "worker_address": {"type": "str"},
            "path": {"type": "path", "default": sshd_effective.KEYS_PATH},
            "listen_address": {"type": "str"},
            "listen_port": {"type": "int", "default": sshd_effective.LISTEN_PORT},
            "permit_open": {"type": "list", "elements": "str", "default": sshd_effective.TARGETS},
        },
        supports_check_mode=True,
    )
    params = module.params
    directory = os.path.dirname(params["path"])
    if not os.path.isdir(directory):
        if module.check_mode or params["state"] == "absent":
            module.exit_json(
                changed=params["state"] == "present",
                host_keys=[],
                listen_address=None,
                msg=f"{directory} does not exist yet: playbook prepare_gateway makes it",
            )
        module.fail_json(
            msg=f"{directory} does not exist: expected a prepared gateway host. Run: ansible-playbook "
            f"beta9.workers.prepare_gateway"
        )
    if params["state"] == "present" and not params["public_key"] and not module.check_mode:
        module.fail_json(msg="public_key: expected the worker's public key, found nothing")
    try:
        with locked(directory):
            result = apply(module, params)
    except peers.PeerError as error:
        module.fail_json(msg=f"worker {params['name']}: {error}")
    module.exit_json(**result)


def apply(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Compare the register with the desired one and write it once if it differs. Called with the lock held."""
    before = read(params["path"])
    known = peers.parse(before)
    line, result, rival, text, repaired = None, {}, None, before, []
    if params["state"] == "present":
        address = peers.choose_address(params["name"], known, NETWORK, params["listen_address"])
        # root's, readable by everyone as sshd wants it: whatever umask or hand made them otherwise
        repaired = secretfiles.ensure_kept(
            {os.path.dirname(params["path"]): 0o755, params["path"]: 0o644}, module.check_mode
        )
        keys, types = verify(module, params, address, repaired)
        result = {"listen_address": address, "host_keys": keys}
        busy = occupied(address, params["listen_port"], params["user"])
        if busy:
            raise peers.PeerError(
                f"port {params['listen_port']} of {address} on the gateway host: expected free, found {busy}. Bind "
                f"that program to its own address (k3s: bind-address), or set autossh_listen_address"
            )
        key = peers.public_key(params["public_key"]) if params["public_key"] else "(key not made yet)"
        if params["public_key"]:
            if not types:
                raise peers.PeerError(
                    "PubkeyAcceptedAlgorithms: expected sshd to take an ed25519, ecdsa or rsa key, found none of "
                    "them allowed"
                )
            if sshd_effective.key_type(key) not in types:
                return dict(result, changed=bool(repaired), key_types=types)
            holder = peers.key_holder(before, params["name"], key)
            if holder and params["identity"] == "new":
                return dict(result, changed=bool(repaired), key_types=types, copied=True)
            if holder and params["identity"] == "this":
                before = peers.with_line(before, holder, None)
            peers.refuse_foreign_key(before, params["name"], key)
            rival = other_tunnel(params, known.get(params["name"]), key)
        line = peers.render_line(params["name"], key, address, params["listen_port"], params["permit_open"])
    after = peers.with_line(before, params["name"], line)
    changed = after != text
    if changed:
        secretfiles.write(params["path"], after, 0o644, module.check_mode)
    if rival and not module.check_mode:
        os.kill(rival, signal.SIGTERM)
    diff = {"before": text, "after": after, "before_header": params["path"], "after_header": params["path"]}
    return dict(result, changed=bool(changed or repaired), diff=diff)


if __name__ == "__main__":
    main()
