# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway's cluster keeps of the machine, and what it reaches of it."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    Check,
    GATEWAY,
    JOIN,
    JOURNAL,
    ONBOARD,
    OPT_IN,
    REGISTER_AGAIN,
    START_TUNNEL,
    STATE_ANCESTORS,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import (
    CLUSTER,
    CONTROLLER,
    WORKER,
    first,
    inspect,
    person,
    repair,
)

CHECKS = (
    Check(
        "M02",
        "redis.state",
        "Redis holds the machine's state as ready",
        GATEWAY,
        "The gateway knows no more of the machine than this.",
        {
            "absent": ("Redis has no state of the machine: it expired, or it never registered", REGISTER_AGAIN),
            "other_pool": (
                "the machine's state is under another pool or provider",
                ONBOARD._replace(prose="Correct beta9_pool, if the inventory has it wrong."),
            ),
            "": ("the machine's state is not ready", JOURNAL),
        },
        ("G09",),
        STATE_ANCESTORS + ("A04", "A05", "P06", "T01", "G06"),
        component="redis",
        heal="agent_restart",
        heal_class=OPT_IN,
        timeout_seconds=8.0,
    ),
    Check(
        "M03",
        "redis.ttl",
        "The state's time to live is renewed",
        GATEWAY,
        "The machine expires when it reaches zero.",
        {"": ("the state's time to live only falls: keepalives do not land", JOURNAL)},
        ("M02",),
        STATE_ANCESTORS + ("T01", "P06"),
        component="redis",
        timeout_seconds=8.0,
    ),
    Check(
        "M04",
        "redis.index",
        "Index and state agree",
        GATEWAY,
        "A machine that is missing from the index is not scheduled.",
        {
            "missing": ("the machine's state is not in the pool's index", REGISTER_AGAIN),
            "": (
                "the index names states that do not exist: the gateway prunes them when it lists",
                person("List the pool's machines once (beta9 machine list): the gateway prunes them then."),
            ),
        },
        ("G09",),
        ("M02",),
        component="redis",
        timeout_seconds=8.0,
        heals={"missing": "agent_restart"},
        heal_class=OPT_IN,
    ),
    Check(
        "M05",
        "token.owner",
        "The token on the host is this machine's",
        JOIN,
        "Invalid token: a token that is used by another machine.",
        {"": ("the token on the host is not the one that the gateway made for this machine", ONBOARD)},
        ("M02",),
        ("A01",),
        component="redis",
        heal="onboard",
        heal_class=OPT_IN,
    ),
    Check(
        "V05",
        "hostname.mode",
        "The gateway can resolve the worker's registered name",
        GATEWAY,
        "The gateway dials https://<hostname>:6443.",
        {
            "suffix": (
                "the gateway appends its tailnet to what is registered, and an address was registered",
                first("Set tailscale_gateway_mode=tailnet (or beta9_hostname to the short name).", ONBOARD),
            ),
            "not_direct": (
                "the gateway appends its tailnet to host names, and a worker without a tailnet can't be reached so",
                first(
                    "Set tailscale.directRedisHost in the gateway's configuration and restart the gateway. With k3s "
                    "it needs a tailnet of its own as well.",
                    REGISTER_AGAIN,
                ),
            ),
            "other": (
                "the registered host name leads to another address than the worker's in the tailnet",
                first(
                    "Let the gateway host use the tailnet's DNS (tailscale set --accept-dns), or set "
                    "tailscale_gateway_mode=direct.",
                    ONBOARD,
                ),
            ),
            "": (
                "the registered host name does not resolve where the gateway runs",
                ONBOARD._replace(
                    prose="Set beta9_hostname (in a tailnet: tailscale_gateway_mode) to what the gateway can resolve, "
                    "if it is set."
                ),
            ),
        },
        ("M02",),
        ("M07", "V03", "V04"),
        component="redis",
        heals={"not_direct": "agent_restart"},
        heal_class=OPT_IN,
    ),
    Check(
        "V02",
        "reverse.identity",
        "The gateway reaches this worker's k3s, and no other's",
        GATEWAY,
        "Workloads do not run, or run on another machine.",
        {
            "refused": ("nothing answers at the worker's address on the gateway host", START_TUNNEL),
            "other": (
                "another cluster's certificate is shown at the worker's address",
                ONBOARD._replace(
                    prose="Give the worker a listen address of its own, if autossh_listen_address is set."
                ),
            ),
            "": ("the worker's k3s can't be reached from the gateway", START_TUNNEL),
        },
        ("M02",),
        ("M07", "V01", "V03", "V04", "V05", "T01", "T02", "T08", "K02", "K03"),
        component="k3s+redis",
    ),
    Check(
        "V04",
        "tailscale.peer",
        "The gateway reaches the worker over the tailnet",
        GATEWAY,
        "The gateway can't reach the worker's k3s.",
        {
            "relayed": (
                "the path between them is relayed (DERP): it works, with higher latency",
                person("Open UDP 41641 between both for a direct way."),
            ),
            "gateway": (
                "the gateway host itself is not connected to the tailnet",
                repair(
                    CONTROLLER, "ansible-playbook prepare_gateway.yml -l {gateway_host} -e beta9_connection=tailscale"
                ),
            ),
            "unknown": (
                (
                    "the gateway host's tailnet does not have the worker: it was deleted there, is in another tailnet, "
                    "or access rules hide it"
                ),
                first(
                    "Restart tailscaled on the worker (a deleted node notices then) and set tailscale_auth_key_file.",
                    ONBOARD,
                ),
            ),
            "expired": ("the worker's key expired", first("Set tailscale_auth_key_file to a new key.", ONBOARD)),
            "": (
                "the tailnet has no path between gateway and worker",
                inspect(WORKER, "tailscale status", "Check the tailnet's access rules."),
            ),
        },
        ("C01",),
        ("V03",),
        builds_on=connections.TAILNET,
        component="tailscale on the gateway host",
        timeout_seconds=12.0,
    ),
    Check(
        "G07",
        "pool.status",
        "The pool is healthy",
        GATEWAY,
        "pool is degraded, skipping pool sizing: nothing is started in it.",
        {
            "no_ready_machine": (
                "no machine of the pool is ready",
                person("Remove the causes that this report names for the pool's machines."),
            ),
            "pending_workers": (
                "too many workers of the pool are pending",
                inspect(WORKER, "k3s kubectl get pods -A", "Check V02, K05 and U07."),
            ),
            "": ("the gateway calls the pool degraded", inspect(CLUSTER, "{kubectl} logs -l app=gateway --tail=50")),
        },
        ("G09",),
        ("M01", "M02", "C02", "U06", "G06"),
        component="redis",
        severity="warn",
        timeout_seconds=8.0,
    ),
    Check(
        "G08",
        "gateway.log",
        "No errors of this pool in the gateway log",
        GATEWAY,
        "The log shows what the gateway fails at.",
        {
            "k3s": ("the gateway fails to reach the k3s of a worker", person("See V02 and K05 of that worker.")),
            "provider": (
                (
                    "'provider not implemented' although a machine is ready: the gateway tries to provision "
                    "the pool itself"
                ),
                person(
                    "Expected for external pools without a ready machine. Otherwise correct provider and mode in "
                    "worker.pools of the gateway's configuration."
                ),
            ),
            "": ("the gateway logs errors", inspect(CLUSTER, "{kubectl} logs -l app=gateway --tail=50")),
        },
        ("G01",),
        ("V02", "K05", "G02", "G06", "G07", "G09"),
        component="kube",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "G10",
        "gateway.canary",
        "A Job started as the gateway starts them completes",
        WORKER,
        "The last proof that the machine can work.",
        {
            "image": (
                "the image can't be pulled",
                person("Let the host reach the registry, or set health_check_canary_image to an image that it has."),
            ),
            "unschedulable": ("no node takes the Job's pod", inspect(WORKER, "k3s kubectl describe node")),
            "refused": ("k3s refuses the Job", inspect(WORKER, "k3s kubectl get rolebindings -n default")),
            "ended": (
                "the Job's container ended with an error",
                inspect(WORKER, "k3s kubectl get events -n default --sort-by=.lastTimestamp"),
            ),
            "": (
                "the Job did not complete",
                inspect(WORKER, "k3s kubectl get events -n default --sort-by=.lastTimestamp"),
            ),
        },
        ("K05",),
        ("K04", "U07"),
        component="k3s",
        active=True,
        timeout_seconds=75.0,
    ),
)
