# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The look at the gateway's side of all workers, on a host that reaches it: all probes, side by side."""

from __future__ import annotations

import time
from typing import Any, Mapping

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import (
    gateway_files,
    gateway_host,
    gateway_side,
)

PER_MACHINE = dict(gateway_side.PER_MACHINE, G11=gateway_host.target, T07=gateway_files.files, T09=gateway_host.sshd)


def probes(
    functions: Mapping[str, engine.Probing], params: dict[str, Any], connection: str | None = None
) -> list[tuple[Any, engine.Probing]]:
    """Return [(probe, function)] of those that are asked for, and belong to a connection."""
    wanted = params["probes"]
    return [
        (engine.Probe(name, float(wanted[name]["seconds"])), function)
        for name, function in functions.items()
        if name in wanted and (connection is None or connections.gives(connection, wanted[name]["builds_on"]))
    ]


def observe(params: dict[str, Any]) -> dict[str, Any]:
    """Return the observations that all machines share, and those of each machine.

    params: option gateway of module worker_health, redis_url, deadline_seconds, and probes as {id: {"seconds": its
    longest time, "builds_on": what a worker's connection has to have for it}}.
    """
    shared = engine.Context(dict(params, machine={}))
    deadline = time.monotonic() + params["deadline_seconds"]
    common = engine.observe(probes(gateway_side.ONCE, params), shared, params["deadline_seconds"])
    result = {}
    for entry in params["machines"]:
        functions = probes(PER_MACHINE, params, entry["connection"]) if entry["machine_id"] else []
        result[entry["host"]] = engine.observe(
            functions, shared.narrowed(machine=entry), max(1.0, deadline - time.monotonic())
        )
    return {"observations": common, "machines": result}
