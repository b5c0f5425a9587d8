# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at a tailnet: the node of a worker, the path to it from the gateway, and the name that the gateway
dials."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.tailscale import tailnet
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown, bad, ok, warn
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation


def read(context: Context, *words: str) -> dict[str, Any] | None:
    """Return what a tailscale command says as JSON, or None when tailscaled does not answer."""

    def ask() -> dict[str, Any] | None:
        ran = context.run("tailscale", *words, timeout=4.0)
        try:
            return json.loads(ran.output)
        except ValueError:
            return None

    return context.shared("tailscale " + " ".join(words), ask)


def node(context: Context) -> Observation:
    """V03: what tailscaled itself says, against what the inventory wants."""
    status = read(context, "status", "--json")
    if status is None:
        return bad("stopped", "tailscaled does not answer")
    code, found = tailnet.verdict(
        status, read(context, "debug", "prefs") or {}, {"login_server": context.config.get("login_server")}
    )
    data: dict[str, Any] = {
        "addresses": status.get("TailscaleIPs") or [],
        "name": tailnet.label((status.get("Self") or {}).get("DNSName")),
    }
    if code in ("expiring", "health"):
        return warn(code, found, **data)
    return bad(code, found, **data) if code else ok(found, **data)


def peer_of(status: dict[str, Any], hostname: str, addresses: list[str]) -> dict[str, Any] | None:
    """Return the peer that a worker is in the eyes of the gateway host, or None."""
    for peer in (status.get("Peer") or {}).values():
        known = peer.get("TailscaleIPs") or []
        name = (peer.get("DNSName") or "").rstrip(".")
        if set(known) & set(addresses) or hostname in known or (hostname and hostname in (name, tailnet.label(name))):
            return peer
    return None


def path(context: Context, hostname: str) -> Observation:
    """V04: the gateway host's own node, the worker as its peer, and tailscale's own ping."""
    machine = context.config["machine"]
    status = read(context, "status", "--json")
    if status is None or status.get("BackendState") != "Running":
        return bad("gateway", f"tailscaled on the gateway host: {(status or {}).get('BackendState', 'no answer')}")
    peer = peer_of(status, hostname, machine.get("tailnet_addresses") or [])
    if peer is None:
        return bad(
            "unknown",
            f"{hostname or 'the worker'} is none of the {len(status.get('Peer') or ())} nodes "
            "that the gateway host may see",
        )
    if peer.get("Expired"):
        return bad("expired", f"the key of {peer.get('DNSName', hostname)} expired")
    ran = context.run("tailscale", "ping", "-c", "5", "--timeout=1s", peer["TailscaleIPs"][0], timeout=8.0)
    pongs = re.findall(r"pong from \S+ \(?\S*\)? ?via (\S+) in ([0-9.]+m?s)", ran.output)
    last = (ran.output.strip().splitlines() or ["no answer"])[-1]
    if not pongs:
        return bad("", f"{last}{'' if peer.get('Online') else '; the control server says it is offline'}")
    way, delay = pongs[-1]
    if way.startswith("DERP"):
        return warn("relayed", f"via {way} in {delay}", ran.output.strip())
    return ok(f"direct, via {way} in {delay}")


def resolves(context: Context, hostname: str | None) -> Observation:
    """V05: the registered name where the gateway runs: what it resolves to, and whose address that is."""
    if not hostname:
        raise Unknown("the machine has registered no host name")
    addresses = context.config["machine"].get("tailnet_addresses") or []
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(hostname, protocol.K3S_API_PORT)})
    except OSError:
        head = re.match(r"((?:\d+\.){3}\d+)\.", hostname)
        if head:
            code = (
                "suffix"
                if connections.gives(context.config["machine"].get("connection"), connections.TAILNET)
                else "not_direct"
            )
            return bad(code, f"{hostname}: the gateway appended its tailnet to an address")
        return bad("", f"{hostname} does not resolve here")
    if addresses and not set(found) & set(addresses):
        return bad("other", f"{hostname} is {', '.join(found)}, the worker's tailnet address is {addresses[0]}")
    return ok(f"{hostname} is {found[0]}")
