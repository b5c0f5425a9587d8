# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A health run as one self-contained HTML page: the root causes, the fleet, then each host, those in trouble first.

Pure: results in, text out. No script, nothing loaded from elsewhere.
"""

from __future__ import annotations

import html

from ansible_collections.beta9.workers.plugins.plugin_utils import health_remedies

GROUPS = (("Inventory", "C"), ("Gateway", "G"), ("Tunnel", "TV"), ("Token", "A"), ("Agent", "P"), ("Machine", "M"), ("k3s", "K"), ("GPU", "U"))
WORST = ("fail", "crash", "warn", "unknown", "blocked", "pass", "not_applicable")
OUTCOMES = ("unreachable", "unhealthy", "unknown", "healthy")
QUIET = ("pass", "not_applicable")

STYLE = """
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#cf222e;--odd:#9a6700;--dim:#6e7781;--line:#d0d7de}
@media(prefers-color-scheme:dark){:root{--ok:#3fb950;--bad:#ff7b72;--odd:#d29922;--dim:#8b949e;--line:#30363d}}
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}h1{margin-bottom:0}h2{margin:2.5rem 0 .5rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
.pass,.healthy{color:var(--ok)}.fail,.crash,.unhealthy,.unreachable{color:var(--bad)}.warn{color:var(--odd)}.unknown,.blocked,.not_applicable{color:var(--dim)}
.tally{display:flex;gap:1.5rem;margin:.5rem 0;font-size:1.1rem}.tally b{font-size:1.5rem}
.root{border-left:.3rem solid;padding:.2rem 0 .2rem 1rem;margin:1rem 0}.root>*{color:CanvasText}.root h3{margin:0;color:inherit}
dl{display:grid;grid-template-columns:5rem 1fr;margin:.3rem 0;gap:.1rem .5rem}dt{color:var(--dim)}dd{margin:0}
.host{border:1px solid var(--line);border-radius:.5rem;margin:.6rem 0;padding:.4rem 1rem}.host>summary{cursor:pointer}.host>summary b{margin-right:.8rem}
.chain{display:flex;align-items:center;margin:.8rem 0;overflow-x:auto;padding:.2rem 0}
.node{border:2px solid currentColor;border-radius:.5rem;padding:.1rem .7rem;text-align:center;font-weight:600;white-space:nowrap}
.node small{display:block;font-weight:400}.link{flex:1 0 1rem;max-width:2.5rem;height:2px;background:var(--line);position:relative}
.link.broken{background:var(--bad)}.link.broken::after{content:"\\2715";color:var(--bad);position:absolute;left:50%;top:-.85rem;translate:-50%;font-weight:bold}
code{background:color-mix(in srgb,currentColor 10%,transparent);padding:.1rem .3rem;border-radius:.3rem;overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85em;margin:.3rem 0;color:var(--dim)}
.checks{table-layout:fixed;overflow-wrap:anywhere}.checks th:first-child{width:32%}.checks th:nth-child(2){width:6rem}
"""


def group_status(verdicts, letters):
    """Return the worst status of a group of checks, or None when it has none."""
    found = [verdict["status"] for verdict in verdicts if verdict["id"][0] in letters]
    return next((status for status in WORST if status in found), None)


def chain(verdicts):
    """Return the way from the gateway to the GPU; the link into a part that holds a root cause is broken."""
    parts = []
    for title, letters in GROUPS:
        status = group_status(verdicts, letters)
        if status in (None, "not_applicable"):
            continue
        broken = any(verdict["root"] and verdict["status"] == "fail" and verdict["id"][0] in letters for verdict in verdicts)
        if parts:
            parts.append('<span class="link%s"></span>' % (" broken" if broken else ""))
        parts.append('<span class="node %s">%s<small>%s</small></span>' % (status, title, status))
    return '<div class="chain">%s</div>' % "".join(parts)


def tally(results):
    """Return how many hosts are how."""
    found = [result["outcome"] for result in results]
    return "<div class=tally>%s</div>" % "".join("<span class=%s><b>%d</b> %s</span>" % (name, found.count(name), name) for name in OUTCOMES if name in found)


def root_card(cause, hosts, leads_to, hint):
    """Return one root cause: what it is, where, and what to do."""
    cell, verdict = html.escape, hosts[0][1]
    where = ", ".join("<a href='#%s'>%s</a>" % (cell(host), cell(host)) for host, _verdict in hosts)
    terms = [
        ("expected", cell(verdict["title"])),
        ("found", cell(verdict["found"])),
        ("do", remedy_cell(health_remedies.for_hosts(verdict["remedy"], [host for host, _verdict in hosts]))),
    ]
    terms += [("", cell(hint))] if verdict["heal"] else []
    terms += [("leads to", ", ".join(leads_to))] if leads_to else []
    terms += [("more", docs_link(verdict))] if verdict["docs"] else []
    terms.append(("hosts", where if len(hosts) <= 20 else "%d: %s" % (len(hosts), where)))
    body = "".join("<dt>%s<dd>%s" % term for term in terms)
    return "<section class='root %s'><h3>%s %s</h3><dl>%s</dl></section>" % (verdict["status"], verdict["id"], cell(cause), body)


def remedy_cell(remedy):
    """Return a filled remedy: prose, and the command with its place."""
    parts = [html.escape(remedy["prose"])] if remedy.get("prose") else []
    if remedy.get("command"):
        parts.append("on %s: <code>%s</code>" % (html.escape(remedy.get("host") or "the " + remedy["where"]), html.escape(remedy["command"])))
    return "<br>".join(parts)


def docs_link(verdict):
    """Return the check's id, as a link to its page where that is known."""
    return "<a href='%s'>%s</a>" % (html.escape(verdict["docs"]), verdict["id"]) if verdict["docs"] else verdict["id"]


def check_rows(verdicts):
    """Return a table of checks."""
    cell, out = html.escape, ["<table class=checks><tr><th>Check<th>Status<th>Found, cause, remedy</tr>"]
    for verdict in verdicts:
        told = [cell(verdict["found"])] if verdict["found"] else []
        told += ["because of %s" % ", ".join(verdict["because"])] if verdict["because"] else []
        told += ["%s<br>%s" % (cell(verdict["cause"]), remedy_cell(verdict["remedy"]))] if verdict["cause"] and not verdict["because"] else []
        evidence = "<pre>%s</pre>" % cell(verdict["evidence"]) if verdict["evidence"] and verdict["status"] in ("fail", "warn") else ""
        out.append(
            "<tr><td>%s %s<td class=%s>%s<td>%s%s</tr>"
            % (docs_link(verdict), cell(verdict["title"]), verdict["status"], verdict["status"], "<br>".join(told), evidence)
        )
    return "".join(out) + "</table>"


def host_section(result):
    """Return one host, open where something is wrong. Roots come first, then the rest from bad to good; what passed is folded away."""
    cell, verdicts = html.escape, result["verdicts"]
    found = ", ".join(verdict["id"] for verdict in verdicts if verdict["root"])
    out = [
        "<details class=host id='%s'%s><summary><b>%s</b><span class=%s>%s</span> %s</summary>"
        % (cell(result["host"]), "" if result["outcome"] == "healthy" else " open", cell(result["host"]), result["outcome"], result["outcome"], found)
    ]
    if result["message"]:
        out.append("<p>%s</p>" % cell(result["message"]))
    if verdicts:
        loud = sorted((v for v in verdicts if v["status"] not in QUIET), key=lambda v: (not v["root"], WORST.index(v["status"])))
        quiet = [verdict for verdict in verdicts if verdict["status"] in QUIET]
        out.append(chain(verdicts))
        out.append(check_rows(loud) if loud else "")
        out.append("<details><summary>%d checks without a finding</summary>%s</details>" % (len(quiet), check_rows(quiet)) if quiet else "")
    return "".join(out) + "</details>"


def page(results, run, roots, hints):
    """Return the page. roots: health_reports.grouped_roots; hints: what to say of a remedy's class."""
    results = sorted(results, key=lambda result: OUTCOMES.index(result["outcome"]))
    out = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>beta9.workers health</title><style>%s</style>"
        % STYLE,
        "<h1>Health of %d worker%s</h1><p>%s, %.1f s</p>" % (len(results), "" if len(results) == 1 else "s", html.escape(run["started"]), run["seconds"]),
        tally(results),
        "<h2>Root causes</h2>" if roots else "<p class=healthy>No root cause: nothing to fix.</p>",
    ]
    for identity, cause, hosts in roots:
        leads_to = sorted({other["id"] for result in results for other in result["verdicts"] if identity in other["because"]})
        out.append(root_card(cause, hosts, leads_to, hints[hosts[0][1]["heal_class"]]))
    out.append("<h2>Hosts</h2>")
    out += [host_section(result) for result in results]
    return "\n".join(out) + "</html>\n"
