# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module that looks at a host from an action, and never wait for ever for a host that stops answering."""

from __future__ import annotations

import signal

from ansible.errors import AnsibleConnectionFailure, AnsibleError

GRACE_SECONDS = 15  # for the connection


class _TooLate(BaseException):
    """Nothing came back. No connection plugin may take it for an error of its own."""


def look(action, module, arguments, task_vars, seconds):
    """Return the module's result, or {"unreachable": True, "msg": why}.

    action: the running action, whose connection is used. module: its name. arguments: of the module, as mapping. seconds: the longest
    time that the probes take. Where sudo refuses, the result is {"failed": True, "msg": why}.
    """
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
    try:
        return _look(action, module, arguments, task_vars)
    except _TooLate:
        why = "the host stopped answering during the check: nothing came back within %.0f s" % (seconds + GRACE_SECONDS)
        return {"changed": False, "unreachable": True, "msg": why}
    except AnsibleConnectionFailure as error:
        return {"changed": False, "unreachable": True, "msg": str(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _too_late(_number, _frame):
    raise _TooLate


def _look(action, module, arguments, task_vars):
    result = _once(action, module, arguments, task_vars)
    connection = action._connection  # pylint: disable=protected-access
    if "observations" in result or result.get("unreachable") or not connection.become:
        return result
    connection.set_become_plugin(None)
    plain = _once(action, module, arguments, task_vars)
    if "observations" not in plain:
        return result
    account = connection.get_option("remote_user") or "the account that runs ansible"
    return dict(plain, limited="looked as %s, without root's rights: %s" % (account, str(result.get("msg", "")).strip()))


def _once(action, module, arguments, task_vars):
    try:
        return action._execute_module(  # pylint: disable=protected-access
            module_name="beta9.workers." + module, module_args=arguments, task_vars=task_vars
        )
    except AnsibleConnectionFailure:
        raise
    except AnsibleError as error:  # the password of sudo is missing or wrong
        return {"failed": True, "msg": str(error)}
