# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's k3s, and the ways by which the gateway reaches it."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import Check, ONBOARD, SAFE
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import (
    WORKER,
    first,
    inspect,
    person,
    repair,
)

CHECKS = (
    Check(
        "K01",
        "k3s.installed",
        "k3s is installed",
        WORKER,
        "The gateway has nothing to start pods on.",
        {"": ("k3s is not installed", ONBOARD)},
        component="k3s",
    ),
    Check(
        "K02",
        "k3s.active",
        "k3s runs",
        WORKER,
        "The gateway can't start pods.",
        {
            "masked": ("the k3s unit is masked", ONBOARD),
            "": ("the k3s unit does not run", repair(WORKER, "systemctl start k3s")),
        },
        ("K01",),
        component="k3s",
        heal="k3s_start",
        heals={"masked": ""},
        heal_class=SAFE,
    ),
    Check(
        "K03",
        "k3s.ready",
        "The k3s API is ready",
        WORKER,
        "The gateway can't start pods.",
        {"": ("a part of the k3s API is not ready", inspect(WORKER, "k3s kubectl get --raw '/readyz?verbose'"))},
        ("K02",),
        component="k3s",
        timeout_seconds=10.0,
    ),
    Check(
        "K04",
        "k3s.node",
        "The node is Ready",
        WORKER,
        "Pods are not scheduled on a node that is not Ready.",
        {
            "stale": (
                "besides this host's Node there is one that an earlier name of the host left over",
                inspect(WORKER, "k3s kubectl get nodes", "Then delete the other one: k3s kubectl delete node NAME."),
            ),
            "": ("the node is not Ready", inspect(WORKER, "k3s kubectl describe node")),
        },
        ("K03",),
        component="k3s",
        timeout_seconds=10.0,
    ),
    Check(
        "K05",
        "k3s.token",
        "The service account may do what the gateway does",
        WORKER,
        "The gateway's calls are refused by k3s.",
        {
            "missing": ("the service account's token is not on the host", ONBOARD),
            "invalid": ("k3s does not accept the service account's token", ONBOARD),
            "": ("the service account may not create Jobs or list Pods in namespace default", ONBOARD),
        },
        ("K03",),
        component="k3s",
        timeout_seconds=10.0,
    ),
    Check(
        "K06",
        "k3s.kernel",
        "The kernel has what k3s needs",
        WORKER,
        "Pods fail for reasons that are hard to understand.",
        {
            "": (
                "k3s check-config names missing kernel features",
                inspect(WORKER, "k3s check-config", "Boot a kernel with these features."),
            )
        },
        ("K01",),
        component="k3s",
        severity="warn",
        timeout_seconds=20.0,
    ),
    Check(
        "V01",
        "reverse.process",
        "The tunnel offers the worker's k3s to the gateway",
        WORKER,
        "Workloads do not run on the worker: the gateway can't reach its k3s.",
        {"": ("the tunnel has no -R forward of port 6443", ONBOARD)},
        ("C01",),
        ("T01",),
        builds_on=connections.TUNNEL,
        heal="tunnel_install",
        heal_class=SAFE,
    ),
    Check(
        "V03",
        "tailscale.state",
        "The worker is connected to its tailnet",
        WORKER,
        "The gateway can't reach the worker, nor the worker the gateway.",
        {
            "stopped": ("tailscaled does not run", repair(WORKER, "systemctl restart tailscaled")),
            "down": ("the node was taken down (tailscale down)", ONBOARD),
            "login": (
                "the node is logged out of the tailnet",
                first("Set tailscale_auth_key_file to a new key.", ONBOARD),
            ),
            "expired": ("the node's key expired", first("Set tailscale_auth_key_file to a new key.", ONBOARD)),
            "approval": ("the node waits for approval", person("Approve it at the control server.")),
            "server": (
                "the node is logged in at another control server than the inventory says",
                first("Correct tailscale_login_server, or set tailscale_force_reauth=true and a key.", ONBOARD),
            ),
            "duplicate": (
                "another node of the tailnet has this host's name, so the control server gave it another one",
                first(
                    "Delete or rename the other node at the control server and name this one, or set "
                    "tailscale_hostname.",
                    ONBOARD,
                ),
            ),
            "offline": (
                "the control server can't be reached, or no longer knows the node",
                inspect(
                    WORKER,
                    "tailscale status",
                    "If the node was deleted: tailscale logout, set tailscale_auth_key_file, and onboard again.",
                ),
            ),
            "expiring": (
                "the node's key expires soon",
                person(
                    "Turn key expiry off for this node at the control server, or give it a tag; or log in again with "
                    "tailscale_force_reauth=true."
                ),
            ),
            "health": ("Tailscale itself warns", inspect(WORKER, "tailscale status")),
            "": ("Tailscale reports a problem", inspect(WORKER, "tailscale status")),
        },
        ("C01",),
        builds_on=connections.TAILNET,
        heals={"stopped": "tailscale_start"},
        heal_class=SAFE,
    ),
)
