# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import signal

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase


GRACE_SECONDS = 15  # for the connection
JOB_SECONDS = 60  # of G10


class _TooLate(BaseException):
    """Nothing came back. No connection plugin may take it for an error of its own."""


class ActionModule(ActionBase):
    """Run the module; where the account may not become root, run it again as it is: it tells less, and says so.

    A host that stops answering meanwhile is unreachable soon after the probes' deadline.
    """

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        seconds = float(self._task.args.get("deadline_seconds", 20)) + GRACE_SECONDS
        if boolean(self._task.args.get("active", False), strict=False):
            seconds += JOB_SECONDS
        before = signal.signal(signal.SIGALRM, self._too_late)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return self._run(task_vars)
        except _TooLate:
            return {"changed": False, "unreachable": True, "msg": "the host stopped answering during the check: nothing came back within %.0f s" % seconds}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    @staticmethod
    def _too_late(_number, _frame):
        raise _TooLate

    def _run(self, task_vars):
        result = self._look(task_vars)
        if "observations" in result or result.get("unreachable") or not self._connection.become:
            return result
        self._connection.set_become_plugin(None)
        plain = self._look(task_vars)
        if "observations" not in plain:
            return result
        return dict(plain, limited="looked as %s, without root's rights: %s" % (self._get_remote_user(), str(result.get("msg", "")).strip()))

    def _get_remote_user(self):
        return self._connection.get_option("remote_user") or "the account that runs ansible"

    def _look(self, task_vars):
        try:
            return self._execute_module(module_name="beta9.workers.worker_health", module_args=self._task.args, task_vars=task_vars)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:  # the password of sudo is missing or wrong
            return {"failed": True, "msg": str(error)}
