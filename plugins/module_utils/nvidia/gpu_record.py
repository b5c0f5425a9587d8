# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the last acceptance of a host's GPUs found, as the host keeps it."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles

RECORD = "/var/lib/beta9/gpu_acceptance.json"
MODES = ("quick", "full")
PASSED, FAILED, IN_USE = "passed", "failed", "in_use"


def kept(path: str = "") -> Dict[str, Any]:
    """Return the record of the last acceptance of this host, {} where there is none."""
    try:
        with open(path or RECORD, encoding="utf-8") as stream:
            record = json.load(stream)
        complete = all(gpu["uuid"] and gpu["outcome"] for gpu in record["gpus"])
        return record if complete and record["mode"] in MODES else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def remembered(path: str, mode: str, driver: str, gpus: List[Dict[str, Any]], failed: bool) -> Dict[str, Any]:
    """Return the record of an acceptance that still holds: of the same GPUs and driver, at least as thorough. Else {}.

    failed: whether one in which GPUs failed holds. Where they keep a host from being onboarded, they may be repaired by
    now.
    """
    record = kept(path)
    if not record or record.get("driver") != driver or MODES.index(record["mode"]) < MODES.index(mode):
        return {}
    same = {gpu["uuid"] for gpu in record["gpus"]} == {gpu["uuid"] for gpu in gpus}
    decided = (PASSED, FAILED) if failed else (PASSED,)
    return record if same and all(gpu["outcome"] in decided for gpu in record["gpus"]) else {}


def offered(gpus: List[Dict[str, Any]]) -> List[str]:
    """Return the UUIDs to offer where some failed; an empty list where all may be."""
    good = [gpu["uuid"] for gpu in gpus if gpu["outcome"] != FAILED]
    return good if len(good) < len(gpus) else []


def write(record: Dict[str, Any], path: str = "") -> None:
    """Keep a record. It holds no secret, and the agent reads it."""
    secretfiles.make_directory(os.path.dirname(path or RECORD))
    secretfiles.write(path or RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n", 0o644)
