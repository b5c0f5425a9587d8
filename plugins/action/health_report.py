# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, control, diagnose, join


class ActionModule(ActionBase):
    """Join what workers, gateway and controller saw, and name the root causes of each host. Runs once, on the controller."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "list", "elements": "str", "required": True},
                "variable": {"type": "str", "required": True},
                "gateway": {"type": "dict", "default": {}},
                "listed": {"type": "dict", "default": {}},
                "only": {"type": "list", "elements": "str", "default": []},
                "skip": {"type": "list", "elements": "str", "default": []},
                "accept": {"type": "list", "elements": "dict", "default": []},
            }
        )
        found = {}
        for name in params["hosts"]:
            variables = task_vars["hostvars"][name]
            worker = variables[params["variable"]] if params["variable"] in variables else {}
            found[name] = dict({"host": name, "message": "", "verdicts": []}, **report(name, worker, params))
        return {"changed": False, "hosts": found}


def report(name, worker, params):
    """Return the outcome, the message and the verdicts of one host. worker is what it returned, or {}."""
    if worker.get("unreachable"):
        return {"outcome": "unreachable", "message": str(worker.get("msg", "")).strip()}
    if "observations" not in worker:
        why = worker.get("msg") or worker.get("module_stderr") or "nothing"
        return {"outcome": "unknown", "message": "expected the worker's observations, found: %s" % why}
    settings, identity, listed = worker["settings"], worker.get("identity"), params["listed"]
    observations = list(worker["observations"]) + gateway_side(params["gateway"], name, identity, listed)
    observations += control.observe(dict(settings, list_error=listed.get("why")), identity, listed.get("machines"))
    if identity:
        observations += join.join(observations, settings)
    wanted = [entry for entry in observations if entry["id"] not in params["skip"] and (not params["only"] or entry["id"] in params["only"])]
    verdicts = diagnose.clean(diagnose.diagnose(wanted, accept=params["accept"]))
    return {"outcome": diagnose.outcome(verdicts), "message": worker.get("limited", ""), "verdicts": verdicts}


def gateway_side(gateway, name, identity, listed):
    """Return what the gateway's side saw. What it could not see, the operator's list of pools may tell."""
    if "observations" in gateway:
        seen = list(gateway["observations"]) + list((gateway.get("machines") or {}).get(name) or [])
    else:
        why = gateway.get("msg")
        text = "the gateway's side could not be asked: %s" % (str(why).strip()[:200] if why else "no host was named (health_check_gateway_host)")
        seen = [{"id": check.id, "outcome": "unknown", "found": text} for check in catalog.CHECKS if check.side == catalog.GATEWAY]
    if not (identity or {}).get("pool") or listed.get("pools") is None:
        return seen
    told = {entry["id"]: entry for entry in control.pools(identity["pool"], listed["pools"])}
    known = {entry["id"] for entry in seen if entry["outcome"] != "unknown"}
    return [entry for entry in seen if entry["id"] in known or entry["id"] not in told] + [told[name] for name in sorted(set(told) - known)]
