# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.module_utils.health import diagnose, remedies


def _number(things: list[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def of_host(health: dict[str, Any]) -> dict[str, Any]:
    """Return the result for a host. One that could not be judged is unreachable: scripts can tell both apart."""
    if health["outcome"] == "healthy":
        return {"msg": "healthy"}
    if health["outcome"] == "unhealthy":
        # a warning may be what a failure comes from
        roots = [verdict["id"] for verdict in health["verdicts"] if verdict["root"]]
        rest = [verdict["status"] for verdict in health["verdicts"] if not verdict["root"]]
        others = [status for status in rest if status in ("fail", "blocked")]
        told = f"{_number(roots, 'root cause')} ({', '.join(roots)}), {_number(others, 'consequence')}"
        return {"failed": True, "msg": told}
    unseen = [
        f"{verdict['id']} {verdict['status']}: {verdict['found']}" for verdict in diagnose.unseen(health["verdicts"])
    ]
    why = health["message"] or "; ".join(dict.fromkeys(unseen))
    return {"unreachable": True, "msg": f"could not tell: {why or 'no check could look'}"}


def of_check(identity: str, health: dict[str, Any]) -> dict[str, Any]:
    """Return the result for a check: passed, failed, or skipped with the reason."""
    verdict = next((entry for entry in health["verdicts"] if entry["id"] == identity), None)
    if verdict is None:
        return {"skipped": True, "skip_reason": "not part of this run"}
    status = verdict["status"]
    shown = {key: verdict[key] for key in ("status", "found", "cause", "remedy", "because") if verdict[key]}
    if status == "fail":
        kind = "root cause" if verdict["root"] else f"consequence of {', '.join(verdict['because'])}"
        told = f"{kind}: {verdict['cause']}. Found: {verdict['found']}. Do: {remedies.text(verdict['remedy'])}"
        return dict(shown, failed=True, msg=told)
    if status in ("blocked", "not_applicable"):
        why = f"blocked by {verdict['blocked_by']}" if status == "blocked" else verdict["found"]
        return dict(shown, skipped=True, skip_reason=why)
    if status in ("warn", "unknown", "crash"):
        shown["warnings"] = [f"{identity} {status}: {verdict['cause'] or verdict['found']}"]
    return shown


class ActionModule(ActionBase):
    """Show one verdict as one task. Runs on the controller only."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(
            argument_spec={"id": {"type": "str"}, "health": {"type": "dict", "required": True}}
        )
        health = params["health"]
        return dict(of_check(params["id"], health) if params["id"] else of_host(health), changed=False)
