"""Trouble that is over before a fault begins: its log lines and restarts must not be taken for what is wrong now.

Less of each than what a check warns of by itself (more than three drops, restarts or registrations).
"""

from __future__ import annotations

from tests.faults.catalog import BACK, KEEP, RESTART_TUNNEL, TUNNEL_UP

KNOWN_HOSTS = "/etc/beta9/tunnel/known_hosts"
READY = 'for n in $(seq 150); do grep -qs \'"status": "ready"\' /run/beta9-agent/state.json && break; sleep 0.1; done'

BEFORE = {
    # the gateway host showed another key, and that was repaired; then the agent was killed once
    "worker": KEEP.format(KNOWN_HOSTS)
    + "; ssh-keygen -q -t ed25519 -N '' -f /root/fake; "
    + "printf '%s %s\\n' {gateway_address} \"$(cut -d' ' -f1,2 /root/fake.pub)\" > "
    + KNOWN_HOSTS
    + "; rm /root/fake*; "
    + RESTART_TUNNEL
    + "; sleep 1; "
    + BACK.format(KNOWN_HOSTS)
    + "; "
    + TUNNEL_UP
    + "; systemctl kill -s KILL beta9-agent; sleep 3; "
    + READY,
    # the gateway was away for a moment
    "gateway": "systemctl restart beta9-gateway-double; sleep 1",
}

# What is no fault where the gateway host is a neighbour: a proxy at which nothing listens, a second address, and no default route
PROXIES = " ".join("%s=http://127.0.0.1:9" % name for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"))
ODD = (
    "ip -4 route show default > /root/default; ip -4 route del default; ip addr add 192.0.2.77/24 dev eth0; "
    "cp -a /etc/environment /root/environment 2>/dev/null; for line in %s; do echo $line >> /etc/environment; done" % PROXIES
)
NOT_ODD = (
    "ip addr del 192.0.2.77/24 dev eth0; ip -4 route replace $(cat /root/default); "
    "cp -a /root/environment /etc/environment 2>/dev/null || rm -f /etc/environment"
)
