# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works on a host's packages: the holders of all of apt's locks, and cloud-init. Waiting for them, and naming who
does not end.

apt itself waits for the lock of dpkg's front end only, and gives up at once on those of the lists and of the archive.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from typing import Callable, NamedTuple, TypeVar

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")
CLOUD_INIT = "/run/cloud-init"
PAUSE_SECONDS = 0.5
_FLOCK = "hhqqi4x"  # type, whence, start, length, pid: struct flock of 64-bit Linux


class Holder(NamedTuple):
    """Who holds a lock. pid is 0 for a process of another container."""

    path: str
    pid: int
    command: str


def holder(path: str) -> Holder | None:
    """Return who holds a lock of fcntl(2) on a file, or None."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None  # no such file: nobody ever locked it
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
    except OSError:
        return None
    finally:
        os.close(handle)
    return None if kind == fcntl.F_UNLCK else Holder(path, max(pid, 0), command_of(pid))


def command_of(pid: int) -> str:
    """Return the program of a process and the script that it runs, or an empty string. Never more: an argument may be a
    secret."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read(512).decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    return " ".join(words[:1] + [word for word in words[1:2] if word.startswith("/")])


def held(locks: tuple[str, ...] = LOCKS) -> Holder | None:
    """Return the holder of the first lock that is held, or None."""
    return next((found for found in map(holder, locks) if found), None)


Found = TypeVar("Found")


def wait(seconds: float, probe: Callable[[], Found] = held) -> Found:  # type: ignore[assignment]  # for each Found but held's
    """Wait until nobody holds a lock, or what else probe() tells of is over. Return who still does when the time is
    over, or None."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(PAUSE_SECONDS)


def booting() -> bool:
    """Return whether cloud-init still works on this host: it began, and has not said its result.

    Its own `status --wait` does not wait where a stage before had an error.
    """
    begun, ended, disabled = (
        os.path.exists(os.path.join(CLOUD_INIT, name)) for name in ("status.json", "result.json", "disabled")
    )
    return begun and not ended and not disabled


def describe(found: Holder) -> str:
    """Return a holder in words."""
    who = f"{found.command or 'a process'} (pid {found.pid})" if found.pid else "a process of another container"
    return f"{found.path} held by {who}"
