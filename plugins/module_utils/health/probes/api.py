# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the gateway's API with the machine's token: its answers, and what it keeps of the machine."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.gateway.api import REFUSED_TOKEN, GatewayError
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown, bad, ok
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent, tunnel
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation


def ready_list(context: Context) -> list[dict[str, Any]]:
    """Return the ready machines of the pool as the machine's own token sees them. Read-only."""
    config = context.config
    token = agent.token_of(context)
    if not token:
        raise Unknown("the machine's token is not on this host")
    return context.shared(
        "ready list", lambda: tunnel.client_of(context, token=token).list_ready(config["pool"], config["provider"])
    )


def token(context: Context) -> Observation:
    """A01: an authorised call that changes nothing."""
    if not agent.token_of(context):
        return bad("missing", f"{agent.TOKEN_FILE} does not exist or is empty")
    try:
        ready_list(context)
        return ok("accepted", owner=owner_of(context))
    except GatewayError as error:
        if error.problem.code in REFUSED_TOKEN:
            return bad(error.problem.code, error.problem.cause, str(error), owner=owner_of(context))
        raise Unknown(f"the gateway did not judge the token: {error.problem.cause}") from None


def owner_of(context: Context) -> str | None:
    """Return a keyed hash of the token, to compare with the gateway's without showing either. The key is the run's."""
    key, value = context.config.get("nonce"), agent.token_of(context)
    return hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest() if key and value else None


def keepalive_route(context: Context) -> Observation:
    """A02: an empty keepalive is refused by a gateway that has the route."""
    value = agent.token_of(context)
    if not value:
        raise Unknown("the machine's token is not on this host")
    try:
        tunnel.client_of(context, token=value).keepalive({})
    except GatewayError as error:
        if error.problem.code == "route_missing":
            return bad("", f"POST {protocol.MACHINE_API}/keepalive is answered 404")
        if error.problem.code in ("field_missing", "payload_invalid", "internal_error"):
            return ok("the route is there")
        raise Unknown(f"could not tell: {error.problem.cause}") from None
    return ok("the route is there")


def register(context: Context) -> Observation:
    """A04 (active): a real registration, with the facts of the agent's dry run."""
    try:
        state = _register(context)
    except GatewayError as error:
        return bad(error.problem.code, error.problem.cause, str(error))
    return ok(state.status)


def _register(context: Context) -> protocol.MachineState:
    def call() -> protocol.MachineState:
        status, output = agent.dry_run(context)
        if status != 0:
            raise Unknown(f"the agent's dry run ended with {status}")
        fields = json.loads(output[output.index("{") :])["register"]
        fields["token"] = agent.secret_of(context, agent.K3S_TOKEN_FILE) or agent.token_of(context) or ""
        return tunnel.client_of(context, timeout=8, token=agent.token_of(context)).register(fields)

    return context.shared("register", call)


def keepalive(context: Context) -> Observation:
    """A05 (active): a real keepalive, after the registration of A04 where that is run as well."""
    if "A04" in context.config["probes"]:
        try:
            _register(context)
        except GatewayError:
            pass  # A04 tells
    config = context.config
    body = protocol.keepalive_payload(
        config["machine_id"],
        config["pool"],
        config["provider"],
        agent.state_of(context).get("agent_version", "health-check"),
    )
    try:
        state = tunnel.client_of(context, token=agent.token_of(context)).keepalive(body)
    except GatewayError as error:
        return bad(error.problem.code, error.problem.cause, str(error))
    return ok(state.status) if state.status == "ready" else bad("", f"status {state.status}")


def listed(context: Context) -> Observation:
    """M01: the pool's ready machines have this one."""
    config = context.config
    try:
        machines = ready_list(context)
    except GatewayError as error:
        raise Unknown(f"the gateway gave no list: {error.problem.cause}") from None
    mine = next((machine for machine in machines if machine["id"] == config["machine_id"]), None)
    if not mine:
        return bad(
            "", f"machine {config['machine_id']} is not among the {len(machines)} ready ones of pool {config['pool']}"
        )
    return ok(f"ready, last keepalive {mine['last_keepalive']}", gpu_count=mine["gpu_count"], hostname=mine["hostname"])


def identity(context: Context) -> Observation:
    """M07: what the gateway keeps of this machine is what this host registered, and nobody else sends its keepalives.

    The gateway's own time of the last keepalive is compared with the one that it told the agent: no clock of this host
    is in it.
    """
    config = context.config
    try:
        mine = next((machine for machine in ready_list(context) if machine["id"] == config["machine_id"]), None)
    except GatewayError as error:
        raise Unknown(f"the gateway gave no list: {error.problem.cause}") from None
    if not mine:
        raise Unknown("the gateway does not list the machine as ready")
    wanted = records.agent_settings(agent.SETTINGS)
    for name, setting in (("hostname", "BETA9_HOSTNAME"), ("private_ip", "BETA9_PRIVATE_IP")):
        # a gateway may append its tailnet to what was registered: of that V05 tells
        if (
            wanted.get(setting)
            and mine[name] != wanted[setting]
            and not (name == "hostname" and mine[name].startswith(wanted[setting] + "."))
        ):
            return bad(name, f"{name} at the gateway is {mine[name] or 'empty'}, this host's is {wanted[setting]}")
    told = _told_last(context, mine["last_keepalive"])
    if told is not None and mine["last_keepalive"] is not None and mine["last_keepalive"] > told:
        return bad(
            "keepalive",
            f"the gateway had a keepalive {int(mine['last_keepalive'] - told)} s after the last one of this "
            f"host's agent",
        )
    return ok(f"{mine['hostname']}, {mine['private_ip']}")


def _told_last(context: Context, listed: int | None) -> int | None:
    """Return the time of the agent's last keepalive as the gateway told it, None where the agent knows none.

    One that is on its way while the list is read is written down within moments: it is waited for.
    """
    for _try in range(12):
        told = context.agent_state(agent.STATE_FILE).get("gateway_keepalive_epoch")
        if told is None or listed is None or told >= listed:
            break
        time.sleep(0.25)
    return told


PROBES = {
    "A01": token,
    "A02": keepalive_route,
    "A04": register,
    "A05": keepalive,
    "M01": listed,
    "M07": identity,
}
