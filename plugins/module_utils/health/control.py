# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller itself can tell of a host: its settings, and the operator's lists of machines and pools. Pure."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation, observation


def _observation(identity: str, outcome: str, found: str, code: str = "", **data: Any) -> Observation:
    return observation(outcome, found, code, identity=identity, **data)


def observe(
    settings: dict[str, Any], identity: dict[str, Any] | None, listed: list[dict[str, Any]] | None
) -> list[Observation]:
    """Return the observations C01 and C02.

    settings: pool, gateway_url, connection, hostname of the inventory. identity: what the host holds, {} for nothing,
    None when the host could not be asked. listed: the operator's machine list, or None when it could not be had; "" in
    settings["list_error"] why.
    """
    return [_inputs(settings, identity), _machines(settings, identity, listed)]


def pools(name: str, listed: list[dict[str, Any]]) -> list[Observation]:
    """Return the observations G06 and G07 of a pool by the operator's pool list, for when the gateway's side could not
    be asked."""
    mine = next((pool for pool in listed if pool["name"] == name), None)
    if mine is None:
        return [
            _observation(
                "G06", "bad", f"pools: {', '.join(sorted(pool['name'] for pool in listed)) or 'none'}", "absent"
            )
        ]
    found = [_observation("G06", "ok", f"pool {name} is there")]
    word = mine["status"].lower()
    if word != "unknown":
        found.append(_observation("G07", "bad" if word == "degraded" else "ok", word))
    return found


def _inputs(settings: dict[str, Any], identity: dict[str, Any] | None) -> Observation:
    faults = []
    for name, check in (("pool", protocol.pool_name), ("hostname", protocol.hostname)):
        if settings.get(name):
            try:
                check(settings[name])
            except protocol.InvalidField as error:
                faults.append(f"beta9_{name}: expected {error.expected}, found {error.found}")
    url = settings.get("gateway_url") or ""
    if url and not re.match(r"https?://[^/]+/?$", url):
        faults.append(f"beta9_gateway_url: expected http://host:port, found {url}")
    if settings.get("connection") not in connections.BY_NAME:
        faults.append(
            f"beta9_connection: expected one of {', '.join(connections.BY_NAME)}, found {settings.get('connection')}"
        )
    if identity is None:
        return _observation("C01", "bad" if faults else "unknown", "; ".join(faults) or "the host could not be asked")
    if not identity.get("machine_id"):
        return _observation("C01", "bad", "no machine id on the host", "no_machine")
    for name, check in (
        ("machine_id", protocol.machine_id),
        ("pool", protocol.pool_name),
        ("provider", protocol.provider_name),
    ):
        try:
            check(identity.get(name))
        except protocol.InvalidField as error:
            faults.append(f"on the host, {name}: expected {error.expected}, found {error.found}")
    if settings.get("pool") and identity.get("pool") != settings["pool"]:
        faults.append(
            f"the host's machine is of pool {identity.get('pool')}, the inventory says beta9_pool {settings['pool']}"
        )
    if faults:
        return _observation("C01", "bad", "; ".join(faults))
    return _observation("C01", "ok", f"machine {identity['machine_id']} of pool {identity['pool']}")


def _machines(
    settings: dict[str, Any], identity: dict[str, Any] | None, listed: list[dict[str, Any]] | None
) -> Observation:
    if listed is None or not identity or not identity.get("machine_id"):
        why = (
            settings.get("list_error") or "the machine's id is not known"
            if listed is not None
            else settings.get("list_error") or "no admin token was given"
        )
        return _observation("C02", "unknown", why)
    mine = next((machine for machine in listed if machine["id"] == identity["machine_id"]), None)
    if mine is None:
        return _observation("C02", "bad", f"not among {len(listed)} machines", "absent")
    if mine["pool"] != identity.get("pool"):
        return _observation("C02", "bad", f"listed in pool {mine['pool']}", "other_pool", gpu_count=mine["gpu_count"])
    if mine["status"] != "ready":
        return _observation("C02", "bad", f"status {mine['status']}", mine["status"], gpu_count=mine["gpu_count"])
    return _observation("C02", "ok", "ready", gpu_count=mine["gpu_count"])
