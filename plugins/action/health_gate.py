# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.module_utils.health import diagnose


def _number(things: list[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


class ActionModule(ActionBase):
    """Fail a host that is not healthy; call a host unreachable that could not be judged, so that scripts can tell both
    apart."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(argument_spec={"health": {"type": "dict", "required": True}})
        health = params["health"]
        if health["outcome"] == "healthy":
            return {"changed": False, "msg": "healthy"}
        if health["outcome"] == "unhealthy":
            # a warning may be what a failure comes from
            roots = [verdict["id"] for verdict in health["verdicts"] if verdict["root"]]
            others = [
                verdict
                for verdict in health["verdicts"]
                if verdict["status"] in ("fail", "blocked") and not verdict["root"]
            ]
            told = f"{_number(roots, 'root cause')} ({', '.join(roots)}), {_number(others, 'consequence')}"
            return {"changed": False, "failed": True, "msg": told}
        unseen = [
            f"{verdict['id']} {verdict['status']}: {verdict['found']}"
            for verdict in diagnose.unseen(health["verdicts"])
        ]
        why = health["message"] or "; ".join(dict.fromkeys(unseen))
        return {"changed": False, "unreachable": True, "msg": f"could not tell: {why or 'no check could look'}"}
