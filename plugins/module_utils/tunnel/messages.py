# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ssh says, as codes. The only place that knows OpenSSH's messages; what a code means, and what to do, is in the
catalogue of checks.

Pure: text in, codes out.
"""

from __future__ import annotations

from typing import NamedTuple

# (code, words of OpenSSH's message), tried in order: the first that fits a line is what it means
SIGNATURES = (
    ("host_key", "REMOTE HOST IDENTIFICATION HAS CHANGED"),
    ("host_key", "Host key verification failed"),
    ("host_key", "no matching host key type found"),
    ("algorithms", "Unable to negotiate with"),
    ("key_refused", "Permission denied (publickey"),
    ("key_refused", "Permission denied ("),
    ("listen_refused", "remote port forwarding failed"),
    ("port_taken", "Address already in use"),
    ("forward_refused", "administratively prohibited"),
    ("target_denied", "open failed: connect failed: open failed"),
    ("target_refused", "open failed: connect failed"),
    ("config", "Bad configuration option"),
    ("config", "Can't open user config file"),
    ("name", "Could not resolve hostname"),
    ("silent", "timed out during banner exchange"),
    ("not_ssh", "invalid format"),
    ("not_ssh", "invalid characters"),
    ("timeout", "Connection timed out"),
    ("unreachable", "No route to host"),
    ("unreachable", "Network is unreachable"),
    ("unreachable", "Cannot assign requested address"),
    ("refused", "Connection refused"),
    ("closed", "kex_exchange_identification"),
    ("closed", "Connection closed by"),
    ("closed", "Connection reset by"),
)
# The account is let in: what follows is about the target
ADMITTED = "Authenticated to "
# An established connection that ended
LOST = ("not responding", "closed by remote host", "client_loop: send disconnect", "Connection reset by", "Broken pipe")


class Said(NamedTuple):
    """What a line of ssh means: code is a key of the causes of T08 and T01."""

    code: str
    line: str


def meaning(line: str) -> str:
    """Return the code of one line, or an empty string."""
    return next((code for code, words in SIGNATURES if words in line), "")


def explain(text: str) -> Said | None:
    """Return what the latest line that says why of a journal, or of ssh's own output, means; None when none does."""
    for line in reversed(text.splitlines()):
        code = meaning(line)
        if code:
            return Said(code, line.strip())
    return None


def losses(text: str) -> list[str]:
    """Return the lines of a journal that tell of an established connection that was lost."""
    return [line for line in text.splitlines() if any(words in line for words in LOST) and "kex_exchange" not in line]


def login_problem(text: str, finished: bool) -> Said | None:
    """Return why a login of our own (ssh -v) did not lead to the tunnel's target, or None when it did.

    finished: whether ssh ended by itself. What it waits for when it does not is told by how far it came.
    """
    said = explain("\n".join(line for line in text.splitlines() if not line.startswith("debug")))
    far = ADMITTED in text
    accepted = far or "Server accepts key" in text
    if said and said.code == "closed" and "banner line 0" in text:
        return Said("not_ssh", next(line for line in text.splitlines() if "banner line 0" in line))
    if said and said.code == "closed" and accepted and not far:
        return Said("account_refused", said.line)
    if said and said.code == "closed" and "SSH2_MSG_KEXINIT sent" in text:
        return Said("key_refused" if "Offering public key" in text else "cut", said.line)
    if said:
        return said
    if finished or far:
        return None
    last = (text.strip().splitlines() or ["nothing was said"])[-1]
    if "Connection established" not in text:
        return Said("timeout" if "Connecting to" in text else "name", last)
    if "Remote protocol version" not in text:
        return Said("silent", "connected, and no SSH banner came")
    if "SSH2_MSG_NEWKEYS received" not in text:
        return Said("stalled", last)
    return Said("slow", last)
