# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What firewalld of this host lets in, as firewalld itself says. Read-only.

Its rules are a table of their own: what another table accepts, this collection's included, it refuses all the same.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Callable, NamedTuple

PROGRAM = "firewall-cmd"
NAME = re.compile(r"[\w-]{1,64}\Z")
POD_INTERFACE = "cni0"  # of k3s' flannel

Run = Callable[[list], tuple]  # as AnsibleModule.run_command: a command in, (exit status, stdout, stderr) out


class Zone(NamedTuple):
    """A zone that has packets to decide on."""

    name: str
    default: bool  # for interfaces of no other zone
    accepts: bool  # everything
    interfaces: list[str]
    sources: list[str]
    ports: list[str]  # as "6443/tcp" or "6000-7000/tcp"

    def has_source(self, network: str) -> bool:
        """Return whether packets from all of a network are this zone's by their source."""
        for source in self.sources:
            try:
                outer, inner = ipaddress.ip_network(source, strict=False), ipaddress.ip_network(network, strict=False)
            except ValueError:
                continue  # a MAC address, or an ipset
            if outer.version == inner.version and int(outer[0]) <= int(inner[0]) and int(inner[-1]) <= int(outer[-1]):
                return True
        return False

    def is_for_others(self, networks: list[str]) -> bool:
        """Return whether other packets than those of pods, from networks, can be this zone's."""
        return self.default or bool(set(self.interfaces) - {POD_INTERFACE} or set(self.sources) - set(networks))

    def opens(self, port: int) -> bool:
        """Return whether a TCP port takes connections in this zone."""
        ranges = [re.match(r"(\d+)(?:-(\d+))?/tcp\Z", entry) for entry in self.ports]
        return self.accepts or any(found and int(found[1]) <= port <= int(found[2] or found[1]) for found in ranges)


def running(run: Run) -> bool:
    """Return whether firewalld runs."""
    try:
        return run([PROGRAM, "--state"])[0] == 0
    except OSError:
        return False


def zones(run: Run) -> list[Zone]:
    """Return the zones of a firewalld that runs which have packets to decide on.

    They are the active ones, and the default for interfaces of no other.
    """

    def words(*arguments: str) -> list[str]:
        status, out, _err = run([PROGRAM, *arguments])
        return out.split() if status == 0 else []

    found, default = [], words("--get-default-zone")
    active = [line.split()[0] for line in run([PROGRAM, "--get-active-zones"])[1].splitlines() if line[:1].strip()]
    for name in dict.fromkeys(active + default):
        if NAME.match(name):
            of = f"--zone={name}"
            lists = [words(of, f"--list-{what}") for what in ("interfaces", "sources", "ports")]
            found.append(Zone(name, name in default, words("--permanent", of, "--get-target") == ["ACCEPT"], *lists))
    return found


def accepts_pods(active: list[Zone], network: str) -> bool:
    """Return whether pods' packets, which come from network at POD_INTERFACE, are all accepted."""
    return any(zone.accepts and (zone.has_source(network) or POD_INTERFACE in zone.interfaces) for zone in active)
