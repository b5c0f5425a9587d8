#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_unit
short_description: Ensure a systemd unit runs with the configuration that is on disk
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Reloads systemd if the unit file is newer, enables the unit, starts it, and restarts it if it has been running since
    before one of its files changed.
  - The need for a restart is read from the host, not from what earlier tasks changed. A run that was interrupted
    between writing a file and restarting is so completed by the next one, which a handler can't do.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  check_mode:
    support: full
    description: Says what would be done. A unit that does not exist yet would be started.
options:
  name:
    description: Name of the unit.
    type: str
    required: true
  state:
    description:
      - V(started) restarts a unit that runs with older O(files), and reloads one that was last loaded with older
        O(reload_files).
      - V(reloaded) lets a unit that was last loaded with older files read them again, without ending its work.
      - V(absent) stops and disables the unit and is content if it does not exist.
    type: str
    choices: [started, reloaded, absent]
    default: started
  files:
    description: Files (or links) that the unit reads when it starts.
    type: list
    elements: path
    default: []
  reload_files:
    description:
      - Files that the unit reads when it starts and when it is reloaded. For O(state=started).
      - A unit that is still activating can't be reloaded, and is restarted.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Ensure the tunnel runs
  beta9.workers.host_unit:
    name: beta9-tunnel.service
    files: [/etc/beta9/tunnel/ssh_config, /etc/beta9/tunnel/known_hosts]
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: always
  type: list
  elements: str
  sample: [daemon-reload, enable, restart]
reason:
  description: Why the unit was restarted or reloaded.
  returned: when it was
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, turn

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "FragmentPath",
    "ExecMainStartTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "StateChangeTimestampMonotonic",
)


def show(module: AnsibleModule, name: str) -> dict[str, str]:
    """Return the unit's properties."""
    _rc, out, _err = module.run_command(
        ["systemctl", "show", name, "--property=" + ",".join(PROPERTIES)], check_rc=True
    )
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def newer_than(unit: dict[str, str], moment: str, paths: list[str | None]) -> str | None:
    """Return the first path that changed after a moment of the unit's life (a property), or None."""
    started = int(unit.get(moment) or 0)
    return linux.changed_since(started, filter(None, paths)) if started else None


def plan(params: dict[str, Any], unit: dict[str, str]) -> tuple[list[str], str | None]:
    """Return the verbs to run, in order, and the reason of a restart."""
    if params["state"] == "absent":
        gone = unit["ActiveState"] in ("inactive", "failed") and unit.get("UnitFileState") in ("", "disabled", None)
        return ([] if gone or unit["LoadState"] == "not-found" else ["disable --now"]), None
    verbs = []
    # error: systemd remembers the unit without its file, and says so of the file that is there again
    if unit.get("NeedDaemonReload") == "yes" or unit["LoadState"] in ("not-found", "error", "bad-setting"):
        verbs.append("daemon-reload")
    if unit.get("UnitFileState") != "enabled":
        verbs.append("enable")
    if params["state"] == "reloaded":  # a reload keeps the main process, but passes through another state
        newer = newer_than(unit, "StateChangeTimestampMonotonic", params["files"])
    else:
        newer = newer_than(unit, "ExecMainStartTimestampMonotonic", [unit.get("FragmentPath")] + params["files"])
    verb = "reload" if params["state"] == "reloaded" else "restart"
    if not newer and params["reload_files"]:
        # a unit that changed its state since it became active was reloaded then
        reloaded = unit.get("StateChangeTimestampMonotonic") != unit.get("ActiveEnterTimestampMonotonic")
        moment = (
            "StateChangeTimestampMonotonic"
            if reloaded and unit["ActiveState"] == "active"
            else "ExecMainStartTimestampMonotonic"
        )
        newer = newer_than(unit, moment, params["reload_files"])
        verb = "reload" if unit["ActiveState"] in ("active", "reloading") else "restart"
    if unit["ActiveState"] in ("inactive", "failed", "deactivating"):
        verbs.append("start")
    elif newer:
        verbs.append(verb)
    return verbs, f"{newer} is newer than what the unit has loaded" if newer else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "reloaded", "absent"], "default": "started"},
            "files": {"type": "list", "elements": "path", "default": []},
            "reload_files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    turn.take(module)
    name = module.params["name"]
    unit = show(module, name)
    verbs, reason = plan(module.params, unit)
    if not module.check_mode:
        for verb in verbs:
            # --no-block: a unit of Type=notify is only up when the gateway answered; who wants to wait for that, waits
            # for it
            command = ["systemctl"] + (["--no-block"] if verb in ("start", "restart") else []) + verb.split()
            module.run_command(command + ([] if verb == "daemon-reload" else [name]), check_rc=True)
        if verbs and module.params["state"] == "absent":
            # refused when it ended well, and then there is nothing to forget
            module.run_command(["systemctl", "reset-failed", name])
    before = f"{unit['ActiveState']}, {unit.get('UnitFileState') or 'not installed'}\n"
    desired = "inactive, not enabled\n" if module.params["state"] == "absent" else "active, enabled, current\n"
    module.exit_json(
        changed=bool(verbs),
        actions=verbs,
        **(dict(reason=reason) if reason else {}),
        diff={"before": before, "after": desired if verbs else before},
    )


if __name__ == "__main__":
    main()
