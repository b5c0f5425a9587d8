# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time: modules that change a host take turns, so that two runs (a schedule and a person) never write the same
files at once.

The lock is the kernel's: it ends with the process that holds it, however that ends, and no run has to clear up after a
killed one.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import time
from typing import TYPE_CHECKING

from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PATH = "/run/beta9-workers.lock"
WAIT_SECONDS = 120
PAUSE_SECONDS = 0.1
_mine: set = set()  # paths of the locks that this process holds until it ends


def take(module: AnsibleModule, seconds: float = WAIT_SECONDS, path: str = PATH) -> None:
    """Wait until no other module of this collection changes this host. The turn ends with this process.

    module: the AnsibleModule. It fails, naming the module that holds the turn, when that takes longer.
    Check mode takes no turn.
    """
    if module.check_mode or path in _mine:
        return
    deadline = time.monotonic() + seconds
    while not _taken(path, module._name):  # pylint: disable=protected-access
        if time.monotonic() >= deadline:
            module.fail_json(
                msg=f"another run: expected it to finish its step on this host within {seconds:.0f} s, "
                f"found {_holder(path)} still at work. Wait until that run ends, then run again."
            )
        time.sleep(PAUSE_SECONDS)


def _taken(path: str, name: str) -> bool:
    """Try to lock the file, and say in it who does. The file goes when this process ends."""
    if not os.access(os.path.dirname(path), os.W_OK):
        return True  # not root: the files of a host that this process could change are its own
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(handle).st_ino == os.stat(path).st_ino
    except OSError:  # held, or removed by the one before
        mine = False
    if not mine:
        os.close(handle)
        return False
    os.ftruncate(handle, 0)
    os.write(handle, f"module {name} (pid {os.getpid()})".encode())
    atexit.register(secretfiles.remove, [path])
    _mine.add(path)
    return True


def _holder(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(200) or "a module"
    except OSError:
        return "a module"
