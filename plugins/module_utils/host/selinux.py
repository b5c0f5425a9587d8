# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether SELinux of this host lets a process use a TCP port. Read-only, as root.

    for refusal in refusals(context_of(pid), {"name_bind": [6443], "name_connect": [31994]}): ...

The kernel decides (selinuxfs: class/, access), booleans and permissive domains included. Only which type a port has is
in the loaded policy alone: libsepol reads that, the library that the host's own semodule uses. What can't be read is no
refusal.
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import Iterable, Mapping, NamedTuple

ROOT = "/sys/fs/selinux"
OUTGOING_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"  # which any domain may bind
LIBRARY = "libsepol.so.2"
TCP = 1  # SEPOL_PROTO_TCP
CONTEXT = re.compile(r"[\w.-]+:[\w.-]+:[\w.-]+(:[\w.,:-]+)?\Z")
PERMISSIVE = 1  # flag of the kernel's answer


class Refusal(NamedTuple):
    """What a domain may not do with the ports of a type."""

    domain: str
    permission: str  # name_bind or name_connect
    port_type: str
    ports: tuple[int, ...]


def _read(*names: str) -> str:
    try:
        with open(os.path.join(*names), encoding="ascii", errors="replace") as stream:
            return stream.read(4096).strip("\0\n ")
    except OSError:
        return ""


def enforcing() -> bool:
    """Return whether SELinux is there and refuses what its policy does not allow."""
    return _read(ROOT, "enforce") == "1"


def context_of(pid: int) -> str:
    """Return the security context of a process, an empty string where it has none."""
    found = _read("/proc", str(pid), "attr/current")
    return found if CONTEXT.match(found) else ""


def type_of(context: str) -> str:
    """Return the type of a context: the domain of a process."""
    return context.split(":")[2]


def allows(source: str, target: str, permission: str) -> bool:
    """Return whether a process of one context may do so with TCP ports of another, as the kernel decides it."""
    number, bit = _read(ROOT, "class/tcp_socket/index"), _read(ROOT, "class/tcp_socket/perms", permission)
    if not number.isdigit() or not bit.isdigit():
        return True
    try:
        handle = os.open(os.path.join(ROOT, "access"), os.O_RDWR)
    except OSError:
        return True
    try:
        os.write(handle, f"{source} {target} {number}".encode())
        allowed, _decided, _audit_allow, _audit_deny, _sequence, flags = (
            os.read(handle, 4096).decode().strip("\0\n ").split()
        )
        return bool(int(allowed, 16) >> int(bit) - 1 & 1 or int(flags, 16) & PERMISSIVE)
    except (OSError, ValueError):
        return True
    finally:
        os.close(handle)


def port_contexts(ports: Iterable[int]) -> dict[int, str]:
    """Return {TCP port: its security context} of those that could be read, by the rules of the loaded policy.

    The first rule that holds a port counts.
    """
    wanted, found = set(ports), {}
    rules = _port_rules(os.path.join(ROOT, "policy"))
    if not rules:
        return {}
    for low, high, context in rules:
        for port in [port for port in wanted if low <= port <= high and port not in found]:
            found[port] = context
    other = _read(ROOT, "initial_contexts/port")
    return {port: found.get(port) or other for port in sorted(wanted) if CONTEXT.match(found.get(port) or other)}


def refusals(source: str, wanted: Mapping[str, Iterable[int]]) -> list[Refusal]:
    """Return what a process of this context may not do of wanted, {permission: ports}.

    Empty where SELinux does not enforce, or can't be asked.
    """
    if not enforcing() or not CONTEXT.match(source):
        return []
    contexts = port_contexts(port for ports in wanted.values() for port in ports)
    low, high = [int(word) for word in _read(OUTGOING_PORTS).split()] or (0, 0)
    found: dict[tuple[str, str], set[int]] = {}
    for permission, ports in wanted.items():
        for port in ports:
            free = permission == "name_bind" and low <= port <= high
            if port in contexts and not free and not allows(source, contexts[port], permission):
                found.setdefault((permission, type_of(contexts[port])), set()).add(port)
    return [
        Refusal(type_of(source), permission, kind, tuple(sorted(ports)))
        for (permission, kind), ports in sorted(found.items())
    ]


def remedy(found: Iterable[Refusal]) -> str:
    """Return the command that allows just this: a module in CIL, for semodule, which each host with SELinux has."""
    rules = " ".join(f"(allow {entry.domain} {entry.port_type} (tcp_socket ({entry.permission})))" for entry in found)
    return f"echo '{rules}' > /root/beta9-tunnel.cil && semodule -i /root/beta9-tunnel.cil"


def _port_rules(path: str) -> list[tuple[int, int, str]]:
    """Return (lowest port, highest port, context) of each rule for TCP of a compiled policy, in its order.

    Empty where it can't be read.
    """
    try:
        with open(path, "rb") as stream:  # one reader at a time: another gets EBUSY
            image = stream.read()
        sepol = ctypes.CDLL(LIBRARY)
    except OSError:
        return []
    for name in ("sepol_handle_create", "sepol_port_get_con"):
        getattr(sepol, name).restype = ctypes.c_void_p
    for name in ("sepol_context_get_user", "sepol_context_get_role", "sepol_context_get_type", "sepol_context_get_mls"):
        getattr(sepol, name).restype = ctypes.c_char_p
    rules: list[tuple[int, int, str]] = []

    def keep(record: int, _argument: object) -> int:
        port = ctypes.c_void_p(record)
        if sepol.sepol_port_get_proto(port) == TCP:
            context = ctypes.c_void_p(sepol.sepol_port_get_con(port))
            parts = [getattr(sepol, "sepol_context_get_" + part)(context) for part in ("user", "role", "type", "mls")]
            rules.append(
                (
                    sepol.sepol_port_get_low(port),
                    sepol.sepol_port_get_high(port),
                    b":".join(part for part in parts if part).decode(),
                )
            )
        return 0

    handle, policy = ctypes.c_void_p(sepol.sepol_handle_create()), ctypes.c_void_p()
    sepol.sepol_msg_set_callback(handle, None, None)  # else it writes to stdout, which is the module's
    sepol.sepol_policydb_create(ctypes.byref(policy))
    if sepol.sepol_policydb_from_image(handle, image, ctypes.c_size_t(len(image)), policy) == 0:
        sepol.sepol_port_iterate(
            handle, policy, ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(keep), None
        )
        sepol.sepol_policydb_free(policy)  # of one that could not be read libsepol itself has freed a part
    sepol.sepol_handle_destroy(handle)
    return rules
