# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What heal_worker.yml does about root causes, and what came of it. Pure.

health   a host's entry in the results of health_report: {"outcome", "message", "verdicts"}
plan     {"remedies": names of catalog.HEALS to run, "roots": [{"id", "name", "cause", "heal", "does", "remedy": text}]}
         does: heal, ask (only with heal_opt_in=true), person, watch (a warning that nothing is done about)
outcome  {"healthy": bool, "message": one line, "rows": [[root cause, what was done, result]]}
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, remedies
from ansible_collections.beta9.workers.plugins.module_utils.health.checks import terms
from ansible_collections.beta9.workers.plugins.plugin_utils import tables

FINE = ("pass", "not_applicable")
ASK = "heal_worker.yml -e heal_opt_in=true heals it"


def plan(health: Mapping[str, Any], opt_in: bool = False) -> Dict[str, Any]:
    """Return what to do on one host. opt_in: whether the machine's registration or token may be changed."""
    roots = []
    for verdict in health["verdicts"]:
        if not verdict["root"]:
            continue
        if verdict["heal"] and (opt_in or verdict["heal_class"] == terms.SAFE):
            does = "heal"
        elif verdict["status"] != "fail":
            does = "watch"
        else:
            does = "ask" if verdict["heal"] else "person"
        roots.append(
            {
                "id": verdict["id"],
                "name": verdict["name"],
                "cause": verdict["cause"],
                "heal": verdict["heal"] if does == "heal" else "",
                "does": does,
                "remedy": remedies.text(verdict["remedy"]),
            }
        )
    return {"remedies": sorted({root["heal"] for root in roots if root["heal"]}), "roots": roots}


def awaited(plans: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Return the hosts that may still become healthy by what was done. hosts: {name: health} as it is now."""
    found = []
    for name, chosen in plans.items():
        health = hosts.get(name)
        if not chosen["remedies"] or health is None or health["outcome"] in ("healthy", "unreachable"):
            continue
        others = any(root["does"] in ("ask", "person") for root in chosen["roots"])
        if not others or any(
            _status(health, root["id"]) not in FINE for root in chosen["roots"] if root["does"] == "heal"
        ):
            found.append(name)
    return found


def outcome(
    chosen: Mapping[str, Any], health: Mapping[str, Any], failure: str = "", check: bool = False
) -> Dict[str, Any]:
    """Return what came of a plan. health: of the host, after healing. failure: what went wrong meanwhile. check:
    nothing was done."""
    rows = [_row(root, health, failure, check) for root in chosen["roots"]]
    known = {root["id"] for root in chosen["roots"]}
    for root in plan(health)["roots"]:
        if root["id"] not in known and _status(health, root["id"]) == "fail":
            todo = {"ask": ASK, "heal": "heal_worker.yml heals it"}.get(
                root["does"], "needs a person. Do: " + root["remedy"]
            )
            rows.append([f"{root['id']} {root['name']}", "nothing", f"{root['cause']}: seen only now; {todo}"])
    if health["outcome"] in ("unknown", "unreachable"):
        rows.append(
            [
                "-",
                "nothing" if not chosen["remedies"] else "see above",
                f"could not tell: {health['message'] or 'no check could look'}",
            ]
        )
    if failure and not any(failure in row[2] for row in rows):
        rows.append(["-", "a remedy did not run to its end", failure])
    healthy = health["outcome"] == "healthy" and not failure
    told = [
        f"{row[0]}: {row[2]}"
        for row in rows
        if row[2] not in ("healed", "left alone: a warning") and not row[2].startswith("healthy, though")
    ]
    return {
        "healthy": healthy,
        "message": "; ".join(told) or ("healthy" if healthy else health["outcome"]),
        "rows": rows,
    }


def table(outcomes: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Return the lines of one table of what was done on all hosts. outcomes: {host: outcome}."""
    rows = [["HOST", "ROOT CAUSE", "DONE", "RESULT"]]
    for host, found in outcomes.items():
        rows += [[host] + list(row) for row in found["rows"]] or [[host, "-", "nothing", "healthy"]]
    return tables.aligned(rows)


def _row(root: Mapping[str, Any], health: Mapping[str, Any], failure: str, check: bool) -> List[str]:
    name = f"{root['id']} {root['name']}"
    if root["does"] == "watch":
        return [name, "nothing", "left alone: a warning"]
    if root["does"] == "person":
        return [name, "nothing", f"{root['cause']}: needs a person. Do: {root['remedy']}"]
    if root["does"] == "ask":
        return [name, "nothing", "needs to be asked for: " + ASK]
    done = catalog.HEALS[root["heal"]]
    if check:
        return [name, done, "not done: check mode"]
    status = _status(health, root["id"])
    if status in FINE:
        return [name, done, "healed"]
    found = next((verdict["found"] for verdict in health["verdicts"] if verdict["id"] == root["id"]), "")
    why = failure or found or health["message"]
    if status in ("unknown", "crash") and health["outcome"] == "healthy":
        return [name, done, f"healthy, though the check could not run again: {why}"]
    return [name, done, f"not healed ({status}){': ' + why if why else ''}. Do: {root['remedy']}"]


def _status(health: Mapping[str, Any], name: str) -> str:
    """Return the status of a check; what was not looked at again is unknown."""
    return next((verdict["status"] for verdict in health["verdicts"] if verdict["id"] == name), "unknown")
