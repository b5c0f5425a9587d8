# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The look at a worker, on it: all its probes, side by side."""

from __future__ import annotations

from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent, api, files, tunnel
from ansible_collections.beta9.workers.plugins.module_utils.host import linux

NO_GPU = "no NVIDIA device, and none expected"
NO_K3S = "k3s is not part of this host's configuration"


def probes_of(params: dict[str, Any]) -> dict[str, engine.Probing]:
    """Return {id: probe} of what this worker has. What it has not is not loaded: that takes longer than most probes."""
    found = dict(tunnel.PROBES, **files.PROBES, **api.PROBES, **agent.PROBES)
    if connections.gives(params["connection"], connections.TAILNET):
        from ansible_collections.beta9.workers.plugins.module_utils.health.probes import tailnet

        found["V03"] = tailnet.node
    if params["k3s"]:
        from ansible_collections.beta9.workers.plugins.module_utils.health.probes import k3s

        found.update(k3s.PROBES)
    if params["gpus"] or linux.nvidia_on_bus():
        from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gpu

        found.update(gpu.PROBES)
    return found


def observe(params: dict[str, Any]) -> dict[str, Any]:
    """Return the observations of this worker."""
    identity = records.machine_fact()
    config = dict(
        params,
        machine_id=identity.get("machine_id", ""),
        pool=identity.get("pool", ""),
        provider=identity.get("provider", "generic"),
    )
    config["gateway_url"] = params["gateway_url"] or tunnel.agents_gateway()
    settings = dict(params["inventory"], connection=params["connection"], k3s=params["k3s"])
    if not identity.get("machine_id"):
        return {"observations": [], "identity": {}, "settings": settings}
    context = engine.Context(config)
    for path in (agent.TOKEN_FILE, agent.K3S_TOKEN_FILE):  # before any probe may show them
        try:
            agent.secret_of(context, path)
        except engine.Unknown:
            pass
    wanted, here = params["probes"], probes_of(params)
    probes = [(engine.Probe(name, float(wanted[name])), function) for name, function in here.items() if name in wanted]
    seconds = params["deadline_seconds"] + (engine.CANARY_SECONDS if "G10" in wanted else 0)
    seen = engine.observe(probes, context, seconds)
    for name in sorted(set(wanted) - set(here)):
        without = NO_GPU if name.startswith("U") and name != "U07" else NO_K3S
        seen.append(dict(engine.not_applicable(without), id=name, seconds=0.0))
    return {"observations": seen, "identity": identity, "settings": settings}
