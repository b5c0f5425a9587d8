# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a machine on its host: the record, the tokens and the agent's settings. Read-only."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol

MACHINE_FACT_PATH = "/etc/ansible/facts.d/beta9.fact"
CREDENTIALS_DIR = "/etc/beta9/credentials"
AGENT_UNIT = "beta9-agent.service"
AGENT_DIRECTORY = "/opt/beta9-agent"
AGENT_STATE = "/run/beta9-agent/state.json"  # what it writes
TOKEN_OWNER = "machine_token.owner"  # beside it: which machine the token was given to
AGENT_SETTINGS_PATH = "/etc/beta9/agent.env"
SWITCH = (
    "If this host is a copy, onboard it once with beta9_identity=new: it gets a machine and a key of its own, and the "
    "other host's stay as they "
    "are. If it is the host that they were made for, onboard it once with beta9_identity=this."
)


def machine_fact(path: str = MACHINE_FACT_PATH) -> dict[str, Any]:
    """Return the host's machine record (machine_id, pool, provider), or {} when there is none or it is damaged."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def token_marks(directory: str, identity: dict[str, Any]) -> dict[str, str]:
    """Return {machine id: protocol.token_mark} of the tokens on this host: the machine's, and that of the one that it
    replaces."""
    marks = {}
    for machine, name in ((identity, "machine_token"), (identity.get("replaces") or {}, "machine_token.before")):
        try:
            with open(os.path.join(directory, name), encoding="ascii") as stream:
                marks[str(machine["machine_id"])] = protocol.token_mark(stream.read(4096))
        except (OSError, KeyError, TypeError, ValueError):  # no such token, or none that a gateway could have made
            continue
    return marks


def token_owner(directory: str) -> tuple[str, str] | None:
    """Return (machine id, protocol.token_mark) of the token that was put into a directory, or None where nothing says
    so."""
    try:
        with open(os.path.join(directory, TOKEN_OWNER), encoding="ascii") as stream:
            machine_id, mark = stream.read(512).split()
    except (OSError, ValueError):
        return None
    return machine_id, mark


def has_token(directory: str, identity: dict[str, Any]) -> bool:
    """Return whether there is a token that can be the machine's: not empty, truncated, or another machine's."""
    try:
        with open(os.path.join(directory, "machine_token"), encoding="ascii") as stream:
            text = protocol.token(stream.read(4096))
    except (OSError, ValueError):  # an InvalidField is one
        return False
    owner = token_owner(directory)
    return owner is None or owner == (identity.get("machine_id"), protocol.token_mark(text, owner[1].partition(":")[0]))


def token_file_mark(path: str) -> str:
    """Return protocol.token_mark of the token in a file, "" where there is none."""
    try:
        with open(path, encoding="ascii") as stream:
            return protocol.token_mark(stream.read(65536))
    except (OSError, ValueError):
        return ""


def agent_settings(path: str = AGENT_SETTINGS_PATH) -> dict[str, str]:
    """Return the settings (no secrets) that the agent was last given, {} when there are none."""
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def gpu_ids() -> str:
    """Return the GPUs that the agent was told to offer, as beta9_gpu_ids has them; an empty text for all."""
    return agent_settings().get("BETA9_GPU_IDS", "").replace(" ", "")


def offered_gpus(count: int) -> int:
    """Return how many of so many GPUs are offered."""
    ids = gpu_ids()
    if not ids:
        return count
    return 0 if ids == "none" else min(count, len(set(ids.split(","))))
