# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.plugin_utils import remote

SECONDS = 600  # a host that does not answer in them is unreachable
# The modules that the roles need, and what a role may read of their results
MODULES: dict[str, dict[str, type]] = {
    "command": {"stdout": str, "stderr": str, "rc": int},
    "copy": {},
    "file": {},
    "get_url": {},
    "package": {},
    "systemd_service": {},
    "template": {},
    "unarchive": {},
    "user": {},
}


class ActionModule(ActionBase):
    """Run a module of ansible.builtin, with its own action where it has one."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(
            argument_spec={
                "module": {"type": "str", "required": True, "choices": sorted(MODULES)},
                "arguments": {"type": "dict", "required": True},
            }
        )
        name = params["module"]
        result.update(
            remote.run(self, "ansible.builtin." + name, params["arguments"], task_vars or {}, MODULES[name], SECONDS)
        )
        if not result.get("unreachable"):
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result
