# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier runs found, so that a run tells what is new, what is still there and what is gone. Pure: text in, text
out.

The file is {"version", "runs": [run], "hosts": {host: state}, "before": {host: state}}.

    run     {"started", "hosts", "healthy", "unhealthy", "unknown", "unreachable", "causes"}: when, and how many; the
    last RUNS of them
    state   {"seen": when the host was looked at last, "causes": {key of a cause: {"id", "cause", "since"}}}
    hosts   as the last run left them; before: as it found them. Hosts that a run leaves out keep their state

A look that is repeated within a run (health_check_wait_seconds) replaces the look before, and is compared with the run
before.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from ansible_collections.beta9.workers.plugins.plugin_utils import health_causes

VERSION = 1
RUNS = 30
OUTCOMES = ("healthy", "unhealthy", "unknown", "unreachable")
UNSEEN = ("unknown", "crash", "blocked")


class Change(NamedTuple):
    """A cause on some hosts: that is new, is still there or is gone. since: when it was first seen, of the earliest of
    its hosts."""

    identity: str
    cause: str
    since: str
    hosts: List[str]


class Compared(NamedTuple):
    """A run beside the run before. last: when that was, "" where there was none. runs: entries of the trend, this run's
    the last."""

    last: str = ""
    new: Dict[str, Change] = {}
    still: Dict[str, Change] = {}
    gone: Dict[str, Change] = {}
    runs: Sequence[Mapping[str, Any]] = ()
    text: str = ""  # of the file, this run included

    def note(self, key: str, total: int) -> str:
        """Return what is to be said of a cause of this run on so many hosts: "new", "since ...", or "" without a run
        before."""
        if not self.last:
            return ""
        fresh, old = self.new.get(key), self.still.get(key)
        since = f"since {old.since}" if old else ""
        if not fresh:
            return since
        return "new" if len(fresh.hosts) == total else f"{since}, new on {len(fresh.hosts)} of {total}"


FIRST = Compared()  # a run without one before


def compare(
    text: str, results: Sequence[Mapping[str, Any]], causes: Sequence[health_causes.Cause], started: str
) -> Compared:
    """Return this run beside what the file's text tells of those before. A text that is none of such a file is as good
    as none."""
    known = _read(text)
    again = bool(known["runs"]) and known["runs"][-1]["started"] == started
    base, runs = (known["before"], known["runs"][:-1]) if again else (known["hosts"], known["runs"])
    now: Dict[str, Dict[str, Dict[str, str]]] = {result["host"]: {} for result in results}
    for cause in causes:
        for host in cause.hosts:
            since = base.get(host, {"causes": {}})["causes"].get(cause.key, {"since": started})["since"]
            now[host][cause.key] = {"id": cause.identity, "cause": cause.cause, "since": since}
    new: Dict[str, Change] = {}
    still: Dict[str, Change] = {}
    gone: Dict[str, Change] = {}
    for result in results:
        host = result["host"]
        old = base.get(host, {"causes": {}})["causes"]
        for key, entry in now[host].items():
            _add(still if key in old else new, key, entry, host)
        for key, entry in old.items():
            if key in now[host]:
                continue
            if _was_seen(entry["id"], result):
                _add(gone, key, entry, host)
            else:  # nobody knows whether it is gone: the next run may tell
                now[host][key] = entry
    counts = {outcome: sum(result["outcome"] == outcome for result in results) for outcome in OUTCOMES}
    runs = (runs + [{"started": started, "hosts": len(results), "causes": len(causes), **counts}])[-RUNS:]
    kept = {host: state for host, state in base.items() if host not in now and state["seen"] >= runs[0]["started"]}
    hosts = dict(kept, **{host: {"seen": started, "causes": found} for host, found in now.items()})
    document = {"version": VERSION, "runs": runs, "hosts": hosts, "before": base}
    last = runs[-2]["started"] if len(runs) > 1 else ""
    return Compared(last, new, still, gone, runs, json.dumps(document, sort_keys=True) + "\n")


def _add(changes: Dict[str, Change], key: str, entry: Mapping[str, str], host: str) -> None:
    earlier = changes.get(key, Change(entry["id"], entry["cause"], entry["since"], []))
    changes[key] = earlier._replace(since=min(earlier.since, entry["since"]), hosts=earlier.hosts + [host])


def _was_seen(identity: str, result: Mapping[str, Any]) -> bool:
    """Return whether a run could see that a cause, which it did not find, is gone."""
    if identity in (health_causes.UNREACHABLE, health_causes.UNKNOWN):
        return result["outcome"] != identity
    return any(verdict["id"] == identity and verdict["status"] not in UNSEEN for verdict in result["verdicts"])


def _read(text: str) -> Dict[str, Any]:
    """Return what a file holds, in the form that it was written in; what is not so is left out."""
    try:
        found = json.loads(text) if text else {}
        if found.get("version") != VERSION:
            raise ValueError("of another version")
        runs = [
            dict({name: int(run[name]) for name in ("hosts", "causes") + OUTCOMES}, started=_word(run["started"]))
            for run in found["runs"][-RUNS:]
        ]
        return {"runs": runs, "hosts": _states(found["hosts"]), "before": _states(found["before"])}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {"runs": [], "hosts": {}, "before": {}}


def _states(found: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        str(host): {
            "seen": _word(state["seen"]),
            "causes": {
                str(key): {name: _word(entry[name]) for name in ("id", "cause", "since")}
                for key, entry in state["causes"].items()
            },
        }
        for host, state in found.items()
    }


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r}")
    return value
