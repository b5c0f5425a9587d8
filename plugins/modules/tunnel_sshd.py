#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_sshd
short_description: Configure the gateway host's sshd for tunnels, and verify that it takes effect
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Runs on the gateway host. Lets sshd read its configuration again if one of O(files) changed since it last did,
    without ending a session. Where systemd listens for sshd (C(ssh.socket)), sshd is started again on that socket,
    because a reload would close it.
  - Then asks sshd what it would do with a connection of the tunnel account, and fails with file, line and remedy where
    that is not what a tunnel needs.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Says whether sshd would read its configuration again. What does not take effect is a warning, because a
      task before this one may change that.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: sshd that has read its current files is left alone.
options:
  user:
    description: The tunnel account.
    type: str
    default: beta9-tunnel
  state:
    description: With V(absent), sshd reads its configuration again and is asked nothing.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The tunnel account's authorized_keys file.
    type: path
    default: /etc/ssh/beta9-tunnel/authorized_keys
  files:
    description: Files or directories of sshd's configuration that the tunnel depends on.
    type: list
    elements: path
    default: [/etc/ssh/sshd_config.d/50-beta9-tunnel.conf]
  listen_port:
    description: Port that workers' tunnels listen on here. Where SELinux enforces, its policy has to let sshd's
      sessions do so.
    type: int
    default: 6443
  permit_open:
    description: Targets of workers' tunnels, as C(host:port). Where SELinux enforces, its policy has to let sshd's
      sessions connect to them.
    type: list
    elements: str
    default: [localhost:31994]
"""

EXAMPLES = r"""
- name: Verify that tunnels can be opened
  beta9.workers.tunnel_sshd:
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: always
  type: list
  elements: str
  sample: [reload ssh.service]
problems:
  description: What keeps tunnels from working, with C(what), C(expected), C(found), C(where) and C(remedy).
  returned: always
  type: list
  elements: dict
host_keys:
  description: The public host keys that sshd shows.
  returned: when O(state=present)
  type: list
  elements: str
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import sshd_effective

PROPERTIES = "Id,LoadState,ActiveState,Triggers,ExecMainStartTimestampMonotonic,StateChangeTimestampMonotonic"


def units(module: AnsibleModule) -> dict[str, dict[str, str]]:
    """Return {name: properties} of the units that run sshd. An alias is listed as what it stands for."""
    names = ["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"]
    _rc, out, _err = module.run_command(["systemctl", "show", *names, "--property=" + PROPERTIES], check_rc=True)
    found = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
    return {unit["Id"]: unit for unit in found if unit.get("LoadState") == "loaded"}


def plan(found: dict[str, dict[str, str]], files: list[str]) -> list[str] | None:
    """Return the systemctl command that makes sshd read its files, [] where it has, or None where no unit runs it."""
    sockets = [unit for name, unit in found.items() if name.endswith(".socket") and unit["ActiveState"] == "active"]
    if any(not set(unit.get("Triggers", "").split()) & set(found) for unit in sockets):
        return []  # a socket that starts sshd again for each connection
    service = next(
        (
            unit
            for name, unit in found.items()
            if name.endswith(".service") and unit["ActiveState"] in ("active", "reloading")
        ),
        None,
    )
    if not service:
        return [] if sockets else None
    # a reload keeps the main process, but passes through another state
    moment = service["ExecMainStartTimestampMonotonic" if sockets else "StateChangeTimestampMonotonic"]
    if not linux.changed_since(int(moment or 0), files):
        return []
    return ["try-restart" if sockets else "reload", service["Id"]]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "default": "beta9-tunnel"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "path", "default": sshd_effective.KEYS_PATH},
            "files": {"type": "list", "elements": "path", "default": [sshd_effective.OWN_CONFIG]},
            "listen_port": {"type": "int", "default": sshd_effective.LISTEN_PORT},
            "permit_open": {"type": "list", "elements": "str", "default": sshd_effective.TARGETS},
        },
        supports_check_mode=True,
    )
    params = module.params
    found = units(module)
    command = plan(found, params["files"])
    if command is None:
        module.fail_json(
            msg="expected sshd to be run by ssh.service, sshd.service or ssh.socket, found none of them active. Start "
            "one of them: systemctl start ssh"
        )
    if command and not module.check_mode:
        module.run_command(["systemctl", *command], check_rc=True)
        if module.run_command(["systemctl", "is-active", "--quiet", command[1]])[0] != 0:
            module.fail_json(
                msg=f"expected {command[1]} to run after systemctl {command[0]}, found it stopped: journalctl -u "
                f"{command[1]}"
            )
    result = {"changed": bool(command), "actions": [" ".join(command)] if command else [], "problems": []}
    if params["state"] == "absent":
        module.exit_json(**result)
    try:
        answer = sshd_effective.ask(module.run_command, params["user"])
    except sshd_effective.SshdError as error:
        module.fail_json(msg=str(error), **result)
    problems = sshd_effective.problems(answer, sshd_effective.Need(params["user"], params["path"]))
    if not any(problem.what == "account" for problem in problems):
        problems += sshd_effective.refused_by_selinux(params["user"], [params["listen_port"]], params["permit_open"])
    keys = sshd_effective.host_keys(module.run_command, answer)
    if not keys:
        places = ", ".join(answer.settings.get("hostkey", [])) or "none configured"
        problems.append(
            sshd_effective.Problem(
                "HostKey", "a public host key for workers to pin", places, "", "Make the missing keys: ssh-keygen -A"
            )
        )
    result.update(problems=[problem._asdict() for problem in problems], host_keys=keys)
    if problems and not module.check_mode:
        module.fail_json(msg="workers could not open a tunnel to this host. " + " ".join(map(str, problems)), **result)
    for problem in problems:
        module.warn(str(problem))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
