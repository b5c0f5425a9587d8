# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of a health run: table, JSON, JUnit and one HTML page. Pure: results in, text out.

A result is {"host", "outcome": healthy|unhealthy|unknown|unreachable, "message", "verdicts": [...]}.
"""

from __future__ import annotations

import html
import json
from xml.etree import ElementTree


GROUPS = (("Inventory", "C"), ("Gateway", "G"), ("Tunnel", "TV"), ("Token", "A"), ("Agent", "P"), ("Machine", "M"), ("k3s", "K"), ("GPU", "U"))
WORST = ("fail", "crash", "warn", "unknown", "blocked", "pass", "not_applicable")
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
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for identity, cause, hosts in grouped_roots(results):
        verdict = hosts[0][1]
        consequences = sorted({other["id"] for result in results for other in result["verdicts"] if identity in other["because"]})
        lines += [
            "",
            "%s %s  %s" % (verdict["status"].upper(), identity, names([host for host, _verdict in hosts])),
            "  what    %s" % verdict["title"],
            "  cause   %s" % cause,
            "  found   %s" % verdict["found"],
            "  do      %s" % verdict["remedy"],
        ]
        if verdict["heal"]:
            lines.append("          (%s)" % CLASSES[verdict["heal_class"]])
        if consequences:
            lines.append("  leads to %s" % ", ".join(consequences))
    lines += [""] if any(result["message"] for result in results) else []
    for result in results:
        if result["message"]:
            label = {"unreachable": "UNREACHABLE", "unknown": "COULD NOT TELL"}.get(result["outcome"], "NOTE")
            lines.append("%s  %s: %s" % (label, result["host"], " ".join(result["message"].split())))
    lines += [""] + unknowns(results) if unknowns(results) else []
    return "\n".join(lines)


def unknowns(results, limit=6):
    """Return a line for each reason why checks could not look, the most frequent first."""
    reasons = {}
    for result in results:
        for verdict in result["verdicts"]:
            if verdict["status"] in ("unknown", "crash"):
                reasons.setdefault((verdict["status"], verdict["found"]), {}).setdefault(verdict["id"], set()).add(result["host"])
    lines = []
    for (status, found), checks in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])):
        hosts = sorted(set().union(*checks.values()))
        lines.append("%s %s  %s: %s" % (status.upper(), ", ".join(sorted(checks)), names(hosts), found))
    return lines[:limit] + (["... and %d other reasons" % (len(lines) - limit)] if len(lines) > limit else [])


def document(results, run):
    """Return the JSON document (docs/health.schema.json)."""
    return {
        "version": 1,
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
                    verdict["remedy"],
                    verdict["evidence"],
                )
            elif verdict["status"] != "pass":
                ElementTree.SubElement(case, "skipped", message="%s: %s" % (verdict["status"], verdict.get("blocked_by") or verdict["found"]))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


STYLE = """
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#cf222e;--odd:#9a6700;--dim:#6e7781;--line:#d0d7de}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
.pass,.healthy{color:var(--ok)}.fail,.crash,.unhealthy,.unreachable{color:var(--bad)}.warn{color:var(--odd)}.unknown,.blocked,.not_applicable{color:var(--dim)}
.chain{display:flex;flex-wrap:wrap;align-items:center;margin:1rem 0}.node{border:2px solid currentColor;border-radius:.5rem;padding:.3rem .8rem}
.link{flex:0 0 1.6rem;height:2px;background:var(--line);position:relative}.link.broken{background:var(--bad)}
.link.broken::after{content:"\\2715";color:var(--bad);position:absolute;left:.35rem;top:-.85rem;font-weight:bold}
code{background:color-mix(in srgb,currentColor 10%,transparent);padding:.1rem .3rem;border-radius:.3rem;overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85em}details{margin:.5rem 0}
"""


def group_status(verdicts, letters):
    """Return the worst status of a group of checks, or None when it has none."""
    found = [verdict["status"] for verdict in verdicts if verdict["id"][0] in letters]
    return next((status for status in WORST if status in found), None)


def chain(verdicts):
    """Return the way from the gateway to the GPU as HTML; the link into a part that holds a root cause is broken."""
    parts = []
    for title, letters in GROUPS:
        status = group_status(verdicts, letters)
        if status in (None, "not_applicable"):
            continue
        broken = any(verdict["root"] and verdict["status"] == "fail" and verdict["id"][0] in letters for verdict in verdicts)
        if parts:
            parts.append('<span class="link%s"></span>' % (" broken" if broken else ""))
        parts.append('<span class="node %s">%s: %s</span>' % (status, title, status))
    return '<div class="chain">%s</div>' % "".join(parts)


def page(results, run):
    """Return one self-contained HTML page: the fleet, then each host."""
    cell = html.escape
    out = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>beta9.workers health</title><style>%s</style>"
        % STYLE,
        "<h1>Health of %d workers</h1><p>%s, %.1f s</p>" % (len(results), cell(run["started"]), run["seconds"]),
    ]
    roots = grouped_roots(results)
    out.append("<h2>Root causes</h2>" if roots else "<p class=healthy>No root cause: nothing is to be mended.</p>")
    for identity, cause, hosts in roots:
        verdict = hosts[0][1]
        out.append(
            "<p class=%s><b>%s</b> %s: %s<br>found: %s<br>do: <code>%s</code></p>"
            % (verdict["status"], identity, cell(names([host for host, _verdict in hosts], 20)), cell(cause), cell(verdict["found"]), cell(verdict["remedy"]))
        )
    out.append("<h2>Fleet</h2><table><tr><th>Host<th>Health<th>Root causes</tr>")
    for result in results:
        found = ", ".join(verdict["id"] for verdict in result["verdicts"] if verdict["root"])
        out.append(
            "<tr><td><a href='#%s'>%s</a><td class=%s>%s<td>%s</tr>"
            % (cell(result["host"]), cell(result["host"]), result["outcome"], result["outcome"], found or "–")
        )
    out.append("</table>")
    for result in results:
        out.append("<h2 id='%s'>%s <span class=%s>%s</span></h2>" % (cell(result["host"]), cell(result["host"]), result["outcome"], result["outcome"]))
        if result["outcome"] == "unreachable":
            out.append("<p>%s</p>" % cell(result["message"]))
            continue
        out.append(chain(result["verdicts"]))
        out.append(
            "<details%s><summary>%d checks</summary><table><tr><th>Check<th>Status<th>Found<th>Cause and remedy</tr>"
            % ("" if result["outcome"] == "healthy" else " open", len(result["verdicts"]))
        )
        for verdict in result["verdicts"]:
            why = "because of %s" % ", ".join(verdict["because"]) if verdict["because"] else ""
            remedy = "%s<br><code>%s</code>" % (cell(verdict["cause"]), cell(verdict["remedy"])) if verdict["cause"] else ""
            evidence = "<pre>%s</pre>" % cell(verdict["evidence"]) if verdict["evidence"] and verdict["status"] in ("fail", "warn") else ""
            out.append(
                "<tr><td>%s %s<td class=%s>%s<td>%s%s<td>%s %s</tr>"
                % (verdict["id"], cell(verdict["title"]), verdict["status"], verdict["status"], cell(verdict["found"]), evidence, remedy, why)
            )
        out.append("</table></details>")
    return "\n".join(out) + "</html>\n"


def render(results, run):
    """Return {file name: text} of every report."""
    return {
        "health.json": json.dumps(document(results, run), indent=1, sort_keys=True) + "\n",
        "health.junit.xml": junit(results, run),
        "health.html": page(results, run),
        "health.txt": table(results) + "\n",
    }
