# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.module_utils.health import remedies


class ActionModule(ActionBase):
    """Show one verdict as one task: passed, failed, or skipped with the reason. Runs on the controller only."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(
            argument_spec={"id": {"type": "str", "required": True}, "health": {"type": "dict", "required": True}}
        )
        verdict = next((entry for entry in params["health"]["verdicts"] if entry["id"] == params["id"]), None)
        if verdict is None:
            return {"changed": False, "skipped": True, "skip_reason": "not part of this run"}
        status = verdict["status"]
        shown = {key: verdict[key] for key in ("status", "found", "cause", "remedy", "because") if verdict[key]}
        if status == "fail":
            kind = "root cause" if verdict["root"] else f"consequence of {', '.join(verdict['because'])}"
            return dict(
                shown,
                changed=False,
                failed=True,
                msg=f"{kind}: {verdict['cause']}. Found: {verdict['found']}. Do: {remedies.text(verdict['remedy'])}",
            )
        if status in ("blocked", "not_applicable"):
            return dict(
                shown,
                changed=False,
                skipped=True,
                skip_reason=f"blocked by {verdict['blocked_by']}" if status == "blocked" else verdict["found"],
            )
        result = dict(shown, changed=False)
        if status in ("warn", "unknown", "crash"):
            result["warnings"] = [f"{params['id']} {status}: {verdict['cause'] or verdict['found']}"]
        return result
