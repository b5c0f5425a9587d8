# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway host's list of workers: one restricted authorized_keys line each. Pure: text in, text out.

The file itself is the register. A line reads
    restrict,port-forwarding,permitopen="localhost:31994",permitlisten="127.77.3.9:6443" ssh-ed25519 AAAA...
    beta9-worker:gpu-01
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Any, Callable

from ansible_collections.beta9.workers.plugins.module_utils import grammar
from ansible_collections.beta9.workers.plugins.module_utils.agent import records

MARK = "beta9-worker:"
LISTEN_FORM = re.compile(r'permitlisten="\[?([0-9a-f:.]+)\]?:[0-9]+"')
KEY_FORM = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/]+={0,3})(?=\s|$)")


class PeerError(ValueError):
    """What was asked for is refused. The text says what was expected, found, and what to do."""


def _valid(check: Callable[[object, str], Any], value: object, field: str) -> Any:
    try:
        return check(value, field)
    except grammar.InvalidField as error:
        raise PeerError(f"{error}. Correct {field}.") from None


def public_key(text: str) -> str:
    """Return "type base64" of a public key without its comment, or raise PeerError."""
    try:
        return grammar.public_key(text)
    except grammar.InvalidField:
        raise PeerError(
            "public_key: expected one line 'ssh-ed25519 AAAA...', found something else; make the key again "
            "on the worker"
        ) from None


def _owner(line: str) -> str | None:
    """Return the name of the worker that a line is for, or None. The mark is the whole last word, so no text before it
    counts."""
    words = line.split()
    return words[-1][len(MARK) :] if words and words[-1].startswith(MARK) and not words[0].startswith("#") else None


def parse(text: str) -> dict[str, dict[str, Any]]:
    """Return {worker name: {"line", "address", "key"}} of an authorized_keys text. address and key are None where a
    line has none."""
    peers = {}
    for line in text.splitlines():
        name = _owner(line)
        if name:
            listen, key = LISTEN_FORM.search(line), KEY_FORM.search(line)
            peers[name] = {
                "line": line,
                "address": listen.group(1) if listen else None,
                "key": key.group(1) if key else None,
            }
    return peers


FORM = re.compile(
    r'restrict,port-forwarding,((?:permitopen="[^"]+",)+)permitlisten="\[?([0-9a-f:.]+)\]?:([0-9]+)" (\S+ \S+) '
    + MARK
    + r"(\S+)"
)


def strange(text: str) -> list[str]:
    """Return what is wrong with each line that is not as render_line writes it, or has the key of a line before it."""
    found: list[str] = []
    keys: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = FORM.fullmatch(line)
        try:
            targets = re.findall(r'permitopen="([^"]+)"', parts.group(1)) if parts else []
            same = (
                parts and render_line(parts.group(5), parts.group(4), parts.group(2), parts.group(3), targets) == line
            )
        except PeerError:
            same = False
        if not parts or not same:
            found.append(f"line {number} is none of this collection's, or was changed")
        elif parts.group(4) in keys:
            found.append(f"line {number} has the key of line {keys[parts.group(4)]}")
        else:
            keys[parts.group(4)] = number
    return found


def key_holder(text: str, name: str, key: str) -> str | None:
    """Return the other worker whose line has this key, an empty string where somebody has it who is no worker, or
    None."""
    for line in text.splitlines():
        if not line.lstrip().startswith("#") and _owner(line) != name and key.split()[1] in line.split():
            return _owner(line) or ""
    return None


def refuse_foreign_key(text: str, name: str, key: str) -> None:
    """Raise PeerError when a line of somebody else has this key: sshd obeys the first line with a key, whosever it
    is."""
    holder = key_holder(text, name, key)
    if holder == "":
        raise PeerError(
            f"public_key: expected a key of {name} alone, found it in the line of somebody who is no worker. Take "
            f"that line out."
        )
    if holder:
        raise PeerError(
            f"public_key: expected a key of {name} alone, found it in the line of {holder}: this host was cloned, or "
            f"renamed. {records.SWITCH}"
        )


def choose_address(name: str, peers: dict[str, dict[str, Any]], network: str, wanted: str | None = None) -> str:
    """Return the listen address of a worker: the wanted one, else the one it has, else one from its name's hash.

    A wanted address that another worker has is refused. A hash that meets a used address takes the next free one, so an
    address is stable once given.
    """
    taken = {peer["address"]: other for other, peer in peers.items() if other != name}
    if wanted:
        wanted = _valid(grammar.listen_address, wanted, "listen_address")
        if wanted in taken:
            raise PeerError(
                f"listen_address: {wanted} belongs to worker {taken[wanted]} already; give {name} another one or "
                f"leave it out"
            )
        return wanted
    pool = ipaddress.ip_network(_valid(grammar.network, network, "network"))
    current = peers.get(name, {}).get("address")
    if current and ipaddress.ip_address(current) in pool:
        return current
    usable = pool.num_addresses - 2
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    for step in range(usable):
        address = str(pool[1 + (start + step) % usable])
        if address not in taken:
            return address
    raise PeerError(
        f"network: {network} has no free address left for {name}; set autossh_listen_address to an address of "
        f"another network"
    )


def render_line(name: str, key: str, address: str, port: int | str, permit_open: list[str]) -> str:
    """Return the authorized_keys line of one worker, or raise PeerError: each part of it has its grammar."""
    targets = [_valid(grammar.host_port, target, "permit_open") for target in permit_open]
    if not targets:  # without one, sshd would open every target
        raise PeerError("permit_open: expected at least one host:port, found none. Correct autossh_forwards.")
    listen = _valid(grammar.listen_address, address, "listen_address")
    options = ["restrict", "port-forwarding"]
    options += [f'permitopen="{target}"' for target in dict.fromkeys(targets)]
    listen = f"[{listen}]" if ":" in listen else listen
    options.append(f'permitlisten="{listen}:{_valid(grammar.port, port, "listen_port")}"')
    return f"{','.join(options)} {key} {MARK}{_valid(grammar.worker_name, name, 'name')}"


def with_line(text: str, name: str, line: str | None) -> str:
    """Return text with the worker's line set, or removed when line is None. Other lines keep their order."""
    _valid(grammar.worker_name, name, "name")
    lines = text.splitlines()
    mine = [index for index, old in enumerate(lines) if _owner(old) == name]
    kept = [old for index, old in enumerate(lines) if index not in mine]
    if line is not None:
        kept.insert(mine[0] if mine else len(kept), line)
    return "".join(entry + "\n" for entry in kept)
