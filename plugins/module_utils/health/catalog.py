# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of checks: data, and the only place where meaning, cause and remedy are written down, a file of checks/
for each family.

Ids are never reused. From it are generated: the per-check tasks of role health_check, docs/checks/, and the coverage of
the guide (make generate). Order is the order of the report: from the inventory over tunnel, gateway and agent to the
GPU.
"""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.health.checks import (
    agent,
    api,
    config,
    gateway,
    gpu,
    k3s,
    machine,
    records,
    tunnel,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import CONTROL, GATEWAY, JOIN, Check
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import WORKER

SIDES = {
    WORKER: "the worker",
    CONTROL: "the controller",
    GATEWAY: "the gateway's cluster",
    JOIN: "worker and gateway compared",
}
# What heal_worker.yml does, by name, as its report says it. Only "onboard" may create a machine.
HEALS = {
    "protect": "made the collection's files root's, and its secrets root's alone",
    "tunnel_start": "restarted the tunnel",
    "tunnel_install": "installed and configured the tunnel, and let its key in at the gateway host",
    "tailscale_start": "started tailscaled",
    "k3s_start": "started k3s",
    "time_sync": "turned time synchronisation on",
    "agent_install": "installed and configured the agent",
    "agent_start": "restarted the agent",
    "agent_restart": "had the agent register again",
    "onboard": "onboarded the host again, with a new machine where the gateway refuses its token",
}
CHECKS = (
    *config.CHECKS,
    *tunnel.CHECKS,
    *api.CHECKS,
    *agent.CHECKS,
    *machine.CHECKS,
    *gpu.CHECKS,
    *k3s.CHECKS,
    *gateway.CHECKS,
    *records.CHECKS,
)
BY_ID = {check.id: check for check in CHECKS}
# What each of these checks compares: asked for alone, these probes have to run all the same. nodeport is a probe
# without a check.
SOURCES = {"U06": ("U03", "M02", "C02"), "M05": ("A01", "M02"), "G04": ("T06", "nodeport")}


def asked_for(name: str, only: list[str], skip: list[str]) -> bool:
    """Return whether a check is to be looked at. only, skip: ids; an empty only asks for all."""
    return name not in skip and (not only or name in set(only).union(*(SOURCES.get(other, ()) for other in only)))


def unknown_ids(names: list[str]) -> list[str]:
    """Return the names that are no check's id, in order."""
    return sorted(set(names) - set(BY_ID))


def causes_of(check: Check, code: str) -> tuple:
    """Return (cause, Remedy) of a failure code."""
    return check.causes.get(code) or check.causes.get("") or next(iter(check.causes.values()))
