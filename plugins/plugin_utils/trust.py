# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose word a variable is. Facts are a host's word, variables are the operator's, and ansible-core mixes them where
inject_facts_as_vars is on (its default): a fact then goes before the variable of the same name in the inventory.
"""

from __future__ import annotations

import re
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail

# The names of every variable of this collection, registered and internal ones too
OURS = re.compile(
    r"_{0,2}(beta9|agent|autossh|gateway_host|heal|health_check|k3s|machine|nvidia|onboard|preflight|tailscale|tunnel|worker)_"
)
# What facts are called that are nobody's variable
USUAL = ("ansible_", "_ansible_", "facter_", "ohai_", "discovered_interpreter_")


def require_own_variables(task_vars: dict[str, Any]) -> None:
    """Fail where a fact of the task's host stands for a variable that the collection reads, or for one of the
    operator's."""
    names = injected(task_vars)
    if names:
        raise AnsibleActionFail(
            f"{task_vars.get('inventory_hostname')}: expected variables of the operator's, found facts of the host in "
            f"their place: {', '.join(names)}. Whoever is root on the host chooses what facts say. Set "
            "inject_facts_as_vars = False in section [defaults] of ansible.cfg (or ANSIBLE_INJECT_FACT_VARS=false), "
            "and remove the facts: ansible-playbook --flush-cache"
        )


def injected(task_vars: dict[str, Any]) -> list[str]:
    """Return the sorted names of the host's facts that go before a variable: one of this collection, or any that the
    inventory sets."""
    if not getattr(C, "INJECT_FACTS_AS_VARS", False):
        return []
    manager = getattr(task_vars.get("hostvars"), "_variable_manager", None)
    names = [name for name in _facts(manager, task_vars) if isinstance(name, str) and not name.startswith(USUAL)]
    if not names:
        return []
    operators = _operators(manager, task_vars)
    return sorted(name for name in names if OURS.match(name) or name in operators)


def _facts(manager: Any, task_vars: dict[str, Any]) -> dict[str, Any]:
    try:
        return manager._fact_cache.get(task_vars["inventory_hostname"]) or {}  # pylint: disable=protected-access
    except AttributeError:  # another ansible-core: without their prefix, so that more of them are refused
        return task_vars.get("ansible_facts") or {}
    except KeyError:
        return {}


def _operators(manager: Any, task_vars: dict[str, Any]) -> set[str]:
    """Return the names of the variables that the inventory and the command line set for the host."""
    hosts: Any = task_vars.get("hostvars")
    try:
        host = hosts._inventory.get_host(task_vars["inventory_hostname"])  # pylint: disable=protected-access
    except AttributeError:
        return set()
    before, C.INJECT_FACTS_AS_VARS = C.INJECT_FACTS_AS_VARS, False  # in this task's process
    try:
        return set(manager.get_vars(host=host, include_hostvars=False))
    finally:
        C.INJECT_FACTS_AS_VARS = before
