# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the tunnel's files on the gateway host: whose they are, who may write them, and whether each line is a
worker's."""

from __future__ import annotations

import os
import stat

from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers, sshd_effective
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, bad, not_applicable, ok
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation


def _trouble(path: str, readable: int) -> str:
    """Return what is wrong with a path: others may write to it, or sshd may not read it as the tunnel's account."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ""  # T09 tells
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link"
    if found.st_uid != 0:
        return f"{path} belongs to uid {found.st_uid}"
    return f"{path} has mode {mode:04o}" if mode & 0o022 or mode & readable != readable else ""


def files(context: Context) -> Observation:
    """T07: owners, modes and lines. The same for every worker of a gateway host."""

    def read() -> Observation:
        keys, folder = sshd_effective.KEYS_PATH, os.path.dirname(sshd_effective.KEYS_PATH)
        if not os.path.isdir(folder):
            return not_applicable("this host is no end of tunnels")
        wrong = [text for text in (_trouble(folder, 0o055), _trouble(keys, 0o044)) if text]
        if wrong:
            return bad("mode", "; ".join(wrong))
        drop_in = _trouble(sshd_effective.OWN_CONFIG, 0)
        if drop_in:
            return bad("drop_in", drop_in)
        lines = peers.strange(context.read(keys) or "")
        return (
            bad("line", f"{keys}: {'; '.join(lines[:10])}")
            if lines
            else ok(f"{keys} is root's, and each line a worker's")
        )

    return context.shared("tunnel files", read)
