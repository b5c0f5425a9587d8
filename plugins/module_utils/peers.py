# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway host's list of workers: one restricted authorized_keys line each. Pure: text in, text out.

The file itself is the register. A line reads
    restrict,port-forwarding,permitopen="localhost:31994",permitlisten="127.77.3.9:6443" ssh-ed25519 AAAA... beta9-worker:gpu-01
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

MARK = "beta9-worker:"
KEY_FORM = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/]+={0,3}$")
LISTEN_FORM = re.compile(r'permitlisten="([^"]+):(\d+)"')


class PeerError(ValueError):
    """The wish can't be granted. The text says what was expected, found, and what to do."""


def public_key(text):
    """Return "type base64" of a public key without its comment, or raise PeerError."""
    key = " ".join(text.split()[:2])
    if "\n" in text.strip() or not KEY_FORM.match(key):
        raise PeerError("public_key: expected one line 'ssh-ed25519 AAAA...', found something else; make the key again on the worker")
    return key


def parse(text):
    """Return {worker name: {"line", "address"}} of an authorized_keys text."""
    peers = {}
    for line in text.splitlines():
        _before, mark, name = line.rpartition(MARK)
        if mark and not line.lstrip().startswith("#"):
            listen = LISTEN_FORM.search(line)
            peers[name.strip()] = {"line": line, "address": listen.group(1) if listen else None}
    return peers


def choose_address(name, peers, network, wanted=None):
    """Return the listen address of a worker: the wanted one, else the one it has, else one from its name's hash.

    A wanted address that another worker has is refused. A hash that meets a used address takes the next free one, so an
    address is stable once given.
    """
    taken = {peer["address"]: other for other, peer in peers.items() if other != name}
    if wanted:
        try:
            wanted = str(ipaddress.ip_address(wanted))
        except ValueError:
            raise PeerError("listen_address: expected an IP address, found %r" % wanted) from None
        if wanted in taken:
            raise PeerError("listen_address: %s belongs to worker %s already; give %s another one or leave it out" % (wanted, taken[wanted], name))
        return wanted
    try:
        pool = ipaddress.ip_network(network)
    except ValueError:
        raise PeerError("network: expected a network like 127.77.0.0/16, found %r" % network) from None
    current = peers.get(name, {}).get("address")
    if current and ipaddress.ip_address(current) in pool:
        return current
    usable = pool.num_addresses - 2
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    for step in range(usable):
        address = str(pool[1 + (start + step) % usable])
        if address not in taken:
            return address
    raise PeerError("network: %s has no free address left for %s; use a larger gateway_host_network" % (network, name))


def render_line(name, key, address, port, permit_open):
    """Return the authorized_keys line of one worker."""
    options = ["restrict", "port-forwarding"]
    options += ['permitopen="%s"' % target for target in permit_open]
    options.append('permitlisten="%s:%d"' % (address, port))
    return "%s %s %s%s" % (",".join(options), key, MARK, name)


def with_line(text, name, line):
    """Return text with the worker's line set, or removed when line is None. Other lines keep their order."""
    kept = [old for old in text.splitlines() if old.rpartition(MARK)[1] == "" or old.rpartition(MARK)[2].strip() != name]
    position = next((index for index, old in enumerate(text.splitlines()) if old.rpartition(MARK)[1] and old.rpartition(MARK)[2].strip() == name), len(kept))
    if line is not None:
        kept.insert(position, line)
    return "".join(entry + "\n" for entry in kept)
