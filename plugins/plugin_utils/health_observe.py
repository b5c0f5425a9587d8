# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module that looks at a host from an action, and never wait for ever for a host that stops answering.

The limit is remote.within() and not the task keyword timeout: what the keyword ends is failed, never unreachable,
whatever failed_when and ignore_unreachable say (tests/integration/test_health_actions.py holds that), so that a host
that hangs would leave the play before its verdicts are given.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.plugin_utils import claims, remote

GRACE_SECONDS = 15  # for the connection
# In memory: a module is unpacked to temporary files, and the disk of a host that is looked at may be full or read-only
TMPDIR = "/dev/shm"
# One module looks at both sides, and each may say something of its own alone
SIDES: dict[str, tuple[remote.Kept, remote.Checked]] = {
    "worker": (None, None),
    "gateway": ({"observations": list, "machines": dict}, claims.gateway_side),
}


def observe(
    action: ActionBase, side: str, arguments: dict[str, Any], task_vars: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Return the result of module worker_health, or {"unreachable": True, "msg": why}.

    action: the running action, whose connection is used. side: a name of SIDES. arguments: of the module, as mapping.
    seconds: the longest time that the probes take. Where sudo refuses, the result is {"failed": True, "msg": why}.
    """
    task = action._task  # pylint: disable=protected-access
    task.environment = [*(task.environment or []), {"TMPDIR": TMPDIR}]
    try:
        with remote.within(seconds + GRACE_SECONDS):
            return _observe(action, side, arguments, task_vars)
    except remote.TooLate:
        why = f"the host stopped answering during the check: nothing came back within {seconds + GRACE_SECONDS:.0f} s"
        return {"changed": False, "unreachable": True, "msg": why}
    except AnsibleConnectionFailure as error:
        return {"changed": False, "unreachable": True, "msg": str(error)}


def _observe(action: ActionBase, side: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    result = _once(action, side, arguments, task_vars)
    connection = action._connection  # pylint: disable=protected-access
    if "observations" in result or result.get("unreachable") or not connection.become:
        return result
    connection.set_become_plugin(None)
    plain = _once(action, side, arguments, task_vars)
    if "observations" not in plain:
        return result
    account = connection.get_option("remote_user") or "the account that runs ansible"
    return dict(plain, limited=f"looked as {account}, without root's rights: {str(result.get('msg', '')).strip()}")


def _once(action: ActionBase, side: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    task_vars = remote.with_own_python(action, task_vars)
    try:
        return remote.believed(
            action,
            "worker_health",
            lambda: action._execute_module("beta9.workers.worker_health", arguments, task_vars=task_vars),  # pylint: disable=protected-access
            task_vars,
            *SIDES[side],
        )
    except AnsibleConnectionFailure:
        raise
    except AnsibleError as error:  # the password of sudo is missing or wrong
        return {"failed": True, "msg": str(error)}
