# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of a health run: table, JSON, JUnit and one HTML page. Pure: results in, text out.

A result is {"host", "outcome": healthy|unhealthy|unknown|unreachable, "message", "verdicts": [...]}.
"""

from __future__ import annotations

import json
from typing import Any, List
from xml.etree import ElementTree

from ansible_collections.beta9.workers.plugins.module_utils.health import remedies
from ansible_collections.beta9.workers.plugins.plugin_utils import health_causes, health_history, health_page, tables


def counts(verdicts: list[dict[str, Any]]) -> dict[str, int]:
    """Return {status: number}."""
    found: dict[str, int] = {}
    for verdict in verdicts:
        found[verdict["status"]] = found.get(verdict["status"], 0) + 1
    return found


def names(hosts: list[str], limit: int = 5) -> str:
    """Return host names for people: a few by name, many by number."""
    if len(hosts) <= limit:
        return ", ".join(hosts)
    return f"{len(hosts)} hosts ({', '.join(hosts[:3])}, ...)"


def table(
    results: list[dict[str, Any]],
    causes: list[health_causes.Cause] | None = None,
    compared: health_history.Compared = health_history.FIRST,
) -> str:
    """Return the summary for a terminal: a line a host, then each cause once with evidence and remedy. causes:
    health_causes.causes."""
    rows = [["HOST", "HEALTH", "PASS", "WARN", "FAIL", "BLOCKED", "UNKNOWN", "ROOT CAUSE"]]
    for result in results:
        number = counts(result["verdicts"])
        roots = [verdict["id"] for verdict in result["verdicts"] if verdict["root"]]
        rows.append(
            [result["host"], result["outcome"]]
            + [str(number.get(status, 0)) for status in ("pass", "warn", "fail", "blocked")]
            + [str(number.get("unknown", 0) + number.get("crash", 0)), ", ".join(roots) or "-"]
        )
    lines = tables.aligned(rows)
    for cause in health_causes.causes(results) if causes is None else causes:
        lines += [""] + _cause_lines(cause, compared.note(cause.key, len(cause.hosts)))
    gone = [f"GONE {entry.identity}  {names(entry.hosts)}: {entry.cause}" for entry in compared.gone.values()]
    notes: dict = {}
    for result in results:
        if result["message"] and result["verdicts"]:
            notes.setdefault(" ".join(result["message"].split()), []).append(result["host"])
    lines += [""] + gone if gone else []
    lines += [""] + [f"NOTE  {names(hosts)}: {message}" for message, hosts in notes.items()] if notes else []
    lines += [""] + unknowns(results) if unknowns(results) else []
    return "\n".join(lines)


def _cause_lines(cause: health_causes.Cause, note: str) -> List[str]:
    """Return one cause as lines for a terminal."""
    terms = [
        ("what", cause.expected),
        ("cause", cause.cause),
        ("found", cause.found),
        ("do", describe(cause.remedy, cause.hosts)),
    ]
    lines = [f"{cause.label}  {names(cause.hosts)}{f'  ({note})' if note else ''}"]
    lines += [f"  {name:<7} {text}" for name, text in terms if text]
    lines += [f"          ({cause.heal})"] if cause.heal else []
    lines += [f"  more    {cause.docs}"] if cause.docs else []
    return lines + ([f"  leads to {', '.join(cause.leads_to)}"] if cause.leads_to else [])


def incidents(results: list[dict], limit: int = 50) -> dict[str, str]:
    """Return {host: its root causes of failures with their remedies, in one line}, for notifications: at most `limit`
    hosts."""
    found = {}
    for result in results:
        roots = [verdict for verdict in result["verdicts"] if verdict["root"] and verdict["status"] == "fail"]
        lines = [f"{root['id']} {root['cause']}; {describe(root['remedy'], [result['host']])}" for root in roots]
        if not lines and result["outcome"] != "healthy":
            lines = [f"{result['outcome']}: {' '.join(result['message'].split()) or 'see the report'}"]
        if lines:
            found[result["host"]] = " | ".join(lines)[:500]
    return dict(list(found.items())[:limit])


def describe(remedy: dict[str, Any], hosts: list[str]) -> str:
    """Return a filled remedy for all of its hosts in one line."""
    return remedies.text(remedy, names(hosts) if remedy.get("where") == remedies.WORKER else "")


def unknowns(results: list[dict[str, Any]], limit: int = 6) -> list[str]:
    """Return a line for each reason why checks could not look, the most frequent first. Each line's checks are those of
    each of its hosts."""
    reasons: dict[tuple, list[str]] = {}
    for result in results:
        of_host: dict[tuple, list[str]] = {}
        for verdict in result["verdicts"]:
            if verdict["status"] in ("unknown", "crash"):
                of_host.setdefault((verdict["status"], verdict["found"]), []).append(verdict["id"])
        # hosts on one line have the same checks: no pair is told that was not seen
        for (status, found), checks in of_host.items():
            reasons.setdefault((status, found, tuple(checks)), []).append(result["host"])
    lines = []
    for (status, found, checks), hosts in sorted(
        reasons.items(), key=lambda item: (-len(item[0][2]) * len(item[1]), item[0])
    ):
        lines.append(f"{status.upper()} {', '.join(checks)}  {names(sorted(hosts))}: {found}")
    return lines[:limit] + ([f"... and {len(lines) - limit} other reasons"] if len(lines) > limit else [])


def document(
    results: list[dict[str, Any]], run: dict[str, Any], compared: health_history.Compared = health_history.FIRST
) -> dict[str, Any]:
    """Return the JSON document (docs/health.schema.json)."""
    changes = {
        name: [
            {"id": entry.identity, "cause": entry.cause, "since": entry.since, "hosts": entry.hosts}
            for entry in getattr(compared, name).values()
        ]
        for name in ("new", "still", "gone")
    }
    return {
        "version": 2,
        "started": run["started"],
        "seconds": run["seconds"],
        "hosts": results,
        "roots": roots(results),
        "changes": dict(changes, since=compared.last),
    }


def roots(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each root cause once, as JSON has it: {"id", "cause", "hosts"}."""
    groups = health_causes.grouped_roots(results)
    return [
        {"id": identity, "cause": cause, "hosts": [host for host, _verdict in hosts]}
        for identity, cause, hosts in groups
    ]


def junit(results: list[dict[str, Any]], run: dict[str, Any]) -> str:
    """Return JUnit XML: a suite a host, a case a check; blocked and unknown are skipped, a host out of reach is an
    error."""
    top = ElementTree.Element("testsuites", name="beta9.workers health")
    for result in results:
        suite = ElementTree.SubElement(
            top, "testsuite", name=result["host"], timestamp=run["started"], tests=str(max(1, len(result["verdicts"])))
        )
        if result["outcome"] == "unreachable":
            case = ElementTree.SubElement(suite, "testcase", classname="beta9.health.host", name="reachable")
            ElementTree.SubElement(case, "error", message=result["message"])
        for verdict in result["verdicts"]:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname="beta9.health." + verdict["name"].split(".")[0],
                name=f"{verdict['id']} {verdict['name']}",
                time=f"{verdict['seconds']:.3f}",
            )
            if verdict["status"] in ("fail", "crash"):
                kind = "failure" if verdict["status"] == "fail" else "error"
                entry = ElementTree.SubElement(case, kind, message=verdict["cause"] or verdict["found"])
                remedy = " ".join(filter(None, [remedies.text(verdict["remedy"]), verdict["docs"]]))
                entry.text = f"{verdict['found']}\n{remedy}\n{verdict['evidence']}"
            elif verdict["status"] != "pass":
                ElementTree.SubElement(
                    case, "skipped", message=f"{verdict['status']}: {verdict.get('blocked_by') or verdict['found']}"
                )
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def render(
    results: list[dict[str, Any]],
    run: dict[str, Any],
    causes: list[health_causes.Cause] | None = None,
    compared: health_history.Compared = health_history.FIRST,
) -> dict[str, Any]:
    """Return {file name: text} of every report. run: {"started", "seconds"}."""
    causes = health_causes.causes(results) if causes is None else causes
    return {
        "health.json": json.dumps(document(results, run, compared), indent=1, sort_keys=True) + "\n",
        "health.junit.xml": junit(results, run),
        "health.html": health_page.page(results, run, causes, compared),
        "health.txt": table(results, causes, compared) + "\n",
    }
