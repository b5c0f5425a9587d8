#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_preflight
short_description: Report all problems of a gateway that prevent onboarding, at once
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Runs where the gateway's admin token is, usually on the controller. Returns I(all) problems in one list, each with
    what was expected, what was found and what to do.
  - Finds out whether the gateway is a build that workers can join, whether pools are local ones, and with O(probe) how
    the gateway stores a worker's host name, which decides whether it can reach workers over a tunnel.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
attributes:
  check_mode:
    support: full
    description: Leaves O(probe) out.
  diff_mode:
    support: none
    description: Nothing stays changed.
  idempotent:
    support: full
    description: Nothing stays changed.
options:
  pools:
    description: Names of pools that are to be used.
    type: list
    elements: str
    default: []
  hostnames:
    description:
      - How host names are to be stored. V(direct) as they are registered, which a tunnel or a plain network needs;
        V(tailnet) with the gateway's tailnet appended.
    type: list
    elements: str
    choices: [direct, tailnet]
    default: []
  probe:
    description:
      - Whether to find out how host names are stored. For that a machine with 1 millicore and 1 MiB is created in the
        first pool, registered, inspected, and deleted together with its token. The gateway schedules nothing on it.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Verify that the gateway can have workers over a tunnel
  beta9.workers.gateway_preflight:
    gateway_url: http://gateway.example.com:31994
    token_file: ~/.beta9/admin_token
    pools: [gpu]
    hostnames: [direct]
    probe: true
  register: gateway
"""

RETURN = r"""
problems:
  description: The problems found. Empty if there are none. C(pool) or C(hostnames) name what it is about, where it is
    not about all.
  returned: success
  type: list
  elements: dict
  sample:
    - {what: beta9_pool, expected: a pool of mode external, found: "home, a local pool", remedy: Use another pool.,
      pool: home}
hostnames:
  description: How the gateway stores host names, V(direct) or V(tailnet). Empty where it was not probed.
  returned: success
  type: str
  sample: direct
code:
  description:
    - Stable code of the failure, C(token_unknown) for example.
  returned: failure
  type: str
cause:
  description: What the failure means.
  returned: failure
  type: str
remedy:
  description: What to do.
  returned: failure
  type: str
retryable:
  description: Whether the same call may succeed later without any change.
  returned: failure
  type: bool
"""

from typing import Any, Callable, Iterator

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner, protocol

SPEC = machine_runner.specification(
    {
        "pools": {"type": "list", "elements": "str", "default": []},
        "hostnames": {"type": "list", "elements": "str", "choices": ["direct", "tailnet"], "default": []},
        "probe": {"type": "bool", "default": False},
    }
)
PROBE_ADDRESS = "192.0.2.1"  # TEST-NET-1: nobody's
KEEPALIVE_ROUTE = f"a build with POST {protocol.MACHINE_API}/keepalive"
REGISTER_SECONDS = 15  # a gateway without a tailnet and outside direct mode takes five
PROBLEMS = {
    "direct": (
        "host names as they are registered (direct mode)",
        "Set tailscale.directRedisHost in the gateway's configuration and restart the gateway. Where beta9_k3s is true "
        "it needs a tailnet of its own as well (tailscale.enabled, with a control server that it can join): it dials "
        "workers through that only. See the guide connection-modes.",
    ),
    "tailnet": (
        "host names with the gateway's tailnet appended",
        (
            "Set tailscale_gateway_mode=direct, or unset tailscale.directRedisHost in the gateway's configuration and "
            "restart the gateway."
        ),
    ),
}


def problem(what: str, expected: str, found: str, remedy: str, **about: str) -> dict[str, str]:
    """Return one problem, in the shape of module host_preflight."""
    return dict(about, what=what, expected=expected, found=found, remedy=remedy)


def of_build(client: api.GatewayClient) -> Iterator[dict[str, str]]:
    """Yield a problem where machines join by something else than their agent here."""
    if client.is_upstream():
        yield problem("gateway", KEEPALIVE_ROUTE, protocol.UPSTREAM.cause, protocol.UPSTREAM.remedy)


def of_pools(client: api.GatewayClient, pools: list[str]) -> Iterator[dict[str, str]]:
    """Yield a problem for each pool that can't have machines."""
    for name in pools:
        try:
            client.list_machines(protocol.pool_name(name))
        except api.GatewayError as error:
            if error.problem.code not in ("pool_local", "pool_unknown"):
                raise
            yield problem(
                "beta9_pool",
                "an external pool of the gateway",
                f"{name}: {error.problem.cause}",
                error.problem.remedy,
                pool=name,
            )


def stored_hostname(client: api.GatewayClient, as_machine: Callable[[str], api.GatewayClient], pool: str) -> str:
    """Return what the gateway makes of PROBE_ADDRESS, by a machine that is gone afterwards. as_machine(token) returns a
    client."""
    created = client.create_machine(pool)
    try:
        machine = as_machine(created["registration_token"])
        machine.register(
            protocol.register_payload(
                "probe", created["id"], PROBE_ADDRESS, pool, "1m", "1Mi", 0, PROBE_ADDRESS, created["provider"]
            )
        )
        machine.keepalive(protocol.keepalive_payload(created["id"], pool, created["provider"], "preflight"))
        listed = [
            entry["hostname"] for entry in machine.list_ready(pool, created["provider"]) if entry["id"] == created["id"]
        ]
        return listed[0] if listed else ""
    finally:
        client.discard_machine(created)


def of_hostnames(stored: str, wanted: list[str]) -> Iterator[dict[str, str]]:
    """Yield a problem for each wanted mode that the gateway does not have."""
    found = "direct" if stored == PROBE_ADDRESS else "tailnet"
    for mode in wanted:
        if mode != found:
            expected, remedy = PROBLEMS[mode]
            yield problem(
                "gateway's connection to workers",
                expected,
                f"{PROBE_ADDRESS} stored as {stored}",
                remedy,
                hostnames=mode,
            )


def probed(client: api.GatewayClient, params: dict[str, Any], pool: str) -> tuple[str, list[dict[str, str]]]:
    """Return (how host names are stored, problems)."""
    options = dict(params, token_file=None, timeout=max(params["timeout"], REGISTER_SECONDS))
    try:
        stored = stored_hostname(client, lambda token: api.client_from_params(dict(options, token=token)), pool)
    except api.NotFoundError as error:  # an older build without the route
        return "", [problem("gateway", KEEPALIVE_ROUTE, error.problem.cause, error.problem.remedy)]
    if not stored:
        return "", []
    return "direct" if stored == PROBE_ADDRESS else "tailnet", list(of_hostnames(stored, params["hostnames"]))


def plan(client: api.GatewayClient, params: dict[str, Any]) -> machine_runner.Plan:
    """Return the plan. Nothing stays changed, but the probe is no mere look."""
    problems, refused = list(of_build(client)), list(of_pools(client, params["pools"]))
    usable = [name for name in params["pools"] if name not in [entry["pool"] for entry in refused]]

    def apply() -> dict[str, Any]:
        hostnames, more = probed(client, params, usable[0])
        return {"problems": problems + more + refused, "hostnames": hostnames}

    probe = params["probe"] and usable and not problems
    return machine_runner.Plan({}, {}, apply if probe else None, {"problems": problems + refused, "hostnames": ""})


def main() -> None:
    machine_runner.run(SPEC, plan)


if __name__ == "__main__":
    main()
