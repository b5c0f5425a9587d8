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
