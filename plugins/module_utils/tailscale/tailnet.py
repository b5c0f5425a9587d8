# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: what `tailscale status --json` and `tailscale debug prefs` say, and what follows from it. No commands are run
here."""

from __future__ import annotations

import calendar
import ipaddress
import time
from collections import namedtuple
from typing import Any

# Addresses that every tailnet uses, Tailscale's and headscale's
NETWORKS = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
TAILSCALE_SERVERS = ("", "https://login.tailscale.com", "https://controlplane.tailscale.com")
EXPIRY_WARNING_DAYS = 14

# What to do, in this order. action: None, "resume", "login" (needs a key) or "move" (to another login, needs a key).
Plan = namedtuple("Plan", "action settings problem")
Problem = namedtuple("Problem", "code expected found remedy")


def is_tailnet(address: str) -> bool:
    """Return whether an address belongs to a tailnet."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(found in network for network in NETWORKS if network.version == found.version)


def came_by_tailnet(ssh_connection: str | None) -> bool:
    """Return whether the login that SSH_CONNECTION describes came in over a tailnet."""
    return is_tailnet((ssh_connection or "").split(" ")[0])


def same_server(one: str | None, other: str | None) -> bool:
    """Return whether two control server URLs are the same."""
    one, other = (one or "").rstrip("/"), (other or "").rstrip("/")
    return one == other or (one in TAILSCALE_SERVERS and other in TAILSCALE_SERVERS)


def key_text(key: str) -> str:
    """Return an auth key as it is handed over. Nodes made by an OAuth secret are ephemeral unless it says otherwise."""
    key = key.strip()
    return key + "?ephemeral=false&preauthorized=true" if key.startswith("tskey-client-") and "?" not in key else key


def label(dns_name: str | None) -> str:
    """Return the first label of a node's name."""
    return (dns_name or "").partition(".")[0]


def expiry_epoch(text: str | None) -> int | None:
    """Return the seconds since 1970 of a time such as 2026-05-21T10:00:00Z or with fractions, or None for never."""
    if not text or text.startswith("0001-"):
        return None
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


def node(status: dict[str, Any], prefs: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of this host's node."""
    own = status.get("Self") or {}
    addresses = status.get("TailscaleIPs") or []
    dns_name = (own.get("DNSName") or "").rstrip(".")
    return {
        "state": status.get("BackendState", "NoState"),
        "version": (status.get("Version") or "").partition("-")[0],
        "userspace": status.get("TUN") is False,
        "login_server": prefs.get("ControlURL", ""),
        "name": label(dns_name),
        "dns_name": dns_name,
        "addresses": addresses,
        "address": next((address for address in addresses if "." in address), addresses[0] if addresses else ""),
        "tags": own.get("Tags") or [],
        "online": bool(own.get("Online")),
        "key_expiry": own.get("KeyExpiry") or "",
        "health": status.get("Health") or [],
    }


def logged_in(status: dict[str, Any], prefs: dict[str, Any]) -> bool:
    """Return whether the node has a login that may still be good, be it up or down."""
    return (
        status.get("BackendState") in ("Running", "Starting", "Stopped")
        and not prefs.get("LoggedOut")
        and not expired(status)
    )


def expired(status: dict[str, Any], now: float | None = None) -> bool:
    """Return whether the node's key expired."""
    own = status.get("Self") or {}
    epoch = expiry_epoch(own.get("KeyExpiry"))
    return bool(own.get("Expired")) or (epoch is not None and epoch <= (now or time.time()))


def forgotten(status: dict[str, Any], seen_addresses: list[str]) -> bool:
    """Return whether a node believes to be up, and another member does not see it."""
    own = status.get("TailscaleIPs") or []
    return status.get("BackendState") == "Running" and bool(seen_addresses) and not set(own) & set(seen_addresses)


def plan(status: dict[str, Any], prefs: dict[str, Any], desired: dict[str, Any]) -> Plan:
    """Return the Plan that leads to the desired node: login_server, hostname, tags, accept_routes, accept_dns, has_key,
    force_reauth."""
    if status.get("BackendState") == "NeedsMachineAuth":
        remedy = "Approve it at the control server, then run again."
        return Plan(None, {}, Problem("approval", "a node that was approved", "one that waits for approval", remedy))
    settings = changed_settings(prefs, desired)
    if not logged_in(status, prefs):
        reason = (
            "its key expired"
            if expired(status)
            else "it is logged out"
            if prefs.get("ControlURL")
            else "it never joined"
        )
        return _with_key("login", settings, desired, f"The node needs a login: {reason}.")
    others = holders(status, settings.get("hostname"))
    if others:  # it may be granted, and then the other node's name leads here
        return Plan(None, {}, name_problem(status, prefs, desired["hostname"]))
    moved = _move_reason(status, prefs, desired)
    if moved and not desired["force_reauth"]:
        return Plan(None, {}, moved)
    if moved:
        return _with_key("move", settings, desired, f"The node needs another login: {moved.found}.")
    return Plan("resume" if status.get("BackendState") == "Stopped" else None, settings, None)


def _with_key(action: str, settings: dict[str, Any], desired: dict[str, Any], reason: str) -> Plan:
    if desired["has_key"]:
        return Plan(action, settings, None)
    remedy = f"{reason} Set tailscale_auth_key_file (or tailscale_auth_key), then run again."
    return Plan(None, {}, Problem("key_needed", "an auth key", "none", remedy))


def _move_reason(status: dict[str, Any], prefs: dict[str, Any], desired: dict[str, Any]) -> Problem | None:
    """Return why a login can't stay, as a Problem, or None."""
    again = "%s, or set tailscale_force_reauth=true to give the present login up."
    if not same_server(prefs.get("ControlURL"), desired["login_server"]):
        wanted = desired["login_server"] or TAILSCALE_SERVERS[-1]
        return Problem(
            "other_server",
            f"a login at {wanted}",
            f"one at {prefs.get('ControlURL')}",
            again % "Correct tailscale_login_server",
        )
    have = sorted((status.get("Self") or {}).get("Tags") or [])
    if desired["tags"] and have != sorted(desired["tags"]):
        return Problem(
            "other_tags",
            f"tags {', '.join(sorted(desired['tags']))}",
            ", ".join(have) or "none",
            again % "Change the tags at the control server",
        )
    return None


def not_granted(status: dict[str, Any], desired: dict[str, Any]) -> Problem | None:
    """Return the Problem of a node that logged in and did not get its tags, or None."""
    have = sorted((status.get("Self") or {}).get("Tags") or [])
    if not desired["tags"] or have == sorted(desired["tags"]):
        return None
    remedy = "Use a key that was made with these tags, or let the control server's policy allow them (tagOwners)."
    return Problem("tags_refused", f"tags {', '.join(sorted(desired['tags']))}", ", ".join(have) or "none", remedy)


def changed_settings(prefs: dict[str, Any], desired: dict[str, Any]) -> dict[str, Any]:
    """Return {flag of `tailscale set`: value} of what differs. A desired of None, or an empty host name, is left as it
    is."""
    found = {}
    if desired["hostname"] and prefs.get("Hostname") != desired["hostname"]:
        found["hostname"] = desired["hostname"]
    for flag, name in (("accept-routes", "RouteAll"), ("accept-dns", "CorpDNS")):
        value = desired[flag.replace("-", "_")]
        if value is not None and bool(prefs.get(name)) != value:
            found[flag] = value
    return found


def flags(settings: dict[str, Any]) -> list[str]:
    """Return settings as command line flags."""
    return [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in sorted(settings.items())
    ]


def holders(status: dict[str, Any], name: str | None) -> list[str]:
    """Return texts of the other nodes that have a name. A control server may let two have the same."""
    found = []
    for peer in (status.get("Peer") or {}).values():
        if name and label(peer.get("DNSName")) == name.lower():
            found.append(f"{(peer.get('TailscaleIPs') or ['?'])[0]} ({'online' if peer.get('Online') else 'offline'})")
    return sorted(found)


def name_problem(status: dict[str, Any], prefs: dict[str, Any], wanted: str) -> Problem | None:
    """Return the Problem of a node whose name is not the wanted one or not its alone, or None."""
    name, wanted = node(status, prefs)["name"], (wanted or "").lower()
    others = holders(status, wanted)
    if not wanted or not name or (name == wanted and not others):
        return None
    return Problem(
        "duplicate",
        f"the name {wanted} for this node alone",
        ("two" if name == wanted else f"this node is called {name}")
        + (f"; {', '.join(others)} has that name" if others else ""),
        f"Delete or rename the other node at the control server, name this one {wanted} there if it is not, or set "
        f"tailscale_hostname.",
    )


def verdict(
    status: dict[str, Any], prefs: dict[str, Any], desired: dict[str, Any], now: float | None = None
) -> tuple[str | None, str]:
    """Return (code, found) of what is wrong with a node, or (None, text). Codes: stopped, down, login, expired,
    approval, server, duplicate, offline, expiring, health."""
    state, now = status.get("BackendState", "NoState"), now or time.time()
    found = node(status, prefs)
    if state == "NeedsMachineAuth":
        return "approval", "the node waits for approval"
    if (
        desired.get("login_server") is not None
        and prefs.get("ControlURL")
        and not same_server(prefs["ControlURL"], desired["login_server"])
    ):
        return (
            "server",
            (
                f"logged in at {prefs['ControlURL']}, the inventory says "
                f"{desired['login_server'] or TAILSCALE_SERVERS[-1]}"
            ),
        )
    if expired(status, now):
        return "expired", f"the node key expired at {found['key_expiry']}"
    if state == "NeedsLogin" or prefs.get("LoggedOut"):
        return "login", f"BackendState {state}"
    if state == "Stopped":
        return "down", "BackendState Stopped"
    if state != "Running" or not found["online"]:
        return (
            "offline",
            f"BackendState {state}{'; ' + '; '.join(found['health']) if found['health'] else ', not online'}",
        )
    doubled = name_problem(status, prefs, prefs.get("Hostname") or found["name"])
    if doubled:
        return "duplicate", f"expected {doubled.expected}, found {doubled.found}"
    epoch = expiry_epoch(found["key_expiry"])
    if epoch and epoch - now < EXPIRY_WARNING_DAYS * 86400:
        return "expiring", f"the node key expires in {int((epoch - now) // 86400)} days, at {found['key_expiry']}"
    if found["health"]:
        return "health", "; ".join(found["health"])
    return None, f"{found['dns_name']}, {found['address']}, key " + (
        f"until {found['key_expiry']}" if epoch else "without expiry"
    )
