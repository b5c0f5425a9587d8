# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From observations to verdicts and root causes. Pure: no clock, no input or output.

    observation   what a probe saw: {"id", "outcome", "code", "found", "evidence", "seconds"}
                  outcome: ok, bad, warn, not_applicable, unknown, crash
    verdict       what it means: status pass, warn, fail, blocked, not_applicable, unknown, crash
                  remedy: a Remedy of the catalogue as a mapping, not yet filled in for the host; {} without a cause
                  root: true for what has to be fixed first; because: the roots of a consequence or of a blocked check

requires: the probe means nothing without it, so the check is blocked. explained_by: it ran and failed, and an ancestor
that failed as well explains it. What is not known explains nothing, but a failure further up is seen through it.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, records
from ansible_collections.beta9.workers.plugins.module_utils.health.checks import terms

TROUBLE = ("fail", "warn")
READY = ("C02", "M01", "M02")  # the checks that see the machine ready
# Nobody is healthy of whom nothing of one of these was seen to be well: the gateway's view, the agent, the connection
# between both
CHAIN = (READY, ("P01",), ("T03", "T04", "A01"))


def order(checks: Sequence[terms.Check]) -> list[terms.Check]:
    """Return the checks so that ancestors come first. Raises ValueError on a cycle."""
    by_id, done, result = {check.id: check for check in checks}, set(), []
    path: list[str] = []

    def visit(check: terms.Check) -> None:
        if check.id in done:
            return
        if check.id in path:
            raise ValueError("cycle: " + " -> ".join(path + [check.id]))
        path.append(check.id)
        for ancestor in check.requires + check.explained_by:
            if ancestor in by_id:
                visit(by_id[ancestor])
        path.pop()
        done.add(check.id)
        result.append(check)

    for check in checks:
        visit(check)
    return result


def diagnose(
    observations: Iterable[records.Observation],
    checks: Sequence[terms.Check] = catalog.CHECKS,
    accept: Iterable[Mapping[str, str]] = (),
) -> list[dict[str, Any]]:
    """Return the list of verdicts, in the catalogue's order, for observations by id.

    A check without an observation is left out. accept: [{"id", "reason"}] turns a known failure into a warning that
    explains nothing and is no root.
    """
    seen = {observation["id"]: observation for observation in observations}
    accepted = {entry["id"]: entry.get("reason", "") for entry in accept}
    verdicts: dict[str, dict[str, Any]] = {}
    for check in order(checks):
        if check.id in seen:
            verdicts[check.id] = _verdict(check, seen[check.id], verdicts, accepted)
    return [verdicts[check.id] for check in checks if check.id in verdicts]


def roots(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdicts of the root causes."""
    return [verdict for verdict in verdicts if verdict["root"]]


def outcome(verdicts: list[dict[str, Any]]) -> str:
    """Return healthy, unhealthy or unknown: what a script wants to know. What nobody saw well is not healthy."""
    statuses = [verdict["status"] for verdict in verdicts]
    if "fail" in statuses:
        return "unhealthy"
    return "healthy" if "pass" in statuses and "crash" not in statuses and not unseen(verdicts) else "unknown"


def unseen(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdicts of those links of the chain of which nothing was seen to be well, though it was looked at."""
    links = [
        [verdict for verdict in verdicts if verdict["id"] in link and verdict["status"] != "not_applicable"]
        for link in CHAIN
    ]
    return [verdict for link in links for verdict in link if not any(verdict["status"] == "pass" for verdict in link)]


def _verdict(
    check: terms.Check, seen: records.Observation, verdicts: dict[str, dict[str, Any]], accepted: dict[str, str]
) -> dict[str, Any]:
    verdict: dict[str, Any] = dict(records.verdict(check, seen, "pass"))
    blocker = next(
        (
            verdicts[name]
            for name in check.requires
            if name in verdicts and verdicts[name]["status"] in ("fail", "blocked")
        ),
        None,
    )
    if seen["outcome"] == "not_applicable":
        verdict["status"] = "not_applicable"
    elif blocker:
        verdict.update(status="blocked", blocked_by=blocker["id"], because=_origin(blocker), found="", evidence="")
    elif seen["outcome"] in ("unknown", "crash"):
        verdict["status"] = seen["outcome"]
    elif seen["outcome"] in ("bad", "warn"):
        cause, remedy = catalog.causes_of(check, seen.get("code", ""))
        status = "warn" if seen["outcome"] == "warn" or check.severity == "warn" else "fail"
        verdict.update(status=status, code=seen.get("code", ""), cause=cause, remedy=remedy._asdict())
        verdict["heal"] = check.heals.get(verdict["code"], check.heal)
        if verdict["heal"] == "onboard":  # may create a machine
            verdict["heal_class"] = terms.OPT_IN
        if check.id in accepted:
            verdict.update(status="warn", accepted=accepted[check.id] or "accepted")
        else:
            verdict["because"] = _explanations(check, verdicts)
            verdict["root"] = not verdict["because"]
    # what did not fail itself lets a failure above it be seen, except where it looked and found all well
    verdict["_above"] = (
        sorted(set(verdict["because"]) | set(_explanations(check, verdicts)))
        if verdict["status"] not in ("pass",)
        else []
    )
    return verdict


def _origin(verdict: dict[str, Any]) -> list[str]:
    return verdict["because"] or [verdict["id"]]


def _explanations(check: terms.Check, verdicts: dict[str, dict[str, Any]]) -> list[str]:
    """Return the roots above a check: of ancestors that failed, and of those that could not be judged."""
    found = []
    for name in check.requires + check.explained_by:
        ancestor = verdicts.get(name)
        if ancestor is None or ancestor["status"] == "pass":
            continue
        if ancestor["status"] in TROUBLE and "accepted" not in ancestor:
            found += _origin(ancestor)
        else:
            found += ancestor["_above"]
    return sorted(set(found))


def clean(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdicts without what only the computation needed."""
    return [{key: value for key, value in verdict.items() if not key.startswith("_")} for verdict in verdicts]
