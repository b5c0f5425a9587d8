# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import time
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils import grammar
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, control, diagnose, join, records
from ansible_collections.beta9.workers.plugins.plugin_utils import (
    claims,
    health_causes,
    health_history,
    health_observe,
    health_remedies,
    health_reports,
    remote,
    trust,
)

HISTORY = "health.history.json"
LISTS = {"type": "list", "elements": "str", "default": []}
SPEC = dict(
    api.GATEWAY_ARGUMENT_SPEC,
    hosts={"type": "list", "elements": "str", "required": True},
    variable={"type": "str", "required": True},
    only=LISTS,
    skip=LISTS,
    accept={
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {name: {"type": "str", "required": True} for name in ("id", "reason")},
    },
    gateway_side={"type": "bool", "default": False},
    redis_url={"type": "str", "no_log": True},
    kube={"type": "bool", "default": False},
    kubeconfig={"type": "path"},
    namespace={"type": "str", "default": "beta9"},
    deadline_seconds={"type": "float", "default": 20},
    since={"type": "float"},
    directory={"type": "path"},
)


class ActionModule(remote.Pipelined):
    """Look at the gateway from the controller and from the host of the task, join that with what the workers saw, and
    name the root causes."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        trust.require_own_variables(task_vars)
        _result, params = self.validate_argument_spec(argument_spec=SPEC)
        workers = {}
        for name in params["hosts"]:
            variables = task_vars["hostvars"].raw_get(name)  # a host's answer is no template
            workers[name] = variables[params["variable"]] if params["variable"] in variables else {}
        listed = list_all(params)
        seen = self.gateway_side(params, machines_of(workers, listed), task_vars) if params["gateway_side"] else {}
        since = params["since"] or min(
            [worker["started"] for worker in workers.values() if "started" in worker] or [time.time()]
        )
        found = {
            name: dict({"host": name, "message": "", "verdicts": []}, **judged(name, worker, params, seen, listed))
            for name, worker in workers.items()
        }
        gateway_host = self._task.delegate_to if params["gateway_side"] else ""
        told = health_remedies.Remedies(task_vars, gateway_host or "", params["kubeconfig"] or "", params["namespace"])
        for name, entry in found.items():
            told.complete(entry["verdicts"], name)
        return dict(
            summary(list(found.values()), since, params["directory"], told.ad_hoc),
            changed=False,
            hosts=found,
            since=since,
        )

    def gateway_side(
        self, params: dict[str, Any], machines: list[dict[str, Any]], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what was seen of the gateway's side on the host that this task is delegated to."""
        asked = {name: params[name] for name in ("kube", "kubeconfig", "namespace")}
        probes = {
            "nodeport" if check.id == "G04" else check.id: {
                "seconds": check.timeout_seconds,
                "builds_on": check.builds_on,
            }
            for check in catalog.CHECKS
            if (check.side == catalog.GATEWAY or check.id == "G04")
            and catalog.asked_for(check.id, params["only"], params["skip"])
        }
        arguments = {name: params[name] for name in ("redis_url", "deadline_seconds")}
        arguments.update(probes=probes, gateway=dict(asked, machines=machines))
        return health_observe.observe(self, "gateway", arguments, task_vars, params["deadline_seconds"])


def list_all(params: dict[str, Any]) -> dict[str, Any]:
    """Return what the operator's token shows of the gateway: {"machines", "pools", "why": why they can't be had}."""
    if not params["token"] and not params["token_file"]:
        return {"why": "no admin token was given (beta9_admin_token_file)"}
    try:
        client = api.client_from_params(params)
        return {"machines": client.list_machines(), "pools": client.list_pools(), "why": ""}
    except (api.GatewayError, protocol.InvalidField, OSError) as error:
        return {"why": str(error)}


def machines_of(workers: dict[str, dict[str, Any]], listed: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what module_utils/health/gateway.py wants to know of the machines of workers that could be asked."""
    ready = {machine["id"] for machine in listed.get("machines") or [] if machine["status"] == "ready"}
    found = []
    for name, worker in workers.items():
        identity = claims.identity(worker.get("identity"))
        if not identity or "observations" not in worker:
            continue
        data = {entry["id"]: entry.get("data") or {} for entry in worker["observations"]}
        found.append(
            {
                "host": name,
                "machine_id": identity["machine_id"],
                "pool": identity["pool"],
                "provider": identity["provider"],
                "connection": worker["settings"]["connection"],
                "k3s": worker["settings"]["k3s"],
                "ready": identity["machine_id"] in ready,
                "nonce": worker.get("nonce"),
                "tailnet_addresses": [
                    entry for entry in data.get("V03", {}).get("addresses") or [] if isinstance(entry, str)
                ],
                "k3s_certificate": data.get("K03", {}).get("certificate"),
                "tunnel": tunnel_of(data.get("T08", {}).get("tunnel")),
            }
        )
    return found


def tunnel_of(told: Any) -> dict[str, Any] | None:
    """Return what a worker tells of its tunnel's ends, or None where that is not of the form that a gateway host may be
    asked with."""
    try:
        return {
            "target": grammar.host_port(told["target"]),
            "listen": grammar.host_port(told["listen"]) if told["listen"] else "",
            "port": grammar.port(told["port"]),
            "user": grammar.user_name(told["user"]),
        }
    except (grammar.InvalidField, KeyError, TypeError):
        return None


def judged(
    name: str, worker: dict[str, Any], params: dict[str, Any], seen: dict[str, Any], listed: dict[str, Any]
) -> dict[str, Any]:
    """Return report(). A host of which no sense can be made is one that nobody could tell of, and the others are judged
    all the same."""
    try:
        return report(name, worker, params, seen, listed)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return {
            "outcome": "unknown",
            "message": (
                f"expected the worker's observations, found what could not be judged ({type(error).__name__}: {error})"
            ),
        }


def report(
    name: str, worker: dict[str, Any], params: dict[str, Any], seen: dict[str, Any], listed: dict[str, Any]
) -> dict[str, Any]:
    """Return the outcome, the message and the verdicts of one host. worker is what it returned, or {}."""
    if worker.get("unreachable"):
        return {"outcome": "unreachable", "message": str(worker.get("msg", "")).strip()}
    if "observations" not in worker:
        why = worker.get("msg") or worker.get("module_stderr") or "nothing"
        return {"outcome": "unknown", "message": f"expected the worker's observations, found: {why}"}
    settings, identity = worker["settings"], worker.get("identity")
    observations = list(worker["observations"]) + gateways_view(seen, name, identity, listed)
    observations += control.observe(dict(settings, list_error=listed.get("why")), identity, listed.get("machines"))
    if identity:
        observations += join.join(observations, settings)
    wanted = [
        entry
        for entry in observations
        if entry["id"] not in params["skip"] and (not params["only"] or entry["id"] in params["only"])
    ]
    verdicts = diagnose.clean(diagnose.diagnose(wanted, accept=params["accept"]))
    return {"outcome": diagnose.outcome(verdicts), "message": worker.get("limited", ""), "verdicts": verdicts}


def gateways_view(
    seen: dict[str, Any], name: str, identity: dict[str, Any] | None, listed: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return what was seen of one host on the gateway's side. What could not be seen there, the operator's list of
    pools may tell."""
    if "observations" in seen:
        found = list(seen["observations"]) + list((seen.get("machines") or {}).get(name) or [])
    else:
        why = seen.get("msg")
        text = (
            f"the gateway's side could not be asked: "
            f"{str(why).strip()[:200] if why else 'no host was named (health_check_gateway_host)'}"
        )
        found = [
            records.observation("unknown", text, identity=check.id)
            for check in catalog.CHECKS
            if check.side == catalog.GATEWAY
        ]
    if not identity or not identity.get("pool") or listed.get("pools") is None:
        return found
    told = {entry["id"]: entry for entry in control.pools(identity["pool"], listed["pools"])}
    known = {entry["id"] for entry in found if entry["outcome"] != "unknown"}
    return [entry for entry in found if entry["id"] in known or entry["id"] not in told] + [
        told[name] for name in sorted(set(told) - known)
    ]


def summary(results: list[dict[str, Any]], since: float, directory: str | None, ad_hoc: str) -> dict[str, Any]:
    """Return the table, the root causes and the statistic of a run, and write its files. ad_hoc: how program ansible is
    called."""
    results = sorted(results, key=lambda entry: entry["host"])
    run: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since)),
        "seconds": round(time.time() - since, 1),
    }
    causes, compared, files = health_causes.causes(results, ad_hoc), health_history.FIRST, []
    if directory:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        compared = health_history.compare(history(directory), results, causes, run["started"])
        for name, text in dict(
            health_reports.render(results, run, causes, compared), **{HISTORY: compared.text}
        ).items():
            path = os.path.join(directory, name)
            secretfiles.replace(path, text.encode("utf-8"), 0o644)
            files.append(path)
    roots = health_reports.roots(results)
    statistic = {
        "outcome": {entry["host"]: entry["outcome"] for entry in results},
        "roots": {entry["host"]: [root["id"] for root in roots if entry["host"] in root["hosts"]] for entry in results},
        "summary": health_reports.incidents(results),
    }
    return {
        "msg": health_reports.table(results, causes, compared),
        "files": files,
        "roots": roots,
        # by host, so that a later batch or a second look adds to it, and replaces what it looked at again
        "ansible_stats": {"data": {"beta9_health": statistic}, "per_host": False, "aggregate": True},
    }


def history(directory: str) -> str:
    """Return the text that earlier runs left in a directory; one that can't be read is as good as none."""
    try:
        with open(os.path.join(directory, HISTORY), encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError):
        return ""
