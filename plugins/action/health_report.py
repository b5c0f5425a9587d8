# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, control, diagnose, join


class ActionModule(ActionBase):
    """Join what worker, gateway and controller saw of one host, and name the root causes. Runs on the controller only."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(
            argument_spec={
                "worker": {"type": "dict", "required": True},
                "gateway": {"type": "dict", "default": {}},
                "listed": {"type": "dict", "default": {}},
                "settings": {"type": "dict", "required": True},
                "only": {"type": "list", "elements": "str", "default": []},
                "skip": {"type": "list", "elements": "str", "default": []},
                "accept": {"type": "list", "elements": "dict", "default": []},
            }
        )
        name = task_vars["inventory_hostname"]
        worker, gateway, listed = params["worker"], params["gateway"] or {}, params["listed"] or {}
        health = {"host": name, "outcome": "unreachable", "message": "", "verdicts": []}
        if worker.get("unreachable"):
            return dict(health, changed=False, message=str(worker.get("msg", "")).strip())
        if "observations" not in worker:
            message = "expected the worker's observations, found: %s" % (worker.get("msg") or worker.get("module_stderr") or "nothing")
            return dict(health, changed=False, outcome="unknown", message=message)
        settings = dict(params["settings"], list_error=listed.get("why"))
        observations = list(worker["observations"]) + self._gateway(gateway, name, worker.get("identity"), listed)
        observations += control.observe(settings, worker.get("identity"), listed.get("machines"))
        if worker.get("identity"):
            observations += join.join(observations, settings)
        wanted = [entry for entry in observations if entry["id"] not in params["skip"] and (not params["only"] or entry["id"] in params["only"])]
        verdicts = diagnose.clean(diagnose.diagnose(wanted, accept=params["accept"]))
        return dict(health, changed=False, outcome=diagnose.outcome(verdicts), message=worker.get("limited", ""), verdicts=verdicts)

    def _gateway(self, gateway, name, identity, listed):
        """Return what the gateway's side saw. What it could not see, the operator's list of pools may tell."""
        if "observations" in gateway:
            seen = list(gateway["observations"]) + list((gateway.get("machines") or {}).get(name) or [])
        else:
            seen = self._unknown(gateway.get("msg") if gateway else None)
        if not (identity or {}).get("pool") or listed.get("pools") is None:
            return seen
        told = {entry["id"]: entry for entry in control.pools(identity["pool"], listed["pools"])}
        known = {entry["id"] for entry in seen if entry["outcome"] != "unknown"}
        return [entry for entry in seen if entry["id"] in known or entry["id"] not in told] + [told[name] for name in sorted(set(told) - known)]

    @staticmethod
    def _unknown(why):
        """Return what is known of the gateway's side when it could not be asked: nothing."""
        text = "the gateway's side could not be asked: %s" % (str(why).strip()[:200] if why else "no host was named (health_check_gateway_host)")
        return [{"id": check.id, "outcome": "unknown", "found": text} for check in catalog.CHECKS if check.side == catalog.GATEWAY and not check.active]
