# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of a health run: table, JSON, JUnit and one HTML page. Pure: results in, text out.

A result is {"host", "outcome": healthy|unhealthy|unknown|unreachable, "message", "verdicts": [...]}.
"""

from __future__ import annotations

import json
from xml.etree import ElementTree

from ansible_collections.beta9.workers.plugins.module_utils.health import remedies
from ansible_collections.beta9.workers.plugins.plugin_utils import health_page, tables, health_remedies

CLASSES = {"safe": "heals itself: heal_worker.yml", "opt_in": "heals when asked: heal_worker.yml -e heal_opt_in=true", "person": "needs a person"}


def counts(verdicts):
    """Return {status: number}."""
    found = {}
    for verdict in verdicts:
        found[verdict["status"]] = found.get(verdict["status"], 0) + 1
    return found


def grouped_roots(results):
    """Return [(id, cause, [(host, verdict)])]: the same root on many hosts once, failures before warnings, most hosts first."""
    groups = {}
    for result in results:
        for verdict in result["verdicts"]:
            if verdict["root"]:
                groups.setdefault((verdict["id"], verdict["cause"]), []).append((result["host"], verdict))
    return [(key[0], key[1], hosts) for key, hosts in sorted(groups.items(), key=lambda item: (item[1][0][1]["status"] != "fail", -len(item[1]), item[0]))]


def names(hosts, limit=5):
    """Return host names for people: a few by name, many by number."""
    if len(hosts) <= limit:
        return ", ".join(hosts)
    return "%d hosts (%s, ...)" % (len(hosts), ", ".join(hosts[:3]))


def table(results):
    """Return the summary for a terminal: a line a host, then each root cause once with evidence and remedy."""
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
    for identity, cause, hosts in grouped_roots(results):
        verdict = hosts[0][1]
        consequences = sorted({other["id"] for result in results for other in result["verdicts"] if identity in other["because"]})
        lines += [
            "",
            "%s %s  %s" % (verdict["status"].upper(), identity, names([host for host, _verdict in hosts])),
            "  what    %s" % verdict["title"],
            "  cause   %s" % cause,
            "  found   %s" % verdict["found"],
            "  do      %s" % told(verdict, hosts),
        ]
        if verdict["heal"]:
            lines.append("          (%s)" % CLASSES[verdict["heal_class"]])
        if verdict["docs"]:
            lines.append("  more    %s" % verdict["docs"])
        if consequences:
            lines.append("  leads to %s" % ", ".join(consequences))
    lines += [""] if any(result["message"] for result in results) else []
    for result in results:
        if result["message"]:
            label = {"unreachable": "UNREACHABLE", "unknown": "COULD NOT TELL"}.get(result["outcome"], "NOTE")
            lines.append("%s  %s: %s" % (label, result["host"], " ".join(result["message"].split())))
    lines += [""] + unknowns(results) if unknowns(results) else []
    return "\n".join(lines)


def incidents(results: list[dict], limit: int = 50) -> dict[str, str]:
    """Return {host: its root causes of failures with their remedies, in one line}, for notifications: at most `limit` hosts."""
    found = {}
    for result in results:
        roots = [verdict for verdict in result["verdicts"] if verdict["root"] and verdict["status"] == "fail"]
        lines = [f"{root['id']} {root['cause']}; {told(root, [(result['host'], root)])}" for root in roots]
        if not lines and result["outcome"] != "healthy":
            lines = [f"{result['outcome']}: {' '.join(result['message'].split()) or 'see the report'}"]
        if lines:
            found[result["host"]] = " | ".join(lines)[:500]
    return dict(list(found.items())[:limit])


def told(verdict, hosts):
    """Return the remedy of one root cause on many hosts in one line. hosts: [(host, verdict)]."""
    remedy, found = verdict["remedy"], [host for host, _verdict in hosts]
    if remedy.get("where") == remedies.WORKER:
        return remedies.text(remedy, names(found))
    return remedies.text(health_remedies.for_hosts(remedy, found))


def unknowns(results, limit=6):
    """Return a line for each reason why checks could not look, the most frequent first. Each line's checks are those of each of its hosts."""
    reasons = {}
    for result in results:
        of_host = {}
        for verdict in result["verdicts"]:
            if verdict["status"] in ("unknown", "crash"):
                of_host.setdefault((verdict["status"], verdict["found"]), []).append(verdict["id"])
        for (status, found), checks in of_host.items():  # hosts on one line have the same checks: no pair is told that was not seen
            reasons.setdefault((status, found, tuple(checks)), []).append(result["host"])
    lines = []
    for (status, found, checks), hosts in sorted(reasons.items(), key=lambda item: (-len(item[0][2]) * len(item[1]), item[0])):
        lines.append("%s %s  %s: %s" % (status.upper(), ", ".join(checks), names(sorted(hosts)), found))
    return lines[:limit] + (["... and %d other reasons" % (len(lines) - limit)] if len(lines) > limit else [])


def document(results, run):
    """Return the JSON document (docs/health.schema.json)."""
    return {
        "version": 2,
        "started": run["started"],
        "seconds": run["seconds"],
        "hosts": results,
        "roots": [{"id": identity, "cause": cause, "hosts": [host for host, _verdict in hosts]} for identity, cause, hosts in grouped_roots(results)],
    }


def junit(results, run):
    """Return JUnit XML: a suite a host, a case a check; blocked and unknown are skipped, a host out of reach is an error."""
    top = ElementTree.Element("testsuites", name="beta9.workers health")
    for result in results:
        suite = ElementTree.SubElement(top, "testsuite", name=result["host"], timestamp=run["started"], tests=str(max(1, len(result["verdicts"]))))
        if result["outcome"] == "unreachable":
            case = ElementTree.SubElement(suite, "testcase", classname="beta9.health.host", name="reachable")
            ElementTree.SubElement(case, "error", message=result["message"])
        for verdict in result["verdicts"]:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname="beta9.health." + verdict["name"].split(".")[0],
                name="%s %s" % (verdict["id"], verdict["name"]),
                time="%.3f" % verdict["seconds"],
            )
            if verdict["status"] in ("fail", "crash"):
                kind = "failure" if verdict["status"] == "fail" else "error"
                ElementTree.SubElement(case, kind, message=verdict["cause"] or verdict["found"]).text = "%s\n%s\n%s" % (
                    verdict["found"],
                    " ".join(filter(None, [remedies.text(verdict["remedy"]), verdict["docs"]])),
                    verdict["evidence"],
                )
            elif verdict["status"] != "pass":
                ElementTree.SubElement(case, "skipped", message="%s: %s" % (verdict["status"], verdict.get("blocked_by") or verdict["found"]))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def page(results, run):
    """Return one self-contained HTML page."""
    return health_page.page(results, run, grouped_roots(results), CLASSES)


def render(results, run):
    """Return {file name: text} of every report."""
    return {
        "health.json": json.dumps(document(results, run), indent=1, sort_keys=True) + "\n",
        "health.junit.xml": junit(results, run),
        "health.html": page(results, run),
        "health.txt": table(results) + "\n",
    }
