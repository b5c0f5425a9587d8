# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that run where the operator's secrets are: in ansible-playbook's own process, so that no file of the
controller ever holds their arguments, and that no variable says which Python runs them."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ansible.module_utils.common.parameters import remove_values
from ansible_collections.beta9.workers.plugins.module_utils.gateway import machine_runner
from ansible_collections.beta9.workers.plugins.plugin_utils import remote, trust


class InProcess(remote.WithSecret):
    """A module with SPEC, maybe CONSTRAINTS, and plan, run here where the task's connection is local, else on the
    task's host."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._connection.transport != "local" or (self._connection.become and os.geteuid() != 0):
            return super().run(tmp, task_vars)
        trust.require_own_variables(task_vars or {})
        environment: dict[str, str] = {}
        self._compute_environment_string(environment)
        os.environ.update({name: str(value) for name, value in environment.items()})  # this process ends with the task
        module = importlib.import_module("ansible_collections.beta9.workers.plugins.modules." + self.module())
        _result, params = self.validate_argument_spec(argument_spec=module.SPEC, **getattr(module, "CONSTRAINTS", {}))
        secrets = {
            str(params[name]) for name, option in module.SPEC.items() if option.get("no_log") and params.get(name)
        }
        return remove_values(self.execute(module, params), secrets)

    def execute(self, module: Any, params: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result."""
        return machine_runner.execute(module.plan, params, self._task.check_mode)
