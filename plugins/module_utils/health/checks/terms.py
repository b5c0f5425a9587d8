# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check is, and the remedies and words that several of them share."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import CONTROLLER, WORKER, inspect, repair

CONTROL, GATEWAY, JOIN = "control", "gateway", "join"
SAFE, OPT_IN, PERSON = "safe", "opt_in", "person"


class Check(NamedTuple):
    """One step of the guide.

    causes maps a probe's failure code to (cause, Remedy); the code "" is for any other. heal is what heal_worker.yml
    does about it, one of HEALS; heals names another one for some codes, or "" for nothing. heal_class says whether it
    may run by itself (safe), when asked for (opt_in: "onboard" always), or not at all (person). builds_on is what the
    connection has to give for the check to apply.
    """

    id: str
    name: str
    title: str
    side: str
    impact: str
    causes: dict
    requires: tuple = ()
    explained_by: tuple = ()
    builds_on: str = ""
    component: str = ""
    severity: str = "fail"
    heal: str = ""
    heals: dict = {}
    heal_class: str = PERSON
    active: bool = False
    timeout_seconds: float = 5.0


def cause_of(code: str) -> str:
    """Return what a code of the gateway means: it is written down where answers are classified."""
    return protocol.CODES[code].cause


ONBOARD = repair(CONTROLLER, "ansible-playbook onboard_worker.yml -l {host}")
START_TUNNEL = repair(WORKER, "systemctl restart beta9-tunnel")
REGISTER_AGAIN = repair(
    WORKER,
    "systemctl reload-or-restart --no-block beta9-agent",
    "The agent registers again, and sends a keepalive at once.",
)
JOURNAL = inspect(WORKER, "journalctl --no-pager -u beta9-agent -n 50")
# what keeps keepalives from being sent, from getting through or from being accepted
KEEPALIVE_ANCESTORS = ("T01", "T08", "T04", "A01", "A02", "A03", "A05", "P07", "G06", "U05")
STATE_ANCESTORS = ("P01", "P02", "P05", "T04", "A01", "A02", "C03")
