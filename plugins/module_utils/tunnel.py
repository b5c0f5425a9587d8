# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tunnel's journal means. Pure: text in, explanation out. The messages are OpenSSH's."""

from __future__ import annotations

SIGNATURES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the gateway host shows another host key than the pinned one",
        "Compare fingerprints at the gateway host. If the key was changed on purpose, run onboard_worker.yml again: it pins the current keys.",
    ),
    (
        "Host key verification failed",
        "the gateway host's key is not the pinned one",
        "Compare fingerprints at the gateway host. If the key was changed on purpose, run onboard_worker.yml again: it pins the current keys.",
    ),
    (
        "Permission denied (publickey",
        "the gateway host does not accept the tunnel's key",
        "Run onboard_worker.yml again: it lets the key in. If that does not help, run prepare_gateway.yml.",
    ),
    (
        "remote port forwarding failed",
        "the worker's listen address on the gateway host is taken, or not permitted to this key",
        "On the gateway host, see who listens: ss -ltnp 'sport = :6443'. A dead tunnel's sshd frees it within 45 s.",
    ),
    (
        "Address already in use",
        "another program holds the tunnel's local port",
        "Stop that program (ss -ltnp shows it), or choose another port in autossh_forwards.",
    ),
    (
        "administratively prohibited",
        "the gateway host refuses the port that the tunnel shall lead to",
        "Correct autossh_forwards: its targets must be the gateway's ports as seen from the gateway host.",
    ),
    (
        "open failed: connect failed: Connection refused",
        "nothing listens at the tunnel's target on the gateway host",
        "Check that the gateway runs, and that the target in autossh_forwards is its NodePort (guide: 31994).",
    ),
    (
        "Could not resolve hostname",
        "the gateway host's name can't be resolved on the worker",
        "Mend the worker's DNS, or set autossh_gateway_address to an address.",
    ),
    ("Connection refused", "the gateway host's SSH port is closed", "Check autossh_gateway_address and autossh_gateway_port, and that sshd runs there."),
    ("Connection timed out", "the gateway host's SSH port does not answer", "Check autossh_gateway_address, and the firewalls on the way to its SSH port."),
    ("No route to host", "there is no route to the gateway host", "Check autossh_gateway_address and the worker's network."),
)


def explain(journal):
    """Return (cause, remedy, line) for the latest known message of a journal, or None."""
    for line in reversed(journal.splitlines()):
        for text, cause, remedy in SIGNATURES:
            if text in line:
                return cause, remedy, line.strip()
    return None
