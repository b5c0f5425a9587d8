# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a host holds (machine, token, tunnel key) was made for this host, or came with an image of another one.

Onboarding writes host_id() into the agent's settings, beside the machine's id. A copy of the host has another
machine-id, and a copy that was made with its machine-id is known by keepalives that the gateway has and this host's
agent did not send.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, Callable, Iterator

from ansible_collections.beta9.workers.plugins.module_utils.agent import records, statefile
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, preflight

SETTING = "BETA9_HOST_ID"


def host_id(path: str = "/etc/machine-id") -> str:
    """Return what tells this host from others: a hash of its machine-id, which itself is not for others to see. Empty
    where it has none."""
    try:
        with open(path, encoding="ascii") as stream:
            text = stream.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return hashlib.sha256(f"beta9.workers {text}".encode()).hexdigest() if len(text) == 32 else ""


def copied(settings: dict, own: str) -> bool:
    """Whether the agent's settings were written on another host. Those of an older release do not say."""
    return bool(own) and settings.get(SETTING, own) != own


def problems(settings: dict, own: str) -> Iterator[dict[str, Any]]:
    """Yield the problem of a host that holds another one's credentials."""
    if copied(settings, own):
        yield preflight.problem(
            "identity",
            "credentials that were made for this host",
            f"those of another one (machine {settings.get('BETA9_MACHINE_ID') or 'unknown'}): this host was cloned",
            records.SWITCH,
        )


def quiet_seconds(run: Callable) -> float:
    """Return for how long the gateway can't have accepted a keepalive of this host's agent, 0 where systemd does not
    know.

    run: as AnsibleModule.run_command, but raises OSError for a program that is not there: other checks tell of a host
    without systemd. A unit that is masked or not loaded has lost the time at which it was stopped.
    """
    try:
        status, out, _err = run(
            ["systemctl", "show", records.AGENT_UNIT, "--property=LoadState,InactiveEnterTimestampMonotonic"]
        )
    except OSError:
        return 0.0
    shown = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    if status != 0 or shown.get("LoadState") != "loaded":
        return 0.0
    stamp = shown.get("InactiveEnterTimestampMonotonic", "")
    stopped = int(stamp) / 1e6 if stamp.isdigit() else 0.0
    now = time.time()
    if stopped:
        stopped += now - time.clock_gettime(time.CLOCK_MONOTONIC)
    accepted = statefile.of(records.AGENT_STATE).get("last_keepalive_epoch", 0)
    return max(0.0, now - max(accepted, stopped, linux.boot_epoch()))
