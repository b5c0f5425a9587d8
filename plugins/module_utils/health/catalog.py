# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of checks: data, and the only place where meaning, cause and remedy are written down.

Ids are never reused. From this file are generated: the per-check tasks of role health_check, docs/checks/, and the
coverage of the guide (make generate). Order is the order of the report: from the inventory over tunnel, gateway and
agent to the GPU.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import (
    CLUSTER,
    CONTROLLER,
    GATEWAY_HOST,
    WORKER,
    first,
    inspect,
    person,
    repair,
)

CONTROL, GATEWAY, JOIN = "control", "gateway", "join"
SIDES = {
    WORKER: "the worker",
    CONTROL: "the controller",
    GATEWAY: "the gateway's cluster",
    JOIN: "worker and gateway compared",
}
SAFE, OPT_IN, PERSON = "safe", "opt_in", "person"


class Check(NamedTuple):
    """One step of the guide.

    causes maps a probe's failure code to (cause, Remedy); the code "" is for any other. heal is what heal_worker.yml
    does about it, one of HEALS; heals names another one for some codes, or "" for nothing. heal_class says whether it
    may run by itself (safe), when asked for (opt_in: "onboard" always), or not at all (person). builds_on is what the
    connection has to give for the check to apply.
    """

    id: str
    name: str
    title: str
    side: str
    impact: str
    causes: dict
    requires: tuple = ()
    explained_by: tuple = ()
    builds_on: str = ""
    component: str = ""
    severity: str = "fail"
    heal: str = ""
    heals: dict = {}
    heal_class: str = PERSON
    active: bool = False
    timeout_seconds: float = 5.0


# What heal_worker.yml does, by name, as its report says it. Only "onboard" may create a machine.
HEALS = {
    "protect": "made the collection's files root's, and its secrets root's alone",
    "tunnel_start": "restarted the tunnel",
    "tunnel_install": "installed and configured the tunnel, and let its key in at the gateway host",
    "tailscale_start": "started tailscaled",
    "k3s_start": "started k3s",
    "time_sync": "turned time synchronisation on",
    "agent_install": "installed and configured the agent",
    "agent_start": "restarted the agent",
    "agent_restart": "had the agent register again",
    "onboard": "onboarded the host again, with a new machine where the gateway refuses its token",
}


def cause_of(code: str) -> str:
    """Return what a code of the gateway means: it is written down where answers are classified."""
    return protocol.CODES[code].cause


ONBOARD = repair(CONTROLLER, "ansible-playbook onboard_worker.yml -l {host}")
ACCEPT = repair(
    CONTROLLER,
    "ansible-playbook accept_gpus.yml -l {host}",
    "Drain the machine first: a GPU that computes is left alone.",
)
ROTATE = repair(
    CONTROLLER, "ansible-playbook rotate_token.yml -l {host}", "The host gets another machine, with a token of its own."
)
START_TUNNEL = repair(WORKER, "systemctl restart beta9-tunnel")
START_AGENT = repair(WORKER, "systemctl restart --no-block beta9-agent")
REGISTER_AGAIN = repair(
    WORKER,
    "systemctl reload-or-restart --no-block beta9-agent",
    "The agent registers again, and sends a keepalive at once.",
)
REBOOT = repair(WORKER, "systemctl reboot")
JOURNAL = inspect(WORKER, "journalctl --no-pager -u beta9-agent -n 50")
DOCTOR = "/opt/beta9-agent/current/bin/python -I -m beta9_agent doctor"
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
KERNEL_GPU = "dmesg | grep -i -e xid -e nvrm || true"
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
            "the gateway host takes the connection and closes it before SSH begins: sshd refuses this "
            "address, or has too "
            "many logins waiting"
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
SSHD_SAYS = "sshd -T -C user=beta9-tunnel,host=localhost,addr=127.0.0.1"
SEE_LINE = "The finding names the setting with its file and line, and what to do."
PREPARE_GATEWAY = repair(CONTROLLER, "ansible-playbook prepare_gateway.yml -l {gateway_host}")
STATE_ANCESTORS = ("P01", "P02", "P05", "T04", "A01", "A02", "C03")

RECORDS = "/etc/systemd/system/beta9-* /etc/ansible/facts.d/beta9.fact"

CHECKS = (
    Check(
        "C01",
        "config.inputs",
        "Identity and settings of the worker are plausible",
        CONTROL,
        "With a wrong id, pool, address or mode nothing that follows can work.",
        {
            "": (
                "a setting is missing or mistyped",
                ONBOARD._replace(
                    prose="Correct beta9_pool, beta9_gateway_url or beta9_connection, if the inventory has it wrong."
                ),
            ),
            "no_machine": ("this host was never onboarded: it holds no machine id", ONBOARD),
        },
        heals={"no_machine": "onboard"},
        heal_class=OPT_IN,
    ),
    Check(
        "C04",
        "config.files",
        "The collection's files are root's, and its secrets root's alone",
        WORKER,
        "Whoever may read the machine's token, or write the tunnel's settings, is the machine.",
        {
            "mode": (
                "a file of the collection may be read or written by others than root",
                repair(WORKER, "chmod -R go-w /etc/beta9; chmod -R go-rwx /etc/beta9/credentials"),
            ),
            "owner": (
                "a file of the collection belongs to another account than root",
                repair(WORKER, "chown -R root:root /etc/beta9"),
            ),
            "empty": ("a key or token on the host is empty", ONBOARD),
            "": ("a file of the collection is not as it was written", ONBOARD),
        },
        heal="protect",
        heals={"empty": "onboard", "": "onboard"},
        heal_class=SAFE,
    ),
    Check(
        "C05",
        "config.disk",
        "What has to be written on the worker can be",
        WORKER,
        "Logs, settings, packages, the agent's state and images of pods can't be written.",
        {
            "full": (
                "a file system of the worker is full",
                inspect(WORKER, "df -h", "Free some space on it, or enlarge it."),
            ),
            "inodes": (
                "a file system of the worker has no inode left",
                inspect(WORKER, "df -i", "Delete some of the many small files on it."),
            ),
            "read_only": (
                (
                    "a file system that has to be written is read-only: the kernel made it so after an error "
                    "of the disk, "
                    "or it was mounted so"
                ),
                inspect(
                    WORKER,
                    "dmesg | grep -i -e remount -e 'i/o error' || true",
                    "Repair the disk and reboot; or remount it: mount -o remount,rw PATH.",
                ),
            ),
            "": ("a file system of the worker can't be written", inspect(WORKER, "df -h")),
        },
        heal_class=PERSON,
    ),
    Check(
        "T06",
        "tunnel.options",
        "The tunnel detects a dead link and reconnects",
        WORKER,
        "A tunnel that does not notice a dead link, or is not supervised, stays down.",
        {
            "": (
                "the tunnel's configuration lacks ServerAliveInterval (1 to 60), ServerAliveCountMax (up to 3) or "
                "ExitOnForwardFailure, or its unit "
                "does not restart it",
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
    Check(
        "A01",
        "api.token",
        "The gateway accepts the machine's token",
        WORKER,
        "Registration and keepalive are refused.",
        {
            "missing": ("the machine's token is not on the host", ONBOARD),
            "token_unknown": (cause_of("token_unknown"), ONBOARD),
            "token_wrong_type": (cause_of("token_wrong_type"), ONBOARD),
            "": ("the gateway does not accept the machine's token", ONBOARD),
        },
        ("T04",),
        heal="onboard",
        heal_class=OPT_IN,
    ),
    Check(
        "A02",
        "api.keepalive_route",
        "The gateway has the keepalive endpoint",
        WORKER,
        "The machine can register, but never becomes ready.",
        {
            "": (
                "this gateway build has no keepalive endpoint",
                person("Upgrade the gateway to a build that has POST /api/v1/machine/keepalive."),
            )
        },
        ("A01",),
    ),
    Check(
        "A03",
        "api.payload",
        "What the agent would register is well-formed",
        WORKER,
        "The gateway answers 400 Invalid payload, or 500 for a single field.",
        {
            "": (
                "a field of the registration is missing or has the wrong form",
                ONBOARD._replace(prose="Correct the setting that is named, if the inventory has it wrong."),
            )
        },
        ("P04",),
        heal="agent_install",
        heal_class=SAFE,
    ),
    Check(
        "A04",
        "api.register",
        "The gateway accepts a registration",
        WORKER,
        "The machine does not get a state, and keepalives are refused.",
        {
            "pool_unknown": (
                cause_of("pool_unknown"),
                first("Correct beta9_pool to one of the gateway's pools (beta9 pool list).", ONBOARD),
            ),
            "": ("the gateway refuses the registration", JOURNAL),
        },
        ("A01", "A03"),
        ("G06",),
        active=True,
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
    Check(
        "A05",
        "api.keepalive",
        "The gateway accepts a keepalive",
        WORKER,
        "The machine's state expires after five minutes.",
        {
            "machine_not_found": (
                cause_of("machine_not_found"),
                REGISTER_AGAIN,
            ),
            "": ("the gateway refuses the keepalive", JOURNAL),
        },
        ("A02",),
        ("A04",),
        active=True,
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
    Check(
        "P03",
        "agent.python",
        "The agent's Python is new enough",
        WORKER,
        "The agent crashes on startup.",
        {
            "missing": ("the agent is not installed: its Python is not there", ONBOARD),
            "replaced": (
                "the Python that the agent was installed with was replaced, as by an upgrade of the distribution",
                ONBOARD,
            ),
            "home": (
                "the agent's Python is in a home directory, which the unit's sandbox hides",
                first("Point ansible_python_interpreter at a Python outside of /home and /root.", ONBOARD),
            ),
            "old": (
                "the agent's Python is older than 3.10",
                first("Install Python 3.10 or newer and point ansible_python_interpreter at it.", ONBOARD),
            ),
            "": ("the agent's Python does not start", ONBOARD),
        },
        heal="agent_install",
        heals={"old": "", "home": ""},
        heal_class=SAFE,
    ),
    Check(
        "P04",
        "agent.deps",
        "The agent's packages can be loaded",
        WORKER,
        "The agent crashes on startup with a traceback.",
        {"": ("a package of the agent is missing or broken", ONBOARD)},
        ("P03",),
        timeout_seconds=10.0,
        heal="agent_install",
        heal_class=SAFE,
    ),
    Check(
        "P07",
        "agent.dryrun",
        "The agent's settings are valid",
        WORKER,
        "The agent ends at once, and again after every restart.",
        {
            "identity": ("the agent's settings are another machine's or pool's than the host's record", ONBOARD),
            "": (
                "the agent refuses its settings",
                ONBOARD._replace(prose="Correct the setting that the agent names, if the inventory has it wrong."),
            ),
        },
        ("P04",),
        ("A03", "A01", "C01"),
        timeout_seconds=10.0,
        heal="agent_install",
        heal_class=SAFE,
    ),
    Check(
        "P08",
        "agent.programs",
        "What root starts for the agent is root's alone",
        WORKER,
        "Whoever may write the agent's programs or units is root on this host.",
        {
            "programs": ("others than root may have changed the agent's programs: they are not root's alone", ONBOARD),
            "units": (
                "a unit or record of the collection may be written by others than root",
                repair(WORKER, "chown -R root:root " + RECORDS + "; chmod -R go-w " + RECORDS),
            ),
            "": ("a program or unit of the agent is not as it was installed", ONBOARD),
        },
        heal="agent_install",
        heals={"units": "protect"},
        heal_class=SAFE,
    ),
    Check(
        "P01",
        "agent.process",
        "Exactly one agent runs for this machine",
        WORKER,
        "Without an agent no keepalive is sent; two of them disturb each other.",
        {
            "stopped": ("the agent's unit does not run", START_AGENT),
            "masked": ("the agent's unit is masked", ONBOARD),
            "not_installed": ("the agent is not installed", ONBOARD),
            "program": (
                "systemd can't start the agent's Python: it is missing, or the unit's sandbox does not reach it",
                ONBOARD,
            ),
            "account": ("systemd can't make the account of the agent's unit", JOURNAL),
            "credential": ("systemd can't read a credential of the agent", ONBOARD),
            "sandbox": ("systemd can't set up the sandbox of the agent's unit", JOURNAL),
            "folder": ("systemd can't enter the agent's folder", JOURNAL),
            "failing": ("the agent exits repeatedly", inspect(WORKER, DOCTOR)),
            "frozen": ("the agent's process is stopped or does not answer", START_AGENT),
            "duplicate": (
                "a second agent runs for the same machine",
                inspect(WORKER, "pgrep -af beta9_agent", "Stop the one that was started by hand."),
            ),
            "": ("the agent's unit does not run", START_AGENT),
        },
        ("C01",),
        ("P03", "P04", "P07", "A01", "C04", "C05"),
        heal="agent_install",
        heals=dict(
            dict.fromkeys(("stopped", "frozen", ""), "agent_start"),
            **dict.fromkeys(("account", "sandbox", "folder", "failing", "duplicate"), ""),
        ),
        heal_class=SAFE,
    ),
    Check(
        "P02",
        "agent.restarts",
        "The agent does not crash",
        WORKER,
        "Between a crash and the next start no keepalive is sent.",
        {
            "traceback": ("the agent ended with a traceback", JOURNAL),
            "no_journal": (
                "the host's journal is not written: a crash would leave no trace",
                repair(
                    WORKER,
                    "systemctl unmask --runtime systemd-journald.socket systemd-journald; systemctl start "
                    "systemd-journald.socket systemd-journald",
                ),
            ),
            "": ("the agent was restarted more than three times within the hour, and lately", JOURNAL),
        },
        ("P01",),
        ("P04", "P07", "C05"),
        severity="warn",
    ),
    Check(
        "P05",
        "agent.interval",
        "Keepalives are sent often enough",
        WORKER,
        "A machine without a keepalive for 300 s is forgotten.",
        {
            "": (
                "the keepalive interval is 240 s or more",
                ONBOARD._replace(prose="Remove agent_keepalive_interval from the inventory, if it is there."),
            ),
            "late": ("the last accepted keepalive is older than two intervals", JOURNAL),
        },
        ("P01",),
        ("T01", "T04", "A01", "A02"),
        heal="agent_install",
        heals={"late": "agent_start"},
        heal_class=SAFE,
    ),
    Check(
        "P06",
        "agent.log",
        "No active errors in the agent log (last hour)",
        WORKER,
        "The log names what the agent is waiting for.",
        dict(
            {code: (entry.cause, JOURNAL) for code, entry in protocol.CODES.items()},
            **{"": ("the agent reports a problem", JOURNAL)},
        ),
        ("P01",),
        ("T01", "T08", "T04", "A01", "A02", "A03", "A05", "P07", "G06", "U05"),
    ),
    Check(
        "M01",
        "machine.listed",
        "The gateway lists the machine as ready",
        WORKER,
        "The gateway schedules nothing on a machine that is not ready.",
        {"": ("the gateway does not have the machine as ready", REGISTER_AGAIN)},
        ("A01",),
        STATE_ANCESTORS + ("A04", "A05", "P06", "G06", "M02", "M04"),
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
    Check(
        "C02",
        "cli.machines",
        "The machine list shows the machine as ready",
        CONTROL,
        "beta9 machine list shows what the scheduler sees.",
        {
            "absent": (
                (
                    "the machine is not in the list: its state expired, or it was deleted (while its agent "
                    "runs it comes "
                    "back by itself)"
                ),
                REGISTER_AGAIN,
            ),
            "pending": ("the machine was created, but never registered", JOURNAL),
            "registered": ("the machine is registered, but no keepalive was accepted yet", JOURNAL),
            "other_pool": (
                "the machine is listed in another pool",
                ONBOARD._replace(prose="Correct beta9_pool, if the inventory has it wrong."),
            ),
            "": ("the machine is not ready", JOURNAL),
        },
        ("C01",),
        STATE_ANCESTORS + ("A04", "A05", "P06", "T01", "G06", "M01", "M02", "M04", "G09"),
        heal="agent_restart",
        heal_class=OPT_IN,
    ),
    Check(
        "M06",
        "machine.flapping",
        "The machine does not re-register repeatedly",
        WORKER,
        "Each registration takes the machine out of the pool until its next keepalive.",
        {
            "": (
                "the agent had to register more than twice within 30 minutes",
                inspect(
                    WORKER,
                    "journalctl --no-pager -u beta9-agent --since -30min",
                    "Check the interval, and the tunnel for drops.",
                ),
            )
        },
        ("P01",),
        STATE_ANCESTORS + ("T05", "M03"),
        severity="warn",
    ),
    Check(
        "M07",
        "machine.identity",
        "The gateway's record of the machine matches this host",
        WORKER,
        "The gateway dials, and sends pods to, the host that registered last under this id, whichever it is.",
        {
            "hostname": (
                "another name or address is registered under this machine's id than this host's",
                REGISTER_AGAIN,
            ),
            "private_ip": (
                "another private address is registered under this machine's id than this host's",
                REGISTER_AGAIN,
            ),
            "keepalive": (
                "another host sends keepalives under this machine's id",
                first(
                    "Find the host: one that was made from an image of this one has the same "
                    "/etc/ansible/facts.d/beta9.fact; otherwise a worker "
                    "was taken over. "
                    "Then give this host another machine:",
                    ROTATE,
                ),
            ),
            "": ("what the gateway keeps of this machine is not this host's", REGISTER_AGAIN),
        },
        ("M01",),
        ("P07", "P01", "A01"),
        heal="agent_restart",
        heals={"keepalive": ""},
        heal_class=SAFE,
        timeout_seconds=8.0,
    ),
    Check(
        "U01",
        "gpu.pci",
        "The expected NVIDIA devices are on the PCI bus",
        WORKER,
        "A GPU that the bus does not show can't be used by any software.",
        {
            "": (
                "fewer NVIDIA devices than expected are on the PCI bus",
                inspect(
                    WORKER,
                    "grep -l 0x10de /sys/bus/pci/devices/*/vendor",
                    "Check the passthrough of the virtual machine, power and seating.",
                ),
            )
        },
        explained_by=("U24",),
        component="gpu",
    ),
    Check(
        "U02",
        "gpu.driver",
        "The NVIDIA driver is loaded, in the version that is installed",
        WORKER,
        "nvidia-smi and every container with a GPU fail.",
        {
            "not_installed": ("no NVIDIA driver is installed", ONBOARD),
            "no_module": (
                "the driver's libraries are installed, and no kernel module for the running kernel",
                first(
                    "Remove what keeps the module from being built: /var/lib/dkms/nvidia*/*/build/make.log.", ONBOARD
                ),
            ),
            "not_loaded": ("the NVIDIA kernel module is installed and not loaded", repair(WORKER, "modprobe nvidia")),
            "secure_boot": (
                "Secure Boot is on and the NVIDIA kernel module is not signed: the kernel refuses it",
                person("Enroll the key that signs it (mokutil --import), or switch Secure Boot off in the firmware."),
            ),
            "nouveau": (
                "nouveau is loaded instead of the NVIDIA driver",
                first("Blacklist nouveau and rebuild the initramfs, or let onboarding do both.", ONBOARD),
            ),
            "mismatch": ("the loaded driver is another version than the installed one: a reboot is pending", REBOOT),
            "library": (
                (
                    "the loaded driver is another version than the installed libraries: the module was not "
                    "rebuilt, or a "
                    "reboot is pending"
                ),
                REBOOT,
            ),
            "": ("the NVIDIA driver is not usable", ONBOARD),
        },
        ("U01",),
        component="gpu",
    ),
    Check(
        "U03",
        "gpu.smi",
        "nvidia-smi answers and shows every GPU",
        WORKER,
        "Agent and device plugin see what nvidia-smi sees.",
        {
            "hang": ("nvidia-smi does not end: the driver hangs", REBOOT),
            "missing": ("nvidia-smi is not installed", ONBOARD),
            "mismatch": ("the driver's libraries are of another version than the loaded driver", REBOOT),
            "driver": ("nvidia-smi does not reach the driver", inspect(WORKER, KERNEL_GPU)),
            "count": (
                "nvidia-smi shows fewer GPUs than the PCI bus",
                inspect(WORKER, KERNEL_GPU, "A GPU that fell off the bus needs a reboot or service."),
            ),
            "": ("nvidia-smi fails", inspect(WORKER, "nvidia-smi")),
        },
        ("U02",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U04",
        "gpu.cuda",
        "CUDA initialises",
        WORKER,
        "Programs in containers fail even where nvidia-smi works.",
        {
            "fabric": (
                "CUDA error 802: the fabric manager does not run, or is of another version than the driver",
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "Install and start the fabric manager in the driver's version.",
                ),
            ),
            "mismatch": ("CUDA error 803: libcuda is of another version than the loaded driver", REBOOT),
            "missing": ("there is no libcuda.so.1", ONBOARD),
            "hang": ("cuInit does not end: the driver hangs", REBOOT),
            "count": ("CUDA sees fewer devices than the PCI bus", inspect(WORKER, KERNEL_GPU)),
            "": ("cuInit fails", inspect(WORKER, KERNEL_GPU)),
        },
        ("U03",),
        ("U09", "U19", "U21"),
        component="gpu",
        timeout_seconds=15.0,
    ),
    Check(
        "U05",
        "gpu.nvml",
        "The agent's Python reaches NVML",
        WORKER,
        "The agent registers the machine with gpu_count 0.",
        {
            "package": ("nvidia-ml-py is missing from the agent's environment", ONBOARD),
            "mismatch": ("the NVML library is of another version than the loaded driver", REBOOT),
            "hang": ("NVML does not answer: the driver hangs", REBOOT),
            "count": ("NVML sees fewer GPUs than the PCI bus", inspect(WORKER, KERNEL_GPU)),
            "": ("NVML does not answer to the agent's Python", inspect(WORKER, "nvidia-smi")),
        },
        ("P03",),
        ("U01", "U02", "U03", "P04"),
        component="gpu",
        timeout_seconds=10.0,
        heals={"package": "agent_install"},
        heal_class=SAFE,
    ),
    Check(
        "U06",
        "gpu.advertised",
        "The gateway knows as many GPUs as the host has",
        JOIN,
        "The gateway schedules GPU work elsewhere, or sends more than there is.",
        {"": ("the machine is registered with another number of GPUs than the host has", REGISTER_AGAIN)},
        ("U03", "C02"),
        ("U05", "U09", "U19"),
        component="gpu",
        heal="agent_restart",
        heal_class=SAFE,
    ),
    Check(
        "U07",
        "gpu.allocatable",
        "Kubernetes can allocate the GPUs",
        WORKER,
        "Pods that ask for a GPU stay pending.",
        {
            "": (
                "the node offers fewer nvidia.com/gpu than expected: device plugin or runtime class",
                inspect(
                    WORKER,
                    "k3s kubectl describe node",
                    "Device plugin or runtime class are missing, or the device plugin's pod does not run in "
                    "kube-system.",
                ),
            )
        },
        ("U03", "K04"),
        ("U09", "U12", "U19"),
        component="gpu+k3s",
        timeout_seconds=10.0,
    ),
    Check(
        "U08",
        "gpu.xid",
        "The driver reported no Xid error since boot",
        WORKER,
        "An Xid error points to a failing GPU, driver or program.",
        {
            "lost": (
                "a GPU fell off the bus (Xid 79)",
                first(
                    "Reboot. If it comes back, check power, temperature and seating, then have the GPU serviced.",
                    inspect(WORKER, KERNEL_GPU),
                ),
            ),
            "power": (
                "a GPU's auxiliary power is not connected (Xid 54)",
                inspect(WORKER, KERNEL_GPU, "Check the GPU's power cables; if they sit well, have it serviced."),
            ),
            "memory": (
                "GPU memory errors (Xid 48, 63, 64, 94, 95, 140, 156 or 157)",
                inspect(
                    WORKER, "nvidia-smi -q -d ECC,ROW_REMAPPER", "Reboot. If it comes back, have the GPU replaced."
                ),
            ),
            "reset": (
                "a GPU stopped and has to be reset (Xid 46, 62, 109, 110, 119, 120, 136, 143, 155 or 158)",
                inspect(
                    WORKER,
                    KERNEL_GPU,
                    "Drain the machine, then reset the GPU or reboot. If it comes back, contact the GPU's support.",
                ),
            ),
            "nvlink": (
                "NVLink errors (Xid 74 or 144 to 150)",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --status",
                    "Drain the machine and reboot. If it comes back on the same link, have the GPU or its "
                    "board serviced.",
                ),
            ),
            "program": (
                "programs made errors on the GPU (Xid 8, 11, 13, 25, 31, 32, 39, 43, 45, 68, 69 or 80)",
                inspect(WORKER, KERNEL_GPU, "Check the program whose process the message names."),
            ),
            "": (
                "the driver reported Xid errors",
                inspect(WORKER, KERNEL_GPU, "NVIDIA's Xid catalogue says what each number requires."),
            ),
        },
        ("U02",),
        ("U09", "U11", "U12", "U17", "U20", "U21"),
        component="gpu",
        severity="warn",
    ),
    Check(
        "U09",
        "gpu.answers",
        "Every GPU answers, and asks for no recovery",
        WORKER,
        "Nothing that is started on this GPU can go well.",
        {
            "lost": (
                "a GPU fell off the bus",
                REBOOT._replace(
                    prose="Drain the machine first. If it comes back, check power, temperature and seating, then have "
                    "the GPU serviced."
                ),
            ),
            "reset": (
                "a GPU has to be reset",
                REBOOT._replace(
                    prose="Drain the machine first. Where nothing uses the GPU, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "recovery": (
                "the driver asks for a recovery of a GPU",
                REBOOT._replace(
                    prose="Drain the machine first. Where it asks for a reset, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "": ("a GPU does not answer", inspect(WORKER, KERNEL_GPU)),
        },
        ("U05",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U10",
        "gpu.ecc_mode",
        "ECC is on where the GPU has it on by default",
        WORKER,
        "Errors of the memory stay unseen, and results may be wrong.",
        {
            "disabled": (
                "ECC of a GPU is switched off",
                first("Drain the machine, and reboot it after:", repair(WORKER, "nvidia-smi --ecc-config=1")),
            ),
            "pending": ("ECC of a GPU changes with the next reboot", REBOOT._replace(prose="Drain the machine first.")),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U11",
        "gpu.ecc_errors",
        "No GPU had an uncorrectable memory error since its driver was loaded",
        WORKER,
        "Programs on the GPU were ended, or may have computed with wrong data.",
        {
            "": (
                "a GPU had uncorrectable memory errors",
                REBOOT._replace(prose="Drain the machine first. If they come back, have the GPU replaced."),
            ),
            "sram": (
                "a GPU's SRAM had more uncorrectable errors than NVIDIA allows",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d ECC",
                    "Drain the machine and have the GPU replaced: this is what NVIDIA replaces GPUs for.",
                ),
            ),
        },
        ("U05",),
        ("U09", "U12"),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U12",
        "gpu.memory_repair",
        "No memory of a GPU waits for its repair",
        WORKER,
        "The GPU computes with memory that is known to be broken.",
        {
            "failed": (
                "a GPU has no spare rows left for broken memory",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d ROW_REMAPPER",
                    "Drain the machine and have the GPU replaced: this is what NVIDIA replaces GPUs for.",
                ),
            ),
            "pending": (
                "a row of a GPU's memory is to be remapped when it is reset",
                REBOOT._replace(
                    prose="Drain the machine first. Where nothing uses the GPU, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "repair": (
                "a memory channel or a TPC of a GPU is to be replaced by a spare one when it is reset",
                REBOOT._replace(
                    prose="Drain the machine first. Where nothing uses the GPU, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "pages": (
                "a page of a GPU's memory is to be retired when the driver is loaded again",
                REBOOT._replace(prose="Drain the machine first."),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U13",
        "gpu.throttle",
        "No GPU is slowed down by heat or by its power supply",
        WORKER,
        "What runs on the GPU takes longer than it should.",
        {
            "thermal": (
                "a GPU is slowed down because it is too hot",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d TEMPERATURE,PERFORMANCE",
                    "Check fans, air flow and the temperature of the room.",
                ),
            ),
            "power_brake": (
                "a GPU is slowed down by the power brake: the server's power supply asks for it",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d POWER,PERFORMANCE",
                    "Check power supplies and power limits of the server at its management controller.",
                ),
            ),
            "slowdown": (
                "a GPU is slowed down by its own hardware",
                inspect(WORKER, "nvidia-smi -q -d POWER,PERFORMANCE", "If it lasts, check power cables and supplies."),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U14",
        "gpu.power_limit",
        "Every GPU may draw its default power",
        WORKER,
        "The GPU is slower under load than others of its model.",
        {
            "": (
                "the power limit of a GPU is below its default",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d POWER",
                    "If it was not meant: nvidia-smi -i INDEX --power-limit=WATTS, and remove what sets it at boot.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U15",
        "gpu.clocks",
        "No GPU's clock is set below its default",
        WORKER,
        "The GPU is slower under load than others of its model.",
        {
            "": (
                "the clock for programs of a GPU is set below its default",
                repair(
                    WORKER,
                    "nvidia-smi --reset-applications-clocks",
                    "Remove what sets it at boot. NVML does not report locked clocks (-lgc).",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U16",
        "gpu.pcie_link",
        "The PCIe links of GPUs that compute have full generation and width",
        WORKER,
        "Copies between host and GPU are slower than they should be.",
        {
            "": (
                "the PCIe link of a GPU is slower than GPU and slot allow",
                inspect(
                    WORKER,
                    "nvidia-smi --format=csv --query-gpu=index,"
                    "pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max",
                    "Check seating, riser and the slot's settings in the firmware.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U17",
        "gpu.nvlink",
        "Every GPU has as many NVLinks up as others of its model, and none was recovered",
        WORKER,
        "Programs that use several GPUs are slow, or fail.",
        {
            "down": (
                "a GPU has fewer NVLinks up than others of its model",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --status",
                    "Drain the machine and reboot. If it stays, check bridges, or have the GPU or its board serviced.",
                ),
            ),
            "errors": (
                "links of a GPU were recovered after errors",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --errorcounters",
                    "If they go on, check bridges, or have the GPU or its board serviced.",
                ),
            ),
        },
        ("U05",),
        ("U09", "U21"),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U18",
        "gpu.persistence",
        "Persistence mode is on",
        WORKER,
        "The driver lets go of a GPU that nobody uses: the next program waits for seconds, and settings are lost.",
        {
            "": (
                "persistence mode of a GPU is off",
                repair(
                    WORKER,
                    "nvidia-smi --persistence-mode=1",
                    "For good, onboarding with beta9_nvidia has nvidia-persistenced do it.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U19",
        "gpu.mig",
        "MIG is as it was set, and a GPU in MIG mode has instances",
        WORKER,
        "A GPU in MIG mode without instances can't be used.",
        {
            "empty": (
                "a GPU is in MIG mode and has no instance",
                inspect(
                    WORKER,
                    "nvidia-smi mig -lgi || true",
                    "Create instances (nvidia-smi mig -cgi PROFILE -C), or leave MIG mode (nvidia-smi -mig 0).",
                ),
            ),
            "pending": (
                "MIG mode of a GPU changes with its next reset",
                REBOOT._replace(prose="Drain the machine first."),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U20",
        "gpu.firmware",
        "The GPU's firmware is of the driver's version",
        WORKER,
        "The GPU fails under load, or does not come up after the next reset.",
        {
            "": (
                "a GPU's system processor (GSP) runs firmware of another version than the driver",
                REBOOT._replace(prose="Drain the machine first."),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U21",
        "gpu.fabric",
        "GPUs with NVSwitch have joined their fabric",
        WORKER,
        "CUDA answers error 802, or programs on several GPUs are slow.",
        {
            "failed": (
                "a GPU could not join its NVLink fabric",
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "Check the fabric manager's log, then drain the machine and reboot.",
                ),
            ),
            "not_started": (
                (
                    "a GPU is not in its NVLink fabric: the fabric manager does not run, or is of another version "
                    "than the driver"
                ),
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "Install and start the fabric manager in the driver's version.",
                ),
            ),
            "in_progress": (
                "a GPU is still joining its NVLink fabric",
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "If it lasts longer than some minutes, restart the fabric manager.",
                ),
            ),
            "degraded": (
                "a GPU has less bandwidth in its NVLink fabric than it should",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --status",
                    "Drain the machine and reboot. If it stays, have the GPU or its board serviced.",
                ),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U22",
        "gpu.peers",
        "GPUs with NVLink can read each other's memory",
        WORKER,
        "Programs on several GPUs copy through the host, and are slow.",
        {
            "disabled": (
                "access between GPUs is switched off by a setting of the driver",
                inspect(
                    WORKER,
                    "nvidia-smi topo -p2p r",
                    "Remove the registry key from the options of module nvidia in /etc/modprobe.d, and reboot.",
                ),
            ),
            "": (
                "GPUs with NVLink can't read each other's memory",
                inspect(
                    WORKER,
                    "nvidia-smi topo -p2p r",
                    "Check IOMMU and ACS in the firmware, and the virtual machine's passthrough.",
                ),
            ),
        },
        ("U05",),
        ("U09", "U17", "U21"),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U23",
        "gpu.processes",
        "Only pods compute on the GPUs",
        WORKER,
        "Memory and time of the GPU are lost to what the gateway does not know of.",
        {
            "": (
                "a process that belongs to no pod computes on a GPU",
                inspect(
                    WORKER,
                    "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
                    "Stop it, or leave its GPU out of beta9_gpu_ids.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U24",
        "gpu.bound",
        "No GPU that is expected here is bound to a driver for virtual machines",
        WORKER,
        "The host can't use a GPU that it has given away.",
        {
            "": (
                "a GPU is bound to vfio-pci or the like, and fewer than expected are left",
                inspect(
                    WORKER,
                    "ls -l /sys/bus/pci/drivers/vfio-pci || true",
                    "Remove its address or device id from the options of vfio-pci (kernel command line, "
                    "/etc/modprobe.d), or lower beta9_gpus.",
                ),
            )
        },
        component="gpu",
    ),
    Check(
        "U25",
        "gpu.accepted",
        "No GPU that failed its acceptance is offered",
        WORKER,
        "Work is given to a GPU that computes wrongly, or more slowly than its model should.",
        {
            "failed": (
                "a GPU that failed its acceptance is offered",
                first("Repair it, or set beta9_gpu_exclude_failed=true.", ACCEPT),
            ),
            "outdated": ("the driver changed after the GPUs' acceptance", ACCEPT),
        },
        ("U02",),
        ("U09", "U11", "U12", "U13", "U16"),
        component="gpu",
    ),
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
                    "nothing listens at the tunnel's target on the gateway host: the gateway does not run "
                    "there, or its "
                    "NodePort is another one"
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
        ("M07", "V01", "V03", "V04", "V05", "T01", "T02", "K02", "K03"),
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
                    "the gateway host's tailnet does not have the worker: it was deleted there, is in another "
                    "tailnet, or "
                    "access rules hide it"
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

BY_ID = {check.id: check for check in CHECKS}
# What each of these checks compares: asked for alone, these probes have to run all the same. nodeport is a probe
# without a check.
SOURCES = {"U06": ("U03", "M02", "C02"), "M05": ("A01", "M02"), "G04": ("T06", "nodeport")}


def asked_for(name, only, skip):
    """Return whether a check is to be looked at. only, skip: ids; an empty only asks for all."""
    return name not in skip and (not only or name in set(only).union(*(SOURCES.get(other, ()) for other in only)))


def unknown_ids(names):
    """Return the names that are no check's id, in order."""
    return sorted(set(names) - set(BY_ID))


def causes_of(check, code):
    """Return (cause, Remedy) of a failure code."""
    return check.causes.get(code) or check.causes.get("") or next(iter(check.causes.values()))
