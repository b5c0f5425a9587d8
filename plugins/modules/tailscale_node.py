#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tailscale_node
short_description: Ensure a host is a member of a tailnet
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Decides from C(tailscale status --json) what is to be done. A node that is logged in is left alone, and needs no
    key. Settings that differ are changed one by one with C(tailscale set). Nothing is ever reset, so settings made by
    others stay.
  - The auth key passes to C(tailscale) through memory that only this process can name. It is in no command line and in
    no file.
  - Where Ansible itself came in over the tailnet, whatever might drop the connection is done by a detached step that
    undoes itself unless another call of this module confirms it.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
options:
  state:
    description:
      - V(present) joins the tailnet, or keeps the node in it.
      - V(absent) logs the node out, if its login was made by this module. A login of somebody else's is left alone.
    type: str
    choices: [present, absent]
    default: present
  login_server:
    description: The control server's URL. Tailscale's own by default; that of a headscale otherwise.
    type: str
    default: ""
  auth_key:
    description:
      - An auth key or an OAuth client secret, needed only where the node is not logged in.
      - Nodes that are made with an OAuth secret need O(tags), and are made not ephemeral.
    type: str
  hostname:
    description: The node's name. Left as it is by default.
    type: str
    default: ""
  tags:
    description: The node's tags. Left as they are by default.
    type: list
    elements: str
    default: []
  accept_routes:
    description: Whether to use the routes that other nodes offer. Left as it is by default.
    type: bool
  accept_dns:
    description: Whether the tailnet's DNS settings become this host's. Left as it is by default.
    type: bool
  force_reauth:
    description: Whether a login at another control server, or with other tags, is given up for the desired one. The old
      one is kept until the new one works.
    type: bool
    default: false
  seen_addresses:
    description:
      - Addresses of the nodes that another member of the tailnet sees, as
        RV(beta9.workers.tailscale_info#module:peers).
      - A node that was deleted at the control server does not notice it until it logs in again. If it is up and its
        address is not among these, tailscaled is restarted, so that it asks the control server again.
    type: list
    elements: str
    default: []
  timeout_seconds:
    description: Longest time for the login, and for the confirmation of a detached step.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Join a tailnet of headscale
  beta9.workers.tailscale_node:
    login_server: https://headscale.example.com
    auth_key: "{{ lookup('ansible.builtin.file', '/run/secrets/authkey') }}"
    hostname: gpu-01
    accept_dns: false
"""

RETURN = r"""
node:
  description: The node as it is now.
  returned: always
  type: dict
  sample: {state: Running, name: gpu-01, dns_name: gpu-01.tail1234.ts.net, address: 100.64.0.3, online: true}
actions:
  description: What was done, or would be.
  returned: always
  type: list
  elements: str
  sample: [login, set accept-dns]
ours:
  description: Whether the login was made by this module.
  returned: with O(state=absent)
  type: bool
path:
  description: Where the program is. Empty when there is none.
  returned: with O(state=absent)
  type: str
pending:
  description: A detached step was started. Call the module again over a new connection to confirm it.
  returned: always
  type: bool
code:
  description: A stable name of what is wrong.
  returned: on failure
  type: str
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn, units
from ansible_collections.beta9.workers.plugins.module_utils.tailscale import cli, tailnet


NAME_SECONDS = 10  # in which the control server confirms a new name


def refuse(module: AnsibleModule, problem: tailnet.Problem, **more: Any) -> None:
    """Fail with what was expected, what was found, and what to do."""
    module.fail_json(
        msg=f"tailnet: expected {problem.expected}, found {problem.found}. {problem.remedy}", code=problem.code, **more
    )


# Where a node gets another key in the same process, peers were seen to go on with the old one. A restart is news to
# them
RESTART = ["systemctl", "restart", "tailscaled.service"]


def commands(
    program: cli.Program, plan: tailnet.Plan, desired: dict[str, Any], before: dict[str, Any]
) -> tuple[cli.Commands, cli.Commands, cli.Commands]:
    """Return (steps, undo, after) as commands of the plan's part that may drop a connection. {key} is the file with the
    key.

    before: the flags that undo the settings.
    """
    path = program.path or ""
    if plan.action == "move":
        login = [path, "login", "--auth-key=file:{key}", f"--timeout={desired['timeout_seconds']}s"] + login_flags(
            desired
        )
        profile = program.profile()
        return [login, RESTART], [[path, "switch", profile]], [[path, "switch", "remove", profile]]
    return [[path, "set"] + tailnet.flags(plan.settings)], [[path, "set"] + tailnet.flags(before)], []


def login_flags(desired: dict[str, Any]) -> list[str]:
    """Return the flags of a login: what is desired, and the server."""
    found = {"login-server": desired["login_server"] or tailnet.TAILSCALE_SERVERS[-1]}
    found.update(
        {
            name: desired[name.replace("-", "_")]
            for name in ("hostname", "accept-routes", "accept-dns")
            if desired[name.replace("-", "_")] not in (None, "")
        }
    )
    if desired["tags"]:
        found["advertise-tags"] = ",".join(sorted(desired["tags"]))
    return tailnet.flags(found)


def apply(program: cli.Program, plan: tailnet.Plan, desired: dict[str, Any], key: str) -> None:
    """Do what the plan says."""
    if plan.action == "resume":
        program.resume(desired["timeout_seconds"])
    elif plan.action == "login":
        program.login("up", key, login_flags(desired), desired["timeout_seconds"])
    elif plan.action == "move":
        before = program.profile()
        try:
            program.login("login", key, login_flags(desired), desired["timeout_seconds"])
        except cli.Failed:
            program.run("switch", before)
            raise
        program.run("switch", "remove", before)
        program.module.run_command(RESTART, check_rc=True)
    if plan.settings and plan.action in (None, "resume"):
        program.must("set", *tailnet.flags(plan.settings))


def online(program: cli.Program, timeout_seconds: int, name: str) -> tuple[dict[str, Any] | None, Any]:
    """Wait until the node is connected to its control server, and a little for the name. Return (status, prefs)."""
    start = time.monotonic()
    while True:
        status, prefs = program.read()
        good = status and status.get("BackendState") == "Running" and (status.get("Self") or {}).get("Online")
        named = (
            not name
            or (status and tailnet.node(status, prefs)["name"] == name.lower())
            or time.monotonic() >= start + NAME_SECONDS
        )
        if (good and named) or time.monotonic() >= start + timeout_seconds:
            return status, prefs
        time.sleep(0.5)


def confirmed(module: AnsibleModule, desired: dict[str, Any]) -> bool:
    """Confirm a detached step of an earlier call, if there is one. Fail if it was undone."""
    if not cli.stage() or module.check_mode:
        return False
    cli.forget_dead(module)
    if not cli.stage():
        return False
    last, log = cli.confirm(desired["timeout_seconds"])
    if last == "confirmed":
        return True
    found = {
        "reverted": f"no new connection within {desired['timeout_seconds']} s, and it was undone",
        "failed": f"a failure, and it was undone: {log}",
    }
    module.fail_json(
        msg=f"tailnet: expected a detached change to succeed, found {found.get(last, last)}. Ansible came in over "
        f"this tailnet: connect by another address.",
        code="reverted",
    )
    return False


def leave(module: AnsibleModule, program: cli.Program, status: dict[str, Any] | None, prefs: dict[str, Any]) -> None:
    """Log the node out, if the login is ours."""
    ours = os.path.exists(cli.JOINED)
    present = bool(ours and status and tailnet.logged_in(status, prefs))
    if present and cli.over_tailnet():
        module.fail_json(
            msg="tailnet: expected a connection outside of the tailnet, found that Ansible came in over the tailnet "
            "that the host is to leave. "
            "Set ansible_host to another address of this host, then run again.",
            code="over_tailnet",
        )
    if present and not module.check_mode:
        program.must("logout")
    if ours and not module.check_mode:
        secretfiles.remove([cli.JOINED])
    found = tailnet.node(status, prefs) if status else {"state": "NoDaemon"}
    module.exit_json(
        changed=ours,
        actions=["logout"] if present else [],
        pending=False,
        node=found,
        ours=ours,
        path=program.path or "",
        diff={"before": "joined\n" if ours else "", "after": ""},
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "login_server": {"type": "str", "default": ""},
            "auth_key": {"type": "str", "no_log": True},
            "hostname": {"type": "str", "default": ""},
            "tags": {"type": "list", "elements": "str", "default": []},
            "accept_routes": {"type": "bool"},
            "accept_dns": {"type": "bool"},
            "force_reauth": {"type": "bool", "default": False},
            "seen_addresses": {"type": "list", "elements": "str", "default": []},
            "timeout_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    turn.take(module)
    program = cli.Program(module)
    desired = dict(module.params, has_key=bool(module.params["auth_key"]))
    if module.params["state"] == "absent":
        leave(module, program, *program.read(5))
    was_pending = confirmed(module, desired)
    status, prefs = program.read(cli.SETTLE_SECONDS)
    restarted = status is not None and tailnet.forgotten(status, desired["seen_addresses"]) and not cli.over_tailnet()
    if restarted and not module.check_mode:
        module.run_command(["systemctl", "restart", "tailscaled.service"], check_rc=True)
        status, prefs = program.read(cli.SETTLE_SECONDS)
    if status is None:
        if module.check_mode:
            module.exit_json(
                changed=True,
                actions=["login"],
                pending=False,
                node={"state": "NoDaemon", "name": "", "address": "", "dns_name": ""},
            )
        text = "tailnet: expected an answer of tailscaled, found none%s. Check: systemctl status tailscaled"
        return module.fail_json(msg=text % last_words(module), code="stopped")
    plan = tailnet.plan(status, prefs, desired)
    before = tailnet.node(status, prefs)
    if plan.problem:
        refuse(module, plan.problem, node=before)
    try:
        finish(module, program, plan, desired, before, prefs, was_pending, ["restart"] if restarted else [])
    except cli.Failed as error:
        module.fail_json(msg=explain(str(error), desired), code="refused", node=before)


def last_words(module: AnsibleModule) -> str:
    """Return what tailscaled said when it ended, as far as it tells why."""
    told = [
        line
        for line in units.said(units.of_module(module), "tailscaled.service", 40).splitlines()
        if any(word in line.lower() for word in ("error", "fail", "does not", "panic", "permission"))
    ]
    told = [line for line in told if "tailscaled.service" not in line] or told
    return f" ({told[-1].strip()})" if told else ""


SERVER_BROKE = "INTERNAL_ERROR; received from peer"


def explain(text: str, desired: dict[str, Any]) -> str:
    """Return what a failed login means."""
    if cli.TAGS_REFUSED in text:
        remedy = "Use a key that was made with these tags, or let the control server's policy allow them (tagOwners)."
    elif SERVER_BROKE in text:
        remedy = (
            "The control server itself failed: see its log. A headscale 0.28 does where a node that had tags "
            "logs in without: delete the node there."
        )
    elif "auth" in text.lower() and ("key" in text.lower() or "invalid" in text.lower()):
        remedy = "Make a new auth key at the control server: this one is wrong, used up or expired."
    else:
        remedy = (
            f"Check tailscale_login_server ({desired['login_server'] or tailnet.TAILSCALE_SERVERS[-1]}) and the "
            f"network path to it."
        )
    return f"tailnet: expected a login, found: {text}. {remedy}"


def finish(
    module: AnsibleModule,
    program: cli.Program,
    plan: tailnet.Plan,
    desired: dict[str, Any],
    before: dict[str, Any],
    prefs: dict[str, Any],
    was_pending: bool,
    actions: list[str],
) -> None:
    """Do the plan, see that it worked, and end the module. actions: what was done before."""
    actions = (
        actions
        + ([plan.action] if plan.action else [])
        + (["set " + " ".join(sorted(plan.settings))] if plan.settings else [])
    )
    after = ", ".join(["Running"] + tailnet.flags(plan.settings)) if actions else before["state"]
    diff = {"before": f"{before['state']}\n", "after": f"{after}\n"}
    if module.check_mode:
        module.exit_json(changed=bool(actions), actions=actions, pending=False, node=before, diff=diff)
    key = tailnet.key_text(module.params["auth_key"]) if desired["has_key"] else ""
    if (plan.action == "move" or plan.settings and plan.action is None) and cli.over_tailnet():
        names = {"hostname": "Hostname", "accept-routes": "RouteAll", "accept-dns": "CorpDNS"}
        parts = commands(program, plan, desired, {flag: prefs.get(names[flag]) for flag in plan.settings})
        cli.detach(module, *parts, seconds=desired["timeout_seconds"], key=key or None)
        module.exit_json(changed=True, actions=actions, pending=True, node=before, diff=diff)
    apply(program, plan, desired, key)
    status, prefs = online(program, desired["timeout_seconds"], desired["hostname"] if actions else "")
    found = tailnet.node(status, prefs) if status else dict(before, state="NoDaemon")
    if plan.action in ("login", "move") and found["state"] == "Running":
        secretfiles.write(cli.JOINED, f"{found['login_server']} {found['address']} {int(time.time())}\n", 0o644)
    if not status or found["state"] != "Running" or not found["online"]:
        return module.fail_json(
            msg=f"tailnet: expected the node online within {desired['timeout_seconds']} s, found "
            f"{found['state']}, {'; '.join(found.get('health') or []) or 'not online'}. Check: tailscale status; "
            f"journalctl -u tailscaled",
            code="offline",
            node=found,
        )
    problem = tailnet.name_problem(status, prefs, desired["hostname"]) or tailnet.not_granted(status, desired)
    if problem:
        refuse(module, problem, node=found)
    module.exit_json(changed=bool(actions) or was_pending, actions=actions, pending=False, node=found, diff=diff)


if __name__ == "__main__":
    main()
