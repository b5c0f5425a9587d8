"""What happens to a machine in a year, each for real: how it is made, how long it lasts, and how it ends.

Each entry acts on a tests.chaos.bed.Bed. Where nothing ends the fault (a killed process), the machine has to come back from it by itself.
"""

from __future__ import annotations

import shutil
import time
from typing import Callable, NamedTuple, Optional

from tests.chaos.bed import ROOT

STATE_DIRECTORY = "/var/lib/private/beta9-agent"
CLOCK = "/etc/systemd/system/beta9-agent.service.d/chaos-clock.conf"
GPU = "/etc/beta9-gpu-double"


class Chaos(NamedTuple):
    """One fault. hold: seconds between make and end. within: seconds that recovery may take beside one interval.

    by_gap: what counts is the longest time without an accepted keepalive, because the fault begins somewhere within make.
    """

    name: str
    make: Callable
    end: Optional[Callable] = None
    hold: float = 0.0
    arm: Optional[Callable] = None
    clean: Optional[Callable] = None
    all_hosts: bool = False
    within: float = 10.0
    same_machine: bool = True
    by_gap: bool = False
    sample: bool = False


# -- the gateway and the connection to it --


def service(verb, name="beta9-gateway-double"):
    return lambda bed: bed.sh(bed.gateway, "systemctl %s %s" % (verb, name))


def gateway_says(name, *faults, hold=25.0, **options):
    """Return a fault that is a gateway which answers wrongly."""
    return Chaos("gateway " + name, lambda bed: bed.fault(*faults), lambda bed: bed.fault(), hold, all_hosts=True, **options)


def answer(status, body):
    return {"route": "*", "mode": "answer", "status": status, "body": body}


def flush_redis(bed):
    """Empty Redis, except for the tokens: a real gateway has those in Postgres."""
    bed.sh(bed.gateway, "redis-cli --scan | grep -v '^double:token:' | xargs redis-cli del")


def gateway_address(bed):
    return bed.sh(bed.gateway, "hostname -I").split()[0]


def cut(bed):
    bed.net(bed.worker, "ip route add blackhole %s/32" % gateway_address(bed))


def restore(bed):
    bed.net(bed.worker, "ip route del blackhole %s/32" % gateway_address(bed))


def dark(bed):
    """Nothing comes in at the gateway and nothing gets out, except for what this machine does."""
    for host in bed.workers:
        address = bed.sh(host, "hostname -I").split()[0]
        bed.net(bed.gateway, "iptables -A INPUT -s %s -j DROP" % address)
        bed.net(bed.gateway, "iptables -A OUTPUT -d %s -j DROP" % address)


def light(bed):
    bed.net(bed.gateway, "iptables -F")


def lose(bed):
    """Lose 30 % of the packets in each direction. The kernel here has no netem."""
    for chain in ("INPUT ! -i lo", "OUTPUT ! -o lo"):
        bed.net(bed.worker, "iptables -A %s -m statistic --mode random --probability 0.3 -j DROP" % chain)


def keep(bed):
    bed.net(bed.worker, "iptables -F")


# -- the agent and its host --


def on_worker(script):
    return lambda bed: bed.sh(bed.worker, script)


def own_clock(bed):
    """Run the agent with a wall clock of its own (libfaketime): containers share the machine's."""
    library = bed.sh(bed.worker, "ls /usr/lib/*/faketime/libfaketimeMT.so.1")
    settings = "LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=/etc/beta9-faketime FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1" % library
    bed.sh(
        bed.worker,
        "mkdir -p $(dirname %s); printf '[Service]\\nEnvironment=%s\\n' > %s; echo +0 > /etc/beta9-faketime; "
        "systemctl daemon-reload; timeout 30 systemctl restart beta9-agent" % (CLOCK, settings, CLOCK),
    )


def common_clock(bed):
    bed.sh(bed.worker, "rm -f %s; systemctl daemon-reload; timeout 30 systemctl restart beta9-agent; echo +0 > /etc/beta9-faketime" % CLOCK)


def clock(offset):
    return Chaos(
        "clock jumps by " + offset.replace("d", " day"),
        on_worker("echo %s > /etc/beta9-faketime" % offset),
        arm=own_clock,
        clean=common_clock,
    )


FILL = "mount -o remount,size=$(df --output=used -k /run | tail -1 | tr -d ' ')k /run"
DISK_FULL = (
    "mount -t tmpfs -o size=64k full %s; dd if=/dev/zero of=%s/fill bs=4k 2>/dev/null; " % (STATE_DIRECTORY, STATE_DIRECTORY)
    + FILL
    + "; dd if=/dev/zero of=/run/fill bs=1k 2>/dev/null; "
    + 'for place in /run %s; do ! sh -c "echo x > $place/one" 2>/dev/null || exit 1; done; ' % STATE_DIRECTORY
)
DISK_FREE = "mount -o remount,size=1g /run; rm -f /run/fill /run/one; umount -l %s" % STATE_DIRECTORY


def gpu(nvml):
    return on_worker("sed -i s/nvml=.*/nvml=%d/ %s" % (nvml, GPU))


def reboot(bed):
    bed.podman("restart", "--time", "5", bed.worker)


# -- what an operator does --


def refuse_token(bed):
    identity = bed.identity(bed.worker)
    bed.sh(
        bed.gateway,
        """for key in $(redis-cli --scan --pattern 'double:token:*'); do
            [ "$(redis-cli hget $key machine_id)" = %s ] && redis-cli hset $key active 0; done
        redis-cli --scan --pattern 'workspace:authorization:token:*' | xargs -r redis-cli del"""
        % identity,
    )
    bed.sh(bed.gateway, "redis-cli del provider:machine:generic:gpu:" + identity)


def rotate(bed):
    status, output = bed.play("rotate_token.yml", bed.worker)
    if status:
        raise RuntimeError(output[-2000:])


BROKEN = {
    "ends at once": 'raise RuntimeError("broken on purpose")',
    "ends at once as if all was well": "raise SystemExit(0)",
    "never sends a keepalive": "__import__('time').sleep(3600)",
}


def broken_source(bed, kind):
    """Return a copy of the agent's source that passes its self-check and does not work as a service."""
    target = bed.work / "source" / kind.replace(" ", "-")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "agent_src", target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    main = target / "beta9_agent" / "__main__.py"
    marker = "from __future__ import annotations\n"
    text = main.read_text()
    assert marker in text
    main.write_text(text.replace(marker, marker + "\nif __import__('os').environ.get('NOTIFY_SOCKET'):\n    %s\n" % BROKEN[kind], 1))
    init = target / "beta9_agent" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "99.'))
    return target


def upgrade_to(kind):
    """Return a fault: an upgrade to a version that does not work must fail, and leave the version before running."""

    def make(bed):
        before = bed.sh(bed.worker, "readlink /opt/beta9-agent/current")
        status, output = bed.play("upgrade_agent.yml", bed.worker, agent_source=str(broken_source(bed, kind)), agent_wait_seconds=20)
        after = bed.sh(bed.worker, "readlink /opt/beta9-agent/current")
        if status == 0 or before != after or "runs again, and is ready" not in output:
            raise RuntimeError("before %s, after %s: %s" % (before, after, output[-2000:]))

    return Chaos("agent upgraded to a version that " + kind, make, within=60, by_gap=True)


# -- a gateway with bad intentions --

WRONG_TYPES = (
    '{"status": [], "machine_state": {"machine_id": 7, "status": {"a": [1]}, "ttl_seconds": "soon", "last_keepalive": [], "pool_name": null}}',
    '{"machine_state": {"status": "ready", "ttl_seconds": -1e308}}',
    '{"machine_state": {"status": "ready", "ttl_seconds": true, "agent_version": {}}}',
    "[[[]]]",
    '"text"',
    "17",
    "null",
)


def wrong_types(bed):
    """Answer with each of them for a little more than an interval."""
    for body in WRONG_TYPES:
        bed.fault(answer(200, body))
        time.sleep(bed.interval + 1)


def trap(bed):
    """Listen on the gateway host for whoever follows a redirect, and write down what it brings."""
    program = (
        "import http.server as h\n"
        "class T(h.BaseHTTPRequestHandler):\n"
        "    def any(self):\n"
        "        open('/root/trap.log', 'a').write('%s %s\\n' % (self.path, self.headers))\n"
        "        self.send_error(404)\n"
        "    do_GET = do_POST = any\n"
        "    def log_message(self, *a): pass\n"
        "h.HTTPServer(('0.0.0.0', 8099), T).serve_forever()\n"
    )
    bed.sh(bed.gateway, ": > /root/trap.log; cat > /opt/trap.py <<'END'\n%sEND\nsystemd-run -q --unit trap python3 /opt/trap.py" % program)
    bed.fault({"route": "*", "mode": "redirect", "location": "http://%s:8099/elsewhere" % gateway_address(bed)})


def trap_empty(bed):
    bed.fault()
    caught = bed.sh(bed.gateway, "cat /root/trap.log; systemctl stop trap; rm -f /opt/trap.py")
    if caught:
        raise RuntimeError("a redirect was followed: " + caught[:60])


ALL = [
    Chaos("gateway restarted", service("restart"), all_hosts=True),
    Chaos("gateway away for 20 s", service("stop"), service("start"), 20, all_hosts=True),
    Chaos("network to the gateway dark, longer than the TTL", dark, light, 60, all_hosts=True, within=30),
    Chaos("Redis flushed", flush_redis, all_hosts=True),
    Chaos("Redis stopped for 20 s", service("stop", "redis-server"), service("start", "redis-server"), 20, all_hosts=True),
    Chaos("tunnel's ssh killed -9", on_worker("pkill -9 -u beta9-tunnel -x ssh"), sample=True),
    Chaos("tunnel's autossh killed -9", on_worker("systemctl kill -s KILL --kill-whom=main beta9-tunnel")),
    Chaos("route dropped for 60 s", cut, restore, 60, within=30),
    Chaos("30 % of packets lost for 60 s", lose, keep, 60, within=30),
    gateway_says("answers 500", answer(500, '{"message": "Internal Server Error"}')),
    gateway_says("answers 502 with a page", answer(502, "<html>Bad Gateway</html>")),
    gateway_says("answers garbage", {"route": "*", "mode": "garbage"}),
    gateway_says("answers nothing", {"route": "*", "mode": "empty"}),
    gateway_says("answers after 15 s", {"route": "*", "mode": "slow", "seconds": 15}, hold=40),
    gateway_says("answers with 100 MB", {"route": "*", "mode": "huge", "bytes": 100 * 2**20}, within=20),
    gateway_says("sends headers without end, slowly", {"route": "*", "mode": "drip", "seconds": 600}, within=20),
    gateway_says("sends headers without end, fast", {"route": "*", "mode": "flood", "bytes": 100 * 2**20}, within=20),
    gateway_says("sends its body a byte at a time", {"route": "*", "mode": "trickle", "seconds": 600}, within=20),
    Chaos("gateway answers with wrong types", wrong_types, lambda bed: bed.fault(), all_hosts=True),
    Chaos("gateway redirects elsewhere", trap, trap_empty, 25, all_hosts=True),
    clock("+1d"),
    clock("-1d"),
    Chaos("disk full", on_worker(DISK_FULL), on_worker(DISK_FREE), 20),
    Chaos("agent started on a full disk", on_worker(DISK_FULL + "systemctl restart --no-block beta9-agent"), on_worker(DISK_FREE), 20),
    Chaos("NVML hangs for 40 s", gpu(999), gpu(0), 40),
    Chaos("agent killed -9", on_worker("systemctl kill -s KILL beta9-agent")),
    Chaos("agent's process stopped (SIGTERM)", on_worker("kill -TERM $(systemctl show beta9-agent -p MainPID --value)")),
    Chaos("agent frozen (SIGSTOP)", on_worker("systemctl kill -s STOP beta9-agent"), within=170),
    Chaos("host rebooted", reboot, within=40),
    Chaos("token revoked, then rotated", refuse_token, rotate, 15, same_machine=False, within=60),
    *[upgrade_to(kind) for kind in BROKEN],
]
