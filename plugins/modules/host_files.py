#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Ensure several small text files on a host in one call
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Writes files and removes files, each whole or not at all, with their directories. One round trip for all of them.
  - Meant for configuration without secrets. Contents are shown with C(--diff).
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  check_mode:
    support: full
    description: Says what would change, also where the directories do not exist yet.
options:
  files:
    description: Files that must exist, owned by root. Missing parent directories are made with mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The whole text.
        type: str
        required: true
      mode:
        description: Octal mode.
        type: str
        default: "0644"
  kept:
    description:
      - Files and directories whose mode and owner (root) are kept, and whose contents are not compared. What does not
        exist is left out.
      - Links are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      mode:
        description: Octal mode.
        type: str
        required: true
  absent:
    description: Files, links and directories that must not exist. Directories are removed with their contents.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Write the agent's settings and its unit
  beta9.workers.host_files:
    files:
      - path: /etc/beta9/agent.env
        content: "{{ lookup('ansible.builtin.template', 'agent.env.j2') }}"
      - path: /etc/systemd/system/beta9-agent.service
        content: "{{ lookup('ansible.builtin.template', 'beta9-agent.service.j2') }}"
"""

RETURN = r"""
paths:
  description: What changed.
  returned: always
  type: list
  elements: str
"""

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn


def current(path: str) -> str | None:
    """Return the text of a file, or None when there is no such file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return "(not text)\n"


def keep(entry: dict[str, Any], check_mode: bool) -> dict[str, str] | None:
    """Write one file if it differs. Return its diff, or None."""
    before = current(entry["path"])
    if not secretfiles.write(entry["path"], entry["content"], int(entry["mode"], 8), check_mode):
        return None
    if before == entry["content"]:
        return repaired(entry["path"])
    return {
        "before": before or "",
        "after": entry["content"],
        "before_header": entry["path"],
        "after_header": entry["path"],
    }


def repaired(path: str) -> dict[str, str]:
    """Return the diff of a path of which only mode or owner, its own or its directory's, was not right."""
    return {
        "before": "mode or owner wrong\n",
        "after": "mode and owner repaired\n",
        "before_header": path,
        "after_header": path,
    }


def drop(path: str, check_mode: bool) -> dict[str, str] | None:
    """Remove one path. Return its diff, or None when it was not there."""
    if not os.path.lexists(path):
        return None
    if not check_mode:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return {"before": "present\n", "after": "absent\n", "before_header": path, "after_header": path}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
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
            "kept": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "mode": {"type": "str", "required": True}},
            },
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    turn.take(module)
    done = [keep(entry, module.check_mode) for entry in module.params["files"]]
    kept = {entry["path"]: int(entry["mode"], 8) for entry in module.params["kept"]}
    done += [repaired(path) for path in secretfiles.ensure_kept(kept, module.check_mode)]
    done += [drop(path, module.check_mode) for path in module.params["absent"]]
    diffs = [entry for entry in done if entry]
    module.exit_json(changed=bool(diffs), diff=diffs, paths=[entry["after_header"] for entry in diffs])


if __name__ == "__main__":
    main()
