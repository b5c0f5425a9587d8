# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: targets
short_description: The pattern of a play's hosts, or an error where it matches none
version_added: "0.1.0"
description:
  - Internal to the playbooks of this collection.
  - Ansible skips a play that matches no host and reports success. Used in C(hosts), this lookup fails instead, and says
    which group is empty, what the limit leaves of it, and where the inventory was read from.
  - Refuses C(--tags) and C(--start-at-task), with which a playbook of this collection would do nothing, or half of its
    work.
  - Returns the pattern as it is. It is meant for plays alone.
author:
  - beta9.workers authors (@beta9)
options:
  _terms:
    description: One pattern, in any form that C(hosts) takes.
    type: list
    elements: str
    required: true
  variable:
    description: Name of the variable that the pattern comes from, for the error.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Onboard workers
  hosts: "{{ lookup('beta9.workers.targets', beta9_workers | default('gpu-hosts', true), variable='beta9_workers') }}"
"""

RETURN = r"""
_raw:
  description: The pattern.
  type: list
  elements: str
"""

import difflib
import os
from typing import Any

from ansible import context
from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible.plugins.lookup import LookupBase
from ansible_collections.beta9.workers.plugins.plugin_utils import settings

WHOLE = ("all", "untagged")  # tags that select every task of ours
BUILT_IN = ("all", "ungrouped")
USUAL_NAMES = ("inventory.yml", "inventory.yaml", "inventory.ini", "hosts.yml", "hosts.yaml", "hosts")
MAX_NAMES = 10


class LookupModule(LookupBase):
    """Evaluate the pattern as Ansible itself will, before the play starts."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return [the pattern], or raise AnsibleLookupError."""
        self.set_options(var_options=variables, direct=kwargs)
        pattern = ",".join(terms[0]) if isinstance(terms[0], list) else terms[0]
        if context.CLIARGS.get("syntax"):
            return [pattern]
        refuse_parts()
        wrong = settings.of_play(variables, self._templar.template)
        if wrong:
            raise AnsibleLookupError(
                " ".join(
                    f"{problem['what']}: expected {problem['expected']}, found {problem['found']}. {problem['remedy']}"
                    for problem in wrong
                )
            )
        groups = variables.get("groups") or {}
        matched = matching(pattern, groups)
        # Ansible lists here all hosts that the limit leaves: the play's own pattern is not known yet
        left = set(variables.get("ansible_play_hosts_all") or [])
        if not matched:
            raise AnsibleLookupError(nothing_matched(pattern, self.get_option("variable"), groups))
        if not left.intersection(matched) and matched != ["localhost"]:
            raise AnsibleLookupError(
                nothing_left(pattern, self.get_option("variable"), matched, variables.get("ansible_limit"))
            )
        return [pattern]


def refuse_parts() -> None:
    """Refuse to run a part of a playbook: without a tag nothing would run, and report success, and a later task lacks
    what earlier ones found."""
    tags = [tag for tag in context.CLIARGS.get("tags") or () if tag not in WHOLE]
    found = "--tags " + ",".join(tags) if tags else "--start-at-task" if context.CLIARGS.get("start_at_task") else ""
    if found:
        raise AnsibleLookupError(
            f"expected a whole run, found {found}: the playbooks of beta9.workers have no tags, and each task uses "
            f"what those before it found. Run the playbook again without it: what is right already is left as it is. "
            f"Choose hosts with --limit."
        )


def matching(pattern: str, groups: dict[str, list[str]]) -> list[str]:
    """Return the names of the hosts that a pattern matches, without any limit. groups is {name: [hosts]}."""
    manager = InventoryManager(loader=None, sources=[], parse=False)
    for name, hosts in groups.items():
        if name not in BUILT_IN:
            manager.add_group(name)
        for host in hosts:
            manager.add_host(host, group=name if name not in BUILT_IN else None)
    manager.reconcile_inventory()
    try:
        return [host.name for host in manager.get_hosts(pattern)] if pattern else []
    except AnsibleError as error:
        raise AnsibleLookupError(f"{pattern} is not a pattern of hosts: {error}") from None


def sources() -> str:
    """Return in words where the inventory was read from."""
    found = []
    for source in context.CLIARGS.get("inventory") or []:
        found.append(
            source
            if source.endswith(",") or "," in source or os.path.exists(source)
            else f"{source} (there is no such file)"
        )
    return ", ".join(found) or "nowhere"


def nothing_matched(pattern: str, variable: str, groups: dict[str, list[str]]) -> str:
    """Return the message for a pattern that matches no host of the whole inventory."""
    names = [name for name in groups if name not in BUILT_IN]
    lines = []
    for part in split_host_pattern(pattern):
        if part in names:
            lines.append(f"group {part} is empty")
        elif not part.startswith(("!", "&")):
            near = difflib.get_close_matches(part, names + list(groups.get("all", [])), 1)
            lines.append(f"there is no group or host {part}{f' (did you mean {near[0]}?)' if near else ''}")
    shown = ", ".join(sorted(names)[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
    text = (
        f"{variable}: expected hosts for '{pattern}', found none: {', '.join(lines) or 'the pattern is empty'}. "
        f"The inventory was read from {sources()}; its groups: {shown or 'none'}."
    )
    here = [
        name
        for name in USUAL_NAMES
        if os.path.isfile(name)
        and os.path.abspath(name) not in map(os.path.abspath, context.CLIARGS.get("inventory") or [])
    ]
    if not groups.get("all") and here:
        return f"{text} Did you mean -i {here[0]}?"
    return (
        f"{text} Add hosts to that group, name the inventory with -i, or set {variable} to the group that "
        f"has the hosts."
    )


def nothing_left(pattern: str, variable: str, matched: list[str], limit: str | None) -> str:
    """Return the message for a pattern of which the limit leaves nothing."""
    shown = ", ".join(sorted(matched)[:MAX_NAMES]) + (", ..." if len(matched) > MAX_NAMES else "")
    return (
        f"{variable}: expected hosts of '{pattern}' ({shown}), found none: the limit '{limit}' leaves out all of "
        f"them. The inventory was read from {sources()}. Correct --limit."
    )
