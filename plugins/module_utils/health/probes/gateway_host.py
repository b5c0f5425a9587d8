# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the gateway host as the end of a tunnel: what its sshd does with the tunnel's account, and who listens
at the target.

context.config["machine"]["tunnel"] is what the worker's own ssh makes of its configuration (data of T08): target,
listen, port, user.
"""

from __future__ import annotations

import os
import socket

from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers, sshd_effective
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import (
    Context,
    Unknown,
    bad,
    not_applicable,
    ok,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation

# What sshd_effective names a problem -> code of T09
CODES = {
    "Include": "include",
    "gateway host": "include",
    "account": "account",
    "AllowUsers": "lists",
    "AllowGroups": "lists",
    "DenyUsers": "lists",
    "DenyGroups": "lists",
    "PermitOpen": "permit",
    "PermitListen": "permit",
    "SELinux": "selinux",
}


def _tunnel(context: Context) -> dict:
    found = context.config["machine"].get("tunnel") or {}
    if not found.get("target"):
        raise Unknown("the worker's tunnel configuration could not be read")
    return found


def target(context: Context) -> Observation:
    """G11: who takes a connection at the tunnel's target, as this host's sshd would make it: of what a key may open,
    and of nothing else."""
    wanted = _tunnel(context)["target"]
    if f'permitopen="{wanted}"' not in (context.read(sshd_effective.KEYS_PATH) or ""):
        raise Unknown(f"no worker's key may open {wanted} on this host")
    name, _colon, port = wanted.rpartition(":")
    name = name.strip("[]")

    def knock() -> Observation:
        try:
            with socket.create_connection((name, int(port)), timeout=3):
                return ok(f"{name}:{port} takes connections")
        except socket.timeout:
            return bad("timeout", f"{name}:{port} does not answer within 3 s")
        except socket.gaierror as error:
            return bad("name", f"{name}: {error.strerror}")
        except OSError as error:
            return bad("refused", f"{name}:{port}: {error.strerror or error}")

    return context.shared(f"target:{name}:{port}", knock)


def sshd(context: Context) -> Observation:
    """T09: what sshd itself says that it does with the tunnel's account (sshd -T -C), and the worker's line in its
    keys."""
    tunnel = _tunnel(context)
    if not os.path.isdir(os.path.dirname(sshd_effective.KEYS_PATH)):
        return not_applicable("this host is no end of tunnels")
    if os.geteuid() != 0:
        raise Unknown("only root can read what sshd does: run with become")
    port = int(tunnel.get("port") or 22)
    if not context.shared(f"listeners:{port}", lambda: linux.listeners(port)):
        return bad("not_listening", f"nothing listens on port {port} of the gateway host")
    user = tunnel.get("user") or sshd_effective.Need().user

    def run(words: list[str]) -> tuple[int | None, str, str]:
        ran = context.run(*words)
        return ran.status, ran.output, ""

    try:
        answer = context.shared(f"sshd:{user}", lambda: sshd_effective.ask(run, user))
    except sshd_effective.SshdError as error:
        return bad("settings", str(error))
    address, _colon, listen_port = (tunnel.get("listen") or "").rpartition(":")
    listen = (address.strip("[]"), int(listen_port)) if address and listen_port.isdigit() else None
    found = sshd_effective.problems(
        answer, sshd_effective.Need(user=user, listen=listen, permit_open=(tunnel["target"],))
    )
    if found:
        code = CODES.get(found[0].what, "keys_file" if found[0].what.startswith("/") else "settings")
        return bad(code, str(found[0]), "\n".join(map(str, found)))
    known = peers.parse(context.read(sshd_effective.KEYS_PATH) or "")
    if listen and listen[0] not in [peer["address"] for peer in known.values()]:
        return bad("no_key", f"{sshd_effective.KEYS_PATH} has no line for {listen[0]}")
    return ok(f"port {port}, {user}")
