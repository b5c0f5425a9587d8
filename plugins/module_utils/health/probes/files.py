# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at what the collection wrote on the host, and at the file systems that it is written to."""

from __future__ import annotations

import glob
import itertools
import os
import stat
from typing import Iterable

from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown, bad, ok
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation
from ansible_collections.beta9.workers.plugins.module_utils.host import linux

CONFIGURATION = "/etc/beta9"
KEPT = ("/var/lib/beta9", "/var/lib/beta9-k3s")
UNIT_FILES = ("/etc/systemd/system/beta9-*", "/etc/systemd/system/beta9-*.d/*")
WRITTEN = (
    "/etc",
    CONFIGURATION,
    "/opt",
    "/var",
    "/var/lib",
    "/var/lib/private",
    *KEPT,
    "/var/lib/rancher",
    "/var/log",
    "/var/tmp",
    "/tmp",
    "/run",
)
FULL_BYTES, FULL_INODES, FULL_SHARE = 16 * 1024 * 1024, 100, 0.05  # what is left of both, and no more than this share


def _owned(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return {code: faults} of the paths: what belongs to another account than root, may be used by others, or is an
    empty secret."""
    faults: dict[str, list[str]] = {}
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError:
            continue  # it is not there, or went away meanwhile
        secret = path.startswith(records.CREDENTIALS_DIR)
        if found.st_uid != 0:
            faults.setdefault("owner", []).append(f"{path} belongs to uid {found.st_uid}")
        elif not stat.S_ISLNK(found.st_mode) and found.st_mode & (0o077 if secret else 0o022):
            faults.setdefault("mode", []).append(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}")
        elif secret and path != agent.TOKEN_FILE and stat.S_ISREG(found.st_mode) and not found.st_size:
            faults.setdefault("empty", []).append(f"{path} is empty")
    return faults


def _told(faults: dict[str, list[str]]) -> Observation:
    texts = list(itertools.chain(*faults.values()))
    return bad(next(iter(faults)), "; ".join(texts[:10]) + (f"; and {len(texts) - 10} more" if len(texts) > 10 else ""))


def credentials(context: Context) -> Observation:
    """C04: owners and modes of what the collection wrote, and that no key or token is empty. A01 tells of the machine's
    token."""
    faults = _owned(sorted(linux.tree(CONFIGURATION)))
    if faults:
        return _told(faults)
    if os.path.isdir(records.CREDENTIALS_DIR) and not os.access(records.CREDENTIALS_DIR, os.R_OK | os.X_OK):
        raise Unknown(f"{records.CREDENTIALS_DIR} may not be read: run with become")
    return ok("root's alone")


def disks(_context: Context) -> Observation:
    """C05: the file systems that settings, state, logs, packages and programs are written to."""
    faults: dict[str, list[str]] = {}
    seen = set()
    for path in WRITTEN:
        try:
            found, device = os.statvfs(path), os.stat(path).st_dev
        except OSError:
            continue  # it is not there
        if device in seen and not found.f_flag & os.ST_RDONLY:
            continue
        seen.add(device)
        if found.f_flag & os.ST_RDONLY:
            faults.setdefault("read_only", []).append(f"{path} is mounted read-only")
        elif found.f_bavail * found.f_frsize < min(FULL_BYTES, found.f_blocks * found.f_frsize * FULL_SHARE):
            faults.setdefault("full", []).append(f"{path} has {found.f_bavail * found.f_frsize // 1024} KiB left")
        elif found.f_favail < found.f_files * FULL_SHARE and found.f_favail < FULL_INODES:
            faults.setdefault("inodes", []).append(f"{path} has {found.f_favail} inodes left")
    return _told(faults) if faults else ok(f"{len(seen)} file systems can be written")


def programs(context: Context) -> Observation:
    """P08: owners and modes of the agent's programs, the units, the local fact, and what the collection keeps."""
    units_of_ours = [path for pattern in UNIT_FILES for path in glob.glob(pattern)]
    faults = _owned(
        itertools.chain(units_of_ours, [records.MACHINE_FACT_PATH], *map(linux.tree, (records.AGENT_DIRECTORY, *KEPT)))
    )
    if not faults:
        return ok("root's alone")
    seen = _told(faults)
    ours = (records.AGENT_DIRECTORY + "/", records.AGENT_DIRECTORY + " ")
    seen["code"] = "programs" if any(text.startswith(ours) for text in itertools.chain(*faults.values())) else "units"
    return seen


PROBES = {
    "C04": credentials,
    "C05": disks,
    "P08": programs,
}
