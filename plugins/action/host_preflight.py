# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible_collections.beta9.workers.plugins.plugin_utils import remote, settings


class ActionModule(remote.OnHost):
    """Judge the host's variables on the controller, then let the module look at the host. All problems come back in one
    list."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result, the problems of the variables before those of the host."""
        arguments = dict(self._task.args)
        given = dict(arguments.get("settings") or {})
        found = settings.problems(task_vars or {}, self._templar.template)
        named = {problem["what"] for problem in found}
        found += [problem for problem in settings.required(given) if problem["what"] not in named]
        # What is mistyped must not keep the module from looking at the host
        wrong = {problem["what"].partition("[")[0].split("_", 1)[-1] for problem in found}
        arguments = {name: value for name, value in arguments.items() if name not in wrong}
        arguments["settings"] = {name: value for name, value in given.items() if name not in wrong}
        result = remote.run(self, "host_preflight", arguments, task_vars or {})
        if "problems" in result:
            result["problems"] = found + result["problems"]
        return result
