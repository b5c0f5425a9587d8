# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How worker and gateway can be connected: a row for each mode, and the only place where one is asked for by its name.

What depends on a host is a function of read(name): the value of one of the host's variables on the controller, None
where it has none.
"""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple

from ansible_collections.beta9.workers.plugins.module_utils import grammar

Read = Callable[[str], Any]
TUNNEL, TAILNET = "tunnel", "tailnet"
ANYWHERE = ("0.0.0.0/0", "::/0")
# What the tunnel brings to the worker unless the inventory says otherwise
FORWARD = {"local_port": 1994, "target": "localhost:31994"}


def forward(read: Read) -> dict[str, Any]:
    """Return {local_port, target} of the gateway's HTTP port in the tunnel. A mistyped one counts as none."""
    forwards = read("autossh_forwards")
    given = forwards[0] if isinstance(forwards, list) and forwards and isinstance(forwards[0], dict) else {}
    port = str(given.get("local_port", ""))
    return {**FORWARD, **given, "local_port": int(port) if re.match(r"[0-9]{1,5}\Z", port) else FORWARD["local_port"]}


def _attribute(read: Read, name: str, key: str) -> Any:
    return (read(name) or {}).get(key)


class Mode(NamedTuple):
    """One mode. As it stands here nothing is set up: both sides reach each other as it is.

    role connects a worker (its tasks main) and takes that back (remove); variables gives a play its variables alone,
    and gateway_host makes the gateway's host a member where joins_gateway_host says so. left is what is on the worker
    for as long as it is connected so. gives is what checks may build on. gateway_url and hostname are None until the
    role has run.
    """

    name: str
    role: str = ""
    left: str = ""
    gives: str = ""
    joins_gateway_host: bool = False
    api_networks: tuple[str, ...] = ANYWHERE  # from where the worker's k3s is reached, besides the worker itself
    gateway_url: Callable[[Read], Any] = lambda read: read("beta9_gateway_url")
    hostname: Callable[[Read], Any] = lambda read: read("ansible_host") or read("inventory_hostname")
    address: Callable[[Read], Any] = lambda read: ""  # of the worker in what was set up, for people
    names: Callable[[Read], list] = lambda read: []  # further ones of the worker's k3s
    # how the gateway has to store the hostname: as it is, or with its tailnet
    stored_as: Callable[[Read], str] = lambda read: "direct"
    tunnel_port: Callable[[Read], int] = lambda read: 0  # that the worker listens on
    # what the worker has to resolve first
    resolves: Callable[[Read], Any] = lambda read: grammar.url_host(
        read("beta9_worker_gateway_url") or read("beta9_gateway_url") or ""
    )


MODES = (
    Mode(
        "autossh",
        role="beta9.workers.autossh",
        left="/etc/systemd/system/beta9-tunnel.service",
        gives=TUNNEL,
        api_networks=(),  # the gateway comes through the tunnel, which ends on the worker itself
        gateway_url=lambda read: f"http://127.0.0.1:{forward(read)['local_port']}",
        hostname=lambda read: _attribute(read, "autossh_peer", "listen_address"),
        address=lambda read: _attribute(read, "autossh_peer", "listen_address"),
        tunnel_port=lambda read: forward(read)["local_port"],
        resolves=lambda read: read("autossh_gateway_address"),
    ),
    Mode(
        "tailscale",
        role="beta9.workers.tailscale",
        left="/etc/beta9/tailscale",
        gives=TAILNET,
        joins_gateway_host=True,
        api_networks=("100.64.0.0/10", "fd7a:115c:a1e0::/48"),
        gateway_url=lambda read: read("tailscale_worker_gateway_url"),
        hostname=lambda read: read("tailscale_registered_hostname"),
        address=lambda read: _attribute(read, "tailscale_node", "address"),
        names=lambda read: [
            _attribute(read, "tailscale_node", "dns_name"),
            _attribute(read, "tailscale_node", "address"),
        ],
        stored_as=lambda read: read("tailscale_gateway_mode") or "tailnet",
        resolves=lambda read: grammar.url_host(
            read("tailscale_login_server") or "https://controlplane.tailscale.com"
        ),
    ),
    Mode("direct"),
)
BY_NAME = {mode.name: mode for mode in MODES}
DEFAULT = MODES[0].name
GIVEN = {"gateway_url": "beta9_worker_gateway_url", "hostname": "beta9_hostname"}
connection = grammar.one_of(*BY_NAME)


def of(name: Any) -> Mode:
    """Return the mode of that name. One that does not exist sets nothing up and knows nothing: preflight says what is
    wrong with it."""
    return BY_NAME.get(str(name)) or Mode(str(name), gateway_url=lambda read: None, hostname=lambda read: None)


def gives(name: Any, what: str) -> bool:
    """Return whether a mode has what a check builds on: TUNNEL, TAILNET, or "" for nothing."""
    return what in ("", of(name).gives)


def value(name: Any, field: str, read: Read) -> Any:
    """Return a field of a mode for one host, None where it is not known yet. What the inventory gives by hand is taken
    as it is."""
    if field == "stored_as" and read(GIVEN["hostname"]) is not None:
        return ""
    given = read(GIVEN[field]) if field in GIVEN else None
    if given is not None:
        return given
    found = getattr(of(name), field)
    return found(read) if callable(found) else list(found) if isinstance(found, tuple) else found
