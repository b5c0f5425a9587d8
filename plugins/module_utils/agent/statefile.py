# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running agent says of itself, read by root. The file and its directory are the agent's user's: nothing of it
is believed."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from typing import Any

MAX_BYTES = 262144  # the agent's own state has some thousands
MAX_TEXT = 2000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

TEXTS = (
    "agent_version",
    "python",
    "machine_id",
    "pool",
    "provider",
    "hostname",
    "status",
    "next_action",
    "gpu_problem",
    "reload_error",
)
COUNTS = ("pid", "gpu_count", "free_gpu_count", "reloads")
NUMBERS = (
    "next_epoch",
    "last_keepalive_epoch",
    "gateway_keepalive_epoch",
    "keepalive_interval_seconds",
    "updated_epoch",
    "updated_boottime",
)
OWN_TIMES = ("next_epoch", "last_keepalive_epoch", "updated_epoch")


def read_foreign(path: str, most: int) -> str:
    """Return the text of a file that another user owns. Raises OSError where it is a link, no plain file, or larger
    than most octets.

    A FIFO does not block, a device is not read, and a link leads nowhere.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "expected a plain file", path)
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(0, f"expected at most {most} octets", path)
    return content.decode("utf-8", "replace")


def _text(value: object) -> str | None:
    return CONTROL.sub(" ", value)[:MAX_TEXT] if isinstance(value, str) else None


def _number(value: Any, kinds: tuple[type[float], ...] = (int, float)) -> float | None:
    return value if isinstance(value, kinds) and not isinstance(value, bool) and -1e15 < value < 1e15 else None


def _problem(value: object) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    texts = {name: _text(value.get(name)) for name in ("code", "cause", "remedy")}
    return dict(texts, retryable=value.get("retryable") is True) if None not in texts.values() else None


def parse(text: str) -> dict[str, Any]:
    """Return the fields of a state that have their types; {} for what is no state. Texts are one line of at most
    MAX_TEXT characters.

    sent is the only field whose inside is not looked at.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    state: dict[str, Any] = {name: _text(found.get(name)) for name in TEXTS}
    state.update({name: _number(found.get(name), (int,)) for name in COUNTS})
    state.update({name: _number(found.get(name)) for name in NUMBERS})
    state["problem"] = _problem(found.get("problem"))
    for name, check in (("loaded", _text), ("registration_epochs", _number)):
        values = [check(value) for value in found[name][:1000]] if isinstance(found.get(name), list) else [None]
        state[name] = values if None not in values else None
    state["sent"] = found["sent"] if isinstance(found.get("sent"), dict) else None
    return {name: value for name, value in state.items() if value is not None}


def by_clock(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of this boot with its times as the host's clock tells them now: it may have been set since."""
    if "updated_epoch" not in state or "updated_boottime" not in state:
        return state
    boot_epoch = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    forward = boot_epoch - (state["updated_epoch"] - state["updated_boottime"])
    found = {name: state[name] + forward for name in OWN_TIMES if name in state}
    if "registration_epochs" in state:
        found["registration_epochs"] = [moment + forward for moment in state["registration_epochs"]]
    return dict(state, **found)


def of(path: str) -> dict[str, Any]:
    """Return the state in a file, {} where there is none that may be believed to be one."""
    try:
        return by_clock(parse(read_foreign(path, MAX_BYTES)))
    except OSError:
        return {}
