# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A health run as one self-contained HTML page: the root causes, what changed since the run before, then each host,
those in trouble first.

Pure: results in, text out. Nothing is loaded from elsewhere, and all can be read without the script, which adds search
and copy buttons. What hosts told is escaped, and the page's policy lets no other script or style than ours run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from typing import Any, Dict, List, Mapping, Sequence
from urllib.parse import quote

from ansible_collections.beta9.workers.plugins.module_utils.health import remedies
from ansible_collections.beta9.workers.plugins.plugin_utils import health_causes, health_history, health_page_files

GROUPS = (
    ("Inventory", "C"),
    ("Gateway", "G"),
    ("Tunnel", "TV"),
    ("Token", "A"),
    ("Agent", "P"),
    ("Machine", "M"),
    ("k3s", "K"),
    ("GPU", "U"),
)
WORST = ("fail", "crash", "warn", "unknown", "blocked", "pass", "not_applicable")
OUTCOMES = ("unreachable", "unhealthy", "unknown", "healthy")
QUIET = ("pass", "not_applicable")
NAMED = 12  # hosts of a cause that are shown at once; the others are folded away
OPEN = 5  # so many hosts in trouble are shown unfolded


def page(
    results: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    causes: Sequence[health_causes.Cause],
    compared: health_history.Compared = health_history.FIRST,
) -> str:
    """Return the page. run: {"started", "seconds"}."""
    results = sorted(results, key=lambda result: (OUTCOMES.index(result["outcome"]), result["host"]))
    counts = {name: sum(result["outcome"] == name for result in results) for name in OUTCOMES}
    ill, workers = len(results) - counts["healthy"], _number(len(results), "worker")
    unfold = ill <= OPEN
    of_host: Dict[str, List[health_causes.Cause]] = {}
    for cause in causes:
        for host in cause.hosts:
            of_host.setdefault(host, []).append(cause)
    out = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f'<meta http-equiv=Content-Security-Policy content="{_policy()}">',
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{ill} of {workers} not healthy</title>" if ill else f"<title>{workers} healthy</title>",
        f"<style>{health_page_files.STYLE}</style>",
        f"<header><h1>Health of {workers}</h1><p class=dim>Checked {_when(run['started'])} in "
        f"{run['seconds']:.1f} s</p>",
        "<p class=tally>"
        + "".join(f"<span class={name}><b>{count}</b> {name}</span>" for name, count in counts.items() if count)
        + "</p>",
        _trend(compared.runs),
        "</header><main>",
        _find(counts, len(results)),
        "<h2>Root causes</h2>",
        _changes(compared),
        "" if causes else "<p class=healthy>None: nothing to fix.</p>",
    ]
    out += [_card(cause, compared.note(cause.key, len(cause.hosts))) for cause in causes]
    out.append("<h2>Hosts</h2>")
    out += [_host(result, of_host.get(result["host"], []), unfold) for result in results]
    out.append(f"</main><script>{health_page_files.SCRIPT}</script></html>")
    return "\n".join(filter(None, out)) + "\n"


def _policy() -> str:
    """Return the content security policy: nothing from elsewhere, and of this page only our style and our script."""
    sums = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (health_page_files.STYLE, health_page_files.SCRIPT)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{sums[0]}'; script-src 'sha256-{sums[1]}'; base-uri 'none'; "
        f"form-action 'none'"
    )


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _when(time: str) -> str:
    """Return a time for people."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ", time)
    return f"{match[1]} {match[2]} UTC" if match else escape(time)


def _anchor(host: str) -> str:
    return quote(f"host-{host}", safe="")


def _link(host: str) -> str:
    return f"<a href='#{_anchor(host)}'>{escape(host)}</a>"


def _docs(name: str, address: str) -> str:
    """Return a check's id, as a link to its page where that is known."""
    return f"<a href='{escape(address)}'>{escape(name)}</a>" if address else escape(name)


def _trend(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a bar a run, the share of its hosts by outcome, the newest run last."""
    if len(runs) < 2:
        return ""
    bars = []
    for place, run in enumerate(runs):
        top, total = 0.0, max(1, run["hosts"])
        parts = []
        for name in OUTCOMES:
            height = 40.0 * run[name] / total
            if height:
                parts.append(f"<rect class={name} x={place * 12} y={top:.1f} width=9 height={height:.1f} />")
            top += height
        told = f"{_when(run['started'])}: {run['healthy']} of {run['hosts']} healthy, {_number(run['causes'], 'cause')}"
        bars.append(f"<g><title>{told}</title>{''.join(parts)}</g>")
    first, last = runs[0], runs[-1]
    told = f"{len(runs)} runs since {_when(first['started'])}: first {first['healthy']} of {first['hosts']} healthy"
    told += f", now {last['healthy']} of {last['hosts']}"
    width = len(runs) * 12 - 3
    drawn = f"<svg viewBox='0 0 {width} 40' width={width} role=img aria-label='{told}'>{''.join(bars)}</svg>"
    return f"<figure>{drawn}<figcaption>{told}</figcaption></figure>"


def _find(counts: Mapping[str, int], total: int) -> str:
    """Return search and filter, which the script shows: they do nothing without it."""
    if total < 2:
        return ""
    buttons = "".join(
        f"<button type=button data-outcome={name} aria-pressed=false>{name} {count}</button>"
        for name, count in counts.items()
        if count
    )
    return (
        f"<form class=find hidden><input type=search placeholder='Host, check or word' "
        f"aria-label=Search>{buttons}<output></output></form>"
    )


def _changes(compared: health_history.Compared) -> str:
    """Return what is new, still there and gone since the run before."""
    if not compared.last:
        return ""
    told = f"{len(compared.new)} new, {len(compared.still)} still there, {len(compared.gone)} gone"
    out = [f"<p class=dim>Compared with the run of {_when(compared.last)}: {told}.</p>"]
    gone = [
        f"<li>{escape(entry.identity)} {escape(entry.cause)}: {_hosts(entry.hosts)}" for entry in compared.gone.values()
    ]
    return "".join(
        out
        + (
            [
                (
                    f"<details class=gone><summary>Gone: "
                    f"{_number(len(gone), 'cause')}</summary><ul>{''.join(gone)}</ul></details>"
                )
            ]
            if gone
            else []
        )
    )


def _hosts(hosts: Sequence[str]) -> str:
    """Return links to hosts; what are too many are folded away."""
    links = [_link(host) for host in hosts]
    more = (
        f" <details class=more><summary>and {len(links) - NAMED} more</summary>{' '.join(links[NAMED:])}</details>"
        if links[NAMED:]
        else ""
    )
    return f"<span class=hosts>{' '.join(links[:NAMED])}</span>{more}"


def _card(cause: health_causes.Cause, note: str) -> str:
    """Return one cause: what it is, on which hosts, and what to do where."""
    badge = (
        f" <span class=note>{re.sub('since ([^ ,]+)', lambda match: 'since ' + _when(match[1]), escape(note))}</span>"
        if note
        else ""
    )
    terms = [(_number(len(cause.hosts), "host"), _hosts(cause.hosts))]
    terms += [("expected", escape(cause.expected))] if cause.expected else []
    place = "" if len(cause.hosts) == 1 else f"on {escape(cause.hosts[0])}: "
    terms += [("found", place + escape(cause.found))] if cause.found else []
    terms += [("leads to", escape(", ".join(cause.leads_to)))] if cause.leads_to else []
    terms += (
        [("do", _remedy(cause.remedy, cause.hosts))] if cause.remedy.get("prose") or cause.remedy.get("command") else []
    )
    terms += [("", escape(cause.heal))] if cause.heal else []
    terms += (
        [("more", f"<a href='{escape(cause.docs)}'>{escape(cause.identity)}: impact, causes, remedies</a>")]
        if cause.docs
        else []
    )
    body = "".join(f"<dt>{name}<dd>{value}" for name, value in terms)
    return (
        f"<section class='cause {cause.status}'><h3><b>{escape(cause.label)}</b> "
        f"{escape(cause.cause)}{badge}</h3><dl>{body}</dl></section>"
    )


def _remedy(remedy: Mapping[str, Any], hosts: Sequence[str]) -> str:
    """Return a filled remedy: what a person does first, then the command with its place, as it can be copied."""
    parts = [f"<p>{escape(remedy['prose'])}</p>"] if remedy.get("prose") else []
    if remedy.get("command"):
        place = remedy.get("host") or "the " + remedy["where"]
        if remedy["where"] == remedies.WORKER and len(hosts) > 1:
            place = f"each of these {len(hosts)} hosts"
        parts.append(f"<p>On {escape(place)}:</p><pre class=command><code>{escape(remedy['command'])}</code></pre>")
    return "".join(parts)


def _chain(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return the parts between inventory and GPU, each with its worst status; the link into a part that holds a root
    cause is broken."""
    parts = []
    for title, letters in GROUPS:
        of_group = [verdict for verdict in verdicts if verdict["id"][0] in letters]
        status = next(
            (status for status in WORST if any(verdict["status"] == status for verdict in of_group)), "not_applicable"
        )
        if status == "not_applicable":
            continue
        broken = any(verdict["root"] and verdict["status"] == "fail" for verdict in of_group)
        parts.append(f"<li class='{status}{' broken' if broken else ''}'>{title}<small>{status}</small>")
    return f"<ol class=chain>{''.join(parts)}</ol>"


def _host(result: Mapping[str, Any], causes: Sequence[health_causes.Cause], unfold: bool) -> str:
    """Return one host: causes and consequences first, then what could not be looked at, a line a reason; what passed is
    folded away."""
    host, outcome, verdicts = result["host"], result["outcome"], result["verdicts"]
    told = "; ".join(
        escape(cause.cause if cause.identity == outcome else f"{cause.identity} {cause.cause}") for cause in causes
    )
    out = [
        f"<details class=host data-outcome={outcome}{' open' if unfold and outcome != 'healthy' else ''}>"
        f"<summary><b>{escape(host)}</b> <span class={outcome}>{outcome}</span> <span "
        f"class=dim>{told}</span></summary><div id='{_anchor(host)}'>"
    ]
    if result["message"]:
        out.append(f"<p>{escape(result['message'])}</p>")
    if verdicts:
        loud = sorted(
            (verdict for verdict in verdicts if verdict["status"] in ("fail", "warn")),
            key=lambda verdict: (not verdict["root"], WORST.index(verdict["status"])),
        )
        quiet = [verdict for verdict in verdicts if verdict["status"] in QUIET]
        rows = [_row(verdict) for verdict in loud] + _folded(verdicts)
        out += [_chain(verdicts)] + ([f"<table class=checks>{''.join(rows)}</table>"] if rows else [])
        if quiet:
            lines = "".join(
                f"<li>{_docs(verdict['id'], verdict['docs'])} {escape(verdict['title'])} "
                f"<i>{escape(verdict['found'])}</i>"
                for verdict in quiet
            )
            out.append(
                f"<details><summary>{_number(len(quiet), 'check')} without a finding</summary><ul "
                f"class=quiet>{lines}</ul></details>"
            )
    return "".join(out) + "</div></details>"


def _row(verdict: Mapping[str, Any]) -> str:
    """Return one check that failed or warns. The remedy of a root cause stands with the cause, above."""
    told = [escape(verdict["cause"])] if verdict["cause"] else []
    told += [f"found: {escape(verdict['found'])}"] if verdict["found"] else []
    told += [f"because of {escape(', '.join(verdict['because']))}"] if verdict["because"] else []
    told += [f"accepted: {escape(verdict['accepted'])}"] if verdict.get("accepted") else []
    evidence = f"<pre>{escape(verdict['evidence'])}</pre>" if verdict["evidence"] else ""
    title = f"{_docs(verdict['id'], verdict['docs'])} {escape(verdict['title'])}"
    return f"<tr class={verdict['status']}><th>{verdict['status']}<td>{title}<td>{'<br>'.join(told)}{evidence}"


def _folded(verdicts: Sequence[Mapping[str, Any]]) -> List[str]:
    """Return a row for each reason why checks could not look or made no sense, however many they are."""
    groups: Dict[tuple, list] = {}
    for verdict in verdicts:
        if verdict["status"] == "blocked":
            groups.setdefault(("blocked", f"by {', '.join(verdict['because'])}"), []).append(verdict)
        elif verdict["status"] in ("unknown", "crash"):
            groups.setdefault((verdict["status"], verdict["found"]), []).append(verdict)
    return [
        f"<tr class={status}><th>{status}<td>"
        f"{', '.join(_docs(verdict['id'], verdict['docs']) for verdict in found)}<td>{escape(reason)}"
        for (status, reason), found in groups.items()
    ]
