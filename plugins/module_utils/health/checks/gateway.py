# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's cluster and host."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    Check,
    GATEWAY,
    JOIN,
    ONBOARD,
    SAFE,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import (
    CLUSTER,
    CONTROLLER,
    GATEWAY_HOST,
    first,
    inspect,
    person,
    repair,
)

SSHD_SAYS = "sshd -T -C user=beta9-tunnel,host=localhost,addr=127.0.0.1"
SEE_LINE = "The finding names the setting with its file and line, and what to do."
PREPARE_GATEWAY = repair(CONTROLLER, "ansible-playbook prepare_gateway.yml -l {gateway_host}")
CHECKS = (
    Check(
        "G01",
        "kube.access",
        "The gateway's cluster can be asked",
        GATEWAY,
        "Without access, the gateway's side can't be judged.",
        {
            "": (
                "kubectl is refused",
                inspect(
                    CLUSTER,
                    "{kubectl} auth can-i get pods",
                    "Set health_check_kubeconfig to a configuration that may read.",
                ),
            )
        },
        component="kube",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "G09",
        "redis.ping",
        "The gateway's Redis answers",
        GATEWAY,
        "The gateway is unhealthy and knows no machine.",
        {"": ("Redis does not answer", inspect(CLUSTER, "{kubectl} get pods -l app.kubernetes.io/name=redis"))},
        component="redis",
        timeout_seconds=8.0,
    ),
    Check(
        "G02",
        "gateway.pods",
        "The gateway's pods are ready",
        GATEWAY,
        "The gateway does not answer, or now and then.",
        {
            "none": ("there is no gateway pod", inspect(CLUSTER, "{kubectl} get deployments,pods")),
            "": ("a gateway pod is not ready or restarts", inspect(CLUSTER, "{kubectl} describe pods -l app=gateway")),
        },
        ("G01",),
        component="kube",
        timeout_seconds=10.0,
    ),
    Check(
        "G03",
        "gateway.service",
        "The gateway's service has endpoints",
        GATEWAY,
        "Connections to the NodePort are closed without an answer.",
        {
            "": (
                "the gateway's service is missing or has no ready endpoint",
                inspect(CLUSTER, "{kubectl} get services,endpointslices"),
            )
        },
        ("G01",),
        ("G02",),
        component="kube",
        timeout_seconds=10.0,
    ),
    Check(
        "G04",
        "gateway.nodeport",
        "The tunnel leads to the gateway's NodePort",
        JOIN,
        "curl: (52) Empty reply from server, or another service's answer.",
        {
            "": (
                "the tunnel's target port is not the NodePort of the gateway's HTTP port",
                ONBOARD._replace(prose="Correct the target in autossh_forwards, if it is set there."),
            )
        },
        (),
        ("G03",),
        builds_on=connections.TUNNEL,
        component="kube",
        heal="tunnel_install",
        heal_class=SAFE,
    ),
    Check(
        "T09",
        "tunnel.sshd",
        "The gateway host's sshd lets the tunnel's account in and forward",
        GATEWAY,
        "The tunnel does not come up again once it is lost, or its forwards are refused.",
        {
            "not_listening": (
                "no sshd listens on the gateway host's port that the tunnel goes to",
                ONBOARD._replace(
                    prose="Start sshd there if it does not run; set autossh_gateway_port if it listens on another "
                    "port than the inventory says."
                ),
            ),
            "account": (
                "the tunnel's account on the gateway host is missing, locked or expired",
                inspect(GATEWAY_HOST, "chage -l beta9-tunnel", SEE_LINE),
            ),
            "lists": (
                "AllowUsers, AllowGroups, DenyUsers or DenyGroups of sshd keep the tunnel's account out",
                inspect(GATEWAY_HOST, SSHD_SAYS, SEE_LINE),
            ),
            "permit": (
                "sshd's PermitOpen or PermitListen leave out what the tunnel needs",
                inspect(GATEWAY_HOST, SSHD_SAYS, SEE_LINE),
            ),
            "include": ("sshd does not read the collection's settings", PREPARE_GATEWAY),
            "keys_file": ("sshd can't read the keys of the workers, or does not trust their file", PREPARE_GATEWAY),
            "no_key": ("the gateway host has no key of this worker", ONBOARD),
            "settings": ("a setting of sshd keeps tunnels from working", inspect(GATEWAY_HOST, SSHD_SAYS, SEE_LINE)),
            "selinux": (
                "SELinux of the gateway host denies sshd what the tunnel needs",
                inspect(
                    GATEWAY_HOST,
                    "journalctl --no-pager -r _TRANSPORT=audit -n 20",
                    "What was found names the command that allows just this.",
                ),
            ),
            "": ("sshd does not do what the tunnel needs", PREPARE_GATEWAY),
        },
        explained_by=("T07",),
        builds_on=connections.TUNNEL,
        component="the gateway host",
        timeout_seconds=8.0,
    ),
    Check(
        "G11",
        "gateway.target",
        "Something listens at the tunnel's target on the gateway host",
        GATEWAY,
        "The tunnel is up, and every request is closed without an answer.",
        {
            "refused": (
                (
                    "nothing listens at the tunnel's target on the gateway host: the gateway does not run there, or "
                    "its NodePort is another one"
                ),
                inspect(
                    CLUSTER,
                    "{kubectl} get pods,services",
                    "Start the gateway, or correct the target in autossh_forwards.",
                ),
            ),
            "timeout": (
                "the tunnel's target does not answer to the gateway host",
                inspect(CLUSTER, "{kubectl} get pods,services", "Check the firewall between both."),
            ),
            "name": (
                "the gateway host can't resolve the name of the tunnel's target",
                first("Correct the target in autossh_forwards.", ONBOARD),
            ),
            "": (
                "the tunnel's target takes no connection from the gateway host",
                inspect(CLUSTER, "{kubectl} get pods,services"),
            ),
        },
        (),
        ("G02", "G03", "G04"),
        builds_on=connections.TUNNEL,
        component="the gateway host",
        timeout_seconds=6.0,
    ),
    Check(
        "G05",
        "gateway.direct",
        "The gateway answers inside its cluster",
        GATEWAY,
        "Shows whether the gateway or the path to it is at fault.",
        {
            "": (
                "the gateway does not answer even inside its cluster",
                inspect(CLUSTER, "{kubectl} logs -l app=gateway --tail=50"),
            )
        },
        ("G01",),
        ("G02", "G03", "G09"),
        component="kube",
        timeout_seconds=10.0,
    ),
    Check(
        "G06",
        "pool.config",
        "The pool is in the gateway's configuration, as an external one",
        GATEWAY,
        "Registration is answered with Invalid pool name.",
        {
            "absent": (
                "the gateway's configuration has no pool of this name",
                first(
                    "Correct beta9_pool to one of the gateway's pools (beta9 pool list), or add the pool to "
                    "worker.pools of the gateway's configuration.",
                    ONBOARD,
                ),
            ),
            "mode": (
                "the pool is not an external one",
                person(
                    "Set mode: external and provider: generic for the pool in worker.pools of the gateway's "
                    "configuration."
                ),
            ),
            "": (
                "the pool's configuration is not usable",
                inspect(CLUSTER, "{kubectl} get configmap gateway-config -o yaml"),
            ),
        },
        component="pools",
        timeout_seconds=10.0,
    ),
)
