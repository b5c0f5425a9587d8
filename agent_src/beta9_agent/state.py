"""Files that tell others how things are, replaced in one step, without secrets."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from typing import Any

MAX_BYTES = 262144


def read(path: str) -> dict[str, Any]:
    """Return the state that an agent wrote, as a dict. Raises OSError or ValueError for anything else.

    Root reads this and the file is the agent's user's: a link is not followed, a FIFO does not block, a device or a
    huge file is not read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no plain file")
        content = stream.read(MAX_BYTES + 1)
    try:
        found = json.loads(content.decode()) if len(content) <= MAX_BYTES else None
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("it is no agent's state")
    return found


def replace(path: str | None, text: str, mode: int) -> str | None:
    """Write text to path in one step. Return why it could not be, or None: a full disk is not worth dying for."""
    if not path:
        return None
    try:
        handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            content = text.encode()
            if os.write(handle, content) != len(content):
                return f"{path}: no room for all of it"
        finally:
            os.close(handle)
        os.replace(path + ".new", path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def fingerprint(payload: object, token: str) -> str:
    """Return a keyed hash of what was registered and in which boot: tells whether it changed, and nothing else."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
    except OSError:
        boot = ""
    text = json.dumps([boot, payload], sort_keys=True)
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


def remembered(path: str | None) -> str:
    """Return the fingerprint of the last accepted registration, or an empty string."""
    try:
        with open(path or "", encoding="ascii") as stream:
            return stream.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""
