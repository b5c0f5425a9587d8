# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes between the rooms of a health check: observations, and the verdicts that are made of them. One
constructor each.

Both are dictionaries, for they cross from host to controller, and into reports, as JSON.
"""

from __future__ import annotations

from typing import Any, Dict, List, TypedDict

OUTCOMES = ("ok", "bad", "warn", "not_applicable", "unknown", "crash")
STATUSES = ("pass", "warn", "fail", "blocked", "not_applicable", "unknown", "crash")


class Observation(TypedDict):
    """What a probe saw. code: key of the check's causes, for outcome bad and warn. data: for checks that compare two
    sides."""

    id: str
    outcome: str  # one of OUTCOMES
    code: str
    found: str
    evidence: str
    seconds: float
    data: Dict[str, Any]


class Verdict(TypedDict, total=False):
    """What it means. root: to be removed first. because: the roots of a consequence or of a blocked check.

    blocked_by and accepted are there only where a check is blocked, or its failure was accepted.
    """

    id: str
    name: str
    title: str
    side: str
    status: str  # one of STATUSES
    root: bool
    because: List[str]
    code: str
    cause: str
    remedy: Dict[str, Any]
    docs: str
    heal: str
    heal_class: str
    impact: str
    found: str
    evidence: str
    seconds: float
    blocked_by: str
    accepted: str


def observation(
    outcome: str,
    found: str = "",
    code: str = "",
    evidence: str = "",
    identity: str = "",
    seconds: float = 0.0,
    **data: Any,
) -> Observation:
    """Return an observation. identity is the check's id, which a probe itself need not know. Raises ValueError for no
    outcome."""
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome: expected one of {', '.join(OUTCOMES)}, found {outcome!r}")
    return {
        "id": identity,
        "outcome": outcome,
        "code": code,
        "found": found,
        "evidence": evidence,
        "seconds": seconds,
        "data": data,
    }


def verdict(check: Any, seen: Observation, status: str) -> Verdict:
    """Return the verdict of a catalogue.Check, without root and cause. Raises ValueError for no status."""
    if status not in STATUSES:
        raise ValueError(f"status: expected one of {', '.join(STATUSES)}, found {status!r}")
    return {
        "id": check.id,
        "name": check.name,
        "title": check.title,
        "side": check.side,
        "status": status,
        "root": False,
        "because": [],
        "code": "",
        "cause": "",
        "remedy": {},
        "docs": "",
        "heal": "",
        "heal_class": check.heal_class,
        "impact": check.impact,
        "found": seen.get("found", ""),
        "evidence": seen.get("evidence", ""),
        "seconds": seen.get("seconds", 0.0),
    }
