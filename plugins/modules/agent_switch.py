#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_switch
short_description: Switch the agent to an installed version, and roll back if the machine does not become ready
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Runs on the worker. Writes the files that belong to the version, lets the link C(current) point to it, restarts the
    unit, and waits until systemd says that it is up (the agent sends READY with its first accepted keepalive) and the
    agent says that the machine is ready.
  - Otherwise it puts link and files back, restarts the unit, waits for the version before, removes the one that failed,
    and fails.
  - All of this is one call on the host, so that a controller that dies in between leaves no host with a version that
    does not work. What the host itself does not survive, a loss of power for example, is noted beside the versions, and
    the next call finishes it.
  - The version before is kept, all older ones are removed.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  idempotent:
    support: full
    description: An agent that is at the version, with the same files, is left alone, ready or not.
options:
  version:
    description: Version to run, installed by M(beta9.workers.agent_install) with
      O(beta9.workers.agent_install#module:switch=false).
    type: str
    required: true
  files:
    description: Files that change with the version, and go back with it. No secrets.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where.
        type: path
        required: true
      content:
        description: The whole text.
        type: str
        required: true
      mode:
        description: Mode of the file.
        type: str
        default: "0644"
  wait_seconds:
    description: How long the machine may take to become ready, with the new version and again with the one before.
    type: int
    default: 60
seealso:
  - module: beta9.workers.agent_install
  - module: beta9.workers.agent_status
"""

EXAMPLES = r"""
- name: Switch to the new version, or roll back
  beta9.workers.agent_switch:
    version: 0.1.0-1f0c5e9a7b21
"""

RETURN = r"""
status:
  description: The agent's status, or C(stopped) when it does not run.
  returned: always
  type: str
  sample: ready
agent_version:
  description: What the running agent calls its version.
  returned: when it runs
  type: str
previous:
  description: The version before.
  returned: always
  type: str
switched_back:
  description: Whether the version before runs again.
  returned: failure
  type: bool
code:
  description: Stable code of the problem that the new version had.
  returned: failure
  type: str
cause:
  description: What the problem is.
  returned: failure
  type: str
remedy:
  description: What to do.
  returned: failure
  type: str
"""

import json
import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.agent import records, service
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn

JOURNAL = ".switching"


def text_of(path: str) -> str | None:
    """Return what is in a file, or None where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


class Switch:
    """One switch: journal, forward, back. The journal holds what to go back to until the outcome is known."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.directory, self.version = module, records.AGENT_DIRECTORY, module.params["version"]
        self.journal = os.path.join(self.directory, JOURNAL)

    def unfinished(self) -> dict[str, Any] | None:
        """Return the journal of a switch whose outcome nobody saw, or None."""
        return json.loads(text_of(self.journal) or "null")

    def desired(self) -> list[dict[str, Any]]:
        return [
            {"path": entry["path"], "content": entry["content"], "mode": entry["mode"]}
            for entry in self.module.params["files"]
        ]

    def found(self) -> list[dict[str, Any]]:
        """Return the files as they are."""
        return [dict(entry, content=text_of(entry["path"])) for entry in self.desired()]

    def diffs(self, before: str, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what differs between the version before with these files, and the desired one."""
        found = (
            [{"before": before + "\n", "after": self.version + "\n", "before_header": "agent", "after_header": "agent"}]
            if before != self.version
            else []
        )
        old = {entry["path"]: entry["content"] for entry in files}
        for new in self.desired():
            if old.get(new["path"]) != new["content"]:
                found.append(
                    {
                        "before": old.get(new["path"]) or "",
                        "after": new["content"],
                        "before_header": new["path"],
                        "after_header": new["path"],
                    }
                )
        return found

    def apply(self, version: str, files: list[dict[str, Any]]) -> None:
        """Have these files and this version, and restart it."""
        for entry in files:
            if entry["content"] is None:
                secretfiles.remove([entry["path"]])
            else:
                secretfiles.write(entry["path"], entry["content"], int(entry["mode"], 8))
        service.point(self.directory, version)
        for verb in (["daemon-reload"], ["restart", "--no-block", records.AGENT_UNIT]):
            self.module.run_command(["systemctl"] + verb, check_rc=True)

    def ready(self, seconds: int) -> tuple[bool, dict[str, Any]]:
        """Wait; return (whether ready, what the agent says)."""
        return service.wait_ready(self.module, seconds, service.CRASHES)

    def forward(self, before: str, files: list[dict[str, Any]]) -> tuple[bool, dict[str, Any]]:
        """Try the new version; return its outcome as ready()."""
        secretfiles.write(self.journal, json.dumps({"from": before, "to": self.version, "files": files}))
        try:
            self.apply(self.version, self.desired())
        except OSError as error:
            return False, {
                "status": "stopped",
                "code": "host_refuses",
                "cause": str(error),
                "remedy": "Fix the host and run it again.",
            }
        return self.ready(self.module.params["wait_seconds"])

    def back(self, before: str, failed: str, files: list[dict[str, Any]], seconds: int) -> tuple[bool, dict[str, Any]]:
        """Put the version before and its files back; return its outcome as ready()."""
        self.apply(before, files)
        outcome = self.ready(seconds)
        if failed != before:
            shutil.rmtree(os.path.join(self.directory, "versions", failed), ignore_errors=True)
        secretfiles.remove([self.journal])
        return outcome


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                },
            },
            "wait_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    turn.take(module)
    switch, version, directory = Switch(module), module.params["version"], records.AGENT_DIRECTORY
    unfinished = switch.unfinished()
    before = unfinished["from"] if unfinished else service.current(directory)
    if not before:
        module.fail_json(
            msg=f"{directory}: expected an agent that was installed by onboard_worker.yml, found none",
            code="agent_absent",
            previous="",
        )
    if not (service.installed(directory, version, module.run_command) or module.check_mode):
        module.fail_json(
            msg=f"expected version {version} in {directory}, found none: install it first",
            code="version_absent",
            previous=before,
        )
    # another version was tried, and nobody saw how that ended
    if unfinished and unfinished["to"] != version and not module.check_mode:
        switch.back(before, unfinished["to"], unfinished["files"], module.params["wait_seconds"])
        files = switch.found()
    else:
        files = unfinished["files"] if unfinished else switch.found()
    diffs = switch.diffs(before, files)
    was_ready, was = switch.ready(0)
    if module.check_mode or not (diffs or switch.unfinished()):
        module.exit_json(changed=bool(diffs or unfinished), previous=before, diff=diffs, **was)
    ready, result = switch.forward(before, files)
    if not ready:
        # one that was not ready before is not waited for: the cause is elsewhere
        again, after = switch.back(
            before, version, files, module.params["wait_seconds"] if was_ready or unfinished else 5
        )
        text = "expected version %s to be ready within %d s, found %s: %s. %s The version before, %s, runs again, "
        text %= (version, module.params["wait_seconds"], result["status"], result["cause"], result["remedy"], before)
        text += "and is ready." if again else f"but is not ready: {after.get('cause', after['status'])}."
        text += "" if was_ready else f" It was not ready before the switch either: {was.get('cause', was['status'])}."
        module.fail_json(msg=text, changed=True, previous=before, switched_back=again, **result)
    if before != version:
        service.prune(directory, (version, before))
    secretfiles.remove([switch.journal])
    module.exit_json(changed=True, previous=before, diff=diffs, **result)


if __name__ == "__main__":
    main()
