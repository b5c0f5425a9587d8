# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about a cause, as data: where a command is run, the command, and prose apart from it. Pure.

    repair(WORKER, "systemctl restart beta9-tunnel")     the command removes the cause
    inspect(WORKER, "dmesg | ...", "prose")              the command shows more; the prose says what for
    first("Set ...", ONBOARD)                            the command helps after a person has done what the prose says
    person("Approve it at the control server.")          no command helps

Commands are for a shell: of root on the worker and on the gateway host, of the operator on the controller and for the
cluster. On a healthy host each of them ends with 0. {host} and the other names of PLACEHOLDERS are filled in by fill().
"""

from __future__ import annotations

import re
from typing import Dict, Mapping, NamedTuple

WORKER, GATEWAY_HOST, CONTROLLER, CLUSTER = "worker", "gateway host", "controller", "cluster"
# What a command may name, and how a page of the documentation shows it
PLACEHOLDERS = {
    "host": "HOST",
    "gateway_host": "GATEWAY_HOST",
    "gateway_url": "http://127.0.0.1:1994",
    "local_port": "1994",
    "target": "localhost:31994",
    "kubectl": "kubectl -n beta9",
    "gateway_tcp": "GATEWAY_NAME/PORT",
    "gateway_name": "GATEWAY_NAME",
}


class Remedy(NamedTuple):
    """where: WORKER, GATEWAY_HOST, CONTROLLER or CLUSTER, "" without a command. remediates: whether the command alone
    removes the cause."""

    where: str = ""
    command: str = ""
    prose: str = ""
    remediates: bool = False


def repair(where: str, command: str, prose: str = "") -> Remedy:
    """Return a remedy whose command removes the cause."""
    return Remedy(where, command, prose, True)


def inspect(where: str, command: str, prose: str = "") -> Remedy:
    """Return a remedy whose command only shows more."""
    return Remedy(where, command, prose)


def first(prose: str, remedy: Remedy) -> Remedy:
    """Return a remedy whose command helps only after a person did what the prose says."""
    return remedy._replace(prose=prose, remediates=False)


def person(prose: str) -> Remedy:
    """Return a remedy without a command."""
    return Remedy(prose=prose)


def placeholders(remedy: Remedy) -> set:
    """Return the names that a remedy wants filled in."""
    return set(re.findall(r"{(\w+)}", remedy.command))


def fill(remedy: Mapping, values: Mapping[str, str], places: Mapping[str, str]) -> Dict[str, object]:
    """Return a remedy for one host: {"where", "host", "command", "prose", "remediates", "mends"}. mends is what
    remediates was called.

    remedy: Remedy as a mapping. values: PLACEHOLDERS of the host, quoted for a shell. places: the inventory's name of
    each place; one that has none stays "".
    """
    command = re.sub(r"{(\w+)}", lambda match: values[match.group(1)], str(remedy["command"]))
    return dict(remedy, command=command, host=places.get(str(remedy["where"]), ""), mends=remedy["remediates"])


def text(remedy: Mapping, where: str = "") -> str:
    """Return a filled remedy in one line: what a person does first, then where which command is run. where: other words
    for its host."""
    parts = [str(remedy["prose"])] if remedy.get("prose") else []
    if remedy.get("command"):
        place = where or remedy.get("host") or "the " + str(remedy["where"])
        parts.append(f"{'On' if parts else 'on'} {place}: {remedy['command']}")  # after a sentence of prose
    return " ".join(parts)
