# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What probes read of systemd and its journal, once for all of them. A verdict rests on a unit's state; the journal
only explains it."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.beta9.workers.plugins.module_utils.host import units
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown

JOURNALD = "systemd-journald.service"
# asked for together: one call tells of all
UNITS = ("beta9-tunnel.service", "beta9-agent.service", "k3s.service", JOURNALD)
SETTLED_SECONDS = 300.0  # what went well for so long is over, whatever it was


def unit_of(context: Context, name: str) -> units.Unit:
    """Return a systemd unit as it is now. Unknown where systemd does not answer."""

    def read() -> dict:
        ran = context.run("systemctl", "show", *UNITS, "--property=" + units.PROPERTIES)
        if ran.status != 0:
            raise Unknown(f"systemctl does not answer: {ran.output.strip()[:200]}")
        return units.parse(ran.output)

    return context.shared("units", read).get(name, units.Unit())


def journal_of(context: Context, name: str, seconds: float | None = None, present_start: bool = True) -> str:
    """Return what a unit's processes said in its present start, or in whichever, oldest first. Unknown where that can't
    be told."""

    def read(run: Callable) -> str:
        if present_start:
            return units.journal(run, name, unit_of(context, name), seconds=seconds)
        return units.last_exits(run, name, seconds or SETTLED_SECONDS)

    return _of_journal(context, f"journal:{name}:{seconds}:{present_start}", read)


def explanation(context: Context, name: str, seconds: float | None = None, present_start: bool = True) -> str:
    """Return journal_of for what it explains: an empty text where it can't be read, for no verdict rests on it."""
    try:
        return journal_of(context, name, seconds, present_start)
    except Unknown:
        return ""


def restarts_within(context: Context, name: str, seconds: float) -> int:
    """Return how often systemd started a unit again of its own accord within so many seconds past."""
    return _of_journal(context, f"restarts:{name}:{seconds}", lambda run: units.restarts_within(run, name, seconds))


def crash_loop(context: Context, name: str, seconds: float) -> str:
    """Return what shows that a unit which runs now, for less than so many seconds, is between two crashes; or an empty
    string."""
    unit = unit_of(context, name)
    if not unit.restarts or unit.age_seconds() > seconds:
        return ""
    if unit.active == "activating":
        return f"started again by systemd {unit.restarts} times, {unit.age_seconds():.0f} s ago, and not ready since"
    try:
        recent = min(unit.restarts, restarts_within(context, name, 2 * SETTLED_SECONDS))
    except Unknown:
        recent = unit.restarts  # since it was last started by hand: all that can be told without the journal
    minutes = SETTLED_SECONDS / 30
    return (
        f"started again by systemd {recent} times within {minutes:.0f} minutes, last {unit.age_seconds():.0f} s ago"
        if recent > 2
        else ""
    )


def _of_journal(context: Context, key: str, read: Callable) -> Any:
    def run(*words: str) -> tuple:
        ran = context.run(*words)
        return ran.status, ran.output

    def ask() -> Any:
        try:
            units.readable(unit_of(context, JOURNALD))
            return read(run)
        except units.Unreadable as reason:
            raise Unknown(str(reason)) from None

    return context.shared(key, ask)
