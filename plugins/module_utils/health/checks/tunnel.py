# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel, from its configuration to the gateway's answer through it, and both clocks."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    Check,
    GATEWAY,
    ONBOARD,
    SAFE,
    START_TUNNEL,
    cause_of,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import (
    CLUSTER,
    CONTROLLER,
    GATEWAY_HOST,
    WORKER,
    first,
    inspect,
    repair,
)

# with what every worker has: curl is not always there
ASK_GATEWAY = (
    "python3 -c 'import sys, urllib.request as u; "
    'print(u.build_opener().open(sys.argv[1] + "/api/v1/health", timeout=10).read().decode())\' {gateway_url}'
)
# As the unit does it: the tunnel's configuration, key and account at the gateway host, and what the key may open there
TRY_TUNNEL = (
    "timeout 20 ssh -v -F /etc/beta9/tunnel/ssh_config -i /etc/beta9/credentials/tunnel_key -W {target} "
    "gateway </dev/null"
)
TUNNEL_LOG = inspect(WORKER, "journalctl --no-pager -r -u beta9-tunnel -n 20")
SSHD_LOG = "journalctl --no-pager -r -u ssh -u sshd -n 20"
# What a login at the gateway host ends with: codes of module_utils/tunnel/messages.py
SSH_CAUSES = {
    "name": (
        "the gateway host's name can't be resolved on the worker",
        inspect(WORKER, TRY_TUNNEL, "Correct the worker's DNS, or set autossh_gateway_address to an address."),
    ),
    "refused": (
        "the gateway host's SSH port is closed: sshd does not run there, or listens on another port",
        inspect(GATEWAY_HOST, "ss -ltnp", "Start sshd, or set autossh_gateway_port to the port that it listens on."),
    ),
    "timeout": (
        "the gateway host's SSH port does not answer: a firewall drops the packets, or the address is another host's",
        inspect(
            WORKER,
            TRY_TUNNEL,
            "Open the gateway host's SSH port in the firewalls between both, or correct autossh_gateway_address.",
        ),
    ),
    "unreachable": (
        (
            "the worker has no route to the gateway host, that host is off, or its firewall rejects the SSH port, as "
            "firewalld does"
        ),
        inspect(
            WORKER,
            "ip route",
            "Correct the worker's network or autossh_gateway_address, or open sshd's port there: firewall-cmd "
            "--add-service=ssh.",
        ),
    ),
    "closed": (
        (
            "the gateway host takes the connection and closes it before SSH begins: sshd refuses this address, or has "
            "too many logins waiting"
        ),
        inspect(GATEWAY_HOST, SSHD_LOG, "Check MaxStartups and PerSourcePenalties of sshd, fail2ban, and hosts.deny."),
    ),
    "silent": (
        "the gateway host takes the connection and says nothing: sshd hangs, or a firewall between both holds it",
        inspect(GATEWAY_HOST, SSHD_LOG, "Restart sshd."),
    ),
    "not_ssh": (
        "what answers at the gateway host's SSH port is not SSH",
        first("Correct autossh_gateway_port.", ONBOARD),
    ),
    "stalled": (
        (
            "small packets get through to the gateway host and large ones do not: an MTU is too large on the path, and "
            "its ICMP messages are dropped"
        ),
        inspect(
            WORKER,
            "ip link show up",
            "Lower the MTU of the worker's interface (1400 often fits), or let ICMP type 3 code 4 through on the path.",
        ),
    ),
    "cut": ("the connection to the gateway host is cut during the login", inspect(GATEWAY_HOST, SSHD_LOG)),
    "slow": (
        "the gateway host's sshd does not finish the login in time",
        inspect(GATEWAY_HOST, SSHD_LOG, "Check the host's load, UseDNS of sshd, and its PAM configuration."),
    ),
    "host_key": (
        "the gateway host shows another host key than the pinned one",
        first(
            "Compare the fingerprint that was found with the gateway host's own: ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub. If the change was intended:",
            ONBOARD,
        ),
    ),
    "key_refused": ("the gateway host does not accept the tunnel's account or key", ONBOARD),
    "account_refused": (
        "the gateway host accepts the tunnel's key and refuses its account: it is expired, or locked by PAM",
        repair(GATEWAY_HOST, "chage -E -1 beta9-tunnel"),
    ),
    "forward_refused": (
        "the gateway host's sshd does not permit the forward to the tunnel's target",
        inspect(
            GATEWAY_HOST,
            "sshd -T -C user=beta9-tunnel,host=localhost,addr=127.0.0.1 | grep -i -e forwarding -e ^permit",
            "Then run onboard_worker.yml again.",
        ),
    ),
    "algorithms": (
        "the gateway host's sshd and the worker's ssh have no cipher, MAC or key exchange in common",
        ONBOARD._replace(
            prose="Allow in the gateway host's sshd_config (Ciphers, MACs, KexAlgorithms) what the worker's ssh has, "
            "if it is restricted there."
        ),
    ),
    "config": ("ssh refuses the tunnel's configuration", ONBOARD),
}
CHECKS = (
    Check(
        "T06",
        "tunnel.options",
        "The tunnel detects a dead link and reconnects",
        WORKER,
        "A tunnel that does not notice a dead link, or is not supervised, stays down.",
        {
            "": (
                "the tunnel's configuration lacks ServerAliveInterval (1 to 60), ServerAliveCountMax (up to 3) or "
                "ExitOnForwardFailure, or its unit does not restart it",
                ONBOARD,
            )
        },
        ("C01",),
        builds_on=connections.TUNNEL,
        heal="tunnel_install",
        heal_class=SAFE,
    ),
    Check(
        "T08",
        "tunnel.gateway_ssh",
        "The gateway host's SSH port accepts the tunnel",
        WORKER,
        "Without it the tunnel does not come up, or carries nothing.",
        dict(
            SSH_CAUSES, **{"": ("a login at the gateway host with the tunnel's key fails", inspect(WORKER, TRY_TUNNEL))}
        ),
        ("C01",),
        ("T06", "T07", "C04", "T09", "G04"),
        builds_on=connections.TUNNEL,
        timeout_seconds=12.0,
        heals=dict.fromkeys(("key_refused", "algorithms", "config"), "tunnel_install"),
        heal_class=SAFE,
    ),
    Check(
        "T07",
        "tunnel.files",
        "The tunnel's files on the gateway host are root's, and each key has a worker's limits",
        GATEWAY,
        "Whoever may write the keys can authorize anyone; a key without limits opens every port of the gateway host.",
        {
            "mode": (
                "the workers' keys on the gateway host may be written by others than root, or not be read by sshd",
                ONBOARD,
            ),
            "drop_in": (
                "sshd's settings for the tunnel may be written by others than root",
                repair(CONTROLLER, "ansible-playbook prepare_gateway.yml"),
            ),
            "line": (
                "a line of the workers' keys on the gateway host is none that this collection writes",
                inspect(
                    GATEWAY_HOST,
                    "cat /etc/ssh/beta9-tunnel/authorized_keys",
                    "Remove the line, or onboard the worker again whose it was.",
                ),
            ),
            "": ("the tunnel's files on the gateway host are not as they were written", ONBOARD),
        },
        builds_on=connections.TUNNEL,
        component="the gateway host",
        heal="tunnel_install",
        heals={"drop_in": "", "line": ""},
        heal_class=SAFE,
    ),
    Check(
        "T01",
        "tunnel.process",
        "Exactly one supervised tunnel runs",
        WORKER,
        "Without the tunnel the worker can't reach the gateway, and the gateway can't reach its k3s.",
        {
            "stopped": ("the tunnel's unit does not run", START_TUNNEL),
            "masked": ("the tunnel's unit is masked", ONBOARD),
            "not_installed": ("the tunnel is not installed", ONBOARD),
            "failing": ("the tunnel's ssh exits repeatedly", TUNNEL_LOG),
            "program": (
                "systemd can't start the tunnel's program: autossh or ssh is missing or may not be run",
                ONBOARD,
            ),
            "account": ("the account of the tunnel's unit does not exist on the worker", ONBOARD),
            "credential": ("systemd can't read the tunnel's key", ONBOARD),
            "sandbox": ("systemd can't set up the sandbox of the tunnel's unit", TUNNEL_LOG),
            "folder": ("systemd can't enter the tunnel's folder", TUNNEL_LOG),
            "config": SSH_CAUSES["config"],
            "listen_refused": (
                "the worker's listen address on the gateway host is taken or not permitted",
                inspect(
                    GATEWAY_HOST,
                    "ss -ltnp 'sport = :6443'",
                    "A dead tunnel's sshd frees its address within 45 s. What else listens there has to stop.",
                ),
            ),
            "port_taken": (
                "another program holds the tunnel's local port",
                inspect(WORKER, "ss -ltnp 'sport = :{local_port}'", "Stop that program."),
            ),
            "duplicate": (
                "a second ssh forwards the same port beside the unit's",
                inspect(WORKER, "pgrep -ax 'ssh|autossh'", "Stop the one that was started by hand."),
            ),
            "": ("the tunnel's unit does not run", START_TUNNEL),
        },
        ("C01",),
        ("T06", "T07", "T08", "C04", "C05", "T09"),
        builds_on=connections.TUNNEL,
        heal="tunnel_install",
        heals=dict(
            dict.fromkeys(("stopped", ""), "tunnel_start"),
            **dict.fromkeys(("sandbox", "folder", "listen_refused", "port_taken", "duplicate"), ""),
        ),
        heal_class=SAFE,
    ),
    Check(
        "T02",
        "tunnel.listener",
        "The tunnel's ssh listens on the local port",
        WORKER,
        "Whatever else holds the port answers instead of the gateway.",
        {
            "none": ("nothing listens on the tunnel's local port", START_TUNNEL),
            "foreign": (
                "another program holds the tunnel's local port",
                inspect(
                    WORKER,
                    "ss -ltnp 'sport = :{local_port}'",
                    "Stop that program, or choose another local_port in autossh_forwards.",
                ),
            ),
            "": ("nothing listens on the tunnel's local port", START_TUNNEL),
        },
        ("C01",),
        ("T01", "T08"),
        builds_on=connections.TUNNEL,
    ),
    Check(
        "T03",
        "tunnel.connect",
        "The gateway's port accepts connections",
        WORKER,
        "curl: (7) Failed to connect: nothing behind the address takes connections.",
        {
            "refused": (
                "nothing listens at the gateway's address and port (curl: 7)",
                inspect(
                    WORKER,
                    "timeout 5 bash -c '</dev/tcp/{gateway_tcp}'",
                    "Start the gateway, or correct the port in beta9_worker_gateway_url.",
                ),
            ),
            "timeout": (
                "the gateway's address does not answer: routing or a firewall",
                inspect(
                    WORKER,
                    "ip route get \"$(getent hosts {gateway_name} | cut -d' ' -f1)\"",
                    "Open the gateway's port in routing and firewalls.",
                ),
            ),
            "dns": (
                "the gateway's name has no address",
                inspect(
                    WORKER,
                    "getent hosts {gateway_name} || echo no address",
                    "Correct beta9_worker_gateway_url, or the worker's DNS.",
                ),
            ),
            "": ("the gateway's port does not accept connections", START_TUNNEL),
        },
        ("T02",),
        ("T01", "V03", "V04"),
    ),
    Check(
        "T04",
        "gateway.health",
        "The gateway's health endpoint returns ok",
        WORKER,
        "Register, keepalive and every other call fail.",
        {
            "empty_reply": (
                cause_of("empty_reply"),
                inspect(
                    CLUSTER,
                    "{kubectl} get service beta9-gateway-nodeport",
                    "The tunnel's target must be this port of the gateway host.",
                ),
            ),
            "connection_reset": (cause_of("connection_reset"), inspect(CLUSTER, "{kubectl} get pods -l app=gateway")),
            "target_refused": (
                "nothing listens at the tunnel's target on the gateway host",
                inspect(
                    CLUSTER,
                    "{kubectl} get pods -l app=gateway",
                    "Start the gateway, or correct the target in autossh_forwards.",
                ),
            ),
            "target_denied": (
                (
                    "the gateway host's sshd may not connect to the tunnel's target (SELinux, or a firewall of the "
                    "host itself)"
                ),
                inspect(GATEWAY_HOST, SSHD_LOG, "Check T09 tells whether it is SELinux."),
            ),
            "gateway_unhealthy": (cause_of("gateway_unhealthy"), inspect(CLUSTER, "{kubectl} get pods")),
            "not_gateway": (
                cause_of("not_gateway"),
                inspect(
                    CLUSTER,
                    "{kubectl} get services",
                    "The tunnel's target must be the NodePort of the gateway's HTTP port (31994; gRPC is 31993).",
                ),
            ),
            "timeout": (cause_of("timeout"), inspect(CLUSTER, "{kubectl} get pods -l app=gateway", "Check its load.")),
            "tls_failed": (
                cause_of("tls_failed"),
                first(
                    "Set beta9_worker_ca_path to the CA that signed it, or beta9_worker_client_cert if the gateway "
                    "demands one.",
                    ONBOARD,
                ),
            ),
            "gateway_unavailable": (
                "timed out upstream: a proxy in front of the gateway gets no answer from it",
                inspect(CLUSTER, "{kubectl} get pods -l app=gateway"),
            ),
            "": ("the gateway's health route does not answer as it should", inspect(WORKER, ASK_GATEWAY)),
        },
        ("T03",),
        ("T08", "T09", "G02", "G03", "G04", "G09", "G11"),
        timeout_seconds=10.0,
    ),
    Check(
        "T05",
        "tunnel.stability",
        "The connection to the gateway is stable",
        WORKER,
        "Keepalives get lost, and the machine expires now and then.",
        {
            "probes": (
                "some of ten requests in a row failed",
                inspect(WORKER, "journalctl --no-pager -u beta9-tunnel --since -1h"),
            ),
            "drops": (
                "the tunnel was lost more than three times within the hour, and lately",
                inspect(
                    WORKER,
                    "journalctl --no-pager -u beta9-tunnel --since -1h",
                    "Each line with exited or timeout is a drop; the times show what else happened then.",
                ),
            ),
            "": (
                "the connection to the gateway is not stable",
                inspect(WORKER, "journalctl --no-pager -u beta9-tunnel --since -24h"),
            ),
        },
        ("T04",),
        ("T01", "T06", "T08", "G02"),
        severity="warn",
        timeout_seconds=8.0,
    ),
    Check(
        "C03",
        "clock.skew",
        "Clocks of worker and gateway agree",
        WORKER,
        "Certificates and tokens look expired, and times in logs can't be compared.",
        {
            "": (
                "the worker's clock is off by more than 30 s",
                repair(
                    WORKER,
                    "timedatectl set-ntp true",
                    "Where NTP is not supported: install chrony or systemd-timesyncd before.",
                ),
            ),
            "gateway": (
                "the gateway's clock is off by more than 30 s: worker and controller agree",
                inspect(GATEWAY_HOST, "timedatectl", "Turn time synchronisation on there: timedatectl set-ntp true."),
            ),
        },
        ("T04",),
        severity="warn",
        heal="time_sync",
        heals={"gateway": ""},
        heal_class=SAFE,
    ),
)
