"""Files that tell others how things are, replaced in one step, without secrets."""

from __future__ import annotations

import hashlib
import hmac
import json
import os


def replace(path, text, mode):
    """Write text to path in one step. Return why it could not be, or None: a full disk is not worth dying for."""
    if not path:
        return None
    try:
        handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            content = text.encode()
            if os.write(handle, content) != len(content):
                return "%s: no room for all of it" % path
        finally:
            os.close(handle)
        os.replace(path + ".new", path)
    except OSError as error:
        return "%s: %s" % (path, error.strerror)
    return None


def fingerprint(payload, token):
    """Return a keyed hash of what was registered and in which boot: tells whether it changed, and nothing else."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
    except OSError:
        boot = ""
    text = json.dumps([boot, payload], sort_keys=True)
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


def remembered(path):
    """Return the fingerprint of the last accepted registration, or an empty string."""
    try:
        with open(path or "", encoding="ascii") as stream:
            return stream.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""
