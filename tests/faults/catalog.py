"""The faults: how each is made and undone on real hosts, and the one root cause that must be named.

inject and restore are shell scripts, {"worker": ..., "gateway": ...}. {machine}, {key}, {other_address} and so on are filled in.
"""

from __future__ import annotations

import json
from typing import NamedTuple


class Fault(NamedTuple):
    """One fault. wait_seconds: how long it takes to show. heals: whether heal_worker.yml must remediate it by itself.

    refused: what the remedy says where only a person may change what it found. over: why it is not there
    minutes later.
    """

    name: str
    root: str
    guide: str
    inject: dict
    restore: dict
    variables: dict = {}
    code: str = ""
    wait_seconds: float = 0.5
    heals: bool = False
    refused: str = ""
    over: str = ""


SSH_CONFIG = "/etc/beta9/tunnel/ssh_config"
KEEP = "cp -a {0} /root/kept-$(basename {0})"
BACK = "cp -a /root/kept-$(basename {0}) {0}"
RESTART_TUNNEL = "systemctl restart beta9-tunnel"
AGENT_ENV = "/etc/beta9/agent.env"
TOKEN = "/etc/beta9/credentials/machine_token"
K3S = "/etc/beta9-k3s-double.json"
KUBE = "/etc/beta9-kubectl-double.json"
GPU = "/etc/beta9-gpu-double"
GPU_GUIDE = "Agent Can't Detect GPUs"
VENV = "/opt/beta9-agent/current"
# the agent notices the end of a fault by itself, but the next fault need not wait for that
AGENT_NOW = "timeout 20 systemctl restart beta9-agent"
ASK = "import urllib.request as u; u.urlopen('http://127.0.0.1:1994/api/v1/health', timeout=2)"
TUNNEL_UP = RESTART_TUNNEL + '; for n in $(seq 40); do python3 -c "%s" 2>/dev/null && break; sleep 0.1; done' % ASK


def edit(path, expression, after=""):
    """Return (inject, restore) scripts that edit a file with sed and put it back."""
    return KEEP.format(path) + "; sed -i %s %s; " % (expression, path) + after, BACK.format(path) + "; " + after


OFTEN = edit("/etc/beta9/agent.env", "'s/^BETA9_KEEPALIVE_INTERVAL=.*/BETA9_KEEPALIVE_INTERVAL=1/'", AGENT_NOW)


def drop_in(unit, lines):
    """Return a script that adds lines to the [Service] of a unit."""
    folder, text = f"/run/systemd/system/{unit}.service.d", lines.replace("'", "'\\''")
    return f"mkdir -p {folder}; printf '[Service]\\n{text}\\n' > {folder}/fault.conf; systemctl daemon-reload; "


def no_drop_in(unit):
    """Return a script that takes them away."""
    return f"rm -r /run/systemd/system/{unit}.service.d; systemctl daemon-reload; systemctl reset-failed {unit}; "


def sshd_with(line):
    """Return a script that gives sshd a line of configuration before all others; sshd is not told."""
    return "printf '%s\\n' > /etc/ssh/sshd_config.d/00-fault.conf; " % line


NO_SSHD_WITH = "rm -f /etc/ssh/sshd_config.d/00-fault.conf; systemctl restart ssh"
JOURNALD = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald"
TUNNEL_KEY = "/etc/beta9/credentials/tunnel_key"
ADDRESS_OF_WORKER = "$(getent ahostsv4 {worker} | head -n 1 | cut -d' ' -f1)"
CLOCK = "echo %d > /etc/beta9-clock-double; echo /usr/local/lib/libclock-double.so > /etc/ld.so.preload; "
NO_CLOCK = "rm -f /etc/ld.so.preload; "
# all that is free of a file system of its own, so that the test hosts' real one stays as it is
FILL = "dd if=/dev/zero of=%s/fill bs=4k 2>/dev/null"
SSH_DOUBLE = "systemd-run -q --unit ssh-double python3 /opt/ssh_double.py 2222 "
TO_2222 = KEEP.format(SSH_CONFIG) + "; sed -i 's/Port .*/Port 2222/' " + SSH_CONFIG + "; " + RESTART_TUNNEL
NO_SESSION = "pkill -u beta9-tunnel sshd || true"
PAM_SLOW = "account [success=1 default=ignore] pam_succeed_if.so quiet user != beta9-tunnel\\naccount required pam_exec.so quiet /bin/sleep 30\\n"
# the gateway host takes no frame of more than 1000 bytes, and goes on to say that it takes 1500
ROUTE = "r=$(ip -4 route show dev eth0 scope link | head -n 1 | sed 's/ advmss [0-9]*//'); ip route replace $r dev eth0 "
BLACK_HOLE = ROUTE + "advmss 1460; ip link set dev eth0 mtu 1000"
NO_BLACK_HOLE = "ip link set dev eth0 mtu 1500; " + ROUTE


def worker_edit(name, root, guide, path, expression, after="", settle="", **options):
    """Return a fault that is an edited file on the worker."""
    inject, restore = edit(path, expression, after)
    return Fault(name, root, guide, {"worker": inject}, {"worker": restore + settle}, **options)


def state(path, change):
    """Return a script that changes a double's JSON state, keeping the old one."""
    return f"cp -a {path} /root/kept-$(basename {path}); python3 -c \"import json; s = json.load(open('{path}')); {change}; json.dump(s, open('{path}', 'w'))\""


def gpu_fault(name, root, settings, **options):
    """Return a fault of what NVML says, as lines for its double. The agent notices both at its next look."""
    lines = " ".join(settings.split())
    inject = "cp %s /root/kept-gpu; printf '%%s\\n' %s >> %s" % (GPU, lines, GPU)
    return Fault(name, root, GPU_GUIDE, {"worker": inject}, {"worker": "cp /root/kept-gpu %s; " % GPU + AGENT_NOW}, **options)


def accepted(driver, outcome):
    """Return a fault's script: an acceptance of two GPUs, the second with this outcome."""
    gpus = [{"device": n, "uuid": "GPU-00000000-0000-0000-0000-00000000000%d" % n, "outcome": ("passed", outcome)[n], "reasons": []} for n in (0, 1)]
    record = json.dumps({"mode": "quick", "driver": driver, "gpus": gpus, "dcgm": "not run"})
    return {"worker": "mkdir -p /var/lib/beta9; printf '%%s' '%s' > /var/lib/beta9/gpu_acceptance.json" % record}


NOT_ACCEPTED = {"worker": "rm /var/lib/beta9/gpu_acceptance.json"}


def redis_fault(text):
    """Return a script that switches a fault of the gateway double on."""
    return "redis-cli set double:fault '%s' >/dev/null" % text


SQUATTER = """'
import socket, time
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
while True:
    try:
        taken.bind(("{address}", 6443))
        break
    except OSError:
        time.sleep(0.01)
taken.listen()
time.sleep(3600)
'"""
ANOTHER_TOKEN = "double:token:$(printf %s canary-of-another-machine | sha256sum | cut -d' ' -f1)"
# a remedy may have made another machine, and revoked this token
IF_THERE = '[ "$(redis-cli exists {token_key})" = 0 ] || '
# ten minutes later: what the gateway's cache believed of tokens is gone
AGED = "; redis-cli --scan --pattern 'workspace:authorization:token:*' | xargs -r redis-cli del >/dev/null"
NO_FAULT = "redis-cli del double:fault >/dev/null"
ONLY_REDIS = {}

FAULTS = [
    # tunnel
    Fault("tunnel stopped", "T01", "Tunnel Connection Refused", {"worker": "systemctl stop beta9-tunnel"}, {"worker": TUNNEL_UP}, code="stopped", heals=True),
    Fault(
        "tunnel's key not let in",
        "T09",
        "Tunnel Connection Refused",
        {
            "gateway": "cp -a /etc/ssh/beta9-tunnel/authorized_keys /root/kept-keys; "
            "sed -i /{worker}$/d /etc/ssh/beta9-tunnel/authorized_keys; pkill -u beta9-tunnel || true"
        },
        {"gateway": "cp -a /root/kept-keys /etc/ssh/beta9-tunnel/authorized_keys", "worker": TUNNEL_UP},
        code="no_key",
        wait_seconds=4,
    ),
    Fault(
        "gateway host shows another key",
        "T08",
        "Tunnel Connection Refused",
        {
            "worker": KEEP.format("/etc/beta9/tunnel/known_hosts") + "; ssh-keygen -q -t ed25519 -N '' -f /root/fake; "
            "printf '%s %s\\n' {gateway_address} \"$(cut -d' ' -f1,2 /root/fake.pub)\" > /etc/beta9/tunnel/known_hosts; rm /root/fake*; " + RESTART_TUNNEL
        },
        {"worker": BACK.format("/etc/beta9/tunnel/known_hosts") + "; " + TUNNEL_UP},
        code="host_key",
        wait_seconds=3,
    ),
    worker_edit(
        "gateway host's SSH port is wrong",
        "T09",
        "Tunnel Connection Refused",
        SSH_CONFIG,
        "'s/Port .*/Port 2222/'",
        RESTART_TUNNEL,
        "; " + TUNNEL_UP,
        code="not_listening",
        wait_seconds=3,
    ),
    Fault(
        "second tunnel by hand",
        "T01",
        "Tunnel Connection Refused",
        {
            "worker": "install -m 600 /etc/beta9/credentials/tunnel_key /root/key; sed '/Forward/d' " + SSH_CONFIG + " > /root/config; "
            "systemd-run -q --unit by-hand ssh -F /root/config -i /root/key -N -L 127.0.0.1:1994:localhost:31994 gateway; sleep 1"
        },
        {"worker": "systemctl stop by-hand; rm -f /root/key /root/config"},
        code="duplicate",
    ),
    Fault(
        "another program on the tunnel's port",
        "T02",
        "Tunnel Connection Refused",
        {"worker": "systemctl stop beta9-tunnel; systemd-run -q --unit squatter python3 -m http.server 1994 --bind 127.0.0.1; sleep 0.7"},
        {"worker": "systemctl stop squatter; " + TUNNEL_UP},
        code="foreign",
    ),
    Fault(
        "wrong port of a direct gateway",
        "T03",
        "Tunnel Connection Refused",
        {},
        {},
        {"beta9_connection": "direct", "beta9_worker_gateway_url": "http://{gateway_address}:9"},
        code="refused",
    ),
    Fault(
        "gateway's name does not resolve",
        "T03",
        "Tunnel Connection Refused",
        {},
        {},
        {"beta9_connection": "direct", "beta9_worker_gateway_url": "http://no-such-gateway.invalid:31994"},
        code="dns",
    ),
    Fault(
        "health is answered by something else",
        "T04",
        "Gateway Unreachable from Tunnel",
        {"gateway": redis_fault('{"route": "health", "mode": "garbage"}')},
        {"gateway": NO_FAULT},
        code="not_gateway",
    ),
    Fault(
        "empty reply",
        "T04",
        "Gateway Unreachable from Tunnel",
        {"gateway": redis_fault('{"route": "health", "mode": "empty"}')},
        {"gateway": NO_FAULT},
        code="empty_reply",
    ),
    Fault(
        "tunnel keeps dropping",
        "T05",
        "Tunnel Keeps Dropping",
        {"gateway": "for n in 1 2 3 4 5; do pkill -u beta9-tunnel sshd; sleep 2.5; done; true"},
        {"worker": "journalctl -q --rotate --vacuum-time=1s 2>/dev/null; true"},
        code="drops",
        wait_seconds=3,
    ),
    worker_edit("tunnel without keepalive options", "T06", "Tunnel Keeps Dropping", SSH_CONFIG, "/ServerAlive/d", heals=True),
    *(
        Fault(
            "worker's clock is " + name,
            "C03",
            "Registration Issues",
            {"worker": CLOCK % seconds + AGENT_NOW},
            {"worker": NO_CLOCK + AGENT_NOW},
            heals=True,
        )
        for name, seconds in (("two hours ahead", 7200), ("90 seconds behind", -90))
    ),
    Fault(
        "gateway's clock is two hours ahead",
        "C03",
        "Registration Issues",
        {"gateway": CLOCK % 7200 + "systemctl restart beta9-gateway-double; sleep 0.5", "worker": AGENT_NOW},
        {"gateway": NO_CLOCK + "systemctl restart beta9-gateway-double; sleep 0.5", "worker": AGENT_NOW},
        code="gateway",
    ),
    Fault(
        "gateway tells another time",
        "C03",
        "Registration Issues",
        {"gateway": redis_fault('{"route": "*", "mode": "date", "offset": -600}')},
        {"gateway": NO_FAULT},
        code="gateway",
    ),
    # what has to be written
    Fault(
        "disk full under the agent's state",
        "C05",
        "Agent Crashes on Startup",
        {
            "worker": "mount -t tmpfs -o size=64k,mode=700 tmpfs /var/lib/private; "
            + FILL % "/var/lib/private"
            + "; systemctl restart --no-block beta9-agent; sleep 1"
        },
        {"worker": "systemctl stop beta9-agent; umount -l /var/lib/private; " + AGENT_NOW},
        code="full",
    ),
    Fault(
        "disk full under temporary files",
        "C05",
        "Agent Crashes on Startup",
        {"worker": "; ".join("mount -t tmpfs -o size=64k,mode=1777 tmpfs %s; %s" % (path, FILL % path) for path in ("/tmp", "/var/tmp"))},
        {"worker": "umount -l /tmp /var/tmp"},
        code="full",
    ),
    Fault(
        "no inode left under the log",
        "C05",
        "Agent Crashes on Startup",
        {"worker": "mount -t tmpfs -o size=64m,nr_inodes=50 tmpfs /var/log; for n in $(seq 60); do : > /var/log/$n; done 2>/dev/null; true"},
        {"worker": "umount -l /var/log"},
        code="inodes",
    ),
    Fault(
        "root file system read-only",
        "C05",
        "Agent Crashes on Startup",
        {"worker": "mount -o remount,bind,ro /"},
        {"worker": "mount -o remount,bind,rw /"},
        code="read_only",
    ),
    Fault(
        "file system of the state read-only",
        "C05",
        "Agent Crashes on Startup",
        {"worker": "mount --bind /var/lib /var/lib; mount -o remount,bind,ro /var/lib; systemctl restart --no-block beta9-agent; sleep 1"},
        {"worker": "systemctl stop beta9-agent; umount -l /var/lib; " + AGENT_NOW},
        code="read_only",
    ),
    worker_edit(
        "no reverse forward",
        "V01",
        "Gateway Can't Reach Worker k3s",
        SSH_CONFIG,
        "/RemoteForward/d",
        RESTART_TUNNEL,
        "; " + TUNNEL_UP,
        wait_seconds=2,
        heals=True,
    ),
    worker_edit(
        "tunnel to the wrong NodePort",
        "G04",
        "Gateway Unreachable from Tunnel",
        SSH_CONFIG,
        "'s/localhost:31994/localhost:31993/'",
        RESTART_TUNNEL,
        "; " + TUNNEL_UP,
        wait_seconds=2,
        heals=True,
    ),
    # token and machine API
    Fault(
        "token missing on the host",
        "A01",
        'Error: "Invalid token" (403)',
        {"worker": "mv " + TOKEN + " /root/token"},
        {"worker": "[ -s " + TOKEN + " ] || mv /root/token " + TOKEN},
        code="missing",
    ),
    Fault(
        "token deactivated",
        "A01",
        'Error: "Invalid token" (403)',
        {"gateway": "redis-cli hset {token_key} active 0" + AGED},
        {"gateway": IF_THERE + "redis-cli hset {token_key} active 1" + AGED, "worker": AGENT_NOW},
        code="token_unknown",
    ),
    Fault(
        "token of another type",
        "A01",
        'Error: "Invalid token" (403)',
        {"gateway": "redis-cli hset {token_key} kind workspace" + AGED},
        {"gateway": IF_THERE + "redis-cli hset {token_key} kind machine" + AGED, "worker": AGENT_NOW},
        code="token_wrong_type",
    ),
    Fault(
        "token of another machine",
        "M05",
        'Error: "Invalid token" (403)',
        {
            "gateway": "redis-cli hset " + ANOTHER_TOKEN + " kind machine active 1 created 1 key canary-of-another-machine",
            "worker": KEEP.format(TOKEN) + "; printf %s canary-of-another-machine > " + TOKEN,
        },
        # a remedy may have given the host a token of its own
        {"worker": "! grep -q canary-of-another " + TOKEN + " || " + BACK.format(TOKEN), "gateway": "redis-cli del " + ANOTHER_TOKEN},
        over="the gateway keeps no token of a machine whose state has expired once, so that none is another one",
    ),
    Fault(
        "gateway without keepalive endpoint",
        "A02",
        'Error: "machine_not_found" (500)',
        {"gateway": redis_fault('{"route": "keepalive", "mode": "no_keepalive_route"}')},
        {"gateway": NO_FAULT},
    ),
    worker_edit("memory in the wrong form", "A03", 'Error: "Invalid payload" (400)', AGENT_ENV, "'$aBETA9_MAX_MEMORY=16GB'"),
    Fault(
        "registration refused",
        "A04",
        'Error: "Invalid payload" (400)',
        {"gateway": redis_fault('{"route": "register", "mode": "answer", "status": 400, "body": "{\\"message\\": \\"Invalid payload\\"}"}')},
        {"gateway": NO_FAULT},
        {"health_check_active": True},
    ),
    Fault(
        "keepalive refused",
        "A05",
        'Error: "machine_not_found" (500)',
        {"gateway": redis_fault('{"route": "keepalive", "mode": "answer", "status": 500, "body": "{\\"message\\": \\"Internal Server Error\\"}"}')},
        {"gateway": NO_FAULT, "worker": AGENT_NOW},
        {"health_check_active": True},
    ),
    # machine
    Fault("state expired", "M02", 'Error: "machine_not_found" (500)', {"gateway": "redis-cli del {key}"}, {"worker": AGENT_NOW}, code="absent"),
    Fault(
        "state expired, no access to Redis",
        "M01",
        "Machine Keeps Expiring",
        {"gateway": "redis-cli del {key}"},
        {"worker": AGENT_NOW},
        {"health_check_gateway_host": ""},
    ),
    Fault(
        "state expired, operator's list alone",
        "C02",
        "Machine Keeps Expiring",
        {"gateway": "redis-cli del {key}"},
        {"worker": AGENT_NOW},
        {"health_check_only": ["C01", "C02"]},
        code="absent",
    ),
    Fault(
        "keepalives do not land",
        "M03",
        "Machine Keeps Expiring",
        {"gateway": "redis-cli hset {key} last_keepalive 1700000000"},
        {"worker": AGENT_NOW},
        over="the next keepalive sets it again",
    ),
    Fault(
        "machine missing from the index",
        "M04",
        'Pool Shows "Degraded"',
        {"gateway": "redis-cli srem provider:machine:generic:gpu:machine_index {key}"},
        {"gateway": "redis-cli sadd provider:machine:generic:gpu:machine_index {key}"},
        code="missing",
    ),
    Fault(
        "repeated registrations",
        "M06",
        "Machine Keeps Expiring",
        {
            "worker": OFTEN[0],
            "gateway": "for n in 1 2 3; do redis-cli del {key}; sleep 2.5; done",
        },
        {"worker": OFTEN[1]},
        wait_seconds=1,
    ),
    worker_edit(
        "host in another pool than the inventory says", "C01", 'Error: "Invalid pool name" (500)', "/etc/ansible/facts.d/beta9.fact", '\'s/"gpu"/"cpu"/\''
    ),
    Fault(
        "host never onboarded",
        "C01",
        'Error: "machine_not_found" (500)',
        {"worker": "mv /etc/ansible/facts.d/beta9.fact /root/fact"},
        {"worker": "mv /root/fact /etc/ansible/facts.d/beta9.fact"},
        code="no_machine",
    ),
    # agent
    Fault("agent stopped", "P01", "Agent Crashes on Startup", {"worker": "systemctl stop beta9-agent"}, {"worker": AGENT_NOW}, code="stopped", heals=True),
    Fault(
        "agent frozen",
        "P01",
        "Machine Keeps Expiring",
        {"worker": "systemctl kill -s STOP beta9-agent"},
        {"worker": "systemctl kill -s KILL beta9-agent; " + AGENT_NOW},
        code="frozen",
        heals=True,
    ),
    Fault(
        "second agent by hand",
        "P01",
        "Machine Keeps Expiring",
        {
            "worker": "systemd-run -q --unit second -p EnvironmentFile="
            + AGENT_ENV
            + " -p Environment=BETA9_TOKEN_FILE="
            + TOKEN
            + " "
            + VENV
            + "/bin/python -m beta9_agent; sleep 1.5"
        },
        {"worker": "systemctl stop second"},
        code="duplicate",
    ),
    Fault(
        "agent killed again and again",
        "P01",
        "Machine Keeps Expiring",
        {"worker": "for n in 1 2 3 4; do systemctl kill -s KILL beta9-agent; sleep 3.5; done"},
        {"worker": "systemctl reset-failed beta9-agent; " + AGENT_NOW},
        code="failing",
    ),
    Fault(
        "agent killed now and then",
        "P02",
        "Machine Keeps Expiring",
        {"worker": "for n in 1 2 3 4; do systemctl kill -s KILL beta9-agent; sleep 3.5; done; sleep 61"},
        {"worker": "systemctl reset-failed beta9-agent; " + AGENT_NOW},
    ),
    Fault(
        "agent ends at once",
        "P01",
        "Agent Crashes on Startup",
        {"worker": drop_in("beta9-agent", "ExecStart=\\nExecStart=/bin/false") + "systemctl restart --no-block beta9-agent; sleep 2"},
        {"worker": no_drop_in("beta9-agent") + AGENT_NOW},
        code="failing",
    ),
    Fault(
        "agent ends after some seconds",
        "P01",
        "Agent Crashes on Startup",
        {"worker": drop_in("beta9-agent", "ExecStart=\\nExecStart=/bin/sh -c 'sleep 4; exit 1'") + "systemctl restart --no-block beta9-agent; sleep 8"},
        {"worker": no_drop_in("beta9-agent") + AGENT_NOW},
        code="failing",
    ),
    Fault(
        "agent masked",
        "P01",
        "Agent Crashes on Startup",
        {
            "worker": "mv /etc/systemd/system/beta9-agent.service /root/unit; systemctl mask --runtime --now beta9-agent; "
            "systemctl mask --now beta9-agent; systemctl daemon-reload"
        },
        {
            "worker": "systemctl unmask --runtime beta9-agent; rm -f /etc/systemd/system/beta9-agent.service; "
            "mv /root/unit /etc/systemd/system/beta9-agent.service; systemctl daemon-reload; systemctl enable -q beta9-agent; " + AGENT_NOW
        },
        code="masked",
    ),
    Fault(
        "agent is not started at boot",
        "P09",
        "Agent Crashes on Startup",
        {"worker": "systemctl disable -q beta9-agent"},
        {"worker": "systemctl enable -q beta9-agent"},
        code="agent",
    ),
    Fault(
        "tunnel is not started at boot",
        "P09",
        "Tunnel Connection Refused",
        {"worker": "systemctl disable -q beta9-tunnel"},
        {"worker": "systemctl enable -q beta9-tunnel"},
        code="tunnel",
    ),
    Fault(
        "pool typo in the agent's settings",
        "P07",
        'Error: "Invalid pool name" (500)',
        {
            "worker": KEEP.format(AGENT_ENV)
            + "; sed -i s/^BETA9_POOL_NAME=.*/BETA9_POOL_NAME=gpuu/ "
            + AGENT_ENV
            + "; systemctl restart --no-block beta9-agent; sleep 2"
        },
        {"worker": BACK.format(AGENT_ENV) + "; " + AGENT_NOW},
        code="identity",
    ),
    Fault(
        "another machine's id in the agent's settings",
        "P07",
        'Error: "machine_not_found" (500)',
        {"worker": KEEP.format(AGENT_ENV) + "; sed -i s/^BETA9_MACHINE_ID=.*/BETA9_MACHINE_ID=0badcafe/ " + AGENT_ENV},
        {"worker": BACK.format(AGENT_ENV) + "; " + AGENT_NOW},
        code="identity",
    ),
    Fault(
        "journal is not written",
        "P02",
        "Agent Crashes on Startup",
        {"worker": "systemctl mask --runtime --now " + JOURNALD},
        {"worker": "systemctl unmask --runtime " + JOURNALD + "; systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald"},
        code="no_journal",
    ),
    Fault(
        "agent's Python is in a home",
        "P03",
        "Agent Crashes on Startup",
        {
            "worker": "cp -aL " + VENV + "/bin/python /root/python; mv " + VENV + "/bin/python " + VENV + "/bin/python.away; "
            "ln -s /root/python " + VENV + "/bin/python; systemctl restart --no-block beta9-agent; sleep 1"
        },
        {"worker": "mv -T " + VENV + "/bin/python.away " + VENV + "/bin/python; rm -f /root/python; " + AGENT_NOW},
        code="home",
    ),
    Fault(
        "agent's Python was replaced by an upgrade",
        "P03",
        "Agent Crashes on Startup",
        {
            "worker": "mv " + VENV + "/bin/python " + VENV + "/bin/python.away; ln -s /usr/bin/python3.9 " + VENV + "/bin/python; "
            "systemctl restart --no-block beta9-agent; sleep 1"
        },
        {"worker": "mv -T " + VENV + "/bin/python.away " + VENV + "/bin/python; " + AGENT_NOW},
        code="replaced",
    ),
    Fault(
        "agent's environment is of another Python",
        "P03",
        "Agent Crashes on Startup",
        {"worker": "cd " + VENV + "/lib && mv python3.* python3.9; systemctl restart --no-block beta9-agent; sleep 1"},
        {"worker": "cd " + VENV + "/lib && mv python3.9 python3.$(/usr/bin/python3 -c 'import sys; print(sys.version_info[1])'); " + AGENT_NOW},
        code="replaced",
    ),
    Fault(
        "secrets that all may read",
        "C04",
        'Error: "Invalid token" (403)',
        {"worker": "chmod 777 /etc/beta9/credentials /etc/beta9/credentials/*"},
        {"worker": "chmod 700 /etc/beta9/credentials; chmod 600 /etc/beta9/credentials/*"},
        code="mode",
    ),
    Fault(
        "settings that all may write",
        "C04",
        "Agent Crashes on Startup",
        {"worker": "chmod 666 " + AGENT_ENV},
        {"worker": "chmod 644 " + AGENT_ENV},
        code="mode",
    ),
    Fault(
        "secrets of another account",
        "C04",
        'Error: "Invalid token" (403)',
        {"worker": "chown nobody /etc/beta9/credentials/machine_token"},
        {"worker": "chown root /etc/beta9/credentials/machine_token"},
        code="owner",
    ),
    Fault(
        "tunnel's key is empty",
        "C04",
        "Tunnel Connection Refused",
        {"worker": KEEP.format(TUNNEL_KEY) + "; : > " + TUNNEL_KEY + "; systemctl restart beta9-tunnel; sleep 1"},
        {"worker": f"[ -s {TUNNEL_KEY} ] || " + BACK.format(TUNNEL_KEY) + "; " + TUNNEL_UP},
        code="empty",
    ),
    Fault(
        "token empty",
        "A01",
        'Error: "Invalid token" (403)',
        {"worker": KEEP.format(TOKEN) + "; : > " + TOKEN + "; systemctl restart --no-block beta9-agent; sleep 1"},
        {"worker": "[ -s " + TOKEN + " ] || " + BACK.format(TOKEN) + "; " + AGENT_NOW},
        code="missing",
    ),
    # tunnel, where the fault is
    Fault(
        "firewall drops the gateway host's answers",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": "ip route add blackhole " + ADDRESS_OF_WORKER},
        {"gateway": "ip route del blackhole " + ADDRESS_OF_WORKER, "worker": TUNNEL_UP},
        code="timeout",
        wait_seconds=0,
    ),
    Fault(
        "firewall drops what is sent to the gateway host",
        "T08",
        "Tunnel Connection Refused",
        {"worker": "ip neigh replace {gateway_address} lladdr 02:00:00:00:00:01 nud permanent dev eth0; systemctl restart beta9-tunnel"},
        {"worker": "ip neigh del {gateway_address} dev eth0; " + TUNNEL_UP},
        code="timeout",
    ),
    *(
        Fault(
            "gateway host's SSH port: " + name,
            "T08",
            "Tunnel Connection Refused",
            {"gateway": double, "worker": TO_2222},
            {"gateway": "systemctl stop ssh-double 2>/dev/null; true", "worker": BACK.format(SSH_CONFIG) + "; " + TUNNEL_UP},
            code=code,
            wait_seconds=1,
        )
        for name, double, code in (
            ("takes connections and says nothing", SSH_DOUBLE + "silent", "silent"),
            ("cuts the login", SSH_DOUBLE + "cut", "cut"),
            ("is a web server's", "systemd-run -q --unit ssh-double python3 -m http.server 2222", "not_ssh"),
        )
    ),
    Fault(
        "gateway host's sshd hangs",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": "kill -STOP $(systemctl show -P MainPID ssh); " + NO_SESSION},
        {"gateway": "kill -CONT $(systemctl show -P MainPID ssh)", "worker": TUNNEL_UP},
        code="silent",
        wait_seconds=1,
    ),
    Fault(
        "gateway host's sshd closes connections from here",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": "echo sshd: " + ADDRESS_OF_WORKER + " >> /etc/hosts.deny; " + NO_SESSION},
        {"gateway": "sed -i '/^sshd: /d' /etc/hosts.deny", "worker": TUNNEL_UP},
        code="closed",
        wait_seconds=1,
    ),
    Fault(
        "gateway host's PAM hangs for the tunnel's account",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": KEEP.format("/etc/pam.d/sshd") + "; printf '" + PAM_SLOW + "' | cat - /root/kept-sshd > /etc/pam.d/sshd; " + NO_SESSION},
        {"gateway": BACK.format("/etc/pam.d/sshd") + "; " + NO_SESSION, "worker": TUNNEL_UP},
        code="slow",
        wait_seconds=1,
    ),
    Fault(
        "sshd of the gateway host permits no forward, and can't be asked",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": sshd_with("Match User beta9-tunnel\\n  AllowTcpForwarding no") + "systemctl reload ssh; " + NO_SESSION},
        {"gateway": NO_SSHD_WITH, "worker": TUNNEL_UP},
        {"health_check_gateway_host": ""},
        code="forward_refused",
        wait_seconds=1,
    ),
    worker_edit(
        "tunnel's ciphers are none of the gateway host's",
        "T08",
        "Tunnel Connection Refused",
        SSH_CONFIG,
        "'$aCiphers 3des-cbc'",
        RESTART_TUNNEL,
        "; " + TUNNEL_UP,
        code="algorithms",
        wait_seconds=1,
        heals=True,
    ),
    worker_edit(
        "an option in the tunnel's configuration that ssh does not know",
        "T06",
        "Tunnel Connection Refused",
        SSH_CONFIG,
        "'$aServerAliveIntervall 15'",
        RESTART_TUNNEL,
        "; " + TUNNEL_UP,
        wait_seconds=1,
        heals=True,
    ),
    Fault(
        "no default route, and the gateway host beyond it",
        "T08",
        "Tunnel Connection Refused",
        {
            "worker": "ip -4 route show > /root/routes; ip -4 route add $(ip -4 route show default | cut -d' ' -f3) dev eth0; ip -4 route del default; "
            "ip -4 route del $(ip -4 route show dev eth0 scope link | grep / | head -n 1 | cut -d' ' -f1) dev eth0"
        },
        {"worker": "tac /root/routes | while read r; do ip -4 route replace $r; done; " + TUNNEL_UP},
        code="unreachable",
        wait_seconds=0,
    ),
    Fault(
        "a second address of the worker that the firewall does not know",
        "T08",
        "Tunnel Connection Refused",
        {
            "gateway": "ip route add blackhole 192.0.2.77",
            "worker": "ip addr add 192.0.2.77/32 dev eth0; ip route add {gateway_address} dev eth0 src 192.0.2.77; " + RESTART_TUNNEL,
        },
        {
            "gateway": "ip route del blackhole 192.0.2.77",
            "worker": "ip route del {gateway_address} dev eth0 src 192.0.2.77; ip addr del 192.0.2.77/32 dev eth0; " + TUNNEL_UP,
        },
        code="timeout",
    ),
    Fault(
        "tunnel's unit was edited by hand",
        "T01",
        "Tunnel Keeps Dropping",
        {
            "worker": KEEP.format("/etc/systemd/system/beta9-tunnel.service")
            + "; sed -i '/^ExecStart=/s/ -N / /' /etc/systemd/system/beta9-tunnel.service; systemctl daemon-reload; "
            + RESTART_TUNNEL
        },
        {"worker": BACK.format("/etc/systemd/system/beta9-tunnel.service") + "; systemctl daemon-reload; " + TUNNEL_UP},
        code="failing",
        wait_seconds=15,
        heals=True,
    ),
    Fault(
        "ssh is gone",
        "T01",
        "Tunnel Connection Refused",
        {"worker": "mv /usr/bin/ssh /root/ssh; systemctl restart beta9-tunnel"},
        {"worker": "[ ! -e /root/ssh ] || mv /root/ssh /usr/bin/ssh; " + TUNNEL_UP},
        code="program",
        wait_seconds=1,
        heals=True,
    ),
    Fault(
        "tunnel's key is gone",
        "T01",
        "Tunnel Connection Refused",
        {"worker": "mv " + TUNNEL_KEY + " /root/tunnel_key; systemctl restart beta9-tunnel"},
        {"worker": f"[ -e {TUNNEL_KEY} ] || mv /root/tunnel_key {TUNNEL_KEY}; " + TUNNEL_UP},  # a new one was let in at the gateway host
        code="credential",
        wait_seconds=1,
    ),
    Fault(
        "tunnel's unit is gone",
        "T01",
        "Tunnel Connection Refused",
        {"worker": "systemctl stop beta9-tunnel; mv /etc/systemd/system/beta9-tunnel.service /root/unit; systemctl daemon-reload"},
        {"worker": "mv /root/unit /etc/systemd/system/beta9-tunnel.service; systemctl daemon-reload; systemctl enable -q beta9-tunnel; " + TUNNEL_UP},
        code="not_installed",
    ),
    Fault(
        "agent's unit is gone",
        "P01",
        "Agent Crashes on Startup",
        {"worker": "systemctl stop beta9-agent; mv /etc/systemd/system/beta9-agent.service /root/unit; systemctl daemon-reload"},
        {"worker": "mv /root/unit /etc/systemd/system/beta9-agent.service; systemctl daemon-reload; systemctl enable -q beta9-agent; " + AGENT_NOW},
        code="not_installed",
    ),
    Fault(
        "no route to the gateway host",
        "T08",
        "Tunnel Connection Refused",
        {"worker": "ip route add unreachable {gateway_address}; ip route flush cache"},
        {"worker": "ip route del unreachable {gateway_address}; " + TUNNEL_UP},
        code="unreachable",
        wait_seconds=0,
    ),
    Fault(
        "MTU black hole, tunnel up",
        "T08",
        "Tunnel Keeps Dropping",
        {"worker": "ip link set dev eth0 gso_max_segs 1; " + TUNNEL_UP, "gateway": BLACK_HOLE},
        {"gateway": NO_BLACK_HOLE, "worker": "ip link set dev eth0 gso_max_segs 65535; " + TUNNEL_UP},
        code="stalled",
        wait_seconds=0,
    ),
    Fault(
        "MTU black hole, tunnel down",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": BLACK_HOLE, "worker": "ip link set dev eth0 gso_max_segs 1; systemctl restart beta9-tunnel"},
        {"gateway": NO_BLACK_HOLE, "worker": "ip link set dev eth0 gso_max_segs 65535; " + TUNNEL_UP},
        code="stalled",
    ),
    Fault(
        "gateway host's sshd moved to another port, tunnel down",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": sshd_with("Port 2222") + "pkill sshd; systemctl restart ssh"},  # with what Ansible has open: else T09 tells
        {"gateway": NO_SSHD_WITH, "worker": TUNNEL_UP},
        code="refused",
    ),
    Fault(
        "gateway host's sshd moved to another port, tunnel still up",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": sshd_with("Port 2222") + "pkill -f '^sshd: root'; systemctl restart ssh"},
        {"gateway": NO_SSHD_WITH},
        code="refused",
        wait_seconds=0,
    ),
    Fault(
        "gateway host's sshd stopped",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": "systemctl stop ssh; pkill sshd || true"},
        {"gateway": "systemctl start ssh", "worker": TUNNEL_UP},
        code="refused",
    ),
    Fault(
        "gateway host has new host keys elsewhere",
        "T08",
        "Tunnel Connection Refused",
        {
            "gateway": "rm -rf /etc/ssh/other; mkdir -p /etc/ssh/other; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/other/key; "
            + sshd_with("HostKey /etc/ssh/other/key")
            + "systemctl restart ssh; pkill -u beta9-tunnel sshd || true"
        },
        {"gateway": NO_SSHD_WITH + "; rm -r /etc/ssh/other", "worker": TUNNEL_UP},
        code="host_key",
        wait_seconds=2,
    ),
    worker_edit(
        "gateway host's name does not resolve",
        "T08",
        "Tunnel Connection Refused",
        SSH_CONFIG,
        "'s/HostName .*/HostName no-such-gateway.invalid/'",
        RESTART_TUNNEL,
        "; " + TUNNEL_UP,
        code="name",
        wait_seconds=1,
    ),
    Fault(
        "DNS does not answer",
        "T08",
        "Tunnel Connection Refused",
        {
            "worker": KEEP.format(SSH_CONFIG) + "; sed -i 's/HostName .*/HostName gateway.example.com/' " + SSH_CONFIG + "; cp /etc/resolv.conf /root/resolv; "
            "echo nameserver 192.0.2.1 > /etc/resolv.conf; " + RESTART_TUNNEL
        },
        {"worker": BACK.format(SSH_CONFIG) + "; cat /root/resolv > /etc/resolv.conf; " + TUNNEL_UP},
        code="name",
        wait_seconds=1,
    ),
    Fault(
        "autossh is gone",
        "T01",
        "Tunnel Connection Refused",
        {"worker": "mv /usr/bin/autossh /root/autossh; systemctl restart beta9-tunnel"},
        {"worker": "mv /root/autossh /usr/bin/autossh; " + TUNNEL_UP},
        code="program",
        wait_seconds=1,
    ),
    Fault(
        "tunnel's account is gone",
        "T01",
        "Tunnel Connection Refused",
        {"worker": "cp -a /etc/passwd /root/passwd; sed -i /^beta9-tunnel:/d /etc/passwd; systemctl restart beta9-tunnel"},
        {"worker": "cp -a /root/passwd /etc/passwd; " + TUNNEL_UP},
        code="account",
        wait_seconds=1,
    ),
    Fault(
        "tunnel masked",
        "T01",
        "Tunnel Connection Refused",
        {"worker": "mv /etc/systemd/system/beta9-tunnel.service /root/unit; systemctl daemon-reload; systemctl mask --now beta9-tunnel"},
        {
            "worker": "systemctl unmask beta9-tunnel; mv /root/unit /etc/systemd/system/beta9-tunnel.service; systemctl daemon-reload; "
            "systemctl enable -q beta9-tunnel; " + TUNNEL_UP
        },
        code="masked",
    ),
    Fault(
        "tunnel's listen address is taken at the gateway host",
        "T01",
        "Gateway Can't Reach Worker k3s",
        {
            # it waits for the address, and has it before the tunnel that is cut comes back
            "gateway": "systemd-run -q --unit squatter python3 -c " + SQUATTER + "; sleep 1; pkill -u beta9-tunnel sshd; sleep 0.2",
            "worker": "systemctl restart beta9-tunnel",
        },
        {"gateway": "systemctl stop squatter", "worker": TUNNEL_UP},
        code="listen_refused",
        wait_seconds=2,
    ),
    Fault(
        "gateway stopped",
        "G11",
        "Gateway Unreachable from Tunnel",
        {"gateway": "systemctl stop beta9-gateway-double"},
        {"gateway": "systemctl start beta9-gateway-double; sleep 0.5", "worker": AGENT_NOW},
        code="refused",
    ),
    Fault(
        "gateway stopped, its host can't be asked",
        "T04",
        "Gateway Unreachable from Tunnel",
        {"gateway": "systemctl stop beta9-gateway-double"},
        {"gateway": "systemctl start beta9-gateway-double; sleep 0.5", "worker": AGENT_NOW},
        {"health_check_gateway_host": ""},
        code="target_refused",
    ),
    *(
        Fault(
            "sshd of the gateway host: " + name,
            "T09",
            "Tunnel Connection Refused",
            {"gateway": sshd_with(line) + "systemctl reload ssh" + ("; pkill -u beta9-tunnel sshd || true" if down else "")},
            {"gateway": NO_SSHD_WITH, "worker": TUNNEL_UP},
            code=code,
            wait_seconds=1,
        )
        for name, line, code, down in (
            ("AllowUsers without the tunnel's account", "AllowUsers root", "lists", True),
            ("DenyUsers with the tunnel's account, tunnel still up", "DenyUsers beta9-*", "lists", False),
            ("DisableForwarding", "Match User beta9-tunnel\\n  DisableForwarding yes", "settings", True),
            ("AllowTcpForwarding no, tunnel still up", "Match User beta9-tunnel\\n  AllowTcpForwarding no", "settings", False),
            ("PermitListen none", "Match User beta9-tunnel\\n  PermitListen none", "permit", True),
            ("PermitOpen of another port, tunnel still up", "Match User beta9-tunnel\\n  PermitOpen localhost:9", "permit", False),
        )
    ),
    Fault(
        "sshd of the gateway host lets the account in no more, and can't be asked",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": sshd_with("AllowUsers root") + "systemctl reload ssh; pkill -u beta9-tunnel sshd || true"},
        {"gateway": NO_SSHD_WITH, "worker": TUNNEL_UP},
        {"health_check_gateway_host": ""},
        code="key_refused",
        wait_seconds=1,
        refused="AllowUsers",
    ),
    Fault(
        "tunnel's account at the gateway host expired",
        "T09",
        "Tunnel Connection Refused",
        {"gateway": "chage -E 0 beta9-tunnel; pkill -u beta9-tunnel sshd || true"},
        {"gateway": "chage -E -1 beta9-tunnel", "worker": TUNNEL_UP},
        code="account",
        wait_seconds=1,
    ),
    Fault(
        "tunnel's account at the gateway host expired, and it can't be asked",
        "T08",
        "Tunnel Connection Refused",
        {"gateway": "chage -E 0 beta9-tunnel; pkill -u beta9-tunnel sshd || true"},
        {"gateway": "chage -E -1 beta9-tunnel", "worker": TUNNEL_UP},
        {"health_check_gateway_host": ""},
        code="account_refused",
        wait_seconds=1,
    ),
    Fault(
        "keys of the workers can't be read by sshd",
        "T07",
        "Tunnel Connection Refused",
        {"gateway": "chmod 640 /etc/ssh/beta9-tunnel/authorized_keys; pkill -u beta9-tunnel sshd || true"},
        {"gateway": "chmod 644 /etc/ssh/beta9-tunnel/authorized_keys", "worker": TUNNEL_UP},
        code="mode",
        wait_seconds=1,
    ),
    Fault(
        "agent's Python is gone",
        "P03",
        "Agent Crashes on Startup",
        {"worker": "mv " + VENV + "/bin/python " + VENV + "/bin/python.away"},
        {"worker": "mv " + VENV + "/bin/python.away " + VENV + "/bin/python"},
        code="missing",
    ),
    Fault(
        "agent's package is gone",
        "P04",
        "Agent Crashes on Startup",
        {"worker": "mv " + VENV + "/lib/python3*/site-packages/httpx /root/httpx"},
        {
            "worker": "[ ! -d /root/httpx ] || { rm -rf "
            + VENV
            + "/lib/python3*/site-packages/httpx; mv /root/httpx "
            + VENV
            + "/lib/python3*/site-packages/; }"
        },
        heals=True,
    ),
    worker_edit(
        "keepalive interval too long",
        "P05",
        "Machine Keeps Expiring",
        AGENT_ENV,
        "'s/KEEPALIVE_INTERVAL=.*/KEEPALIVE_INTERVAL=240/'",
        AGENT_NOW,
        heals=True,
        wait_seconds=1,
    ),
    Fault(
        "agent's keepalives are refused",
        "P06",
        "Tunnel Keeps Dropping",
        {
            "gateway": redis_fault('{"route": "keepalive", "mode": "answer", "status": 400, "body": "{\\"message\\": \\"Invalid payload\\"}"}'),
            "worker": "systemctl restart --no-block beta9-agent; sleep 1.5",
        },
        {"gateway": NO_FAULT, "worker": AGENT_NOW},
    ),
    worker_edit("agent's settings are refused", "P07", "Agent Crashes on Startup", AGENT_ENV, "'s/GATEWAY_PORT=.*/GATEWAY_PORT=0/'"),
    # GPU
    Fault(
        "GPU missing on the bus",
        "U01",
        "Agent Can't Detect GPUs",
        {"worker": "mv /sys/bus/pci/devices/0000:02:00.0 /root/device"},
        {"worker": "mv /root/device /sys/bus/pci/devices/0000:02:00.0"},
    ),
    Fault(
        "driver not loaded",
        "U02",
        "Agent Can't Detect GPUs",
        {"worker": "mv /sys/module/nvidia /sys/module/.away"},
        {"worker": "mv /sys/module/.away /sys/module/nvidia"},
        code="not_loaded",
    ),
    Fault(
        "nouveau instead of the driver",
        "U02",
        "Agent Can't Detect GPUs",
        {"worker": "mv /sys/module/nvidia /sys/module/nouveau"},
        {"worker": "mv /sys/module/nouveau /sys/module/nvidia"},
        code="nouveau",
    ),
    Fault(
        "driver updated, not rebooted",
        "U02",
        "Agent Can't Detect GPUs",
        {"worker": "echo 570.1.1 > /etc/beta9-modinfo-double"},
        {"worker": "echo 550.1.1 > /etc/beta9-modinfo-double"},
        code="mismatch",
    ),
    worker_edit("nvidia-smi hangs", "U03", "Agent Can't Detect GPUs", GPU, "s/smi=.*/smi=hang/", code="hang"),
    worker_edit("nvidia-smi fails", "U03", "Agent Can't Detect GPUs", GPU, "s/smi=.*/smi=fail/"),
    worker_edit("GPU fell off the bus", "U03", "Agent Can't Detect GPUs", GPU, "s/smi=.*/smi=1/", code="count"),
    worker_edit("fabric manager is not running", "U04", "Agent Can't Detect GPUs", GPU, "s/cuda=.*/cuda=802/", code="fabric"),
    worker_edit("NVML does not answer", "U05", "Agent Can't Detect GPUs", GPU, "s/nvml=.*/nvml=9/", AGENT_NOW),
    Fault(
        "gateway has another GPU count",
        "U06",
        "Agent Can't Detect GPUs",
        {"gateway": "redis-cli hset {key} gpu_count 0"},
        {"gateway": "redis-cli hset {key} gpu_count 2"},
        heals=True,
    ),
    Fault(
        "Xid errors",
        "U08",
        "Agent Can't Detect GPUs",
        {"worker": "echo 'NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.' > /etc/beta9-kernel-log-double"},
        {"worker": ": > /etc/beta9-kernel-log-double"},
    ),
    gpu_fault("GPU lost, as NVML says", "U09", "error.1=15", code="lost"),
    gpu_fault("GPU that has to be reset", "U09", "error.1=16", code="reset"),
    gpu_fault("driver asks for a recovery", "U09", "recovery.1=1", code="recovery"),
    gpu_fault("ECC switched off", "U10", "ecc.1=0", code="disabled"),
    gpu_fault("ECC changes with the next reboot", "U10", "ecc.1=0 ecc_pending.1=1", code="pending"),
    gpu_fault("uncorrectable memory errors", "U11", "uncorrected.1=2"),
    Fault(
        "uncorrectable memory errors, and their Xid",
        "U11",
        GPU_GUIDE,
        {
            "worker": "cp %s /root/kept-gpu; echo uncorrected.1=2 >> %s; " % (GPU, GPU)
            + "echo 'NVRM: Xid (PCI:0000:02:00): 48, pid=77' > /etc/beta9-kernel-log-double"
        },
        {"worker": "cp /root/kept-gpu %s; : > /etc/beta9-kernel-log-double" % GPU},
    ),
    gpu_fault("memory can't be remapped", "U12", "remap_failed.1=1", code="failed"),
    gpu_fault("memory is to be remapped", "U12", "remap_pending.1=1 uncorrected.1=1", code="pending"),
    gpu_fault("SRAM beyond repair", "U11", "sram_exceeded.1=1 uncorrected.1=9", code="sram"),
    gpu_fault("memory channel is to be repaired", "U12", "channel_repair.1=1", code="repair"),
    gpu_fault("page is to be retired", "U12", "pages_pending.1=1", code="pages"),
    gpu_fault("GPU too hot", "U13", "reasons.1=72 temperature.1=93", code="thermal"),
    gpu_fault("power brake", "U13", "reasons.1=136", code="power_brake"),
    gpu_fault("power limit lowered", "U14", "power_limit.1=250000"),
    gpu_fault("clock lowered", "U15", "clock.1=900"),
    gpu_fault("PCIe link at a quarter of its width", "U16", "pcie_width.1=4 utilization.1=90"),
    gpu_fault("NVLink down", "U17", "links_down.1=2", code="down"),
    gpu_fault("NVLink recovered after errors", "U17", "link_recoveries.1=3", code="errors"),
    worker_edit("persistence mode off", "U18", GPU_GUIDE, GPU, "s/persistence=.*/persistence=Disabled/"),
    gpu_fault("MIG without instances", "U19", "mig.1=1", code="empty"),
    gpu_fault("MIG changes with the next reset", "U19", "mig_pending.1=1", code="pending"),
    gpu_fault("firmware of another version", "U20", "firmware_differs.1=1"),
    gpu_fault("GPU outside its fabric", "U21", "fabric=1 cuda=802", code="not_started"),
    gpu_fault("GPU failed to join its fabric", "U21", "fabric=3 fabric_status.1=999", code="failed"),
    gpu_fault("no access between GPUs", "U22", "p2p=3"),
    gpu_fault("access between GPUs switched off", "U22", "p2p=4", code="disabled"),
    Fault(
        "a process beside the pods computes",
        "U23",
        GPU_GUIDE,
        {
            "worker": "cp %s /root/kept-gpu; systemd-run -q --unit miner sleep 3600; "
            "sed -i s/busy=.*/busy=1/ %s; echo busy_pid=$(systemctl show -P MainPID miner) >> %s" % (GPU, GPU, GPU)
        },
        {"worker": "systemctl stop miner; cp /root/kept-gpu %s; " % GPU + AGENT_NOW},
    ),
    Fault(
        "GPU given to a virtual machine",
        "U24",
        GPU_GUIDE,
        {"worker": "mkdir -p /opt/pci-double/drivers/vfio-pci; ln -s /opt/pci-double/drivers/vfio-pci /sys/bus/pci/devices/0000:02:00.0/driver"},
        {"worker": "rm /sys/bus/pci/devices/0000:02:00.0/driver"},
    ),
    Fault("GPU that failed its acceptance is offered", "U25", GPU_GUIDE, accepted("550.1.1", "failed"), NOT_ACCEPTED, code="failed"),
    Fault("driver changed after the acceptance", "U25", GPU_GUIDE, accepted("545.1.1", "passed"), NOT_ACCEPTED, code="outdated"),
    # k3s
    Fault(
        "k3s is not installed",
        "K01",
        "Gateway Can't Reach Worker k3s",
        {"worker": "mv /usr/local/bin/k3s /root/k3s"},
        {"worker": "mv /root/k3s /usr/local/bin/k3s"},
    ),
    Fault("k3s stopped", "K02", "Gateway Can't Reach Worker k3s", {"worker": "systemctl stop k3s"}, {"worker": "systemctl start k3s; sleep 1"}, heals=True),
    Fault("k3s is not ready", "K03", "Gateway Can't Reach Worker k3s", {"worker": state(K3S, "s['readyz'] = ['etcd']")}, {"worker": BACK.format(K3S)}),
    Fault("node is not ready", "K04", "Gateway Can't Reach Worker k3s", {"worker": state(K3S, "s['node_ready'] = False")}, {"worker": BACK.format(K3S)}),
    Fault(
        "host was renamed, and k3s has both nodes",
        "K04",
        "Gateway Can't Reach Worker k3s",
        {"worker": "hostname renamed; " + state(K3S, "s['stale_nodes'] = ['{worker}']")},
        {"worker": "hostname {worker}; " + BACK.format(K3S)},
        code="stale",
    ),
    Fault(
        "service account may not create Jobs",
        "K05",
        "Gateway Can't Reach Worker k3s",
        {"worker": state(K3S, "s['allowed'].remove('create jobs')")},
        {"worker": BACK.format(K3S)},
    ),
    Fault(
        "service account's token is refused",
        "K05",
        "Gateway Can't Reach Worker k3s",
        {"worker": state(K3S, "s['token'] = 'another-canary-0123456789'")},
        {"worker": BACK.format(K3S)},
        code="invalid",
    ),
    Fault(
        "kernel lacks a feature",
        "K06",
        "Gateway Can't Reach Worker k3s",
        {"worker": state(K3S, "s['kernel_missing'] = ['CONFIG_VXLAN']")},
        {"worker": BACK.format(K3S)},
    ),
    Fault("no allocatable GPU", "U07", "Agent Can't Detect GPUs", {"worker": state(K3S, "s['allocatable'] = 0")}, {"worker": BACK.format(K3S)}),
    worker_edit(
        "another worker's k3s at the address",
        "V02",
        "Gateway Can't Reach Worker k3s",
        AGENT_ENV,
        "s/^BETA9_HOSTNAME=.*/BETA9_HOSTNAME={other_address}/",
        AGENT_NOW,
        code="other",
    ),
    worker_edit(
        "registered name does not resolve",
        "V05",
        "Gateway Can't Reach Worker k3s",
        AGENT_ENV,
        "s/^BETA9_HOSTNAME=.*/BETA9_HOSTNAME=no-such-worker.invalid/",
        AGENT_NOW,
    ),
    Fault(
        "gateway appends its tailnet to a worker that has none",
        "V05",
        "Gateway Can't Reach Worker k3s",
        {"gateway": "redis-cli hset {key} hostname {address}.tailnet.invalid"},
        {"gateway": "redis-cli hset {key} hostname {address}"},
        code="not_direct",
    ),
    Fault(
        "another host registered under the machine's id",
        "M07",
        "Registration Issues",
        {"gateway": "redis-cli hset {key} hostname {other_address}"},
        {"gateway": "redis-cli hset {key} hostname {address}"},
        code="hostname",
        heals=True,
    ),
    Fault(
        "another host sends keepalives under the machine's id",
        "M07",
        "Registration Issues",
        {"gateway": "redis-cli hset {key} last_keepalive $(($(date +%s) + 20))"},
        {"worker": AGENT_NOW},
        code="keepalive",
    ),
    Fault(
        "agent's programs that all may write",
        "P08",
        "Agent Crashes on Startup",
        {"worker": "chmod o+w " + VENV + "/bin"},
        {"worker": "chmod o-w " + VENV + "/bin"},
        code="programs",
        heals=True,
    ),
    Fault(
        "a unit that another account owns",
        "P08",
        "Agent Crashes on Startup",
        {"worker": "chown nobody /etc/systemd/system/beta9-agent.service"},
        {"worker": "chown root /etc/systemd/system/beta9-agent.service"},
        code="units",
        heals=True,
    ),
    Fault(
        "workers' keys that all may write",
        "T07",
        "Tunnel Connection Refused",
        {"gateway": "chmod 666 /etc/ssh/beta9-tunnel/authorized_keys"},
        {"gateway": "chmod 644 /etc/ssh/beta9-tunnel/authorized_keys"},
        code="mode",
        heals=True,
    ),
    Fault(
        "a key without limits among the workers'",
        "T07",
        "Tunnel Connection Refused",
        {"gateway": "echo ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4 me >> /etc/ssh/beta9-tunnel/authorized_keys"},
        {"gateway": "sed -i '/ me$/d' /etc/ssh/beta9-tunnel/authorized_keys"},
        code="line",
    ),
    Fault(
        "logged out of the tailnet",
        "V03",
        "Gateway Can't Reach Worker k3s",
        {"worker": "echo NeedsLogin > /etc/beta9-tailscale-double"},
        {"worker": "echo Running > /etc/beta9-tailscale-double"},
        {"health_check_connection": "tailscale", "beta9_connection": "tailscale", "health_check_gateway_url": "http://{gateway_address}:31994"},
        code="login",
    ),
    Fault(
        "no path in the tailnet",
        "V04",
        "Gateway Can't Reach Worker k3s",
        {"gateway": "echo none > /etc/beta9-tailscale-double"},
        {"gateway": "echo Running > /etc/beta9-tailscale-double"},
        {"health_check_connection": "tailscale", "beta9_connection": "tailscale", "health_check_gateway_url": "http://{gateway_address}:31994"},
    ),
    # gateway's cluster
    Fault("kubectl may not read logs", "G01", "Gateway Issues", {"gateway": state(KUBE, "s['denied'] = ['get pods/log']")}, {"gateway": BACK.format(KUBE)}),
    Fault(
        "gateway pod not ready",
        "G02",
        "Gateway Unreachable from Tunnel",
        {
            "gateway": state(
                KUBE, "s['pods']['app=gateway'][0]['status']['containerStatuses'] = [{'ready': False, 'state': {'waiting': {'reason': 'CrashLoopBackOff'}}}]"
            )
            + "; systemctl stop beta9-gateway-double"
        },
        {"gateway": BACK.format(KUBE) + "; systemctl start beta9-gateway-double; sleep 0.5", "worker": AGENT_NOW},
    ),
    Fault(
        "service has no endpoint",
        "G03",
        "Gateway Unreachable from Tunnel",
        {"gateway": state(KUBE, "s['endpointslices'] = {}") + "; systemctl stop beta9-gateway-double"},
        {"gateway": BACK.format(KUBE) + "; systemctl start beta9-gateway-double; sleep 0.5", "worker": AGENT_NOW},
    ),
    Fault(
        "gateway does not answer inside its cluster",
        "G05",
        "Gateway Unreachable from Tunnel",
        {"gateway": state(KUBE, "s['health'] = {'status': 'not ok'}")},
        {"gateway": BACK.format(KUBE)},
    ),
    Fault(
        "pool is not in the configuration",
        "G06",
        'Error: "Invalid pool name" (500)',
        {"gateway": state(KUBE, "s['configmaps']['gateway-config']['data']['config.yaml'] = 'worker:\\n  pools:\\n    cpu:\\n      mode: external\\n'")},
        {"gateway": BACK.format(KUBE)},
        code="absent",
    ),
    Fault(
        "pool is not external",
        "G06",
        'Pool Shows "Degraded"',
        {"gateway": state(KUBE, "s['configmaps']['gateway-config']['data']['config.yaml'] = 'worker:\\n  pools:\\n    gpu:\\n      mode: local\\n'")},
        {"gateway": BACK.format(KUBE)},
        code="mode",
    ),
    Fault(
        "canary's image can't be pulled",
        "G10",
        "Gateway Can't Reach Worker k3s",
        {"worker": state(K3S, "s['pods'] = 'image'")},
        {"worker": BACK.format(K3S)},
        {"health_check_active": True},
        code="image",
    ),
    Fault(
        "canary's container does not start",
        "G10",
        "Gateway Can't Reach Worker k3s",
        {"worker": state(K3S, "s['pods'] = 'ended'")},
        {"worker": BACK.format(K3S)},
        {"health_check_active": True},
        code="ended",
    ),
    Fault(
        "canary finds no node",
        "G10",
        "Gateway Can't Reach Worker k3s",
        {"worker": state(K3S, "s['pods'] = 'unschedulable'")},
        {"worker": BACK.format(K3S)},
        {"health_check_active": True},
        code="unschedulable",
    ),
    Fault(
        "pool is degraded by pending workers",
        "G07",
        'Pool Shows "Degraded"',
        {"gateway": "redis-cli hset workerpool:gpu:state status DEGRADED pending_workers 9"},
        {"gateway": "redis-cli hset workerpool:gpu:state status HEALTHY pending_workers 0"},
        code="pending_workers",
    ),
    Fault(
        "gateway logs k8s API errors",
        "G08",
        "Gateway Can't Reach Worker k3s",
        {"gateway": state(KUBE, "s['log'] = 'ERR failed to create job error=\\\"dial tcp 127.77.1.1:6443: connect: connection refused\\\" pool_name=gpu'")},
        {"gateway": BACK.format(KUBE)},
        code="k3s",
    ),
    Fault(
        "provider not implemented with a ready machine",
        "G08",
        '"provider not implemented" Error',
        {"gateway": state(KUBE, "s['log'] = 'ERR failed to add worker error=\\\"provider not implemented\\\" pool_name=gpu'")},
        {"gateway": BACK.format(KUBE)},
        code="provider",
    ),
    Fault(
        "Redis stopped",
        "G09",
        "Gateway Unreachable from Tunnel",
        {"gateway": "systemctl stop redis-server"},
        {"gateway": "systemctl start redis-server; sleep 1", "worker": AGENT_NOW},
    ),
]

# Two faults that have nothing to do with each other: exactly these two roots
PAIRS = [
    ("tunnel without keepalive options", "node is not ready"),
    ("agent's package is gone", "fabric manager is not running"),
    ("agent stopped", "pool is not in the configuration"),
    ("tunnel stopped", "GPU missing on the bus"),
    ("token missing on the host", "kernel lacks a feature"),
]
